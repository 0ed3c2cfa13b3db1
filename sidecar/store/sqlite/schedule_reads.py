"""The reads of schedules, and what all reads have: pages whose rows that cannot be read are left out."""

from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.protocol import DamagedError
from sidecar.store.sqlite import pages, rows
from sidecar.store.sqlite.connection import File
from sidecar.store.sqlite.pages import Damage, Source, T, fetch_all

_SCHEDULES = (
    f"SELECT id, {', '.join(rows.SCHEDULE)} FROM schedules "  # noqa: S608
    "WHERE (hub, id) > (?, ?) ORDER BY hub, id LIMIT ?"
)
_SCHEDULE = f"SELECT {', '.join(rows.SCHEDULE)} FROM schedules WHERE hub = ? AND id = ?"  # noqa: S608
_ALL_SCHEDULES = Source(_SCHEDULES, "schedule", lambda raw: rows.checked(ScheduleRow, raw[1:]), lambda raw: raw[1:3])


class ScheduleReads:
    """The reads of `Store` that are about schedules, over one file."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._damage = Damage()

    async def _page(self, source: Source[T], values: rows.Values, after: rows.Values, limit: int) -> list[T]:
        found, left_out = await self.file.call(pages.read, source, values, after, limit)
        self._damage.note(left_out)
        return found

    async def schedule(self, hub: str, schedule_id: str) -> ScheduleRow | None:
        """See `Store.schedule`."""
        found = await self.file.call(fetch_all, _SCHEDULE, (hub, schedule_id))
        try:
            return rows.checked(ScheduleRow, found[0]) if found else None
        except rows.UNREADABLE as error:
            raise DamagedError(f"what is stored of schedule '{schedule_id}' cannot be read: {error}") from error

    async def schedules(self, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        """See `Store.schedules`."""
        return await self._page(_ALL_SCHEDULES, (), after, limit)
