"""What clients may ask of a sidecar, whatever the protocol they ask it in."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import structlog
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.engine import Engine
from sidecar.actors.id_reuse import replacing
from sidecar.actors.residents import Actor, Address, Decide
from sidecar.actors.trees import Trees
from sidecar.core import events, operations
from sidecar.core.causes import Cause
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Instance, Parent, Position, Reply, State
from sidecar.core.policy import Operation
from sidecar.core.receipts import Received
from sidecar.core.workflow import pauses
from sidecar.services.access import Access
from sidecar.services.waiting import Waiting
from sidecar.work.turns import as_shown

log = structlog.get_logger(__name__)
_EVERYTHING = 1 << 60  # behind every turn
_FIRST_TURN_SECONDS = 1.0  # no command waits longer for a worker: what a worker does is never needed to end something
_START_SECONDS = 0.25  # the same for who waits for a start: what the first turn sets is seen with it
_LONGEST_NUMBER = 18  # digits of an order number: any such number fits a column


class Caller(NamedTuple):
    """On whose behalf a command is given: the own app, or another app that has proved who it is.

    `dedup_keys` name the message that brought it: they are stored with what it does, so that it has its effect once.
    """

    app: str = ""
    dedup_keys: tuple[Received, ...] = ()


OWN = Caller()


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance as a client sees it."""

    instance: Instance
    input: str | None
    output: str | None
    causes: tuple[Cause, ...] = ()  # why it waits, as far as that is known

    @property
    def parent(self) -> Parent | None:
        """The call that created it."""
        return self.instance.parent


