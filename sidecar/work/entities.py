"""Operations of entities for the own workers: entities that have some, and the batches that a worker has.

The state of an entity is read for each batch and not kept: it may be large, and entities that do nothing cost nothing.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from sidecar.actors.engine import Actor, Address, Engine
from sidecar.core.entity import entity
from sidecar.core.entity.entity import Batch
from sidecar.core.model import Instance, State
from sidecar.core.work_items import EntityItem
from sidecar.work.leases import ActorLeases
from sidecar.work.pool import Pool, Worker

log = structlog.get_logger(__name__)


class EntityWork(ActorLeases):
    """Hands batches to workers and takes them back."""

    def __init__(self, engine: Engine, pool: Pool, **options: Any) -> None:
        super().__init__(engine, pool, pool.entities, entities=True, **options)
        self._by_token: dict[str, Actor] = {}

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
            self._offer(actor.address, self._group_of(instance, too_large))
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
        actor.slow = max(0, actor.slow - 1)
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

    def _crashed(self, actor: Actor, worker: Worker) -> None:
        self._one_by_one(actor)
        super()._crashed(actor, worker)

    def _one_by_one(self, actor: Actor) -> None:
        """Let the operations that are out go one by one, so that those before the one at fault get through."""
        actor.slow = max(actor.slow, 0 if actor.batch is None else len(actor.batch.rows))

    def _held(self, worker: Worker) -> Iterable[Address]:
        return worker.entities

    def _late(self, actor: Actor) -> None:
        log.warning("operations of an entity timed out", entity=actor.address[1], seconds=self._timeout)
        self._one_by_one(actor)
