"""The output of several processes on one terminal: whole lines, each with the name of whom it is from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

OWN = "sidecar"
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_PLAIN, _DIM, _BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
_LONGEST_LINE = 64 * 1024

Emit = Callable[[bytes], None]
"""Takes a line, without its end."""


class Lines:
    """Makes lines of what comes in pieces. What has no end is cut where it is too long."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._emit(line.removesuffix(b"\r"))
        if len(self._rest) > _LONGEST_LINE:
            self.end()

    def end(self) -> None:
        """Nothing more will come."""
        if self._rest:
            self._emit(self._rest)
        self._rest = b""


class Console:
    """Writes lines, and calls `gone` once nobody reads them any more."""

    def __init__(self, out: BinaryIO, err: BinaryIO, names: Sequence[str], *, colours: bool) -> None:
        """Lines are for these apps, whose order gives them their colours."""
        self.gone: Callable[[], object] = lambda: None
        self._out, self._err = out, err
        width = max(len(name) + len("/sidecar") for name in names)
        self._prefixes = _prefixes(names, width, colours)
        self._open = True

    def of_app(self, app: str, *, error: bool) -> Emit:
        """Return what writes lines of an app."""
        return self._emit(self._prefixes[app], self._err if error else self._out)

    def of_sidecar(self, app: str) -> Emit:
        """Return what writes lines of an app's sidecar."""
        return self._emit(self._prefixes[f"{app}/sidecar"], self._err)

    def say(self, text: str) -> None:
        """Write what this command itself has to say, in one line or several."""
        for line in text.splitlines():
            self._write(self._err, self._prefixes[OWN], line.encode())

    def _emit(self, prefix: bytes, stream: BinaryIO) -> Emit:
        return lambda line: self._write(stream, prefix, line)

    def _write(self, stream: BinaryIO, prefix: bytes, line: bytes) -> None:
        if not self._open:
            return
        try:
            stream.write(prefix + line + b"\n")
            stream.flush()
        except OSError:
            self._open = False
            self.gone()


def _prefixes(names: Sequence[str], width: int, colours: bool) -> Mapping[str, bytes]:
    found = {OWN: f"{_BOLD}{OWN:{width}} │{_PLAIN} "}
    for number, name in enumerate(names):
        colour = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m"
        found[name] = f"{colour}{name:{width}} │{_PLAIN} "
        found[f"{name}/sidecar"] = f"{_DIM}{colour}{f'{name}/sidecar':{width}} │{_PLAIN} "
    if not colours:
        found = {name: f"{name:{width}} │ " for name in found}
    return MappingProxyType({name: text.encode() for name, text in found.items()})


def to_file(path: Path) -> Emit:
    """Return what appends lines to a file, which is made with its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    def emit(line: bytes) -> None:
        with suppress(OSError), path.open("ab") as file:  # a full disk is no reason to end an app
            file.write(line + b"\n")

    return emit


def both(*emits: Emit) -> Emit:
    """Return what gives each line to all of these."""

    def emit(line: bytes) -> None:
        for one in emits:
            one(line)

    return emit
