"""Operations of entities for the own workers: entities that have some, and the batches that a worker has.

The state of an entity is read for each batch and not kept: it may be large, and entities that do nothing cost nothing.
"""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.residents import Actor, Address
from sidecar.core import events
from sidecar.core.entity import entity
from sidecar.core.entity.entity import Batch
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Instance, Row, State
from sidecar.core.work_items import EntityItem
from sidecar.core.workflow import stalls
from sidecar.work.leases import ActorLeases, Lease
from sidecar.work.pool import Pool
from sidecar.work.workers import Worker

log = structlog.get_logger(__name__)


class Sizes(NamedTuple):
    """Bytes of an item that a worker cannot receive, and of the entity's state in it."""

    item: int
    state: int


@dataclass(slots=True, eq=False)
class EntityLease(Lease):
    """A batch of operations that a worker has; `entity_state` is the revision that was read, and the state there."""

    batch: Batch | None = None
    entity_state: tuple[int, str | None] | None = None

    @property
    def key(self) -> int:
        """See `Lease`."""
        return 0 if self.batch is None else self.batch.key

    @property
    def token(self) -> str:
        """See `Lease`."""
        return "" if self.batch is None else self.batch.token

    @property
    def rows(self) -> tuple[Row, ...]:
        """See `Lease`."""
        return () if self.batch is None else tuple(self.batch.rows)

    def fits(self, state: State) -> bool:
        """See `Lease`: places are used again, so all that it has run must wait still."""
        return self.batch is not None and self.key == state.instance.key and set(self.batch.rows) <= set(state.inbox)


