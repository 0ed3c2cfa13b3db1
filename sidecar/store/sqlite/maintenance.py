"""`Maintenance` for the SQLite store: copies and upkeep, over the file that the store has open."""

from sidecar.store.protocol import Copied
from sidecar.store.sqlite.backup import Backups
from sidecar.store.sqlite.connection import File
from sidecar.store.sqlite.vacuum import Upkeep


class SqliteMaintenance:
    """See `Maintenance`."""

    def __init__(self, file: File) -> None:
        self._backups = Backups(file)
        self._upkeep = Upkeep(file)

    async def check(self) -> list[str]:
        """See `Maintenance.check`."""
        return await self._backups.check()

    async def backup(self, name: str, now: int) -> Copied:
        """See `Maintenance.backup`."""
        return await self._backups.backup(name, now)

    async def run(self) -> None:
        """See `Maintenance.run`."""
        await self._upkeep.run()
