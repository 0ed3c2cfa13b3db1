"""Files that are read again when their content changes, and what counts while it is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from sidecar.config.settings import ConfigError, StartError

T = TypeVar("T")
_UNKNOWN = (b"", None)  # no content that a look could find
log = structlog.get_logger(__name__)


class Watched(Generic[T]):
    """What some files say. The content tells a change and not a time stamp, by which two quick writes look like one."""

    def __init__(
        self, files: tuple[Path, ...], read: Callable[[], T], shown: Callable[[T], str], first: T | None = None
    ) -> None:
        """Read the files, or begin with `first`; `shown` says in words what one may see of what was read.

        Raises:
            ConfigError, StartError or ValueError, as `read` does, whose text says what is wrong.
        """
        self.files = files
        self.trouble = ""  # why what the files say now does not count
        self._read, self._in_words = read, shown
        self._seen: tuple[bytes | None, ...] = _UNKNOWN
        self._value = self._take() if first is None else first

    def look(self) -> T:
        """Return what counts: what the files say, or what they said before if that is wrong now."""
        if _contents(self.files) == self._seen:
            return self._value
        name = str(self.files[0])
        try:
            self._value = self._take()
            self.trouble = ""
            log.info("file read", file=name, in_force=self.in_force())
        except (ConfigError, StartError, ValueError) as error:
            self.trouble = str(error)
            log.error(
                "a file is wrong: what it said before counts", file=name, error=str(error), counts=self.in_force()
            )
        return self._value

    def shown(self) -> dict[str, str]:
        """Return the file, what counts of it, and why what it says now does not count ("" if it does)."""
        return {"file": str(self.files[0]), "counts": self.in_force(), "error": self.trouble}

    def in_force(self) -> str:
        """Return in words what counts."""
        return self._in_words(self._value)

    def _take(self) -> T:
        before = _contents(self.files)
        try:
            return self._read()
        finally:
            # What changes while it is read is read once more.
            self._seen = before if _contents(self.files) == before else _UNKNOWN


def _contents(files: tuple[Path, ...]) -> tuple[bytes | None, ...]:
    return tuple(_content(file) for file in files)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
