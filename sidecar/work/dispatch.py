"""What follows from commits: work for workers, wake-ups for own workflows, messages for other apps.

All of it is a hint over the store and can be read again.
"""

import asyncio
from typing import NamedTuple, Protocol

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.reminders import Reminders
from sidecar.actors.residents import Actor
from sidecar.actors.timers import Timers
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.causes import Cause
from sidecar.core.model import ActorId, Changes, Instance, Kind, Reminder
from sidecar.store.protocol import UnavailableError
from sidecar.work import takers
from sidecar.work.activities import ActivityWork
from sidecar.work.departures import Departures, Living
from sidecar.work.entities import EntityLease, EntityWork
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Lane
from sidecar.work.turns import TurnLease, TurnWork
from sidecar.work.workers import Worker

_RETRY_SECONDS = 1.0
log = structlog.get_logger(__name__)


class Outgoing(Protocol):
    """Where reminders for other apps leave."""

    def offer(self, reminder: Reminder) -> None:
        """Take a reminder that was committed."""

    def discard(self, reminder_id: int) -> None:
        """Forget a reminder that was dropped."""

    def why(self, target: ActorId, reminder_id: int) -> Cause | None:
        """Say why a reminder for another app has not left; None if it has, or is on its way."""

    async def reload(self) -> None:
        """Read what is to be sent from the store again."""


class Timeouts(NamedTuple):
    """In how many seconds workers must answer, until an item is handed out again; None: in any time."""

    turn: float
    activity: float | None
    entity: float | None


