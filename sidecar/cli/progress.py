"""Says on stderr how far a command is that takes long: a bar on a terminal, else a line every few seconds."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import typer

_FIRST, _EVERY = 2.0, 5.0  # seconds of lines
_BAR_AFTER = 1.0  # seconds: what is done sooner shows none


class Steps(Protocol):
    """Is told how far something has come."""

    def __call__(self, done: int, total: int | None, what: str = "") -> None:
        """So many of so many are done; None: it is not known of how many. `what`: something else is being done."""


class _Far(NamedTuple):
    what: str
    done: int = 0
    total: int | None = None

    def told(self, done: int, total: int | None, what: str) -> "_Far":
        return _Far(what or self.what, done, total)

    @property
    def so_far(self) -> str:
        return f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}" if self.done else ""


@contextmanager
def progress(what: str) -> Iterator[Steps]:
    """Show how far something has come, if it takes long; nothing is written of what is done at once."""
    with (_bar if sys.stderr.isatty() else _lines)(_Far(what)) as told:
        yield told


@contextmanager
def _lines(far: _Far) -> Iterator[Steps]:
    seconds = 0.0
    over = threading.Event()

    def write() -> None:
        nonlocal seconds
        pause = _FIRST
        while not over.wait(pause):
            seconds += pause
            text = f"{far.what}: {far.so_far}" if far.so_far else far.what
            typer.echo(f"sidecar: {seconds:.0f} s: {text}", err=True)
            pause = _EVERY

    def told(done: int, total: int | None, what: str = "") -> None:
        nonlocal far
        far = far.told(done, total, what)

    with _beside(write, over.set):
        yield told


@contextmanager
def _bar(far: _Far) -> Iterator[Steps]:
    from rich import progress as bars  # noqa: PLC0415 - only what takes long on a terminal draws one

    from sidecar.cli import screen  # noqa: PLC0415 - as above

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[count]}"),
        bars.TimeRemainingColumn(),
    )
    bar = bars.Progress(*columns, console=screen.console(sys.stderr, screen.columns()), transient=True, expand=True)
    task, over = bar.add_task(far.what, total=None, count=far.so_far), threading.Event()

    def draw() -> None:
        if not over.wait(_BAR_AFTER):
            bar.start()

    def told(done: int, total: int | None, what: str = "") -> None:
        nonlocal far
        before, far = far, far.told(done, total, what)
        if far.what != before.what:
            bar.reset(task, description=far.what)
        bar.update(task, completed=done, total=total, count=far.so_far)

    try:
        with _beside(draw, over.set):
            yield told
    finally:
        bar.stop()


@contextmanager
def _beside(work: Callable[[], None], end: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread while the block runs."""
    thread = threading.Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()
