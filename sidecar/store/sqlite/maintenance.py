"""`Maintenance` for the SQLite store: copies and upkeep, over the file that the store has open."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sidecar.store.progress import At
from sidecar.store.protocol import Copied
from sidecar.store.sqlite.backup import Backups
from sidecar.store.sqlite.connection import File
from sidecar.store.sqlite.vacuum import Upkeep


class SqliteMaintenance:
    """See `Maintenance`."""

    def __init__(self, file: File) -> None:
        self._path = file.path
        self._backups = Backups(file)
        self._upkeep = Upkeep(file)

    async def check(self) -> list[str]:
        """See `Maintenance.check`."""
        return await self._backups.check()

    async def backup(self, name: str, now: int) -> Copied:
        """See `Maintenance.backup`."""
        return await self._backups.backup(name, now)

    def at(self) -> At | None:
        """See `Maintenance.at`."""
        return self._backups.at

    def sizes(self) -> Mapping[str, int]:
        """See `Maintenance.sizes`: the database, and its write-ahead log."""
        return {"database": _bytes(self._path), "log": _bytes(self._path.with_name(f"{self._path.name}-wal"))}

    async def run(self) -> None:
        """See `Maintenance.run`."""
        await self._upkeep.run()


def _bytes(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0
