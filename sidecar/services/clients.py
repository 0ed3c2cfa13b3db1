"""What clients, workers and peers may ask of a sidecar, whatever the protocol they ask it in."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import structlog
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.dedup import DedupKeys
from sidecar.actors.engine import Actor, Address, Decide, Engine
from sidecar.actors.id_reuse import replacing
from sidecar.actors.store_outage import held
from sidecar.core import activities, delivery, events, operations
from sidecar.core.errors import DeniedError, MalformedError, OvertakenError
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Instance, Kind, Outcome, Parent, Position, Reminder, Reply, State
from sidecar.core.policy import Operation, Policy
from sidecar.core.receipts import Received
from sidecar.core.workflow import pauses, propagated_history
from sidecar.core.workflow import turn as turns
from sidecar.core.workflow.rewind import Record
from sidecar.core.workflow.stalls import StalledError
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.access import Access
from sidecar.store.protocol import Refusal, UnavailableError
from sidecar.work.dispatch import Dispatch

log = structlog.get_logger(__name__)
_EVERYTHING = 1 << 60  # behind every turn
_LONGEST_NUMBER = 18  # digits of an order number: any such number fits a column


class Caller(NamedTuple):
    """On whose behalf a command is given: the own app, or another app that has proved who it is.

    `marks` is the message that brought it, to be marked as received so that it has its effect once.
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

    @property
    def parent(self) -> Parent | None:
        """The call that created it."""
        return self.instance.parent