class Dispatch:
    """Implements `engine.Effects`."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        reminders: Reminders,
        outbox: Outgoing,
        *,
        timeouts: Timeouts,
        delivery_limit: DeliveryLimit,
        living: Living,
    ) -> None:
        self.engine = engine
        self.pool = pool
        self.reminders = reminders
        self.timers = Timers(engine.store, engine.clock, reminders.deliver)
        self.outbox = outbox
        self.turns = TurnWork(engine, pool, timeout=timeouts.turn, delivery_limit=delivery_limit, pump=self.pump)
        self.entities = EntityWork(engine, pool, timeout=timeouts.entity, delivery_limit=delivery_limit, pump=self.pump)
        self.activities = ActivityWork(engine, pool, delivery_limit=delivery_limit, pump=self.pump)
        self._activity_timeout = timeouts.activity
        self.departures = Departures(engine, pool, self.turns, self.entities, self.activities, living=living)
        self.watch = takers.Watch(engine.clock.now)
        self._pumping = False
        self._recovering = False

    # ------------------------------------------------------------ effects

    def reminder_set(self, reminder: Reminder) -> None:
        """See `Effects`."""
        if not self.engine.me.owns(reminder.target):
            self.outbox.offer(reminder)
        elif reminder.kind is Kind.ACTIVITY:
            self.activities.queue(reminder)
        else:
            self.timers.add(reminder)

    def reminder_dropped(self, reminder_id: int) -> None:
        """See `Effects`."""
        self.timers.discard(reminder_id)
        self.outbox.discard(reminder_id)
        self.activities.discard(reminder_id)

    def committed(self, actor: Actor, changes: Changes) -> None:
        """See `Effects`."""
        instance = changes.instance
        idle = instance is not None and (instance.suspended or instance.status.terminal or instance.crashes.quarantined)
        self.turns.committed(actor, changes)
        if instance is None or changes.replaces or idle:
            self.entities.unqueue(actor)
            self.turns.unqueue(actor)
        if instance is None or changes.replaces or changes.reopened:
            self.turns.pasts.forget(actor.address)
        if instance is None or changes.replaces or instance.status.terminal:
            self.turns.refusals.forget(actor.address)
            self.entities.refusals.forget(actor.address)
        if instance is not None:
            self._queue(actor, instance)

    def loaded(self, actor: Actor) -> None:
        """See `Effects`."""
        self.turns.loaded(actor)
        self.entities.loaded(actor)
        if actor.state is not None:
            self._queue(actor, actor.state.instance)

    def forgotten(self, actor: Actor) -> None:
        """See `Effects`."""
        self.entities.forgotten(actor)
        self.turns.recall(actor)
        self.turns.pasts.forget(actor.address)

    def relieve(self) -> None:
        """Drop from memory what can be read again."""
        self.turns.pasts.drop()
        self.activities.at_hand.clear()
        self.timers.at_hand.clear()
        self.engine.residents.drop_idle()

    def store_failed(self) -> None:
        """See `Effects`."""
        if not self._recovering:
            self._recovering = True
            self.engine.side.spawn(self._recover(), "recover after a failed commit")

    async def _recover(self) -> None:
        store = self.engine.store
        if store.trouble:
            await store.recovered()
            self.engine.drop_all()
        else:
            await self.engine.clock.sleep(_RETRY_SECONDS)
        self._recovering = False
        self.reminders.release()
        self.timers.reload()
        try:
            await self.outbox.reload()
        except UnavailableError:
            self.store_failed()
            return
        await self.refill()

    # ------------------------------------------------------------ queues

    def _queue(self, actor: Actor, instance: Instance) -> None:
        if instance.entity:
            self.entities.queue(actor, instance)
        else:
            self.turns.queue(actor, instance)

    async def refill(
        self,
        turns: frozenset[Lane] | None = None,
        activities: frozenset[Lane] | None = None,
        entities: frozenset[Lane] | None = None,
    ) -> None:
        """Read waiting work of these lanes (None: of all) from the store: at the start, and after a failure."""
        try:
            await self.turns.refill(turns)
            await self.activities.refill(activities)
            await self.entities.refill(entities)
        except UnavailableError as error:
            log.warning("cannot read waiting work", error=str(error))
            self.store_failed()
        self.pump()

    def pump(self) -> None:
        """Hand out work, once what is going on in this moment is over."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self.engine.store.trouble:
            return  # what is done now could not be stored; all is read again afterwards
        for worker, item, since in self.pool.assign():
            if isinstance(item, int):
                self.activities.hand_out(worker, item, since)
            elif item in worker.entities:
                self.entities.assign(item, worker)
            else:
                self.turns.assign(item, worker)
        self._read_more()

    def _read_more(self) -> None:
        pool = self.pool
        wanted = pool.turns.wanted(), pool.activities.wanted(), pool.entities.wanted()
        if any(lanes is None or lanes for lanes in wanted):
            pool.turns.refilling(wanted[0])
            pool.activities.refilling(wanted[1])
            pool.entities.refilling(wanted[2])
            self.engine.side.spawn(self.refill(*wanted), "refill")

    def before_commands(self, actor: Actor) -> asyncio.Future[None] | None:
        """See `Effects`."""
        if isinstance(actor.lease, EntityLease):
            return self.entities.before_commands(actor, actor.lease)
        return self.turns.before_commands(actor, actor.lease) if isinstance(actor.lease, TurnLease) else None

    # ------------------------------------------------------------ workers

    def add_worker(self, worker: Worker) -> None:
        """Take a worker in; it gets work at once."""
        self.departures.came(worker)
        self.pool.add(worker)
        self.pump()

    def remove_worker(self, worker: Worker, *, farewell: bool = False) -> None:
        """Let a worker go; all that it had goes back to the queues.

        It is lost unless it has said goodbye or has left for another known reason (`farewell`), or this sidecar stops.
        """
        self.departures.remove(worker, farewell=farewell)

    def active(self) -> tuple[int, int]:
        """Return how many workflows and entities are out or waiting, and how many activities run or wait."""
        workflows = len(self.turns.out) + len(self.pool.turns) + len(self.entities.out) + len(self.pool.entities)
        return workflows, len(self.activities.leases) + len(self.pool.activities)

    def busy(self) -> bool:
        """Whether a worker has anything."""
        return bool(self.turns.out or self.activities.leases or self.entities.out)

    async def sweep(self) -> None:
        """Once a second, for ever: hand out again what took longer than it may, or was given back."""
        while True:
            await self.engine.clock.sleep(1.0)
            if self.engine.store.trouble:
                self.store_failed()
            self.departures.decide()
            self.turns.sweep()
            self.activities.sweep(self._activity_timeout)
            self.entities.sweep()
            self.watch.look(self.pool)
