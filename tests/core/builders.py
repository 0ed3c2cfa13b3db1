"""What tests of the core are written with: actions of a worker, answers to calls, and an instance that moves.

Everything moves by the real functions; nothing here decides anything.
"""

from collections.abc import Iterable
from itertools import count
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import delivery, events, operations
from sidecar.core.delivery import Arrival
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.ids import Ids
from sidecar.core.model import (
    ActorId,
    CallId,
    Changes,
    Decision,
    Instance,
    Kind,
    OpenCall,
    Parent,
    Reminder,
    Row,
    State,
    Status,
    Turn,
)
from sidecar.core.receipts import Received
from sidecar.core.workflow import state as states
from sidecar.core.workflow import turn as turns
from sidecar.core.workflow.creation import Identity
from sidecar.core.workflow.rewind import Record
from sidecar.schema import taskhub_pb2 as pb

ME = AppIdentity("default", "orders")
ML = AppIdentity("default", "ml")
SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
MADE = CallId("boss-1", 7, 3)
PARENT = Parent(ActorId("default", "front", "workflow", "default", "boss"), MADE, "boss-flow")
OWN_PARENT = Parent(ME.workflow("default", "boss"), MADE, "boss-flow")


# ---------------------------------------------------------------- actions of a worker


def text(value: str | None) -> StringValue | None:
    return None if value is None else StringValue(value=value)


def _addressed(action: pb.Action, app: str, namespace: str) -> pb.Action:
    if app:
        action.router.target_app_id = app
    if namespace:
        action.router.target_namespace = namespace
    return action


def task(number: int, name: str = "charge", *, app: str = "", namespace: str = "", **fields: Any) -> pb.Action:
    return _addressed(pb.Action(id=number, schedule_task=pb.ScheduleTask(name=name, **fields)), app, namespace)


def child(number: int, instance_id: str = "", *, app: str = "", namespace: str = "", **fields: Any) -> pb.Action:
    wanted = pb.CreateChild(**({"name": "ship", "instance_id": instance_id} | fields))
    return _addressed(pb.Action(id=number, create_child=wanted), app, namespace)


def detach(
    number: int, instance_id: str = "", *, app: str = "", namespace: str = "", name: str = "report-flow", **fields: Any
) -> pb.Action:
    wanted = pb.CreateDetached(name=name, instance_id=instance_id, **fields)
    return _addressed(pb.Action(id=number, create_detached=wanted), app, namespace)


def timer(number: int, fire_at: int | Timestamp | None = NOW + 60 * SECOND, **fields: Any) -> pb.Action:
    due = events.timestamp(fire_at) if isinstance(fire_at, int) else fire_at
    return pb.Action(id=number, create_timer=pb.CreateTimer(fire_at=due, **fields))


def send(
    number: int, to: str, name: str = "paid", *, app: str = "", namespace: str = "", data: str | None = None
) -> pb.Action:
    event = pb.SendEvent(instance=pb.WorkflowInstance(instance_id=to), name=name, data=text(data))
    return _addressed(pb.Action(id=number, send_event=event), app, namespace)


def kill(
    number: int,
    instance_id: str,
    *,
    app: str = "",
    namespace: str = "",
    reason: str | None = None,
    recurse: bool = False,
) -> pb.Action:
    order = pb.Terminate(instance_id=instance_id, reason=text(reason), recurse=recurse)
    return _addressed(pb.Action(id=number, terminate=order), app, namespace)


def signal(number: int, entity: str, operation: str = "add", **fields: Any) -> pb.Action:
    sent = pb.EntitySignaled(request_id=f"r{number}", operation=operation, target_instance_id=text(entity), **fields)
    return pb.Action(id=number, send_entity_message=pb.SendEntityMessage(signaled=sent))


def call(number: int, entity: str, operation: str = "get", **fields: Any) -> pb.Action:
    called = pb.EntityCalled(request_id=f"r{number}", operation=operation, target_instance_id=text(entity), **fields)
    return pb.Action(id=number, send_entity_message=pb.SendEntityMessage(called=called))


def lock(number: int, section: str, *entities: str) -> pb.Action:
    wanted = pb.EntityLockRequested(critical_section_id=section, lock_set=entities)
    return pb.Action(id=number, send_entity_message=pb.SendEntityMessage(lock_requested=wanted))


def unlock(number: int, section: str, entity: str) -> pb.Action:
    sent = pb.EntityUnlockSent(critical_section_id=section, target_instance_id=text(entity))
    return pb.Action(id=number, send_entity_message=pb.SendEntityMessage(unlock_sent=sent))


def end(status: int = Status.COMPLETED, result: str | None = None, **fields: Any) -> pb.Action:
    return pb.Action(id=99, complete=pb.Complete(status=status, result=text(result), **fields))


def renew(new_input: str | None = None, **fields: Any) -> pb.Action:
    return end(Status.CONTINUED_AS_NEW, new_input, **fields)


# ---------------------------------------------------------------- events and messages


def kind_of(event: bytes) -> str:
    return events.decode(event).WhichOneof("kind") or ""


def kinds(rows: Iterable[Row]) -> list[str]:
    return [kind_of(row.event) for row in rows]


def one(reminders: Iterable[Reminder], kind: Kind) -> Reminder:
    [found] = [reminder for reminder in reminders if reminder.kind is kind]
    return found


