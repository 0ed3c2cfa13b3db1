"""The reads of the SQLite store: each is one call on the connection's thread that fetches all of its page."""

import sqlite3
from typing import Any

from sidecar.core.model import CallId, Child, Instance, Position, Reminder, Row, State
from sidecar.core.workflow.state import load as load_state
from sidecar.store.protocol import PAGE_BYTES, Criteria, Cursor, DamagedError, EntityRow, Order, Page, Ready, Waiting
from sidecar.store.sqlite import queries, rows, writes
from sidecar.store.sqlite.connection import File

_EVENTS = "SELECT event FROM history WHERE key = ? AND (turn, place) > (?, ?) AND turn <= ? ORDER BY turn, place"
_STARTED = (
    "SELECT event FROM history WHERE key = ? AND place = 1 ORDER BY turn LIMIT 1",
    "SELECT payload FROM reminders WHERE owner = ? AND kind = 1 LIMIT 1",
)
_PAYLOAD = rows.ReminderRow._fields.index("payload")
_REMINDERS = f"SELECT {', '.join(rows.REMINDER)} FROM reminders "  # noqa: S608 (constants)
_WAITING = (
    f"SELECT {', '.join(rows.WAITING)} FROM reminders WHERE kind IN (3, 4) AND id > ? "  # noqa: S608
    "AND ((place = 2 AND owner <> 0) OR (place = 1 AND deliveries > 0)) "
    "AND (? = '' OR target_app = ?) ORDER BY id LIMIT ?"
)
_READY = (
    "SELECT key, hub, id, name, version, deliveries FROM instances "
    "WHERE ready = 1 AND entity = ? AND key > ? ORDER BY key LIMIT ?"
)
_DESTINATIONS = "SELECT DISTINCT target_namespace, target_app FROM reminders WHERE place = 2"


class SqliteReads:
    """The reads of `Store`, over one file."""

    def __init__(self, file: File) -> None:
        self.file = file

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
        return [Ready(*row) for row in await self.file.call(fetch_all, _READY, (entities, after, limit))]

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """See `Store.entities`."""
        return await self.file.call(queries.entities, (hub, prefix, after), limit, states)

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        """See `Store.due`."""
        where = "WHERE place = 0 AND due <= ? AND (due, id) > (?, ?) ORDER BY due, id LIMIT ?"
        return await self._reminders(where, (before, *after, limit))

    async def activities(self, after: int, limit: int) -> list[Reminder]:
        """See `Store.activities`."""
        return await self._reminders("WHERE place = 1 AND id > ? ORDER BY id LIMIT ?", (after, limit))

    async def outbound(self, namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        """See `Store.outbound`."""
        where = (
            "WHERE place = 2 AND target_namespace = ? AND target_app = ? AND accepted_by = '' AND id > ? "
            "ORDER BY id LIMIT ?"
        )
        return await self._reminders(where, (namespace, app, after, limit))

    async def destinations(self) -> list[tuple[str, str]]:
        """See `Store.destinations`."""
        return await self.file.call(fetch_all, _DESTINATIONS, ())

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store.waiting`."""
        found = await self.file.call(fetch_all, _WAITING, (after, app, app, limit))
        return [rows.to_waiting(rows.WaitingRow._make(row)) for row in found]

    async def reminder(self, reminder_id: int) -> Reminder | None:
        """See `Store.reminder`."""
        return next(iter(await self._reminders("WHERE id = ?", (reminder_id,))), None)

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """See `Store.foreign_activity`."""
        where = (
            "WHERE place = 1 AND owner = 0 AND source_namespace = ? AND source_app = ? "
            "AND execution = ? AND turn = ? AND task = ?"
        )
        return next(iter(await self._reminders(where, (namespace, app, *call))), None)

    async def query(self, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
        """See `Store.query`."""
        return await self.file.call(queries.run, criteria, order, after, limit)

    async def hubs(self) -> list[str]:
        """See `Store.hubs`."""
        return [hub for (hub,) in await self.file.call(fetch_all, queries.HUBS, ())]

    async def _reminders(self, where: str, values: rows.Values) -> list[Reminder]:
        return [
            rows.to_reminder(rows.ReminderRow._make(row))
            for row in await self.file.call(_fetch_reminders, _REMINDERS + where, values)
        ]


def _fetch_reminders(connection: sqlite3.Connection, statement: str, values: rows.Values) -> list[Any]:
    """Return what a statement gives, up to the first row with which the payloads are more than a page may have."""
    found, weight = [], 0
    for row in connection.execute(statement, values):
        found.append(row)
        weight += len(row[_PAYLOAD])
        if weight > PAGE_BYTES:
            break
    return found


def fetch_all(connection: sqlite3.Connection, statement: str, values: rows.Values) -> list[Any]:
    """Return all that a statement gives. Runs on the connection's thread."""
    return connection.execute(statement, values).fetchall()


def _load(connection: sqlite3.Connection, hub: str, instance_id: str) -> State | None:
    found = connection.execute(writes.SELECT_INSTANCE, (hub, instance_id)).fetchone()
    if found is None:
        return None
    try:
        return _state(connection, rows.to_instance(rows.InstanceRow._make(found)))
    except (ValueError, TypeError, IndexError) as error:
        text = (
            f"what is stored of '{instance_id}' cannot be read ({error}): run `sidecar store check`, restore a backup"
        )
        raise DamagedError(text) from error


def _state(connection: sqlite3.Connection, instance: Instance) -> State:
    key = (instance.key,)
    calls = [rows.to_call(rows.CallRow._make(row)) for row in connection.execute(writes.SELECT_CALLS, key)]
    children = [rows.to_child(rows.ChildRow._make(row)) for row in connection.execute(writes.SELECT_CHILDREN, key)]
    inbox = [Row(*row) for row in connection.execute(writes.SELECT_INBOX, (instance.key, instance.last_completed_turn))]
    state = State(instance, {call.call.task: call for call in calls}, {child.call: child for child in children})
    return load_state(instance, state, inbox)


def _payloads(connection: sqlite3.Connection, key: int) -> tuple[bytes | None, str | None]:
    started = None
    for statement in _STARTED:
        started = started or connection.execute(statement, (key,)).fetchone()
    output = connection.execute("SELECT output FROM outputs WHERE key = ?", (key,)).fetchone()
    return (started[0] if started else None, output[0] if output else None)
