"""The faults of a disk (slow, failing before or after the write, dead with its process) and a disk in memory with them.

`Disk` is what outlives a process. `FaultyStore` is a process's hold on the reference store; `sql_store.py` has the same
over the real statements.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.core.identity import AppIdentity
from sidecar.core.model import CallId, Changes, Child, Instance, Kind, OpenCall, Position, Reminder, Row, State
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.protocol import (
    Criteria,
    Cursor,
    EntityRow,
    Order,
    Page,
    Ready,
    Refusal,
    Store,
    UnavailableError,
    Waiting,
)
from tests.simulation.memory_store import Data, MemoryStore

Committed = Callable[[Sequence[Changes], list[Refusal | None]], None]


@dataclass
class Trouble:
    """Chances of a fault a commit, and how long a commit takes, in seconds."""

    before: float = 0.0
    after: float = 0.0
    slow: tuple[float, float] = (0.0005, 0.004)


class Faults:
    """What a process's store meets. Once it is `dead`, every call waits for ever."""

    def __init__(self, rng: random.Random, committed: Committed, note: Callable[[str], None]) -> None:
        self.rng = rng
        self.committed = committed
        self.note = note
        self.trouble = Trouble()
        self.dead = False
        self.die_at: str | None = None
        self.on_death: Callable[[], None] = lambda: None

    async def before_commit(self) -> bool:
        """Take time, die if that is due; return whether the commit is to fail."""
        await self._alive(self.rng.uniform(*self.trouble.slow))
        await self._maybe_die("before")
        return self.rng.random() < self.trouble.before

    async def after_commit(self) -> bool:
        """Die if that is due; return whether the commit is to fail although it is written."""
        await self._maybe_die("after")
        failing = self.rng.random() < self.trouble.after
        if failing:
            self.note("commit fails, and yet it is written")
        return failing

    async def read(self) -> None:
        """Take the time of a read."""
        await self._alive(self.rng.uniform(0.0001, 0.001))

    async def _maybe_die(self, moment: str) -> None:
        if self.die_at == moment:
            self.note(f"dies {moment} a commit")
            self.on_death()
            await self._alive(0.0)

    async def _alive(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.dead:
            await asyncio.get_running_loop().create_future()


class Disk(Protocol):
    """What outlives a process. Beside `open` it tells what is stored, for those who check that."""

    def open(self, me: AppIdentity, identity: str, faults: Faults) -> Store:
        """Return the hold that a new process gets."""

    def copy(self) -> "Disk":
        """Return another one with all that is on this one now."""

    def close(self) -> None:
        """Throw everything away."""

    def instances(self, prefix: str = "") -> list[Instance]:
        """Return the instances whose ID begins so."""

    def instance(self, key: int) -> Instance | None:
        """Return one instance."""

    def log(self, key: int) -> list[Row]:
        """Return the whole log of an instance, in order."""

    def calls(self, key: int) -> list[OpenCall]:
        """Return the open calls of an instance."""

    def output(self, key: int) -> str | None:
        """Return the output of an instance."""

    def reminders(self) -> list[Reminder]:
        """Return all reminders."""

    def schedules(self) -> list[ScheduleRow]:
        """Return all schedules."""

    def owners(self) -> set[int]:
        """Return the keys of all instances of which anything is left beside the instance itself."""

    def broken_rules(self) -> list[str]:
        """Return what `sidecar store check` would find wrong, where the disk is a file."""

    def holds_answer(self, call: OpenCall) -> bool:
        """Whether the reminder that causes a call's answer, or the answer, is stored."""

    def children(self, call: OpenCall) -> list[Instance]:
        """Return the instances that a call has made here."""


class MemoryDisk:
    """A `Disk` of plain dictionaries."""

    def __init__(self) -> None:
        self.data = Data()

    def copy(self) -> "MemoryDisk":
        """See `Disk`."""
        other = MemoryDisk()
        other.data = self.data.copy()
        return other

    def open(self, me: AppIdentity, identity: str, faults: Faults) -> "FaultyStore":
        """See `Disk`."""
        return FaultyStore(MemoryStore(me, identity, self.data), faults)

    def close(self) -> None:
        """See `Disk`."""

    def instances(self, prefix: str = "") -> list[Instance]:
        """See `Disk`."""
        return [one for one in self.data.instances.values() if one.id.startswith(prefix)]

    def instance(self, key: int) -> Instance | None:
        """See `Disk`."""
        return self.data.instances.get(key)

    def log(self, key: int) -> list[Row]:
        """See `Disk`."""
        return [Row(*position, event) for position, event in sorted(self.data.log.get(key, {}).items())]

    def calls(self, key: int) -> list[OpenCall]:
        """See `Disk`."""
        return list(self.data.calls.get(key, {}).values())

    def output(self, key: int) -> str | None:
        """See `Disk`."""
        return self.data.outputs.get(key)

    def reminders(self) -> list[Reminder]:
        """See `Disk`."""
        return list(self.data.reminders.values())

    def schedules(self) -> list[ScheduleRow]:
        """See `Disk`."""
        return list(self.data.schedules.values())

    def owners(self) -> set[int]:
        """See `Disk`."""
        data = self.data
        return {key for table in (data.outputs, data.lineages, data.log, data.calls, data.children) for key in table}

    def broken_rules(self) -> list[str]:
        """See `Disk`."""
        return []

    def holds_answer(self, call: OpenCall) -> bool:
        """See `Disk`."""
        reminders = self.data.reminders
        return call.reminder in reminders or any(
            one.kind is Kind.RESULT and one.call == call.call for one in reminders.values()
        )

    def children(self, call: OpenCall) -> list[Instance]:
        """See `Disk`."""
        return [one for one in self.instances() if one.parent is not None and one.parent.asked == call.call]


class FaultyStore:
    """One process's hold on a `MemoryDisk`."""

    def __init__(self, store: MemoryStore, faults: Faults) -> None:
        self._store = store
        self.identity = store.identity
        self._faults = faults
        self._turn = asyncio.Lock()

    @property
    def next_key(self) -> int:
        """See `Store`."""
        return self._store.next_key

    @property
    def next_order(self) -> int:
        """See `Store`."""
        return self._store.next_order

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return ""

    async def recovered(self) -> None:
        """See `Store.recovered`."""
        await self._faults.read()

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`: one at a time, as on one connection."""
        async with self._turn:
            if await self._faults.before_commit():
                self._faults.note("commit fails, nothing is written")
                raise UnavailableError("disk error")
            outcomes = await self._store.commit(batch)
            self._faults.committed(batch, outcomes)
            if await self._faults.after_commit():
                raise UnavailableError("disk error, outcome unknown")
            return outcomes

    async def _read(self, name: str, *args: Any, **options: Any) -> Any:
        await self._faults.read()
        return await getattr(self._store, name)(*args, **options)

    async def load(self, hub: str, instance_id: str) -> State | None:
        """See `Store`."""
        found: State | None = await self._read("load", hub, instance_id)
        return found

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """See `Store`."""
        return list(await self._read("events", key, after, upto_turn))

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """See `Store`."""
        started, output = await self._read("payloads", key)
        return started, output

    async def lineage(self, key: int) -> bytes:
        """See `Store`."""
        found: bytes = await self._read("lineage", key)
        return found

    async def children(self, key: int) -> list[Child]:
        """See `Store`."""
        return list(await self._read("children", key))

    async def creations(self, key: int) -> list[Child]:
        """See `Store`."""
        return list(await self._read("creations", key))

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """See `Store`."""
        return list(await self._read("ready", after, limit, entities))

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """See `Store`."""
        return list(await self._read("entities", hub, prefix, after, limit, states=states))

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        """See `Store`."""
        return list(await self._read("due", before, after, limit))

    async def activities(self, after: int, limit: int) -> list[Reminder]:
        """See `Store`."""
        return list(await self._read("activities", after, limit))

    async def outbound(self, namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        """See `Store`."""
        return list(await self._read("outbound", namespace, app, after, limit))

    async def destinations(self) -> list[tuple[str, str]]:
        """See `Store`."""
        return list(await self._read("destinations"))

    async def reminder(self, reminder_id: int) -> Reminder | None:
        """See `Store`."""
        found: Reminder | None = await self._read("reminder", reminder_id)
        return found

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store`."""
        return list(await self._read("waiting", app, after, limit))

    async def query(self, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
        """See `Store`."""
        found: Page = await self._read("query", criteria, order, after, limit)
        return found

    async def hubs(self) -> list[str]:
        """See `Store`."""
        return list(await self._read("hubs"))

    async def schedule(self, hub: str, schedule_id: str) -> ScheduleRow | None:
        """See `Store`."""
        found: ScheduleRow | None = await self._read("schedule", hub, schedule_id)
        return found

    async def schedules(self, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        """See `Store`."""
        return list(await self._read("schedules", after, limit))

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """See `Store`."""
        found: Reminder | None = await self._read("foreign_activity", namespace, app, call)
        return found

    async def close(self) -> None:
        """See `Store`."""
