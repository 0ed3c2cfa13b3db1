"""The reads of the SQLite store: each is one call on the connection's thread that fetches all of its page.

A row of a page that cannot be read is left out and logged; the others of the page are there.
"""

import sqlite3

from sidecar.core.model import CallId, Child, Instance, Position, Reminder, Row, State
from sidecar.core.workflow.state import load as load_state
from sidecar.store.protocol import Criteria, Cursor, DamagedError, EntityRow, Order, Page, Ready, Waiting
from sidecar.store.sqlite import pages, queries, rows, writes
from sidecar.store.sqlite.pages import Source, fetch_all
from sidecar.store.sqlite.schedule_reads import ScheduleReads

_EVENTS = "SELECT event FROM history WHERE key = ? AND (turn, place) > (?, ?) AND turn <= ? ORDER BY turn, place"
_STARTED = (
    "SELECT event FROM history WHERE key = ? AND place = 1 ORDER BY turn LIMIT 1",
    "SELECT payload FROM reminders WHERE owner = ? AND kind = 1 LIMIT 1",
)
_REMINDERS = f"SELECT {', '.join(rows.REMINDER)} FROM reminders "  # noqa: S608 (constants)
_DUE = "WHERE place = 0 AND due <= ? AND (due, id) > (?, ?) ORDER BY due, id LIMIT ?"
_WORK = "WHERE place = 1 AND id > ? ORDER BY id LIMIT ?"
_OUTBOUND = (
    "WHERE place = 2 AND target_namespace = ? AND target_app = ? AND accepted_by = '' AND id > ? ORDER BY id LIMIT ?"
)
_WAITING = (
    f"SELECT {', '.join(rows.WAITING)} FROM reminders WHERE kind IN (3, 4) "  # noqa: S608
    "AND ((place = 2 AND owner <> 0) OR (place = 1 AND deliveries > 0)) "
    "AND (? = '' OR target_app = ?) AND id > ? ORDER BY id LIMIT ?"
)
_READY = (
    "SELECT key, hub, id, name, version, deliveries FROM instances "
    "WHERE ready = 1 AND entity = ? AND key > ? ORDER BY key LIMIT ?"
)
_DESTINATIONS = "SELECT DISTINCT target_namespace, target_app FROM reminders WHERE place = 2"


def _reminder(raw: rows.Values) -> Reminder:
    return rows.to_reminder(rows.checked(rows.ReminderRow, raw))


def _waiting(raw: rows.Values) -> Waiting:
    return rows.to_waiting(rows.checked(rows.WaitingRow, raw))


def _ready(raw: rows.Values) -> Ready:
    return rows.checked(Ready, raw)


_ID, _DUE_COLUMN, _PAYLOAD = map(rows.REMINDER.index, ("id", "due", "payload"))
_BY_DUE = Source(_REMINDERS + _DUE, "reminder", _reminder, lambda raw: (raw[_DUE_COLUMN], raw[_ID]), _PAYLOAD)
_TO_WORKERS = Source(_REMINDERS + _WORK, "reminder", _reminder, payload=_PAYLOAD)
_TO_OTHERS = Source(_REMINDERS + _OUTBOUND, "reminder", _reminder, payload=_PAYLOAD)
_CALLS = Source(_WAITING, "reminder", _waiting)
_INSTANCES = Source(_READY, "instance", _ready)