def outcome_of(request: Reminder, value: str = '"ok"') -> bytes:
    """Return the event that ends the call that this reminder is the request of."""
    if request.kind is Kind.TIMER:
        return request.payload
    if request.kind is Kind.CREATE:
        return events.child_completed(NOW, request.call.task, StringValue(value=value))
    done = pb.ActivityResponse(task_id=request.call.task, result=StringValue(value=value))
    return events.task_result(NOW, done)


def result(request: Reminder, event: bytes | None = None, *, source: ActorId | None = None) -> Reminder:
    """Return the answer to a call as it arrives at home."""
    payload = outcome_of(request) if event is None else event
    return Reminder(
        901, Kind.RESULT, 0, request.source, source or request.target, request.call, NOW, request.name, payload
    )


def creation(parent: Parent = PARENT, instance_id: str = "w", execution: str = "w-1") -> Reminder:
    """Return the request of a parent to create a child, as it arrives."""
    started = pb.ExecutionStarted(name="order", tags={"kind": "big"})
    started.instance.instance_id = instance_id
    started.instance.execution_id.value = execution
    started.parent.name.value = parent.name
    payload = events.execution_started(NOW, started, parent.actor.app, ME.app)
    target = ME.workflow("default", instance_id)
    return Reminder(902, Kind.CREATE, 0, target, parent.actor, parent.call, NOW, "order", payload)


def command(kind: Kind, parent: Parent = PARENT, payload: bytes = b"", *, call: CallId | None = None) -> Reminder:
    """Return a parent's terminate or purge, as it arrives; it names the call that made the child, or another."""
    if kind is Kind.TERMINATE and not payload:
        payload = events.terminated(NOW, None, False)
    call = parent.call if call is None else call
    return Reminder(903, kind, 0, ME.workflow("default", "w"), parent.actor, call, NOW, "", payload)


def message(number: int = 1, app: str = "ml") -> Received:
    return Received("default", app, f"{app}-store", number)


def start_request(
    instance_id: str = "w", execution: str = "w-1", *, scheduled_at: int | None = None, **policy: Any
) -> Any:
    started = pb.ExecutionStarted(name="order", tags={"kind": "big"})
    started.instance.instance_id = instance_id
    started.instance.execution_id.value = execution
    identity = Identity("default", instance_id, execution)
    return operations.Start(identity, started, scheduled_at, **policy)


def effect(decision: Decision) -> str:
    """Name what a decision does to the instance, and where that has signs that must agree, see that they do."""
    changes = decision.changes
    name = decision.reply.outcome.name.lower()
    if changes is None:
        return f"{name}+forgotten"
    if changes.key == 0:
        assert (changes.instance, changes.append, changes.closed) == (None, (), ())
        return f"{name}+answered" if changes.set else name
    if changes.purged:
        return f"{name}+removed"
    assert changes.instance is not None
    if not changes.expected:
        return f"{name}+created"
    assert changes.instance.revision == changes.expected + 1
    return f"{name}+ended" if changes.instance.status.terminal else name + "+appended" * bool(changes.append)


# ---------------------------------------------------------------- an instance that moves


class Flow:
    """One instance in memory; each step is decided by the core and taken as committed."""

    def __init__(self, me: AppIdentity = ME, now: int = NOW) -> None:
        numbers = count(1)
        self.me, self.now = me, now
        self.ids = Ids(1, 1, lambda: f"id-{next(numbers)}")
        self.live: State | None = None
        self.last = Changes()  # what the last step changed

    @property
    def at(self) -> Context:
        return Context(self.me, self.now, self.ids)

    @property
    def state(self) -> State:
        assert self.live is not None
        return self.live

    @property
    def instance(self) -> Instance:
        return self.state.instance

    @property
    def open(self) -> dict[int, OpenCall]:
        return self.state.open

    def take(self, decision: Decision) -> Decision:
        """Commit a decision."""
        if decision.changes is not None:
            self.commit(decision.changes)
        return decision

    def commit(self, changes: Changes) -> Changes:
        self.last = changes
        if changes.key:
            self.live = states.apply(self.live, changes)
        return changes

    def start(self, *, parent: Parent | None = None, **fields: Any) -> "Flow":
        """Create the instance, by a client or as a child."""
        if parent is None:
            self.take(operations.start(self.at, self.live, start_request(**fields)))
        else:
            self.take(delivery.arrive(self.at, None, Arrival(creation(parent), received=(message(0, "front"),))))
        return self

    def event(self, name: str = "paid") -> "Flow":
        self.take(operations.raise_event(self.at, self.live, name, None))
        return self

    def begin(self) -> Turn:
        turn = turns.begin(self.state, self.now, "token")
        self.state.tail = turns.after(self.state, turn)
        return turn

    def complete(self, turn: Turn, *actions: pb.Action, **fields: Any) -> Changes:
        response = pb.OrchestratorResponse(instance_id=self.instance.id, actions=actions, **fields)
        return self.commit(turns.complete(self.at, self.state, turn, response))

    def turn(self, *actions: pb.Action, **fields: Any) -> Changes:
        """Take a whole turn; when nothing waits, an event comes in first."""
        if not self.state.inbox:
            self.event()
        return self.complete(self.begin(), *actions, **fields)

    def arrive(self, reminder: Reminder, *received: Received) -> Decision:
        """Deliver a reminder: one of this store, or the message of another."""
        consumed = () if received else (reminder.id,)
        arrival = Arrival(reminder, consumed, received, record=self.as_read())
        return self.take(delivery.arrive(self.at, self.live, arrival))

    def as_read(self) -> Record | None:
        """What a creation that comes again reads of an instance that has ended."""
        if self.live is None:
            return None
        return Record(self.instance.last_completed_turn, self.instance.execution, output="out")
