"""What workflows ask of entities (E.10): what goes out, what comes back, and which locks an execution has."""

import pytest

from sidecar.core import events, operations
from sidecar.core.model import NO_CALL, CallId, CallKind, Kind, OpenCall, Outcome, Reminder, Status
from sidecar.core.workflow import call_emission, entity_calls
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, NOW, SECOND, Flow, call, end, kinds, lock, renew, signal, text, unlock

A, B = ME.entity("default", "@counter@a"), ME.entity("default", "@counter@b")


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


def sent(reminder: Reminder) -> pb.HistoryEvent:
    return events.decode(reminder.payload)


def answer(flow: Flow, task: int, event: pb.HistoryEvent) -> Reminder:
    """Return an answer of an entity to a call of this task, as it arrives."""
    asked = flow.open[task]
    return Reminder(
        901, Kind.RESULT, 5, ME.workflow("default", "w"), asked.target, asked.call, NOW, "", events.encode(event)
    )


def grant(flow: Flow, task: int) -> Reminder:
    asked = flow.open[task]
    granted = pb.EntityLockGranted(critical_section_id=asked.name, lock_set=asked.entities)
    return answer(flow, task, pb.HistoryEvent(event_id=-1, entity_lock_granted=granted))


def holding(flow: Flow) -> Flow:
    """Let the workflow hold the locks of both entities, as section s."""
    flow.turn(lock(4, "s", "@counter@b", "@counter@a"))
    flow.arrive(grant(flow, 4))
    return flow


def unlocked(reminders: tuple[Reminder, ...]) -> list[str]:
    [*found] = [one for one in reminders if sent(one).HasField("entity_unlock_sent")]
    assert all(one.kind is Kind.EVENT and sent(one).entity_unlock_sent.critical_section_id == "s" for one in found)
    assert all(one.target.id == sent(one).entity_unlock_sent.target_instance_id.value for one in found)
    return [one.target.id for one in found]


# ---------------------------------------------------------------- signals and calls


def test_a_signal_is_confirmed_as_the_worker_wrote_it_and_sent(flow: Flow) -> None:
    """E.10: confirmations re-use the action's message with eventId; the name of an entity is in lower case."""
    action = signal(3, "@Counter@a", input=text("5"))
    changes = flow.turn(action)
    confirmed = events.decode(changes.append[1].event)
    assert (confirmed.event_id, confirmed.entity_signaled) == (3, action.send_entity_message.signaled)
    [reminder] = changes.set
    assert (reminder.kind, reminder.target, reminder.call, reminder.due) == (Kind.EVENT, A, NO_CALL, NOW)
    assert (sent(reminder).event_id, sent(reminder).entity_signaled.input.value) == (-1, "5")
    assert flow.open == {}


def test_a_delayed_signal_is_due_at_its_time_and_one_of_the_past_now(flow: Flow) -> None:
    """E.10: scheduledTime delays."""
    late, past = events.timestamp(NOW + 9 * SECOND), events.timestamp(NOW - 9 * SECOND)
    changes = flow.turn(signal(1, "@c@a", scheduled_time=late), signal(2, "@c@a", scheduled_time=past))
    assert [one.due for one in changes.set] == [NOW + 9 * SECOND, NOW]


def test_a_call_opens_and_names_who_waits(flow: Flow) -> None:
    changes = flow.turn(call(3, "@counter@a", parent_execution_id=text("made up")))
    [reminder] = changes.set
    asked = CallId("w-1", 1, 3)
    assert flow.open == {3: OpenCall(asked, CallKind.ENTITY, "r3", A, reminder.id)}
    called = sent(reminder).entity_called
    assert (reminder.call, reminder.target) == (asked, A)
    assert (called.parent_instance_id.value, called.parent_execution_id.value, called.turn, called.task) == (
        "w",
        *asked,
    )


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id="r3", output=text("5"))), "entity_completed"),
        (pb.HistoryEvent(entity_failed=pb.EntityFailed(request_id="r3")), "entity_failed"),
    ],
)
def test_an_answer_arrives_once(flow: Flow, event: pb.HistoryEvent, kind: str) -> None:
    """E.10: results return as entityOperationCompleted/Failed by requestId."""
    flow.turn(call(3, "@counter@a"))
    reminder = answer(flow, 3, event)
    assert flow.arrive(reminder).reply.outcome is Outcome.DONE
    assert (kinds(flow.state.inbox), flow.open) == ([kind], {})
    again = flow.arrive(reminder)
    assert again.reply.outcome is Outcome.DUPLICATE
    assert kinds(flow.state.inbox) == [kind]


