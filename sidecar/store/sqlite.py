"""The store in one SQLite file: write-ahead log, synchronous=FULL, group commit, one connection.

A commit is one function on the connection's thread, for all changes that were waiting when it began; a read fetches
its page in one call. So no read sees half a transaction, and the races that need a second connection cannot happen.
"""

import asyncio
import select
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import structlog
from filelock import FileLock, Timeout

from sidecar.core.model import CallId, Changes, Child, Position, Reminder, Row, Self, State
from sidecar.core.state import load as load_state
from sidecar.store import queries, rows, writes
from sidecar.store.protocol import (
    Criteria,
    EntityRow,
    Mark,
    Order,
    Page,
    Ready,
    Refusal,
    RejectedError,
    UnavailableError,
    Waiting,
)

T = TypeVar("T")
_Waiting = tuple[Sequence[Changes], asyncio.Future[list[Refusal | None]]]
log = structlog.get_logger(__name__)

# The WAL-reset race of older versions needs two connections; this store has one, and says so all the same.
_FIXED = ((3, 51, 3), (3, 44, 6), (3, 50, 7))
_PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "mmap_size": 0, "busy_timeout": 5000}
# What a value can do to a statement; anything else is the trouble of the database.
_REJECTED = (UnicodeError, OverflowError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
_APPLICATION_ID = 0x53694361
_CHECKED_BYTES = 64 * 1024 * 1024  # a larger file is not read through at the start, which takes under a second
_PATIENCE_SECONDS = 0.02  # a call that takes longer on the thread may be starved
_ROOM_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005  # how long the connection's thread waits for the interpreter lock of a busy event loop
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


class OpenError(Exception):
    """The store cannot be opened; the text says why and what to do."""


class Sqlite:
    """A `Store` in one file. Use `open_store` to get one."""

    def __init__(self, me: Self, path: Path, connection: aiosqlite.Connection, lock: FileLock) -> None:
        self.me = me
        self.path = path
        self.identity = ""
        self.next_key = 1
        self.next_order = 1
        self._connection = connection
        self._lock = lock
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._starved: asyncio.TimerHandle | None = None  # set while a call is on the thread
        self._on_thread = 0

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the raw connection on its thread, as one hop."""
        self._on_thread += 1
        if self._starved is None:
            self._starved = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._make_room)
        try:
            connection = self._connection
            result: T = await connection._execute(function, connection._conn, *args)  # type: ignore[no-untyped-call]
        except _REJECTED as error:
            raise RejectedError(f"{self.path.name}: {error}") from error
        except (sqlite3.Error, ValueError) as error:
            raise UnavailableError(f"{self.path.name}: {error}") from error
        finally:
            self._off_thread()
        return result

    def _off_thread(self) -> None:
        self._on_thread -= 1
        if self._starved is not None and not self._on_thread:
            self._starved.cancel()
            self._starved = None

    def _make_room(self) -> None:
        """Hold the event loop for a moment: one that never rests keeps the interpreter lock from the thread."""
        select.select((), (), (), _ROOM_SECONDS)
        self._starved = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._make_room)

    async def start(self, fresh: str) -> None:
        """Check the file, bring its schema up to date and read who it belongs to.

        Raises:
            OpenError: it is damaged, newer than this version, or another app's.
        """
        try:
            self.identity, self.next_key, self.next_order = await self._call(_prepare, self.me, fresh)
        except (UnavailableError, RejectedError) as error:
            raise OpenError(f"cannot open {self.path}: {error.__cause__}") from error

    # ------------------------------------------------------------ writes

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`."""
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
            outcomes = await self._call(writes.commit, self.me, [batch for batch, _ in batches])
        except UnavailableError as error:
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
        return await self._call(_load, hub, instance_id)

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """See `Store.events`."""
        found = await self._call(_all, _EVENTS, (key, *after, upto_turn))
        return [event for (event,) in found]

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """See `Store.payloads`."""
        return await self._call(_payloads, key)

    async def lineage(self, key: int) -> bytes:
        """See `Store.lineage`."""
        found = await self._call(_all, "SELECT history FROM lineages WHERE key = ?", (key,))
        return found[0][0] if found else b""

    async def children(self, key: int) -> list[Child]:
        """See `Store.children`."""
        return [rows.to_child(row) for row in await self._call(_all, writes.ALL_CHILDREN, (key,))]

    async def creations(self, key: int) -> list[Child]:
        """See `Store.creations`."""
        return [rows.to_child(row) for row in await self._call(_all, writes.CREATIONS, (key,))]

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """See `Store.ready`."""
        return [Ready(*row) for row in await self._call(_all, _READY, (entities, after, limit))]

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """See `Store.entities`."""
        return await self._call(queries.entities, (hub, prefix, after), limit, states)

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
        return await self._call(_all, _DESTINATIONS, ())

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store.waiting`."""
        found = await self._call(_all, _WAITING, (after, app, app, limit))
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

    async def query(self, criteria: Criteria, order: Order, after: Mark, limit: int) -> Page:
        """See `Store.query`."""
        return await self._call(queries.run, criteria, order, after, limit)

    async def hubs(self) -> list[str]:
        """See `Store.hubs`."""
        return [hub for (hub,) in await self._call(_all, queries.HUBS, ())]

    async def _reminders(self, where: str, values: rows.Values) -> list[Reminder]:
        return [rows.to_reminder(row) for row in await self._call(_all, _REMINDERS + where, values)]

    async def close(self) -> None:
        """See `Store.close`."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        try:
            await self._call(_all, "PRAGMA wal_checkpoint(TRUNCATE)", ())
        except UnavailableError as error:
            log.warning("last checkpoint failed", error=str(error))
        await self._connection.close()
        self._lock.release()


def _all(connection: sqlite3.Connection, statement: str, values: rows.Values) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _load(connection: sqlite3.Connection, hub: str, instance_id: str) -> State | None:
    found = connection.execute(writes.SELECT_INSTANCE, (hub, instance_id)).fetchone()
    if found is None:
        return None
    instance = rows.to_instance(found)
    key = (instance.key,)
    calls = [rows.to_call(row) for row in connection.execute(writes.SELECT_CALLS, key)]
    children = [rows.to_child(row) for row in connection.execute(writes.SELECT_CHILDREN, key)]
    inbox = [Row(*row) for row in connection.execute(writes.SELECT_INBOX, (instance.key, instance.covered))]
    state = State(instance, {call.call.task: call for call in calls}, {child.call: child for child in children})
    return load_state(instance, state, inbox)


def _payloads(connection: sqlite3.Connection, key: int) -> tuple[bytes | None, str | None]:
    started = None
    for statement in _STARTED:
        started = started or connection.execute(statement, (key,)).fetchone()
    output = connection.execute("SELECT output FROM outputs WHERE key = ?", (key,)).fetchone()
    return (started[0] if started else None, output[0] if output else None)


# ---------------------------------------------------------------- opening


def _prepare(connection: sqlite3.Connection, me: Self, fresh: str) -> tuple[str, int, int]:
    connection.isolation_level = None
    _check_ours(connection)
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.execute("PRAGMA auto_vacuum = incremental")
    for name, wanted in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {wanted}")
        in_force = connection.execute(f"PRAGMA {name}").fetchone()
        if in_force is not None and in_force[0] != wanted:
            raise sqlite3.OperationalError(f"pragma {name} is {in_force[0]!r}, not {wanted!r}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size < _CHECKED_BYTES and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("the file is damaged; restore a backup of it")
    _migrate(connection)
    return (_identity(connection, me, fresh), _next(connection, "instances"), _next(connection, "reminders"))


def _check_ours(connection: sqlite3.Connection) -> None:
    """Refuse a database that some other program has made; it is left as it is."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        raise sqlite3.DatabaseError("it is the database of another program")


def migrations() -> list[tuple[int, str]]:
    """Return the numbered schema changes, in order."""
    folder = resources.files("sidecar.store") / "schema"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_")[0]), file.read_text()) for file in files]


def _migrate(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    known = migrations()
    if found > known[-1][0]:
        raise sqlite3.DatabaseError(f"the file has schema {found}, this version knows {known[-1][0]}: upgrade it")
    for number, statements in known:
        if number > found:
            marks = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number};"
            connection.executescript(f"BEGIN IMMEDIATE; {statements} {marks} COMMIT;")


def _identity(connection: sqlite3.Connection, me: Self, fresh: str) -> str:
    """Return the store's ID and generation; a store of another app is refused."""
    connection.execute("BEGIN IMMEDIATE")
    wanted = {"app": me.app, "namespace": me.namespace, "store": fresh, "generation": "1"}
    connection.executemany("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", list(wanted.items()))
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    connection.execute("COMMIT")
    if (meta["namespace"], meta["app"]) != (me.namespace, me.app):
        raise sqlite3.DatabaseError(f"it belongs to app {meta['app']!r} of namespace {meta['namespace']!r}")
    return f"{meta['store']}.{meta['generation']}"


def _next(connection: sqlite3.Connection, table: str) -> int:
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return found[0] + 1 if found else 1


def warn_if_affected() -> None:
    """Log the SQLite version, and say so when it has the WAL-reset bug."""
    version = sqlite3.sqlite_version_info
    fixed = version >= _FIXED[0] or any(version[:2] == minor[:2] and version >= minor for minor in _FIXED[1:])
    bug = "has the WAL-reset bug: do not open the database with another program while the sidecar runs"
    log.info("sqlite", version=sqlite3.sqlite_version, **({} if fixed else {"note": bug}))


def _lock(path: Path, me: Self) -> FileLock:
    """Make the directory and take the lock that only one sidecar can have."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire(timeout=0)
        path.touch(mode=0o600)
    except Timeout:
        raise OpenError(f"another sidecar of app {me.app!r} has {path} open: stop it first") from None
    except OSError as error:
        raise OpenError(f"cannot use the data directory {path.parent}: {error.strerror or error}") from error
    return lock


async def open_store(me: Self, directory: Path, fresh: str) -> Sqlite:
    """Open, or make, the database of an app: `<namespace>.<app>.db` in the directory.

    `fresh` becomes the identity of a store that is made anew.

    Raises:
        OpenError: the directory cannot be used, another sidecar has the database, or it cannot be read.
    """
    path = directory / f"{me.namespace}.{me.app}.db"
    lock = _lock(path, me)
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
    try:
        connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
    except sqlite3.Error as error:
        lock.release()
        raise OpenError(f"cannot open {path}: {error}") from error
    store = Sqlite(me, path, connection, lock)
    try:
        await store.start(fresh)
    except OpenError:
        await connection.close()
        lock.release()
        raise
    return store
