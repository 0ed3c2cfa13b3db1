"""Entities in simulations: steps of workflows over them, what their operations do, and what each must hold at the end.

An entity is a number. A step adds to it: by a signal, a call, an operation that signals another entity, or by reading
and writing it in a critical section, where an operation of anybody else in between would be lost. So the sum of what
the workflows of an app have added is the value of its entity, unless something was lost or counted twice.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any

from sidecar.core import events
from sidecar.core.model import CallId, Reminder
from sidecar.core.work_items import EntityItem
from sidecar.edge.dialects import older_entities
from sidecar.schema import taskhub_pb2 as pb
from tests import older_form

Step = list[Any]
KEYS = ("a", "b", "c")
SHED = "@n@x"  # clients purge this one: what it holds is nobody's business
STEPS = ("sign", "ask", "lock", "pass", "shed")
CONFIRMED = ("entity_signaled", "entity_called", "entity_lock_requested", "entity_unlock_sent")
ANSWERS = {
    "entity_completed": "request_id",
    "entity_failed": "request_id",
    "entity_lock_granted": "critical_section_id",
}

# What the answer to a request names it by.
NAMES = {"entity_called": "request_id", "entity_lock_requested": "critical_section_id"}


def step(rng: random.Random, kind: str) -> Step:
    """Return a step over entities: its kind, the keys, a number, and for a signal how late it comes, in seconds."""
    keys = rng.sample(KEYS, rng.randint(1, 3)) if kind == "lock" else [rng.choice(KEYS)]
    keys = [] if kind == "shed" else keys
    return [kind, keys, rng.randint(1, 99), rng.choice([0, 0, 0, 2.0]) if kind == "sign" else 0]


def gain(step_: Step) -> int:
    """What a step adds to the value of its workflow."""
    return 0 if step_[0] == "sign" else step_[2] * len(step_[1])


def added(
    steps: list[Step], app: str, struck: Collection[str] = (), *, mended: bool = True
) -> Counter[tuple[str, str]]:
    """Return what a program adds to each entity, by app and ID: to its end, or to what is weak in it.

    What the children with tags in `struck` add is left out, for they were ended somewhere.
    """
    total: Counter[tuple[str, str]] = Counter()
    for one in steps:
        if one[0] == "fail" or (one[0] in ("weak", "must") and not mended):
            break
        if one[0] in STEPS:
            total.update({(app, _id(key)): one[2] for key in one[1]})
            if one[0] == "pass":
                total[app, _id("sum")] += one[2]
        elif one[0] in ("child", "tell") and one[2] not in struck:
            total.update(added(one[-1], one[1], struck))
    return total


def _id(key: str) -> str:
    return f"@n@{key}"


# ---------------------------------------------------------------- workflows


def in_older_form(past: list[bytes], new: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return a history as a worker in .NET reads it that knows external events only, read back for the replay."""
    read = [pb.HistoryEvent.FromString(older_entities.event(event)) for event in (*past, *new)]
    older_form.to_neutral(read)
    known = [events.encode(event) for event in read]
    return known[: len(past)], known[len(past) :]


def answered_in_older_form(response: pb.OrchestratorResponse) -> None:
    """Write what a workflow asks of entities as such a worker does, and read it as the sidecar does."""
    for action in response.actions:
        if action.HasField("send_entity_message"):
            kind = action.send_entity_message.WhichOneof("kind") or ""
            confirmed = pb.HistoryEvent(**{f"entity_{kind}": getattr(action.send_entity_message, kind)})
            sent = pb.HistoryEvent.FromString(older_entities.event(events.encode(confirmed))).event_sent
            message = older_entities.message_in(sent)
            assert message is not None, sent
            action.send_entity_message.CopyFrom(message)


