"""How much memory this process has and may have, and what it gives up before it has too much.

Above the high mark new work is refused and what can be read again is dropped, once a second until memory is below the
low mark. What was begun goes on, and answers of workers are taken: they are what makes room.
"""

from collections.abc import Callable
from pathlib import Path

import structlog

from sidecar import system
from sidecar.actors.clock import Clock

HIGH, LOW = 0.85, 0.8
_LOOK_SECONDS = 1.0
_LOOK_BYTES = 4 * 1024 * 1024  # of new work since the last look: much can come in a second
_ANSWER_TIMES, _ANSWER_SHARE = 4, 8
_MIB = 1024 * 1024
_UNLIMITED = 2**60  # what version 1 of cgroups says without a limit is near 2**63
log = structlog.get_logger(__name__)


def limit_of_system(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the smallest memory limit of the control groups that this process is in, None without one.

    In a container the path in `own` may not exist below `root`, which is then the group itself.
    """
    limits = []
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers and path:
            limits += _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(base: Path, path: str, name: str) -> list[int]:
    group = base / path.strip("/")
    texts = [_read(folder / name).strip() for folder in (group, *group.parents) if folder.is_relative_to(base)]
    return [int(text) for text in texts if text.isdigit() and int(text) < _UNLIMITED]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def most_answer_bytes(limit: int, memory: int | None) -> int:
    """Return how large an answer of a worker may be to be looked at, though only `limit` bytes of one are taken.

    While it comes in it is in memory twice, which must not be much of it. All sizes are in bytes.
    """
    most = _ANSWER_TIMES * limit
    return most if memory is None else max(limit, min(most, memory // _ANSWER_SHARE))


class Memory:
    """Whether memory is short. `relieve` drops what can be read again."""

    def __init__(
        self, limit: int | None, relieve: Callable[[], None], used: Callable[[], int] = system.resident_bytes
    ) -> None:
        self.short = False
        self._limit = limit
        self._relieve = relieve
        self._used = used
        self._taken = 0  # bytes of new work since the last look

    async def watch(self, clock: Clock) -> None:
        """Look every second, for ever."""
        while True:
            self.look()
            await clock.sleep(_LOOK_SECONDS)

    def refuses(self, size: int) -> bool:
        """Whether there is no room for new work of so many bytes."""
        self._taken += size
        if self._taken > _LOOK_BYTES and not self.short:
            self.look()
        return self.short

    def look(self) -> None:
        """Find out whether memory is short, and make room if so."""
        self._taken = 0
        if self._limit is None:
            return
        used = self._used()
        if used > HIGH * self._limit and not self.short:
            self.short = True
            log.warning("memory is short: new work is refused", used_mib=used // _MIB, limit_mib=self._limit // _MIB)
        elif used < LOW * self._limit and self.short:
            self.short = False
            log.info("memory is no longer short", used_mib=used // _MIB, limit_mib=self._limit // _MIB)
        if self.short:
            self._relieve()
            system.give_back_memory()
