"""What clients may ask of the entities of a sidecar."""

import asyncio
from dataclasses import dataclass

from sidecar.actors.residents import Address
from sidecar.core import events
from sidecar.core.entity import entity, locks
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Lock, Outcome, Reply, State
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.clients import ClientService
from sidecar.store.protocol import EntityRow

_PAGE = 100  # entities that are read at once
_STATE_PAGE = 20  # with their states
_MOST_READ = 2_000  # entities that one call looks at
_MOST_BYTES = 1024 * 1024  # of states in one answer: most clients take 4 MiB
_CLEANED = 100  # entities that one call cleans


@dataclass(frozen=True, slots=True)
class Query:
    """Which entities are asked for, from behind the ID `after`; `changed` is from and to, not included, in µs."""

    prefix: str
    after: str
    page_size: int
    changed: tuple[int, int]
    states: bool
    transient: bool  # those without a state too

    def accepts(self, row: EntityRow) -> bool:
        """Whether an entity is asked for."""
        return self.changed[0] <= row.updated_at < self.changed[1] and (row.has_state or self.transient)


class EntityService:
    """The operations on entities."""

    def __init__(self, service: ClientService) -> None:
        self._service = service
        self._engine = service.engine

    async def signal(self, address: Address, signaled: pb.EntitySignaled) -> Reply:
        """Send an operation to an entity, which need not be there."""
        engine = self._engine

        def decide(at: Context, state: State | None) -> Decision:
            due = events.micros(signaled.scheduled_time) if signaled.HasField("scheduled_time") else at.now
            event = events.entity_signaled(at.now, signaled)
            return entity.signal(at, state, at.me.entity(*address), event, due)

        return await engine.submit(address, decide)

    async def purge(self, address: Address) -> Reply:
        """Remove an entity with all that waits for it; calls that wait fail."""
        return await self._engine.submit(address, entity.purge)

    async def get(self, address: Address, *, state: bool) -> EntityRow | None:
        """Return an entity, with its state if asked for; one that has none is not there for a client."""
        hub, entity_id = address
        found = await self._engine.store.entities(hub, entity_id, "", 1, states=state)
        return next((row for row in found if row.id == entity_id and row.has_state), None)

    async def query(self, hub: str, query: Query) -> tuple[list[EntityRow], str | None]:
        """Return entities by ID, and from where to go on, None at the end. A page may be short or empty before it."""
        rows: list[EntityRow] = []
        after, looked_at, size = query.after, 0, 0
        page_size = _STATE_PAGE if query.states else _PAGE
        while True:
            page = await self._engine.store.entities(hub, query.prefix, after, page_size, states=query.states)
            last = len(page) < page_size
            for row in filter(query.accepts, page):
                rows.append(row)
                size += len(row.state or "")
                if len(rows) >= query.page_size or size > _MOST_BYTES:
                    return rows, None if last and row is page[-1] else row.id
            looked_at += len(page)
            if last:
                return rows, None
            after = page[-1].id
            if looked_at >= _MOST_READ:
                return rows, after

    async def clean(self, hub: str, after: str, *, empty: bool, orphans: bool) -> tuple[int, int, str | None]:
        """Remove entities that have nothing, and take locks from executions that have ended.

        Returns how many entities went, how many locks, and from where to go on, None at the end.
        """
        page = await self._engine.store.entities(hub, "@", after, _CLEANED, states=False)
        done = await asyncio.gather(*(self._clean_one(hub, row, empty, orphans) for row in page))
        removed, released = (sum(counts) for counts in zip(*done, strict=True)) if done else (0, 0)
        return removed, released, page[-1].id if len(page) == _CLEANED else None

    async def _clean_one(self, hub: str, row: EntityRow, empty: bool, orphans: bool) -> tuple[bool, bool]:
        address, reply = (hub, row.id), Reply(Outcome.STALE)
        if row.lock is not None:
            orphan = row.lock
            if orphans and await self._has_ended(hub, orphan):
                reply = await self._engine.submit(address, lambda at, state: locks.release(at, state, orphan))
            return False, reply == DONE
        if empty and not row.has_state and not row.backlog:
            reply = await self._engine.submit(address, lambda at, state: entity.forget(at, state, row.revision))
        return reply == DONE, False

    async def _has_ended(self, hub: str, lock: Lock) -> bool:
        owner = await self._service.instance((hub, lock.owner))
        return owner is None or owner.status.terminal or owner.execution != lock.execution