class SqliteReads(ScheduleReads):
    """The reads of `Store`, over one file."""

    async def load(self, hub: str, instance_id: str) -> State | None:
        """See `Store.load`."""
        return await self.file.call(_load, hub, instance_id)

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """See `Store.events`."""
        found = await self.file.call(fetch_all, _EVENTS, (key, *after, upto_turn))
        return [event for (event,) in found]

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """See `Store.payloads`."""
        return await self.file.call(_payloads, key)

    async def lineage(self, key: int) -> bytes:
        """See `Store.lineage`."""
        found = await self.file.call(fetch_all, "SELECT history FROM lineages WHERE key = ?", (key,))
        return found[0][0] if found else b""

    async def children(self, key: int) -> list[Child]:
        """See `Store.children`."""
        return [
            rows.to_child(rows.ChildRow._make(row))
            for row in await self.file.call(fetch_all, writes.ALL_CHILDREN, (key,))
        ]

    async def creations(self, key: int) -> list[Child]:
        """See `Store.creations`."""
        return [
            rows.to_child(rows.ChildRow._make(row)) for row in await self.file.call(fetch_all, writes.CREATIONS, (key,))
        ]

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """See `Store.ready`."""
        return await self._page(_INSTANCES, (entities,), (after,), limit)

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """See `Store.entities`."""
        return await self.file.call(queries.entities, (hub, prefix, after), limit, states)

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        """See `Store.due`."""
        return await self._page(_BY_DUE, (before,), after, limit)

    async def activities(self, after: int, limit: int) -> list[Reminder]:
        """See `Store.activities`."""
        return await self._page(_TO_WORKERS, (), (after,), limit)

    async def outbound(self, namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        """See `Store.outbound`."""
        return await self._page(_TO_OTHERS, (namespace, app), (after,), limit)

    async def destinations(self) -> list[tuple[str, str]]:
        """See `Store.destinations`."""
        return await self.file.call(fetch_all, _DESTINATIONS, ())

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store.waiting`."""
        return await self._page(_CALLS, (app, app), (after,), limit)

    async def reminder(self, reminder_id: int) -> Reminder | None:
        """See `Store.reminder`."""
        return await self._one("WHERE id = ?", (reminder_id,))

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """See `Store.foreign_activity`."""
        where = (
            "WHERE place = 1 AND owner = 0 AND source_namespace = ? AND source_app = ? "
            "AND execution = ? AND turn = ? AND task = ?"
        )
        return await self._one(where, (namespace, app, *call))

    async def query(self, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
        """See `Store.query`."""
        page, left_out = await self.file.call(queries.run, criteria, order, after, limit)
        self._damage.note(left_out)
        return page

    async def hubs(self) -> list[str]:
        """See `Store.hubs`."""
        return [hub for (hub,) in await self.file.call(fetch_all, queries.HUBS, ())]

    async def _one(self, where: str, values: rows.Values) -> Reminder | None:
        found, left_out = pages.readable(_TO_WORKERS, await self.file.call(fetch_all, _REMINDERS + where, values))
        self._damage.note(left_out)
        return found[0] if found else None


def _load(connection: sqlite3.Connection, hub: str, instance_id: str) -> State | None:
    found = connection.execute(writes.SELECT_INSTANCE, (hub, instance_id)).fetchone()
    if found is None:
        return None
    try:
        return _state(connection, rows.to_instance(rows.checked(rows.InstanceRow, found)))
    except rows.UNREADABLE as error:
        text = (
            f"what is stored of '{instance_id}' cannot be read ({error}): run `sidecar store check`, restore a backup"
        )
        raise DamagedError(text) from error


def _state(connection: sqlite3.Connection, instance: Instance) -> State:
    key = (instance.key,)
    calls = [rows.to_call(rows.checked(rows.CallRow, row)) for row in connection.execute(writes.SELECT_CALLS, key)]
    children = [
        rows.to_child(rows.checked(rows.ChildRow, row)) for row in connection.execute(writes.SELECT_CHILDREN, key)
    ]
    values = (instance.key, instance.last_completed_turn)
    inbox = [rows.checked(Row, row) for row in connection.execute(writes.SELECT_INBOX, values)]
    state = State(instance, {call.call.task: call for call in calls}, {child.call: child for child in children})
    return load_state(instance, state, inbox)


def _payloads(connection: sqlite3.Connection, key: int) -> tuple[bytes | None, str | None]:
    started = None
    for statement in _STARTED:
        started = started or connection.execute(statement, (key,)).fetchone()
    output = connection.execute("SELECT output FROM outputs WHERE key = ?", (key,)).fetchone()
    return (started[0] if started else None, output[0] if output else None)
