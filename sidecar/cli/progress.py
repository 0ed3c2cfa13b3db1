"""Says on stderr, every few seconds, that a command which takes long is still at work, and on what."""

import threading
from types import TracebackType

import typer

_FIRST, _EVERY = 2.0, 5.0  # seconds


class Progress:
    """Lines while the block runs: none if it is done in `first` seconds."""

    def __init__(self, first: float = _FIRST, every: float = _EVERY) -> None:
        self._pauses = (first, every)
        self._what = "waiting for the sidecar that has the store open"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def at(self, what: str) -> None:
        """Take note of what is being done."""
        self._what = what

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pause, every = self._pauses
        seconds = 0.0
        while not self._over.wait(pause):
            seconds += pause
            typer.echo(f"sidecar: {seconds:.0f} s: {self._what}", err=True)
            pause = every