@pytest.mark.parametrize(
    "event",
    [
        pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id="r4")),
        pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=3)),
    ],
)
def test_an_answer_to_something_else_is_none(flow: Flow, event: pb.HistoryEvent) -> None:
    flow.turn(call(3, "@counter@a"))
    assert flow.arrive(answer(flow, 3, event)).reply.outcome is Outcome.INVALID
    assert flow.open.keys() == {3}


def test_a_late_answer_to_an_earlier_execution_is_dropped(flow: Flow) -> None:
    flow.turn(call(3, "@counter@a"))
    late = answer(flow, 3, pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id="r3")))
    flow.turn(renew())
    flow.turn(call(3, "@counter@a"))
    assert flow.arrive(late).reply.outcome is Outcome.DUPLICATE
    assert flow.open.keys() == {3}


def test_a_call_beside_the_end_is_sent_and_nobody_waits(flow: Flow) -> None:
    changes = flow.turn(call(3, "@counter@a"), end())
    assert [one.target for one in changes.set] == [A]
    assert (flow.open, flow.instance.status) == ({}, Status.COMPLETED)


@pytest.mark.parametrize("text_", ["counter", "@counter", "@@a", "@counter@", "w"])
@pytest.mark.parametrize("make", [signal, call, lambda number, entity: lock(number, "s", entity)])
def test_what_is_no_entity_fails_the_workflow_and_is_named(flow: Flow, make: object, text_: str) -> None:
    flow.turn(make(3, text_))  # type: ignore[operator]
    failure = pb.FailureDetails.FromString(flow.instance.failure or b"")
    assert repr(text_) in failure.error_message


# ---------------------------------------------------------------- critical sections


def test_locks_are_asked_for_in_one_order_whatever_the_worker_says(flow: Flow) -> None:
    changes = flow.turn(lock(4, "s", "@Counter@b", "@counter@a", "@counter@b"))
    [reminder] = changes.set
    assert reminder.target == A
    wanted = sent(reminder).entity_lock_requested
    assert (list(wanted.lock_set), wanted.position) == ([A.id, B.id], 0)
    assert (wanted.parent_instance_id.value, wanted.parent_execution_id, wanted.turn, wanted.task) == ("w", "w-1", 1, 4)
    assert flow.open[4] == OpenCall(CallId("w-1", 1, 4), CallKind.LOCK, "s", A, reminder.id, (A.id, B.id))
    confirmed = events.decode(changes.append[1].event)
    assert (confirmed.event_id, confirmed.entity_lock_requested.lock_set[0]) == (4, "@Counter@b")


def test_a_grant_arrives_without_what_only_the_way_needs_and_the_locks_are_held(flow: Flow) -> None:
    """E.10: lock grant by criticalSectionId."""
    holding(flow)
    [row] = flow.state.inbox
    assert events.decode(row.event).entity_lock_granted == pb.EntityLockGranted(critical_section_id="s")
    assert (flow.open[4].kind, flow.open[4].entities) == (CallKind.HELD, (A.id, B.id))


def test_each_unlock_is_sent_and_the_last_ends_the_section(flow: Flow) -> None:
    """E.10: unlock per entity."""
    holding(flow)
    changes = flow.turn(unlock(5, "s", "@counter@a"))
    assert unlocked(changes.set) == [A.id]
    assert flow.open[4].entities == (B.id,)
    changes = flow.turn(unlock(6, "s", "@counter@b"))
    assert unlocked(changes.set) == [B.id]
    assert flow.open == {}