class ClientService:
    """What clients may ask of the workflows of one sidecar; `run_again.py` has what lets an ended one run again."""

    def __init__(self, engine: Engine, trees: Trees, access: Access, waiting: Waiting) -> None:
        self.engine = engine
        self.waiting = waiting
        self.trees = trees
        self.access = access

    async def start(self, request: operations.Start, caller: Caller = OWN, seconds: float | None = None) -> Reply:
        """Start an instance, for a caller who waits so many seconds."""
        self.access.check(caller.app, Operation.SCHEDULE, request.started.name)

        def takes_ended(existing: Instance) -> bool:
            ended = operations.takes_ended(self.engine.me, existing, request)
            if ended:  # asked before its children are looked at: what is found is told
                self.access.check_replacing(caller.app, existing)
            return ended

        return await replacing(
            self.trees,
            (request.identity.hub, request.identity.id),
            takes_ended,
            with_dedup_keys(caller, self._starting(caller, request)),
            seconds,
        )

    def _starting(self, caller: Caller, request: operations.Start) -> Decide:
        """Return the decision over a start."""

        def decide(at: Context, state: State | None) -> Decision:
            decision = operations.start(at, state, request)
            if decision.changes is not None and state is not None:
                self.access.check_replacing(caller.app, state.instance)
            return decision

        return decide

    async def _command(self, caller: Caller, operation: Operation, address: Address, decide: Decide) -> Reply:
        def checked(at: Context, state: State | None) -> Decision:
            self.access.check(caller.app, operation, None if state is None else state.instance.name)
            return decide(at, state)

        return await self.engine.submit(address, with_dedup_keys(caller, checked))

    async def instance(self, address: Address) -> Instance | None:
        """Return the row of an instance as it reads, or None."""
        state = await self.state(address)
        return None if state is None else as_shown(self.engine, state.instance)

    async def state(self, address: Address) -> State | None:
        """Return the state of an instance, which only the engine may change, or None."""
        seen: list[State | None] = []

        def look(at: Context, state: State | None) -> Decision:
            seen.append(state)
            return Decision(None, DONE)

        await self.engine.submit(address, look)
        return seen[0] if seen else None

    async def _shown(self, address: Address, caller: Caller) -> State | None:
        """Return the state of an instance, or None. Raises DeniedError: the caller may not see it."""
        state = await self.state(address)
        self.access.check(caller.app, Operation.GET, None if state is None else state.instance.name)
        return state

    async def view(self, address: Address, payloads: bool, caller: Caller = OWN) -> InstanceView | None:
        """Return an instance, with its input and output if asked for, or None."""
        state = await self._shown(address, caller)
        if state is None:
            return None
        instance, causes = as_shown(self.engine, state.instance), self.waiting.of_state(state)
        if not payloads:
            return InstanceView(instance, None, None, causes)
        started, output = await self.engine.store.payloads(instance.key)
        return InstanceView(instance, input_of(started), output, causes)

    async def wait(
        self, address: Address, *, ended: bool, payloads: bool, missing: bool = False, caller: Caller = OWN
    ) -> InstanceView | None:
        """Wait until an instance has ended, or has begun, and return it.

        None at once when there is none, unless `missing` says to wait for one that is not there yet.
        """
        await self._shown(address, caller)
        while True:
            changed = self.engine.watch(address)
            try:
                instance = await self.instance(address)
                missing = missing and instance is None
                if not missing if instance is None else _reached(instance, ended):
                    if not ended:  # its custom status is looked at next
                        await self._first_turn_answered(address, _START_SECONDS)
                    return await self.view(address, payloads, caller)
                await changed
            finally:
                changed.cancel()

    async def raise_event(self, address: Address, name: str, data: StringValue | None, caller: Caller = OWN) -> Reply:
        """Send an external event to an instance."""
        return await self._command(
            caller, Operation.RAISE, address, partial(operations.raise_event, name=name, data=data)
        )

    async def suspend(self, address: Address, reason: str | None, caller: Caller = OWN) -> Reply:
        """Pause an instance."""
        return await self._command(caller, Operation.PAUSE, address, partial(pauses.suspend, reason=reason))

    async def resume(self, address: Address, reason: str | None, caller: Caller = OWN) -> Reply:
        """Let a paused instance go on."""
        return await self._command(caller, Operation.RESUME, address, partial(pauses.resume, reason=reason))

    async def terminate(self, address: Address, output: str | None, recurse: bool, caller: Caller = OWN) -> Reply:
        """End an instance; its first turn, if a worker has it, is taken to its end before (a second long at most)."""
        await self._first_turn_answered(address, _FIRST_TURN_SECONDS)
        return await self._command(
            caller, Operation.TERMINATE, address, partial(operations.terminate, output=output, recurse=recurse)
        )

    async def _first_turn_answered(self, address: Address, seconds: float) -> None:
        """Wait, not for long, while a worker has the first turn of an instance.

        SDKs' users expect that a terminate right after a start comes behind that turn: what it calls is called, and a
        recursive terminate finds its children.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while _has_first_turn_out(self.engine.actor(address)):
                    changed = self.engine.watch(address)
                    try:
                        await changed
                    finally:
                        changed.cancel()

    async def history(
        self, address: Address, *, for_turn: bool = False, execution: str = "", caller: Caller = OWN
    ) -> list[bytes] | None:
        """Return the log of an instance as its worker saw it, with its end, or None.

        What has arrived since the last turn is not in it while the instance runs: a worker that asks during a turn
        has that already. `for_turn`: only what the turn that is out stands on. `execution`: of this one or none.

        Raises:
            DeniedError: the caller may not see it.
        """
        state = await self._shown(address, caller)
        instance = None if state is None else as_shown(self.engine, state.instance)
        if instance is None or execution not in ("", instance.execution):
            return None
        ended = instance.status.terminal and not for_turn
        upto = _EVERYTHING if ended else instance.last_completed_turn
        log = await self.engine.store.events(instance.key, Position(0, -1), upto)
        if ended and instance.completed_at is not None:
            _, output = await self.engine.store.payloads(instance.key)
            log.append(events.execution_completed(instance, output, self.engine.me.app))
        return log


def with_dedup_keys(caller: Caller, decide: Decide) -> Decide:
    """Return the decision with the message that brought the command marked as received."""
    if not caller.dedup_keys:
        return decide

    def marked(at: Context, state: State | None) -> Decision:
        decision = decide(at, state)
        if decision.changes is None:
            return decision
        return replace(decision, changes=replace(decision.changes, received=caller.dedup_keys))

    return marked


def _has_first_turn_out(actor: Actor) -> bool:
    state = actor.state
    return actor.lease is not None and state is not None and not state.instance.last_completed_turn


def _reached(instance: Instance, ended: bool) -> bool:
    return instance.status.terminal or (not ended and instance.started_at is not None)


def input_of(started: bytes | None) -> str | None:
    """Return the input in the event that started an execution."""
    if started is None:
        return None
    begun = events.decode(started).execution_started
    return begun.input.value if begun.HasField("input") else None
