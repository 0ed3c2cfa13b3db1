"""The store in one SQLite file: write-ahead log, synchronous=FULL, group commit, one connection.

A commit is one function on the connection's thread, for all changes that were waiting when it began; a read fetches
its page in one call. So no read sees half a transaction, and the races that need a second connection cannot happen.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from sidecar.core.identity import AppIdentity
from sidecar.core.model import CallId, Changes, Child, Instance, Position, Reminder, Row, State
from sidecar.core.workflow.state import load as load_state
from sidecar.store.protocol import (
    Criteria,
    Cursor,
    DamagedError,
    EntityRow,
    FullError,
    Order,
    Page,
    Ready,
    Refusal,
    UnavailableError,
    Waiting,
)
from sidecar.store.sqlite import queries, rows, schema, writes
from sidecar.store.sqlite.connection import File

_Waiting = tuple[Sequence[Changes], asyncio.Future[list[Refusal | None]]]
log = structlog.get_logger(__name__)

_EVENTS = "SELECT event FROM history WHERE key = ? AND (turn, place) > (?, ?) AND turn <= ? ORDER BY turn, place"
_STARTED = (
    "SELECT event FROM history WHERE key = ? AND place = 1 ORDER BY turn LIMIT 1",
    "SELECT payload FROM reminders WHERE owner = ? AND kind = 1 LIMIT 1",
)
_REMINDERS = f"SELECT {', '.join(rows.STORED_REMINDER)} FROM reminders "  # noqa: S608 (constants)
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


class Sqlite:
    """A `Store` in one file. Use `open_store` to get one."""

    def __init__(self, me: AppIdentity, file: File, opened: schema.Opened) -> None:
        self.me = me
        self.file = file
        self.identity, self.next_key, self.next_order = opened
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return self.file.trouble

    async def recovered(self) -> None:
        """See `Store.recovered`."""
        await self.file.recovered()

    # ------------------------------------------------------------ writes

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`."""
        if self.file.full and not all(map(_only_removes, batch)):
            raise FullError(self.trouble)
        done: asyncio.Future[list[Refusal | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="store commit")
        return await asyncio.shield(done)

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                batches, self._waiting = self._waiting, []
                await self._commit_together(batches)
        finally:
            self._committing = None

    async def _commit_together(self, batches: list[_Waiting]) -> None:
        try:
            outcomes = await self.file.write(writes.commit, self.me, [batch for batch, _ in batches])
        except UnavailableError as error:
            if not self.trouble:  # else the file has said it
                log.error("commit failed", changes=sum(len(batch) for batch, _ in batches), error=str(error))
            for _, done in batches:
                done.set_exception(UnavailableError(str(error)))
            return
        except Exception as error:
            await self._commit_apart(batches, error)
            return
        for (_, done), found in zip(batches, outcomes, strict=True):
            done.set_result(found)

    async def _commit_apart(self, batches: list[_Waiting], error: Exception) -> None:
        """Write batches one by one: something in one of them cannot be stored, and only that one shall fail."""
        if len(batches) == 1:
            log.error("changes cannot be stored", error=str(error))
            batches[0][1].set_exception(error)
            return
        for batch in batches:
            await self._commit_together([batch])

    # ------------------------------------------------------------ reads

    async def load(self, hub: str, instance_id: str) -> State | None:
        """See `Store.load`."""
        return await self.file.call(_load, hub, instance_id)

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """See `Store.events`."""
        found = await self.file.call(_all, _EVENTS, (key, *after, upto_turn))
        return [event for (event,) in found]

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """See `Store.payloads`."""
        return await self.file.call(_payloads, key)

    async def lineage(self, key: int) -> bytes:
        """See `Store.lineage`."""
        found = await self.file.call(_all, "SELECT history FROM lineages WHERE key = ?", (key,))
        return found[0][0] if found else b""

    async def children(self, key: int) -> list[Child]:
        """See `Store.children`."""
        return [rows.to_child(row) for row in await self.file.call(_all, writes.ALL_CHILDREN, (key,))]

    async def creations(self, key: int) -> list[Child]:
        """See `Store.creations`."""
        return [rows.to_child(row) for row in await self.file.call(_all, writes.CREATIONS, (key,))]

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """See `Store.ready`."""
        return [Ready(*row) for row in await self.file.call(_all, _READY, (entities, after, limit))]

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
        return await self.file.call(_all, _DESTINATIONS, ())

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store.waiting`."""
        found = await self.file.call(_all, _WAITING, (after, app, app, limit))
        return [rows.to_waiting(row) for row in found]

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
        return [hub for (hub,) in await self.file.call(_all, queries.HUBS, ())]

    async def _reminders(self, where: str, values: rows.Values) -> list[Reminder]:
        return [rows.to_reminder(row) for row in await self.file.call(_all, _REMINDERS + where, values)]

    async def close(self) -> None:
        """See `Store.close`."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        try:
            await self.file.call(_all, "PRAGMA wal_checkpoint(TRUNCATE)", ())
        except UnavailableError as error:
            log.warning("last checkpoint failed: nothing is lost by that", error=str(error))
        await self.file.close()


def _only_removes(changes: Changes) -> bool:
    return changes.purged or not (changes.instance or changes.set or changes.received)


def _all(connection: sqlite3.Connection, statement: str, values: rows.Values) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _load(connection: sqlite3.Connection, hub: str, instance_id: str) -> State | None:
    found = connection.execute(writes.SELECT_INSTANCE, (hub, instance_id)).fetchone()
    if found is None:
        return None
    try:
        return _state(connection, rows.to_instance(found))
    except (ValueError, TypeError, IndexError) as error:
        text = (
            f"what is stored of '{instance_id}' cannot be read ({error}): run `sidecar store check`, restore a backup"
        )
        raise DamagedError(text) from error


def _state(connection: sqlite3.Connection, instance: Instance) -> State:
    key = (instance.key,)
    calls = [rows.to_call(row) for row in connection.execute(writes.SELECT_CALLS, key)]
    children = [rows.to_child(row) for row in connection.execute(writes.SELECT_CHILDREN, key)]
    inbox = [Row(*row) for row in connection.execute(writes.SELECT_INBOX, (instance.key, instance.last_completed_turn))]
    state = State(instance, {call.call.task: call for call in calls}, {child.call: child for child in children})
    return load_state(instance, state, inbox)


def _payloads(connection: sqlite3.Connection, key: int) -> tuple[bytes | None, str | None]:
    started = None
    for statement in _STARTED:
        started = started or connection.execute(statement, (key,)).fetchone()
    output = connection.execute("SELECT output FROM outputs WHERE key = ?", (key,)).fetchone()
    return (started[0] if started else None, output[0] if output else None)


async def open_store(me: AppIdentity, directory: Path, fresh: str) -> Sqlite:
    """Open, or make, the database of an app: `<namespace>.<app>.db` in the directory.

    `fresh` becomes the identity of a store that is made anew.

    Raises:
        OpenError: the directory cannot be used, another sidecar has the database, or it cannot be read.
    """
    path = schema.path_of(me, directory)
    file = File(path, schema.lock(path, me), lambda connection: schema.prepare(connection, me, fresh))
    return Sqlite(me, file, await file.open())
