"""What a command writes: on stdout what was asked for, as a table or as data; on stderr how it goes.

Colours only on a terminal, and not where NO_COLOR is set. In a pipe nothing is cut to a width.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol

import typer
import yaml
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sidecar.actors.clock import Clock
from sidecar.cli.forms import Form
from sidecar.cli.progress import Progress

_ENDLESS = 100_000  # columns of what goes into a pipe
_NARROWEST = 40
_BAR_AFTER = 1.0  # seconds: what is done sooner shows none


def width() -> int | None:
    """Return the columns of the terminal; None if stdout is none."""
    return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def in_ascii() -> bool:
    """Whether stdout takes ASCII alone."""
    return not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def show(shown: RenderableType) -> None:
    """Write a table, a tree or a text. What stdout has no mark for becomes a question mark."""
    to = console(sys.stdout, width())
    with to.capture() as written:
        to.print(shown)
    typer.echo("\n".join(line.rstrip(" ") for line in written.get().splitlines()), color=True)


def console(out: IO[str], columns: int | None) -> Console:
    """Return a console that writes as `out` can be read."""
    plain = columns is None or bool(os.environ.get("NO_COLOR"))
    reconfigure = getattr(out, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return Console(
        file=out,
        width=_ENDLESS if columns is None else columns,
        color_system=None if plain else "auto",
        no_color=plain,
        highlight=False,
        markup=False,
        emoji=False,
    )


def write(value: Any, form: Form) -> None:
    """Write data for programs."""
    if form is Form.YAML:
        typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(json.dumps(value, indent=2))


def note(text: str) -> None:
    """Say something beside what was asked for, in a line on stderr."""
    typer.echo(f"sidecar: {' '.join(text.split())}", err=True)


def is_asked_by_a_person() -> bool:
    """Whether somebody is there who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Steps(Protocol):
    """Is told how far something has come."""

    def __call__(self, done: int, total: int | None) -> None:
        """So many of so many are done; None: it is not known of how many."""


@contextmanager
def progress(what: str) -> Iterator[Steps]:
    """Show how far something has come: by a bar on a terminal, else a line every few seconds, if it takes long."""
    if not sys.stderr.isatty():
        with Progress() as lines:
            lines.at(what)
            yield lambda done, total: lines.at(f"{what}: {done:,}" + ("" if total is None else f" of {total:,}"))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=console(sys.stderr, shutil.get_terminal_size().columns), transient=True)
    task, clock = bar.add_task(what, total=None), Clock()
    began = clock.monotonic()

    def told(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        if clock.monotonic() - began >= _BAR_AFTER:
            bar.start()

    try:
        yield told
    finally:
        bar.stop()