class EntityWork(ActorLeases[EntityLease]):
    """Hands batches to workers and takes them back."""

    _lease_type = EntityLease

    def __init__(self, engine: Engine, pool: Pool, **options: Any) -> None:
        super().__init__(engine, pool, pool.entities, entities=True, **options)
        self._by_token: dict[str, EntityLease] = {}
        self._slow: dict[Address, int] = {}  # so many operations go one by one, since together they were too much

    def before_commands(self, actor: Actor, lease: EntityLease) -> asyncio.Future[None] | None:
        """Hand out what may run on an entity that was assigned. Returns what must be awaited first, or None."""
        if lease.is_out:
            return None
        if actor.state is None or not actor.state.instance.ready:
            self.recall(actor)
            return None
        if lease.entity_state is None or lease.entity_state[0] != actor.state.instance.revision:
            return asyncio.ensure_future(self._read(lease, actor.state.instance))
        self._hand_out(lease, actor.state, lease.entity_state[1])
        return None

    async def _read(self, lease: EntityLease, instance: Instance) -> None:
        _, text = await self._engine.store.payloads(instance.key)
        lease.entity_state = (instance.revision, text)

    def _hand_out(self, lease: EntityLease, state: State, text: str | None) -> None:
        clock, instance, address, worker = self._engine.clock, state.instance, lease.actor.address, lease.worker
        lease.entity_state = None
        room = worker.max_bytes - (0 if text is None else len(text.encode()))
        most = 1 if self._slow.get(address) else entity.BATCH_OPERATIONS
        batch = entity.next_batch(state, f"e.{clock.new_id()}", room, most)
        too_large = worker.send(EntityItem(instance.id, text, tuple(row.event for row in batch.rows), batch.token))
        if too_large:
            self._wait_for_larger(lease, instance, batch, Sizes(too_large, 0 if text is None else len(text.encode())))
            return
        lease.batch, lease.deadline = batch, clock.monotonic() + self._timeout
        self._went_out(lease)

    def _went_out(self, lease: EntityLease) -> None:
        super()._went_out(lease)
        self._by_token[lease.token] = lease

    def _wait_for_larger(self, lease: EntityLease, instance: Instance, batch: Batch, sizes: Sizes) -> None:
        """Let operations wait for a worker that can receive them; without one, calls fail and say so.

        Then this worker is tried again after a pause, for the calls that have come meanwhile.
        """
        address, group = lease.actor.address, self.group_of(instance, sizes.item)
        limit = self._pool.largest_for_entity(group)
        log.warning("entity waits for a worker that can receive it", entity=instance.id, bytes=sizes.item, limit=limit)
        self.recall(lease.actor)
        if limit >= sizes.item:
            self._offer(address, group)
            return
        self.refusals.refuse(lease.actor.address, lease.worker.name)
        self._offer(address, self.group_of(instance))
        text = f"an operation of entity '{instance.id}' has {sizes.item} bytes together with the state of the entity"
        text += f" ({sizes.state} bytes), and a worker receives at most {limit} bytes"
        why, by_itself = events.failure("PayloadSizeExceeded", text, retriable=False), sizes.state <= limit

        def decide(at: Context, state: State | None) -> Decision:
            if state is None or lease.actor.lease is not None:  # gone, or a larger worker has come and has it
                return Decision(None, DONE)
            return Decision(entity.too_large(at, state, batch, why, by_itself=by_itself), DONE)

        self._engine.tell(address, decide)

    def leased(self, token: str) -> EntityLease | None:
        """Return the batch that is out under a token, or None."""
        return self._by_token.get(token)

    def claim(self, lease: EntityLease) -> EntityLease:
        """See `ActorLeases`."""
        self._freed(lease)
        return super().claim(lease)

    def done(self, lease: EntityLease) -> None:
        """A worker has run what it had of an entity: pauses begin anew."""
        address = lease.actor.address
        self.refusals.done(address)
        if self._slow.get(address, 0) > 1:
            self._slow[address] -= 1
        else:
            self._slow.pop(address, None)

    def loaded(self, actor: Actor) -> None:
        """An entity was read anew: an answer counts no more if what it has run is done."""
        lease, state = self.lease_of(actor), actor.state
        if lease is not None and lease.claimed:
            lease.void = state is None or not lease.fits(state)

    def forgotten(self, actor: Actor) -> None:
        """An entity was dropped from memory."""
        self.recall(actor)
        self._slow.pop(actor.address, None)

    # ------------------------------------------------------------ of this kind

    def _held_by(self, worker: Worker) -> MutableMapping[Address, str]:
        return worker.entities

    def _freed(self, lease: EntityLease) -> None:
        if lease.batch is not None:
            self._by_token.pop(lease.batch.token, None)

    def ran_nothing(self, lease: EntityLease) -> None:
        """A worker has answered and run no operation of a batch: it is to try again only after a pause."""
        self.refusals.refuse(lease.actor.address, lease.worker.name)
        self._came_back(lease)

    def _came_back(self, lease: EntityLease) -> None:
        """Quarantine an entity whose operations only ever come back: they stay, until a person has found out why."""
        address, limit, key = lease.actor.address, self._delivery_limit, lease.key
        self._one_by_one(lease)
        if not limit.is_futile(self.refusals.came_back(address)):
            return
        self.refusals.forget(address)

        def decide(at: Context, state: State | None) -> Decision:
            if state is None or state.instance.key != key or not state.instance.ready:
                return Decision(None, DONE)
            log.warning("parked: each worker that gets it gives it back", entity=address[1], times=limit.most_returns)
            return Decision(stalls.never_answered(at, state, limit.most_returns), DONE)

        self._engine.tell(address, decide)

    def _crashed(self, lease: EntityLease) -> None:
        self._one_by_one(lease)
        super()._crashed(lease)

    def _one_by_one(self, lease: EntityLease) -> None:
        """Let the operations that are out go one by one, so that those before the one at fault get through."""
        count = 0 if lease.batch is None else len(lease.batch.rows)
        self._slow[lease.actor.address] = max(self._slow.get(lease.actor.address, 0), count)

    def _late(self, lease: EntityLease) -> None:
        log.warning("operations of an entity timed out", entity=lease.actor.address[1], seconds=self._timeout)
        self._one_by_one(lease)
