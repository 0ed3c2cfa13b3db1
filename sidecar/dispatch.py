"""What follows from commits: work for workers, wake-ups for own workflows, messages for other apps.

Owns which worker has which turn and which activity. All of it is a hint over the store and can be read again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Protocol

import structlog

from sidecar.activities import Activities
from sidecar.core import turn as turns
from sidecar.core.items import Past, TurnItem
from sidecar.core.model import (
    Changes,
    Instance,
    Kind,
    Position,
    Reminder,
    Rewind,
    State,
    Turn,
)
from sidecar.deliveries import Deliveries
from sidecar.engine import Actor, Address, Engine
from sidecar.store.protocol import UnavailableError
from sidecar.timers import Timers
from sidecar.workers import Pool, Rewinds, Worker

PAST_BYTES = 128 * 1024 * 1024
_RETRY_SECONDS = 1.0
log = structlog.get_logger(__name__)


class Outbox(Protocol):
    """Where reminders for other apps leave."""

    def offer(self, reminder: Reminder) -> None:
        """Take a reminder that was committed."""

    def discard(self, reminder_id: int) -> None:
        """Forget a reminder that was dropped."""

    async def reload(self) -> None:
        """Read what is to be sent from the store again."""


class Dispatch:
    """Implements `engine.Effects`."""

    def __init__(self, engine: Engine, outbox: Outbox, *, turn_timeout: float, activity_timeout: float | None) -> None:
        self.engine = engine
        self.pool = Pool()
        self.activities = Activities(
            engine.store,
            engine.clock,
            self.pool,
            spawn=self.spawn,
            pump=self.pump,
            store_failed=self.store_failed,
        )
        self.deliveries = Deliveries(engine, self.pool, spawn=self.spawn, store_failed=self.store_failed)
        self.timers = Timers(engine.store, engine.clock, self.deliveries.deliver)
        self.outbox = outbox
        self._turn_timeout = turn_timeout
        self._activity_timeout = activity_timeout
        self._out: dict[Address, Actor] = {}
        self._pasts: OrderedDict[Address, int] = OrderedDict()
        self._past_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
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
        if instance is None or changes.replaces or instance.suspended or instance.status.terminal:
            self.recall(actor)
            self.pool.turns.discard(actor.address)
        if instance is None or changes.replaces or changes.reopened:
            self._forget_past(actor)
        if instance is not None:
            self._queue_turn(actor, instance)

    def loaded(self, actor: Actor) -> None:
        """See `Effects`."""
        if actor.state is not None:
            self._queue_turn(actor, actor.state.instance)

    def forgotten(self, actor: Actor) -> None:
        """See `Effects`."""
        self.recall(actor)
        self._forget_past(actor)

    def store_failed(self) -> None:
        """See `Effects`."""
        if not self._recovering:
            self._recovering = True
            self.spawn(self._recover(), "recover after a failed commit")

    async def _recover(self) -> None:
        await self.engine.clock.sleep(_RETRY_SECONDS)
        self._recovering = False
        self.timers.reload()
        try:
            await self.outbox.reload()
        except UnavailableError:
            self.store_failed()
            return
        await self.refill()

    # ------------------------------------------------------------ queues

    def _queue_turn(self, actor: Actor, instance: Instance) -> None:
        if instance.ready and actor.turn is None and actor.holder is None:
            asked = instance.rewind is Rewind.ASKED
            version = instance.version or ""
            self.pool.turns.offer(actor.address, instance.name, version, hub=instance.hub, rewind=asked)
            self.pump()

    async def refill(self) -> None:
        """Read waiting work from the store: at the start, after a failure, and when a queue had overflowed."""
        pool = self.pool
        try:
            found = await self.engine.store.ready(0, pool.turns.limit)
            pool.turns.complete = len(found) < pool.turns.limit
            for key in found:
                actor = self.engine.actor((key.hub, key.id))
                if actor.turn is None and actor.holder is None:
                    pool.turns.offer(actor.address, key.name, key.version or "", hub=key.hub)
            await self.activities.refill()
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
        for worker, item in self.pool.assign():
            if isinstance(item, int):
                self.activities.hand_out(worker, item)
            else:
                self._assign_turn(item, worker)
        if self.pool.turns.wants_refill or self.pool.activities.wants_refill:
            self.pool.turns.complete = self.pool.activities.complete = True
            self.spawn(self.refill(), "refill")

    # ------------------------------------------------------------ turns

    def _assign_turn(self, address: Address, worker: Worker) -> None:
        actor = self.engine.actor(address)
        actor.holder = worker
        self.engine.wake(actor)

    def before_commands(self, actor: Actor) -> asyncio.Future[None] | None:
        """See `Effects`."""
        if actor.holder is None or actor.turn is not None:
            return None
        if actor.state is None or not actor.state.instance.ready:
            self.recall(actor)
            return None
        if actor.past is None:
            return asyncio.ensure_future(self._read_past(actor, actor.state.instance))
        self._hand_out_turn(actor, actor.state, actor.past, actor.holder)
        return None

    async def _read_past(self, actor: Actor, instance: Instance) -> None:
        actor.past = Past(await self.engine.store.events(instance.key, Position(0, -1), instance.covered))

    def _hand_out_turn(self, actor: Actor, state: State, past: Past, worker: Worker) -> None:
        instance, clock = state.instance, self.engine.clock
        size = past.size + sum(len(row.event) for row in state.inbox)
        asked = instance.rewind is Rewind.ASKED
        if size > worker.max_bytes or (asked and worker.rewinds() is Rewinds.NO):
            self.recall(actor)
            name, version, size = instance.name, instance.version or "", size if size > worker.max_bytes else 0
            self.pool.turns.offer(actor.address, name, version, size, hub=instance.hub, rewind=asked)
            return
        turn = turns.begin(state, clock.now(), f"t.{clock.new_id()}")
        state.tail = turns.after(state, turn)
        actor.turn, actor.deadline = turn, clock.monotonic() + self._turn_timeout
        self._out[actor.address] = actor
        self._remember_past(actor, past)
        new = [turn.started, *(row.event for row in turn.rows)]
        token = f"{turn.token}.{actor.address[0]}"
        worker.send(TurnItem(instance.id, instance.execution, past, new, token, asked))

    def take_turn(self, actor: Actor, token: str, peer: str) -> Turn | None:
        """Take the turn that a worker answers, if it is the one that is out; its slot is free again.

        An SDK that echoes no token must answer over the connection that it got the turn on.
        """
        turn, holder = actor.turn, actor.holder
        if turn is None or holder is None:
            return None
        if token != f"{turn.token}.{actor.address[0]}" and (token or holder.peer != peer):
            return None
        self.recall(actor)
        return turn

    def turn_done(self, actor: Actor, turn: Turn, changes: Changes) -> None:
        """Move the past of an instance over a completed turn."""
        if actor.past is None or changes.instance is None:
            return
        if changes.truncate is not None:
            self._forget_past(actor)
            actor.past = Past([])
            return
        covered = changes.instance.covered
        rows = sorted((*turn.rows, *(row for row in changes.append if row.turn <= covered)))
        actor.past.add(row.event for row in rows)

    def holders(self) -> list[Actor]:
        """Return the instances of which a worker has a turn."""
        return list(self._out.values())

    def recall(self, actor: Actor) -> None:
        """Void the turn that is out, or assigned, and free its slot."""
        if actor.holder is not None:
            actor.holder.turns.pop(actor.address, None)
            self.pump()
        actor.turn = actor.holder = None
        self._out.pop(actor.address, None)

    def give_back_turn(self, actor: Actor) -> None:
        """Queue the turn of a worker that is gone, gave it up, or took too long."""
        self.recall(actor)
        if actor.loaded and actor.state is not None:
            self._queue_turn(actor, actor.state.instance)
        else:
            self.engine.wake(actor)

    def _remember_past(self, actor: Actor, past: Past) -> None:
        """Count the past of an instance as used just now; drop others when all are too large."""
        self._past_bytes += past.size - self._pasts.pop(actor.address, 0)
        self._pasts[actor.address] = past.size
        while self._past_bytes > PAST_BYTES and len(self._pasts) > 1:
            address, size = self._pasts.popitem(last=False)
            self._past_bytes -= size
            self.engine.actor(address).past = None

    def _forget_past(self, actor: Actor) -> None:
        actor.past = None
        self._past_bytes -= self._pasts.pop(actor.address, 0)

    # ------------------------------------------------------------ workers

    def add_worker(self, worker: Worker) -> None:
        """Take a worker in; it gets work at once."""
        self.pool.workers.append(worker)
        self.pump()

    def remove_worker(self, worker: Worker) -> None:
        """Let a worker go; all that it had goes back to the queues."""
        self.pool.remove(worker)
        for address in list(worker.turns):
            self.give_back_turn(self.engine.actor(address))
        for reminder_id in list(worker.activities):
            self.activities.give_back(reminder_id)

    def active(self) -> tuple[int, int]:
        """Return how many workflows have a turn out or waiting, and how many activities run or wait."""
        turns_, activities = (
            len(self._out) + len(self.pool.turns),
            len(self.activities.leases) + len(self.pool.activities),
        )
        return turns_, activities

    def busy(self) -> bool:
        """Whether a worker has anything."""
        return bool(self._out or self.activities.leases)

    async def sweep(self) -> None:
        """Once a second, for ever: hand out again what took longer than it may."""
        clock = self.engine.clock
        while True:
            await clock.sleep(1.0)
            now = clock.monotonic()
            for actor in [actor for actor in self._out.values() if actor.deadline <= now]:
                log.warning("turn timed out", instance=actor.address[1], seconds=self._turn_timeout)
                self.give_back_turn(actor)
            limit = self._activity_timeout
            for lease in [] if limit is None else self.activities.late(limit):
                log.warning("activity timed out", activity=lease.reminder.name, seconds=limit)
                self.activities.give_back(lease.reminder.id)

    # ------------------------------------------------------------ side tasks

    def spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run something on the side, and log it if it fails."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("side task failed", task=task.get_name(), exc_info=task.exception())
