"""The reference store with the faults of a real one: slow, failing before or after the write, dead with its process."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.model import CallId, Changes, Child, Position, Reminder, Self, State
from sidecar.store.protocol import Criteria, EntityRow, Mark, Order, Page, Ready, Refusal, UnavailableError
from tests.simulation.memory_store import Data, MemoryStore


@dataclass
class Trouble:
    """Chances of a fault a commit, and how long a commit takes, in seconds."""

    before: float = 0.0
    after: float = 0.0
    slow: tuple[float, float] = (0.0005, 0.004)


class FaultyStore:
    """One process's hold on stored data. `died` makes every later call wait for ever."""

    def __init__(
        self,
        me: Self,
        identity: str,
        data: Data,
        *,
        rng: random.Random,
        committed: Callable[[Sequence[Changes], list[Refusal | None]], None],
        note: Callable[[str], None],
    ) -> None:
        self._store = MemoryStore(me, identity, data)
        self.me = me
        self.identity = identity
        self.trouble = Trouble()
        self.dead = False
        self.die_at: str | None = None
        self.on_death: Callable[[], None] = lambda: None
        self._rng = rng
        self._committed = committed
        self._note = note
        self._turn = asyncio.Lock()

    @property
    def next_key(self) -> int:
        """See `Store`."""
        return self._store.next_key

    @property
    def next_order(self) -> int:
        """See `Store`."""
        return self._store.next_order

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`: one at a time, as on one connection."""
        async with self._turn:
            await self._alive(self._rng.uniform(*self.trouble.slow))
            await self._maybe_die("before")
            if self._rng.random() < self.trouble.before:
                self._note("commit fails, nothing is written")
                raise UnavailableError("disk error")
            outcomes = await self._store.commit(batch)
            self._committed(batch, outcomes)
            await self._maybe_die("after")
            if self._rng.random() < self.trouble.after:
                self._note("commit fails, and yet it is written")
                raise UnavailableError("disk error, outcome unknown")
            return outcomes

    async def _maybe_die(self, moment: str) -> None:
        if self.die_at == moment:
            self._note(f"dies {moment} a commit")
            self.on_death()
            await self._alive(0.0)

    async def _alive(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.dead:
            await asyncio.get_running_loop().create_future()

    async def _read(self, name: str, *args: Any, **options: Any) -> Any:
        await self._alive(self._rng.uniform(0.0001, 0.001))
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

    async def query(self, criteria: Criteria, order: Order, after: Mark, limit: int) -> Page:
        """See `Store`."""
        found: Page = await self._read("query", criteria, order, after, limit)
        return found

    async def hubs(self) -> list[str]:
        """See `Store`."""
        return list(await self._read("hubs"))

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """See `Store`."""
        found: Reminder | None = await self._read("foreign_activity", namespace, app, call)
        return found

    async def close(self) -> None:
        """See `Store`."""
