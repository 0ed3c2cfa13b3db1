"""Reminders that arrive at own workflows: what is read before they are decided, and what is said of their outcome.

What one actor sends to another arrives in its order. So behind a delivery that takes longer, since something must be
read first, or that has failed, those for the same actor wait.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.id_reuse import LOOK, running_child, unknown_children
from sidecar.actors.residents import Address
from sidecar.actors.trees import REACH_SECONDS, Branch, TreeOptions, Trees, UnreachableError
from sidecar.core.delivery import Arrival, arrive, must_look
from sidecar.core.identity import Context
from sidecar.core.model import Child, Decision, Kind, Outcome, Position, Reminder, Reply, State, Status
from sidecar.core.workflow.called_again import is_same_call
from sidecar.core.workflow.rewind import Record
from sidecar.store.protocol import UnavailableError

_READ_FIRST = (Kind.PURGE, Kind.REWIND)  # commands that need more of their instance than its state
_BY_FORCE = b"force"  # payload of an order to purge a child even if it runs
_MOST_TRIES = 8
_AGAIN_SECONDS = 1.0  # until a reminder that could not be decided is tried again
_REACH_SECONDS = 0.1  # an app without a link is not waited for: other reminders would wait too, and there is a next try
_HELD = Reply(Outcome.UNAVAILABLE, "what came before it is not delivered yet")
log = structlog.get_logger(__name__)


def note_dropped(reminder: Reminder, reply: Reply) -> None:
    """Log that a reminder was answered with a refusal that nobody will hear of."""
    if reminder.kind is Kind.DETACHED and reply.outcome in (Outcome.EXISTS, Outcome.INVALID):
        log.warning("detached workflow not started", instance=reminder.target.id, why=reply.text)
    elif reply.outcome in (Outcome.MISSING, Outcome.DENIED, Outcome.INVALID):
        log.info("reminder dropped", kind=reminder.kind.name, instance=reminder.target.id, why=reply.text)


class Reminders:
    """Hands reminders to the actors of own workflows."""

    def __init__(self, engine: Engine, trees: Trees) -> None:
        self._engine = engine
        self._trees = trees
        self._held: dict[Address, list[Reminder]] = {}  # what waits behind another, by target
        self._reading: dict[Address, int] = {}  # the one that something is read for, by target
        self.others: dict[Kind, Callable[[Reminder], asyncio.Future[None]]] = {}  # who takes what is for no instance

    def deliver(self, reminder: Reminder) -> "asyncio.Future[Any] | None":
        """Deliver a reminder of this app that is due; return the outcome to come, if it is soon there."""
        if reminder.kind in self.others:
            return self.others[reminder.kind](reminder)
        arrival, address = Arrival(reminder, consumed=(reminder.id,)), _address(reminder)
        if self._reading.get(address) == reminder.id:
            return None
        if address in self._held:
            self._held[address].append(reminder)
        elif reminder.kind in _READ_FIRST:
            self._read_first(arrival)
        else:
            future = self._engine.submit(address, lambda at, state: self._in_order(at, state, arrival))
            future.add_done_callback(lambda done: self._delivered(arrival, done))
            return future
        return None

    def release(self) -> None:
        """Forget what waits: after a failure all of it is read from the store again."""
        self._held = {address: [] for address in self._reading}

    def _read_first(self, arrival: Arrival) -> None:
        address = _address(arrival.reminder)
        self._held[address] = []
        self._reading[address] = arrival.reminder.id
        self._engine.side.spawn(self._deliver_read(arrival), "deliver what is read first")

    def _in_order(self, at: Context, state: State | None, arrival: Arrival) -> Decision:
        if _address(arrival.reminder) in self._held:
            return Decision(None, _HELD)
        decision = _decide(at, state, arrival)
        if decision.reply is LOOK:
            self._read_first(arrival)
        return decision

    def _submit(self, arrival: Arrival) -> "asyncio.Future[Reply]":
        return self._engine.submit(_address(arrival.reminder), lambda at, state: _decide(at, state, arrival))

    async def take(self, arrival: Arrival) -> Reply:
        """Take a reminder in; what it needs of its instance is read first. Raises UnavailableError.

        UNAVAILABLE: an app that has children of the instance cannot be reached, so it is to be tried again.
        """
        try:
            reply = await self._decided(arrival)
        except UnreachableError as error:
            return Reply(Outcome.UNAVAILABLE, unknown_children(arrival.reminder.target.id, str(error)))
        note_dropped(arrival.reminder, reply)
        return reply

    async def _decided(self, arrival: Arrival) -> Reply:
        """Submit an arrival, with what is found to be missing for it, until it is decided."""
        arrival = await self._read(arrival)
        reply = await self._submit(arrival)
        tries = 1
        while reply.outcome is Outcome.UNAVAILABLE and tries < _MOST_TRIES:
            tries += 1
            arrival = await (self._look(arrival) if reply is LOOK else self._read(arrival))
            reply = await self._submit(arrival)
        return reply

    async def _deliver_read(self, arrival: Arrival) -> None:
        """Deliver a reminder, and try again for as long as it cannot be decided."""
        clock, address = self._engine.clock, _address(arrival.reminder)
        try:
            while (reply := await self.take(arrival)).outcome is Outcome.UNAVAILABLE:
                log.info("reminder waits", kind=arrival.reminder.kind.name, why=reply.text)
                await clock.sleep(clock.jitter(_AGAIN_SECONDS))
        except UnavailableError:
            self._engine.effects.store_failed()  # it is due still, and is found again
            return
        except Exception as error:
            _leave_alone(arrival.reminder, error)
        finally:
            del self._reading[address]
        for reminder in self._held.pop(address, ()):
            self.deliver(reminder)

    async def _read(self, arrival: Arrival) -> Arrival:
        """Return a command with what must be read of its instance to decide it; what it removes first is removed.

        Raises UnavailableError and UnreachableError.
        """
        if arrival.reminder.kind is Kind.REWIND:
            return replace(arrival, record=await self.record(_address(arrival.reminder)))
        if arrival.reminder.kind is Kind.PURGE:
            await self._remove(arrival.reminder)
        return arrival

    async def _look(self, arrival: Arrival) -> Arrival:
        """Return an arrival with what it needs of an instance that has ended.

        That is what runs below it if its place is to be taken, or its output if it is to answer again.

        Raises UnavailableError and UnreachableError.
        """
        state = await self._engine.store.load(*_address(arrival.reminder))
        if state is None:
            return arrival
        instance = state.instance
        if is_same_call(state, arrival.reminder):
            _, output = await self._engine.store.payloads(instance.key)
            return replace(arrival, record=Record(instance.last_completed_turn, instance.execution, output=output))
        running = await running_child(self._trees, instance, REACH_SECONDS, _REACH_SECONDS)
        return replace(arrival, looked=instance.key, blocked=running)

    async def _remove(self, order: Reminder) -> None:
        """Remove a child, with what is below it, as the sidecar of its parent orders; nothing of it may run."""
        tops = await self._trees.own([Branch(order.source, Child(order.target, order.call))])
        options = TreeOptions(order.payload == _BY_FORCE, self._trees.until(REACH_SECONDS), _REACH_SECONDS)
        await self._trees.remove(tops, options, look_first=True)

    async def record(self, address: Address, *, log: bool = False) -> Record | None:
        """Return what is stored of an instance beside its state, or None when there is none. Raises UnavailableError.

        The log is read if it is asked for, or if the instance has failed and may be rewound.
        """
        store = self._engine.store
        state = await store.load(*address)
        if state is None:
            return None
        instance = state.instance
        events: list[bytes] = []
        if log or instance.status is Status.FAILED:
            events = await store.events(instance.key, Position(0, -1), instance.last_completed_turn)
        _, output = await store.payloads(instance.key)
        children = tuple(await store.children(instance.key))
        lineage = await store.lineage(instance.key) if instance.lineage else b""
        return Record(instance.last_completed_turn, instance.execution, events, children, output, lineage)

    def _delivered(self, arrival: Arrival, done: "asyncio.Future[Reply]") -> None:
        if done.cancelled():
            return
        error, reminder = done.exception(), arrival.reminder
        if isinstance(error, UnavailableError):
            log.warning("delivery failed", kind=reminder.kind.name, instance=reminder.target.id, error=str(error))
            self._held.setdefault(_address(reminder), [])
            self._engine.effects.store_failed()
        elif error is not None:
            _leave_alone(reminder, error)
        elif done.result() is _HELD:
            self.deliver(reminder)
        elif done.result() is not LOOK:
            note_dropped(reminder, done.result())


def _leave_alone(reminder: Reminder, error: BaseException) -> None:
    """Log that the store is sound and a reminder, or its instance, is not; the timers find it again in minutes."""
    log.error(
        "a reminder cannot be delivered",
        kind=reminder.kind.name,
        number=reminder.id,
        instance=reminder.target.id,
        error=str(error) or type(error).__name__,
    )


def _address(reminder: Reminder) -> Address:
    return (reminder.target.hub, reminder.target.id)


def _decide(at: Context, state: State | None, arrival: Arrival) -> Decision:
    decision = arrive(at, state, arrival)
    return Decision(None, LOOK) if must_look(decision, state, arrival) else decision
