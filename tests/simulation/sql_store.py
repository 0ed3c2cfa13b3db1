"""The real SQLite store in simulated time: its own code and statements over a database in memory, without a thread.

Only what stands between the store and its file is replaced: a call takes simulated time, and may fail at any statement.
"""

import random
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sidecar.core.identity import AppIdentity
from sidecar.core.model import Instance, Kind, OpenCall, Reminder, Row
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.sqlite import check, rows, schema, store, writes
from sidecar.store.sqlite.connection import File
from tests.simulation.faulty_store import Faults

T = TypeVar("T")
_MOST_STATEMENTS = 12


class Failing(sqlite3.Connection):
    """A connection whose disk may fail after so many more `statements`."""

    statements: int | None = None

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """See `sqlite3.Connection`."""
        self._count()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """See `sqlite3.Connection`."""
        self._count()
        return super().executemany(*args)

    def _count(self) -> None:
        if self.statements is not None:
            self.statements -= 1
            if self.statements < 0:
                self.statements = None
                raise sqlite3.OperationalError("disk I/O error")


class SqlDisk:
    """A `Disk` that is an SQLite database."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=256, factory=Failing, check_same_thread=False
        )
        # From Python 3.13 on one that is not closed is a warning; whichever thread finds that nobody has it any more.
        self._closing = weakref.finalize(self, self._database.close)
        for _, statements in schema.migrations():
            self._database.executescript(statements)

    def open(self, me: AppIdentity, identity: str, faults: Faults) -> "SqlStore":
        """See `Disk`."""
        if self._database.in_transaction:
            self._database.rollback()
        return SqlStore(me, identity, self._database, faults)

    def copy(self) -> "SqlDisk":
        """See `Disk`."""
        other = SqlDisk()
        self._database.backup(other._database)
        return other

    def close(self) -> None:
        """See `Disk`."""
        self._closing()

    def _read(self, names: tuple[str, ...], rest: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._database.execute(f"SELECT {', '.join(names)} FROM {rest}", values).fetchall()  # noqa: S608

    def instances(self, prefix: str = "") -> list[Instance]:
        """See `Disk`."""
        found = self._read(rows.INSTANCE, "instances WHERE substr(id, 1, ?) = ?", (len(prefix), prefix))
        return [rows.to_instance(rows.InstanceRow._make(row)) for row in found]

    def instance(self, key: int) -> Instance | None:
        """See `Disk`."""
        found = self._read(rows.INSTANCE, "instances WHERE key = ?", (key,))
        return rows.to_instance(rows.InstanceRow._make(found[0])) if found else None

    def log(self, key: int) -> list[Row]:
        """See `Disk`."""
        found = self._read(("turn", "place", "event"), "history WHERE key = ? ORDER BY turn, place", (key,))
        return [Row(*row) for row in found]

    def calls(self, key: int) -> list[OpenCall]:
        """See `Disk`."""
        return [
            rows.to_call(rows.CallRow._make(row)) for row in self._read(rows.CALL, "open_calls WHERE key = ?", (key,))
        ]

    def output(self, key: int) -> str | None:
        """See `Disk`."""
        found = self._read(("output",), "outputs WHERE key = ?", (key,))
        return found[0][0] if found else None

    def reminders(self) -> list[Reminder]:
        """See `Disk`."""
        return [rows.to_reminder(rows.ReminderRow._make(row)) for row in self._read(rows.REMINDER, "reminders")]

    def schedules(self) -> list[ScheduleRow]:
        """See `Disk`."""
        return [ScheduleRow(*row) for row in self._read(rows.SCHEDULE, "schedules")]

    def owners(self) -> set[int]:
        """See `Disk`."""
        tables = ("outputs", "lineages", "history", "open_calls", "children")
        return {key for table in tables for (key,) in self._read(("DISTINCT key",), table)}

    def broken_rules(self) -> list[str]:
        """See `Disk`."""
        return check.broken_rules(self._database)

    def holds_answer(self, call: OpenCall) -> bool:
        """See `Disk`."""
        if self._read(("1",), "reminders WHERE id = ?", (call.reminder,)):
            return True
        where = "reminders WHERE kind = ? AND execution = ? AND turn = ? AND task = ?"
        return bool(self._read(("1",), where, (int(Kind.RESULT), *call.call)))

    def children(self, call: OpenCall) -> list[Instance]:
        """See `Disk`."""
        asked = "iif(parent_asked_by = '', parent_execution, parent_asked_by)"
        where = f"instances WHERE {asked} = ? AND parent_turn = ? AND parent_task = ?"
        return [rows.to_instance(rows.InstanceRow._make(row)) for row in self._read(rows.INSTANCE, where, call.call)]


class SqlStore(store.Sqlite):
    """One process's hold on a `SqlDisk`."""

    def __init__(self, me: AppIdentity, identity: str, database: Failing, faults: Faults) -> None:
        numbers = (schema.next_of(database, table) for table in ("instances", "reminders"))
        super().__init__(me, SimulatedFile(database, faults), schema.Opened(identity, *numbers), nullcontext)


class SimulatedFile(File):
    """Runs each call at once, after some time and with the faults of a disk."""

    def __init__(self, database: Failing, faults: Faults) -> None:
        super().__init__(Path("simulated.db"), None, None)  # type: ignore[arg-type]
        self._database = database
        self._faults = faults

    async def _connect(self) -> Any:
        """There is nothing to be opened again."""
        if self._database.in_transaction:
            self._database.rollback()

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """There is no thread."""
        return function(*args)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if function is writes.commit:
            return await self._commit(function, *args)
        await self._faults.read()
        return function(self._database, *args)

    async def _commit(self, function: Callable[..., T], *args: Any) -> T:
        failing = await self._faults.before_commit()
        rng: random.Random = self._faults.rng
        self._database.statements = rng.randrange(_MOST_STATEMENTS) if failing else None
        try:
            outcomes = function(self._database, *args)
        except sqlite3.Error:
            self._faults.note("commit fails, nothing is written")
            raise
        finally:
            self._database.statements = None
        written: Any = outcomes
        for batch, outcome in zip(args[-1], written, strict=True):
            self._faults.committed(batch, outcome)
        if await self._faults.after_commit():
            raise sqlite3.OperationalError("disk I/O error, outcome unknown")
        return outcomes