class Messages:
    """The messages of a workflow to entities, as an SDK makes them: the same in every replay."""

    def __init__(self, number: Callable[[], int], name: Callable[[int], str]) -> None:
        self._number = number
        self._name = name

    def _action(self, number: int, **message: Any) -> pb.Action:
        return pb.Action(id=number, send_entity_message=pb.SendEntityMessage(**message))

    def signal(self, key: str, amount: int, due: int) -> pb.Action:
        """Add, without an answer."""
        number = self._number()
        sent = pb.EntitySignaled(request_id=self._name(number), operation="add", input=events.text(str(amount)))
        sent.target_instance_id.value = _id(key)
        if due:
            sent.scheduled_time.CopyFrom(events.timestamp(due))
        return self._action(number, signaled=sent)

    def call(self, key: str, operation: str, amount: int) -> pb.Action:
        """Run an operation and get its result."""
        number = self._number()
        called = pb.EntityCalled(request_id=self._name(number), operation=operation, input=events.text(str(amount)))
        called.target_instance_id.value = _id(key)
        return self._action(number, called=called)

    def lock(self, keys: list[str]) -> pb.Action:
        """Ask for the locks of entities, in an order of one's own."""
        number = self._number()
        wanted = pb.EntityLockRequested(critical_section_id=self._name(number), lock_set=map(_id, keys))
        return self._action(number, lock_requested=wanted)

    def unlock(self, section: str, key: str) -> pb.Action:
        """Let go of one."""
        sent = pb.EntityUnlockSent(critical_section_id=section)
        sent.target_instance_id.value = _id(key)
        return self._action(self._number(), unlock_sent=sent)


def number_in(name: str) -> int:
    """Return the number of the action that a request or a section is named after."""
    return int(name.rpartition("/")[2])


Take = Callable[[pb.Action, bool], Any]  # take an action; with an answer, return what is waited for


def run_step(step_: Step, messages: Messages, take: Take, clock: int) -> Generator[list[Any], None, int]:
    """Run a step over entities; yields what it waits for, returns what it adds to the workflow's value."""
    kind, keys, amount, late = step_
    if kind == "sign":
        take(messages.signal(keys[0], amount, clock + int(late * 1e6) if late else 0), False)
        yield []
    elif kind == "lock":
        yield from _section(keys, amount, messages, take)
    elif kind == "shed":
        yield from _over_what_is_purged(amount, messages, take)
    else:
        yield [take(messages.call(keys[0], "pass" if kind == "pass" else "add", amount), True)]
    return gain(step_)


def _section(keys: list[str], amount: int, messages: Messages, take: Take) -> Generator[list[Any], None, None]:
    wanted = messages.lock(keys)
    yield [take(wanted, True)]
    for key in keys:
        read = take(messages.call(key, "get", 0), True)
        yield [read]
        yield [take(messages.call(key, "set", int(read.result.value) + amount), True)]
    for key in keys:
        take(messages.unlock(wanted.send_entity_message.lock_requested.critical_section_id, key), False)


def _over_what_is_purged(amount: int, messages: Messages, take: Take) -> Generator[list[Any], None, None]:
    """Call an entity without and with its lock: each call is answered, and the lock is granted, whoever purges it."""
    key = SHED.rpartition("@")[2]
    wanted = messages.lock([key])
    yield [take(messages.call(key, "add", amount), True)]
    yield [take(wanted, True)]
    yield [take(messages.call(key, "add", amount), True)]
    take(messages.unlock(wanted.send_entity_message.lock_requested.critical_section_id, key), False)


# ---------------------------------------------------------------- entities


def run(item: EntityItem) -> pb.EntityBatchResult:
    """Run the operations of a batch."""
    value = int(item.state or 0)
    answer = pb.EntityBatchResult(completion_token=item.token)
    for operation in item.operations:
        event = events.decode(operation)
        asked = event.entity_called if event.HasField("entity_called") else event.entity_signaled
        given = int(asked.input.value)
        if asked.operation == "set":
            value = given
        elif asked.operation in ("add", "pass"):
            value += given
        if asked.operation == "pass":
            on = pb.SendSignal(instance_id=_id("sum"), name="add", input=asked.input)
            answer.actions.append(pb.OperationAction(send_signal=on))
        answer.results.append(pb.OperationResult(success=pb.OperationSuccess(result=events.text(str(value)))))
    answer.entity_state.value = str(value)
    return answer


def waits_at_an_entity(call: CallId, reminders: Iterable[Reminder], logs: Iterable[bytes]) -> bool:
    """Whether a call, or a request for locks, waits at an entity or is on its way to one."""
    messages = [one.payload for one in reminders if one.target.kind == "entity"]
    return any(_asks(events.decode(event), call) for event in (*messages, *logs))


def _asks(event: pb.HistoryEvent, call: CallId) -> bool:
    called, wanted = event.entity_called, event.entity_lock_requested
    if event.HasField("entity_called"):
        return (called.parent_execution_id.value, called.turn, called.task) == call
    return event.HasField("entity_lock_requested") and (wanted.parent_execution_id, wanted.turn, wanted.task) == call