class Service:
    """The operations of one sidecar; `administration.py` has those that let what has ended run again."""

    def __init__(self, engine: Engine, dispatch: Dispatch, policy: Policy | None = None) -> None:
        self.engine = engine
        self.dispatch = dispatch
        self.dedup_keys = DedupKeys(engine)
        self.access = Access(policy)

    # ------------------------------------------------------------ clients

    async def start(self, request: operations.Start, caller: Caller = OWN, seconds: float | None = None) -> Reply:
        """Start an instance, for a caller who waits so many seconds."""
        self.access.check(caller.app, Operation.SCHEDULE, request.started.name)
        me = self.engine.me
        return await replacing(
            self.dispatch.trees,
            (request.identity.hub, request.identity.id),
            lambda existing: operations.takes_ended(me, existing, request),
            with_dedup_keys(caller, self._starting(caller, request)),
            seconds,
        )

    def _starting(self, caller: Caller, request: operations.Start) -> Decide:
        """Return the decision over a start; to take the place of an instance that runs is to end it."""

        def decide(at: Context, state: State | None) -> Decision:
            decision = operations.start(at, state, request)
            if decision.changes is not None and state is not None and not state.instance.status.terminal:
                self.access.check(caller.app, Operation.TERMINATE, state.instance.name)
            return decision

        return decide

    async def _command(self, caller: Caller, operation: Operation, address: Address, decide: Decide) -> Reply:
        def checked(at: Context, state: State | None) -> Decision:
            self.access.check(caller.app, operation, None if state is None else state.instance.name)
            return decide(at, state)

        return await self.engine.submit(address, with_dedup_keys(caller, checked))

    async def instance(self, address: Address) -> Instance | None:
        """Return the row of an instance, or None."""
        seen: list[Instance] = []

        def look(at: Context, state: State | None) -> Decision:
            if state is not None:
                seen.append(state.instance)
            return Decision(None, DONE)

        await self.engine.submit(address, look)
        return seen[0] if seen else None

    async def view(self, address: Address, payloads: bool, caller: Caller = OWN) -> InstanceView | None:
        """Return an instance, with its input and output if asked for, or None."""
        instance = await self.instance(address)
        self.access.check(caller.app, Operation.GET, None if instance is None else instance.name)
        if instance is None or not payloads:
            return None if instance is None else InstanceView(instance, None, None)
        started, output = await self.engine.store.payloads(instance.key)
        return InstanceView(instance, input_of(started), output)

    async def wait(
        self, address: Address, *, ended: bool, payloads: bool, missing: bool = False, caller: Caller = OWN
    ) -> InstanceView | None:
        """Wait until an instance has ended, or has begun, and return it.

        None at once when there is none, unless `missing` says to wait for that too.
        """
        await self.view(address, False, caller)
        while True:
            changed = self.engine.watch(address)
            try:
                instance = await self.instance(address)
                if not missing if instance is None else _reached(instance, ended):
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
        """End an instance."""
        return await self._command(
            caller, Operation.TERMINATE, address, partial(operations.terminate, output=output, recurse=recurse)
        )

    async def history(self, address: Address, *, for_turn: bool = False, execution: str = "") -> list[bytes] | None:
        """Return the log of an instance as its worker saw it, with its end, or None.

        What has arrived since the last turn is not in it while the instance runs: a worker that asks during a turn
        has that already. `for_turn`: only what the turn that is out stands on. `execution`: of this one or none.
        """
        instance = await self.instance(address)
        if instance is None or execution not in ("", instance.execution):
            return None
        ended = instance.status.terminal and not for_turn
        upto = _EVERYTHING if ended else instance.last_completed_turn
        log = await self.engine.store.events(instance.key, Position(0, -1), upto)
        if ended and instance.completed_at is not None:
            _, output = await self.engine.store.payloads(instance.key)
            end = events.execution_completed(instance.completed_at, instance.status, output, instance.failure)
            log.append(end)
        return log

    # ------------------------------------------------------------ workers

    async def complete_turn(self, hub: str, peer: str, response: pb.OrchestratorResponse) -> Reply:
        """Take a worker's answer to a turn, or a part of it, in neutral form.

        An answer that comes too late changes nothing, and a part does so only with the last.
        """
        engine, dispatch = self.engine, self.dispatch
        address = (_hub_of(response.completion_token, hub), response.instance_id)
        actor = engine.actor(address)
        whole = dispatch.turns.join(actor, peer, response)
        if whole is None:
            return Reply(Outcome.STALE)
        reads = any(action.HasField("rewind") for action in whole.actions) or propagated_history.asked_for(whole)
        record = await dispatch.deliveries.record(address, log=True) if reads else None
        decide = self._completed(actor, peer, whole, record)
        return await held(engine, lambda: engine.submit(address, decide))

    def _completed(self, actor: Actor, peer: str, response: pb.OrchestratorResponse, record: Record | None) -> Decide:
        dispatch = self.dispatch

        def decide(at: Context, state: State | None) -> Decision:
            if turns.processes_nothing(response) and dispatch.turns.is_out(actor, response.completion_token, peer):
                dispatch.turns.decline(actor)
            worker, turn = actor.holder, dispatch.turns.take(actor, peer, response)
            if turn is None or state is None:
                return Decision(None, Reply(Outcome.STALE))
            try:
                changes = turns.complete(at, state, turn, response, record)
            except OvertakenError:
                return Decision(None, Reply(Outcome.STALE))
            except StalledError as error:
                return dispatch.turns.stall(at, actor, state, error.why, worker)
            dispatch.turns.done(actor, turn, changes)
            return Decision(changes, DONE)

        return decide

    async def complete_activity(self, hub: str, peer: str, response: pb.ActivityResponse) -> Reply:
        """Take a worker's answer to an activity; the first one counts, whoever it comes from."""
        engine, dispatch = self.engine, self.dispatch
        reminder_id, number = _delivery(response.completion_token, engine.store.identity)
        if reminder_id is None and not response.completion_token:
            reminder_id = dispatch.activities.by_task(peer, hub, response.instance_id, response.task_id)
        reminder = None if reminder_id is None else await dispatch.activities.find(reminder_id)
        if reminder is None:
            return Reply(Outcome.STALE)
        response.task_id = reminder.call.task
        result = events.task_result(engine.clock.now(), response)
        try:
            return await held(engine, lambda: dispatch.activities.settle(reminder, result))
        except UnavailableError:
            dispatch.activities.give_back(reminder.id, number)
            raise

    def abandon_turn(self, token: str) -> None:
        """Take back a turn that a worker does not want."""
        self.dispatch.turns.abandon(token)

    def resend_turn(self, token: str) -> None:
        """Send a turn again to a worker that needs all of the past."""
        self.dispatch.turns.resend(token)

    def abandon_activity(self, token: str) -> None:
        """Take back an activity that a worker does not want."""
        reminder_id, number = _delivery(token, self.engine.store.identity)
        if reminder_id is not None:
            self.dispatch.activities.abandon(reminder_id, number)

    # ------------------------------------------------------------ peers

    async def deliver(self, message: Reminder, received: Received) -> Reply:
        """Take a message of another app: done, or a final answer.

        Raises:
            UnavailableError: try again.
        """
        engine = self.engine
        try:
            self.access.check_message(message, received.app)
            if message.kind is Kind.ACTIVITY:
                changes = activities.accept_activity(engine.context(), message)
                await engine.commit(changes)
                return DONE
            if message.kind is Kind.WITHDRAW:
                return await self._withdraw(message)
            may_create = partial(self.access.check_creation, message, received.app)
            arrival = delivery.Arrival(message, received=(received,), may_create=may_create)
            if message.kind is not Kind.EVENT:
                return await self.dispatch.deliveries.take(arrival)

            def decide(at: Context, state: State | None) -> Decision:
                self.access.check(received.app, Operation.RAISE, None if state is None else state.instance.name)
                return delivery.arrive(at, state, arrival)

            return await engine.submit((message.target.hub, message.target.id), decide)
        except DeniedError as error:
            return Reply(Outcome.DENIED, str(error))
        except MalformedError as error:
            return Reply(Outcome.INVALID, str(error))

    async def _withdraw(self, message: Reminder) -> Reply:
        found = await self.engine.store.foreign_activity(*message.source[:2], message.call)
        if found is not None:
            outcome = await self.engine.commit(activities.withdrawn(found))
            return DONE if outcome is not Refusal.CONFLICT else Reply(Outcome.STALE)
        return DONE


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


def _reached(instance: Instance, ended: bool) -> bool:
    return instance.status.terminal or (not ended and instance.started_at is not None)


def input_of(started: bytes | None) -> str | None:
    """Return the input in the event that started an execution."""
    if started is None:
        return None
    begun = events.decode(started).execution_started
    return begun.input.value if begun.HasField("input") else None


def _delivery(token: str, store: str) -> tuple[int | None, int | None]:
    """Return the activity and the number of its delivery that a completion token names.

    One of a store that was lost names none: its worker lived on, and order numbers began again here.
    """
    kind, _, rest = token.partition(".")
    activity, _, rest = rest.partition(".")
    number, _, of = rest.partition(".")
    if kind != "a" or of != store or not all(_is_number(text) for text in (activity, number)):
        return None, None
    return int(activity), int(number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


def _hub_of(token: str, hub: str) -> str:
    """Return the hub that the token names: a worker answers where it got the item."""
    kind, _, rest = token.partition(".")
    _, found, named = rest.partition(".")
    return named if kind == "t" and found else hub
