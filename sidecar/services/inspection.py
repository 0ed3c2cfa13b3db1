"""Why workflows wait, for a person to see, and the way out: to try again now, or to let a call fail."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.actors.residents import Address
from sidecar.core import events, operations, undeliverable
from sidecar.core.attempts import NONE
from sidecar.core.delivery import arrive
from sidecar.core.entity import entity
from sidecar.core.identity import Context
from sidecar.core.model import (
    DONE,
    ActorId,
    CallKind,
    Child,
    Decision,
    Instance,
    Kind,
    OpenCall,
    Outcome,
    Reminder,
    Reply,
    State,
)
from sidecar.core.workflow import calls, stalls
from sidecar.peers.outbox import Outbox
from sidecar.services.clients import OWN, Caller, ClientService, InstanceView
from sidecar.store.protocol import Waiting
from sidecar.work import takers
from sidecar.work.activities import group_of
from sidecar.work.dispatch import Dispatch
from sidecar.work.leases import is_running
from sidecar.work.ready_queue import Group

FAILED_BY_PERSON = "CallFailedByOperator"
MISSING = Reply(Outcome.MISSING, "no such call waits")
_KINDS = {CallKind.ACTIVITY: "activity", CallKind.CHILD: "child", CallKind.TIMER: "timer"}
_AT_ENTITIES = {CallKind.ENTITY: "entity", CallKind.LOCK: "lock"}
_SHOWN = {*_KINDS, *_AT_ENTITIES, CallKind.WAIT}


class Wait(NamedTuple):
    """One thing that an instance waits for; `since` is 0 when it is not known, and of a timer when it fires."""

    kind: str
    name: str
    app: str
    task: int
    since: int
    state: str
    error: str
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class TreeNode:
    """An instance with what it waits for and its children, own ones and those of other apps."""

    view: InstanceView
    waits: list[Wait]
    children: Sequence[Child]


class Inspection:
    """The looks and the ways out, over one sidecar."""

    def __init__(self, service: ClientService, dispatch: Dispatch, outbox: Outbox) -> None:
        self._service = service
        self._engine = service.engine
        self._dispatch = dispatch
        self._outbox = outbox

    async def waiting(self, app: str, after: int, limit: int) -> list[tuple[Waiting, int, str]]:
        """Return calls that wait for another app, each with the attempts that failed and the last error."""
        found = await self._engine.store.waiting(app, after, limit)
        return [(one, *self._attempts(one.target)) for one in found]

    def _attempts(self, target: ActorId) -> tuple[int, str]:
        queue = self._outbox.queues.get((target.namespace, target.app))
        return (0, "") if queue is None or queue.cause is None else (queue.failures, queue.cause.text)

    def retry(self, app: str) -> list[str]:
        """Try to reach an app now ("": every app); return the apps for which something waits."""
        return self._outbox.retry(app)

    async def fail(self, reminder_id: int, reason: str) -> Reply:
        """Let the call of this reminder fail, as a workflow sees it; work that is out for it is taken back."""
        reminder = await self._engine.store.reminder(reminder_id)
        if reminder is not None and reminder.kind is Kind.ACTIVITY and self._engine.me.owns(reminder.target):
            return await self._fail_activity(reminder, reason)
        if reminder is None or not reminder.owner or reminder.kind not in (Kind.ACTIVITY, Kind.CREATE):
            return MISSING
        details = events.failure(FAILED_BY_PERSON, reason, retriable=False)
        arrival = undeliverable.failed_call(reminder, details, self._engine.clock.now())

        def decide(at: Context, state: State | None) -> Decision:
            decision = arrive(at, state, arrival)
            return calls.withdrawing(at, state, reminder, decision)

        reply = await self._engine.submit((reminder.source.hub, reminder.source.id), decide)
        return MISSING if reply.outcome in (Outcome.DUPLICATE, Outcome.STALE) else reply

    async def _fail_activity(self, reminder: Reminder, reason: str) -> Reply:
        details = events.failure(FAILED_BY_PERSON, reason, retriable=False)
        event = events.task_failed(self._engine.clock.now(), reminder.call.task, details)
        reply = await self._dispatch.activities.settle(reminder, event)
        return MISSING if reply.outcome in (Outcome.DUPLICATE, Outcome.STALE) else reply

    async def unpark(self, address: Address) -> Reply:
        """Hand out again what was parked because each worker that got it was lost."""

        def decide(at: Context, state: State | None) -> Decision:
            if state is None:
                return Decision(None, Reply(Outcome.MISSING, "no such instance exists"))
            if not state.instance.crashes.quarantined:
                return Decision(None, Reply(Outcome.WRONG_STATE, f"'{address[1]}' is not parked"))
            end = entity.end_quarantine if state.instance.entity else stalls.end_quarantine
            return Decision(end(at, state), DONE)

        return await self._engine.submit(address, decide)

    async def terminate(self, address: Address, reason: str, *, recursive: bool) -> Reply:
        """End a workflow, though it may be stalled; the reason becomes its output, as JSON."""

        def decide(at: Context, state: State | None) -> Decision:
            if state is not None and state.instance.entity:
                return Decision(None, Reply(Outcome.WRONG_STATE, f"'{address[1]}' is an entity: it can be purged"))
            return operations.terminate(at, state, json.dumps(reason), recursive, by_operator=True)

        return await self._engine.submit(address, decide)

    async def branch(self, address: Address, caller: Caller = OWN) -> TreeNode | None:
        """Return an instance with what it waits for, or None. Raises DeniedError."""
        view = await self._service.view(address, False, caller)
        if view is None:
            return None
        seen: list[State] = []

        def look(at: Context, state: State | None) -> Decision:
            seen.extend([] if state is None else [state])
            return Decision(None, MISSING)

        await self._engine.submit(address, look)
        if not seen:
            return None
        state = seen[0]
        waits = [await self._wait(call) for _, call in sorted(state.open.items()) if call.kind in _SHOWN]
        waits += self._for_worker(address, state.instance)
        return TreeNode(view, waits, await self._engine.store.children(state.instance.key))

    def _for_worker(self, address: Address, instance: Instance) -> list[Wait]:
        """Return what an instance waits for of its workers: to be handed out, or to be answered."""
        count, error, quarantined = instance.crashes
        if not (instance.ready or quarantined):
            return []
        running = is_running(self._engine.actor(address))
        state = "parked" if quarantined else "running" if running else "queued"
        if state == "queued":
            kind = takers.ENTITY if instance.entity else takers.WORKFLOW
            group = Group(instance.name, instance.version or "", hub=instance.hub)
            error = takers.why_untaken(self._dispatch.pool, kind, group) or error
        return [Wait("worker", instance.name, self._engine.me.app, 0, 0, state, error, count)]

    async def _wait(self, call: OpenCall) -> Wait:
        reminder = await self._engine.store.reminder(call.reminder) if call.reminder else None
        since = 0 if reminder is None else reminder.due
        app, task = call.target.app, call.call.task
        if call.kind in _AT_ENTITIES:
            return Wait(_AT_ENTITIES[call.kind], call.target.id, app, task, since, "queued", "")
        if call.kind is CallKind.WAIT or (call.kind is CallKind.TIMER and call.name):
            return Wait("event", call.name, app, task, since, "awaited", "")
        if call.kind is CallKind.TIMER:
            return Wait("timer", "", app, task, since, "set", "")
        if self._engine.me.owns(call.target):
            state = "running" if call.reminder in self._dispatch.activities.leases else "queued"
            count, error, _ = NONE if reminder is None else reminder.crashes
            state = "started" if reminder is None else state
            if reminder is not None and reminder.kind is Kind.ACTIVITY and state == "queued":
                error = takers.why_untaken(self._dispatch.pool, takers.ACTIVITY, group_of(reminder)) or error
            return Wait(_KINDS[call.kind], call.name, app, task, since, state, error, count)
        queue = self._outbox.queues.get((call.target.namespace, app))
        if queue is not None and call.reminder in queue.pending:
            return Wait(
                _KINDS[call.kind], call.name, app, task, since, "not delivered", queue.cause.text if queue.cause else ""
            )
        return Wait(_KINDS[call.kind], call.name, app, task, since, "delivered", "")
