"""Operations of entities for the own workers: entities that have some, and the batches that a worker has.

The state of an entity is read for each batch and not kept: it may be large, and entities that do nothing cost nothing.
"""

import asyncio
from collections.abc import Callable

import structlog

from sidecar.backlog import Group, Lane
from sidecar.core import entity
from sidecar.core.entity import Batch
from sidecar.core.items import EntityItem
from sidecar.core.model import Instance, State
from sidecar.engine import Actor, Address, Engine
from sidecar.refusals import Refusals
from sidecar.workers import Pool, Worker

PAGE = 5_000
log = structlog.get_logger(__name__)


class Entities:
    """Hands batches to workers and takes them back. What waits, and how, is as for turns (`turns.py`)."""

    def __init__(self, engine: Engine, pool: Pool, *, timeout: float, pump: Callable[[], None]) -> None:
        self._engine = engine
        self._pool = pool
        self._timeout = timeout
        self._pump = pump
        self._refusals: Refusals[Address] = Refusals(engine.clock)
        self._by_token: dict[str, Actor] = {}
        self.out: dict[Address, Actor] = {}

    # ------------------------------------------------------------ waiting

    def queue(self, actor: Actor, instance: Instance) -> None:
        """Let an entity wait for a worker if something may run and no worker has it."""
        if instance.ready and actor.holder is None:
            self._offer(actor.address, Group(instance.name, "", hub=instance.hub))
            self._pump()

    def _offer(self, address: Address, group: Group) -> None:
        self._pool.entities.offer(address, group._replace(shunned=self._refusals.of(address)))

    async def refill(self, lanes: frozenset[Lane] | None = None) -> None:
        """Queue what is ready in the store, of these lanes (None: of all), as far as it fits.

        Raises:
            UnavailableError: the store failed.
        """
        backlog = self._pool.entities
        backlog.refilling(lanes)
        after, more = 0, True
        while more and not backlog.has_share(lanes):
            page = await self._engine.store.ready(after, PAGE, True)
            held = {address for worker in self._pool.workers for address in worker.entities}
            for found in page:
                address = (found.hub, found.id)
                if address not in held and (lanes is None or (found.hub, found.name) in lanes):
                    self._offer(address, Group(found.name, "", hub=found.hub))
            more = len(page) == PAGE
            after = page[-1].key if page else after

    def unqueue(self, actor: Actor) -> None:
        """An entity is gone: it waits no longer, and its batch is void."""
        self.recall(actor)
        self._pool.entities.discard(actor.address)

    # ------------------------------------------------------------ out

    def assign(self, address: Address, worker: Worker) -> None:
        """Give an entity to a worker, as soon as its actor is between two steps."""
        actor = self._engine.actor(address)
        actor.holder = worker
        self._engine.wake(actor)

    def before_commands(self, actor: Actor) -> asyncio.Future[None] | None:
        """Hand out what may run on an entity that was assigned. Returns what must be awaited first, or None."""
        if actor.holder is None or actor.batch is not None:
            return None
        if actor.state is None or not actor.state.instance.ready:
            self.recall(actor)
            return None
        if actor.output is None or actor.output[0] != actor.state.instance.revision:
            return asyncio.ensure_future(self._read(actor, actor.state.instance))
        self._hand_out(actor, actor.state, actor.output[1], actor.holder)
        return None

    async def _read(self, actor: Actor, instance: Instance) -> None:
        _, text = await self._engine.store.payloads(instance.key)
        actor.output = (instance.revision, text)

    def _hand_out(self, actor: Actor, state: State, text: str | None, worker: Worker) -> None:
        clock, instance = self._engine.clock, state.instance
        actor.output = None
        room = worker.max_bytes - (0 if text is None else len(text.encode()))
        most = 1 if actor.slow else entity.BATCH_OPERATIONS
        batch = entity.next_batch(state, f"e.{clock.new_id()}", room, most)
        too_large = worker.send(EntityItem(instance.id, text, tuple(row.event for row in batch.rows), batch.token))
        if too_large:
            self.recall(actor)
            log.warning("entity waits for a worker that can receive it", entity=instance.id, bytes=too_large)
            self._offer(actor.address, Group(instance.name, "", too_large, hub=instance.hub))
            return
        actor.batch, actor.deadline = batch, clock.monotonic() + self._timeout
        self.out[actor.address] = self._by_token[batch.token] = actor

    def holder(self, token: str) -> Actor | None:
        """Return the entity of which a worker has the batch with this token, or None."""
        return self._by_token.get(token)

    def batch(self, actor: Actor, token: str) -> Batch | None:
        """Return the batch that a worker answers, if it is the one that is out."""
        return actor.batch if actor.batch is not None and actor.batch.token == token else None

    def done(self, actor: Actor) -> None:
        """A worker has run what it had of an entity: its slot is free again, and pauses begin anew."""
        actor.slow = False
        self._refusals.done(actor.address)
        self.recall(actor)

    def recall(self, actor: Actor) -> None:
        """Void the batch that is out, or assigned, and free its slot."""
        if actor.holder is None or actor.address not in actor.holder.entities:
            return
        del actor.holder.entities[actor.address]
        if actor.batch is not None:
            self._by_token.pop(actor.batch.token, None)
        actor.batch = actor.holder = None
        self.out.pop(actor.address, None)
        self._pump()

    def give_back(self, actor: Actor) -> None:
        """Queue the batch of a worker that is gone, or took too long."""
        self.recall(actor)
        if actor.loaded and actor.state is not None:
            self.queue(actor, actor.state.instance)
        else:
            self._engine.wake(actor)

    def decline(self, actor: Actor) -> None:
        """Queue a batch that came to nothing: others may have it at once, this worker after a pause."""
        if actor.holder is not None:
            self._refusals.refuse(actor.address, actor.holder.name)
        self.give_back(actor)

    def forget_refusals(self, actor: Actor) -> None:
        """An entity is gone: one that takes its ID is another."""
        self._refusals.forget(actor.address)

    # ------------------------------------------------------------ time

    def left(self, worker: Worker) -> None:
        """Queue all that a worker had which is gone."""
        self._refusals.left(worker.name)
        for address in list(worker.entities):
            self.give_back(self._engine.actor(address))

    def sweep(self) -> None:
        """Hand out again what took longer than it may, one operation at a time, and what has paused."""
        now = self._engine.clock.monotonic()
        for actor in [actor for actor in self.out.values() if actor.deadline <= now]:
            log.warning("operations of an entity timed out", entity=actor.address[1], seconds=self._timeout)
            actor.slow = True
            self.give_back(actor)
        for address in self._refusals.over():
            self._pool.entities.regroup(address, self._refusals.of(address))
            self._pump()