def test_locks_that_are_asked_for_and_let_go_of_in_one_turn_are_not_waited_for(flow: Flow) -> None:
    changes = flow.turn(lock(4, "s", "@counter@a"), unlock(5, "s", "@counter@a"))
    assert [one.target for one in changes.set] == [A, A]
    assert (flow.open, changes.closed) == ({}, ())


@pytest.mark.parametrize("action", [end(), end(Status.FAILED), end(Status.TERMINATED), renew(), pb.Action(id=7)])
def test_an_execution_that_ends_lets_go_of_what_the_worker_did_not(flow: Flow, action: pb.Action) -> None:
    holding(flow)
    changes = flow.turn(unlock(5, "s", "@counter@b"), action)
    assert sorted(unlocked(changes.set)) == [A.id, B.id]


def test_an_execution_that_ends_while_it_waits_takes_its_request_back(flow: Flow) -> None:
    flow.turn(lock(4, "s", "@counter@a", "@counter@b"))
    assert unlocked(flow.turn(end()).set) == [A.id, B.id]


def test_locks_are_not_asked_for_beside_the_end(flow: Flow) -> None:
    changes = flow.turn(lock(4, "s", "@counter@a"), end())
    assert changes.set == ()
    assert kinds(changes.append)[1:] == ["entity_lock_requested"]


def test_terminate_and_purge_let_go_of_locks(flow: Flow) -> None:
    holding(flow)
    order = operations.purge(flow.at, flow.state, force=True).changes
    assert order is not None
    assert unlocked(order.set) == [A.id, B.id]
    changes = flow.take(operations.terminate(flow.at, flow.live, None, False)).changes
    assert changes is not None
    assert unlocked(changes.set) == [A.id, B.id]


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "removed"])
def test_a_grant_that_nobody_waits_for_is_handed_back(flow: Flow, ended: bool) -> None:
    """So no lock is ever held by an execution that has ended while its request was under way."""
    flow.turn(lock(4, "s", "@counter@a", "@counter@b"))
    late = grant(flow, 4)
    flow.take(operations.terminate(flow.at, flow.live, None, False))
    if not ended:
        flow.live = None
    decision = flow.arrive(late)
    assert decision.changes is not None
    assert unlocked(decision.changes.set) == [A.id, B.id]
    assert {one.source for one in decision.changes.set} == {ME.workflow("default", "w")}
    assert (decision.changes.dropped, decision.changes.required) == ((late.id,), (late.id,))


def test_a_result_that_nobody_waits_for_sends_nothing(flow: Flow) -> None:
    flow.turn(call(3, "@counter@a"))
    late = answer(flow, 3, pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id="r3")))
    assert entity_calls.hand_back(flow.at, late) == ()


def test_of_a_history_calls_and_requests_without_an_answer_are_asked_again(flow: Flow) -> None:
    """A rewind opens again what the history leaves open; entities answer by the worker's own IDs."""
    made = (call(1, "@counter@a"), call(2, "@counter@a"), signal(3, "@counter@a"), lock(4, "s", "@counter@a"))
    history = list(flow.turn(*made, lock(5, "other", "@counter@b")).append)
    for answered in (
        answer(flow, 1, pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id="r1"))),
        grant(flow, 5),
    ):
        flow.arrive(answered)
    left = call_emission.left_open(events.decode(row.event) for row in [*history, *flow.state.inbox])
    assert [event.event_id for event in left] == [2, 4]
    draft = Draft(flow.at, flow.state, 9)
    for event in left:
        call_emission.send(draft, event)
    assert [(one.kind, one.call.turn) for one in draft.opened.values()] == [(CallKind.ENTITY, 9), (CallKind.LOCK, 9)]
    assert [one.target for one in draft.reminders] == [A, A]
