"""How executions end with a turn: what becomes of their calls, who is told, and how the next one begins."""

from itertools import count

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events, operations
from sidecar.core.model import CallId, Child, Kind, Parent, Reminder, Status
from sidecar.core.workflow import pauses
from sidecar.core.workflow.creation import Identity
from sidecar.core.workflow.next_execution import id_after
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    ME,
    ML,
    NOW,
    OWN_PARENT,
    PARENT,
    SECOND,
    Flow,
    child,
    effect,
    end,
    kill,
    kind_of,
    kinds,
    message,
    one,
    renew,
    result,
    send,
    task,
    text,
    timer,
)

SECOND_RUN = id_after("w-1")
FAILURE = pb.FailureDetails(error_type="Broken", error_message="it broke", stack_trace=StringValue(value="at 1"))
CALLS = (timer(0), task(1), task(2, app="ml"), child(3), child(4, app="ml"), send(5, "other"))


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


def busy(flow: Flow) -> list[Reminder]:
    """Give the instance one open call of each sort; return what was sent for them, in the order of `CALLS`."""
    return list(flow.turn(*CALLS).set)


@pytest.mark.parametrize(
    ("action", "output", "failure"),
    [
        (end(Status.COMPLETED, '"done"'), '"done"', None),
        (end(Status.COMPLETED), None, None),
        (end(Status.COMPLETED, ""), "", None),
        (end(Status.FAILED, failure=FAILURE), None, FAILURE),
        (end(Status.FAILED, '"half"', failure=FAILURE), '"half"', FAILURE),
        (end(Status.TERMINATED, '"stop"'), '"stop"', None),
        (end(Status.CANCELED), None, None),
    ],
)
def test_an_execution_ends_as_its_worker_says(
    flow: Flow, action: pb.Action, output: str | None, failure: pb.FailureDetails | None
) -> None:
    turn = flow.begin()
    flow.event("late")
    flow.now += SECOND
    changes = flow.complete(turn, action, custom_status=StringValue(value='"s"'))
    instance = flow.instance
    assert (instance.status, instance.completed_at) == (action.complete.status, NOW + SECOND)
    assert changes.output == output
    assert instance.failure == (None if failure is None else failure.SerializeToString(deterministic=True))
    assert (instance.last_completed_turn, instance.custom_status, instance.ready) == (1, '"s"', False)
    assert (kinds(changes.append), changes.set) == (["orchestrator_started"], ())


# ---------------------------------------------------------------- calls of an execution that ends


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELED])
def test_what_an_ended_execution_had_sent_goes_on_without_anyone_waiting_for_it(flow: Flow, status: int) -> None:
    nap, local, remote, own_child, their_child, _ = busy(flow)
    changes = flow.turn(end(status))
    assert changes.dropped == (nap.id,)
    assert changes.released == (local.id, remote.id, own_child.id, their_child.id)
    assert (changes.set, changes.close_all, flow.open) == ((), True, {})
    assert flow.state.children == {sent.call: Child(sent.target, sent.call) for sent in (own_child, their_child)}


@pytest.mark.parametrize("how", [end(Status.TERMINATED), renew()])
def test_activities_that_still_wait_are_taken_back_when_nobody_wants_them(flow: Flow, how: pb.Action) -> None:
    nap, local, remote, own_child, their_child, _ = busy(flow)
    changes = flow.turn(how)
    assert changes.dropped == (nap.id, local.id)
    assert changes.released == (remote.id, own_child.id, their_child.id)
    [withdrawal] = changes.set
    assert (withdrawal.kind, withdrawal.target, withdrawal.call) == (Kind.WITHDRAW, remote.target, remote.call)
    assert (withdrawal.kept_until_result, withdrawal.id > their_child.id) == (False, True)
    assert flow.open == {}


@pytest.mark.parametrize("how", [end(), renew()])
def test_actions_beside_an_end_are_carried_out_and_nobody_waits_for_them(flow: Flow, how: pb.Action) -> None:
    changes = flow.turn(how, *CALLS, kill(6, "third"))
    assert [reminder.kind for reminder in changes.set] == [
        *(Kind.ACTIVITY, Kind.ACTIVITY, Kind.CREATE, Kind.CREATE, Kind.EVENT, Kind.TERMINATE)
    ]
    assert not any(reminder.kept_until_result for reminder in changes.set)
    assert {reminder.call.execution for reminder in changes.set[:5]} == {"w-1"}
    assert (changes.opened, flow.open) == ((), {})
    creations = [reminder for reminder in changes.set if reminder.kind is Kind.CREATE]
    assert [reminder.call for reminder in creations] == [CallId("w-1", 1, 3), CallId("w-1", 1, 4)]
    assert changes.children == tuple(Child(reminder.target, reminder.call) for reminder in creations)


# ---------------------------------------------------------------- the answer to a parent

ANSWERS = [
    (end(Status.COMPLETED, '"done"'), "child_completed", "", ""),
    (end(Status.COMPLETED), "child_completed", "", ""),
    (end(Status.FAILED, failure=FAILURE), "child_failed", "Broken", "it broke"),
    (end(Status.FAILED), "child_failed", "WorkflowFailed", "'w' was failed"),
    (end(Status.TERMINATED), "child_failed", "WorkflowTerminated", "'w' was terminated"),
    (end(Status.CANCELED), "child_failed", "WorkflowCanceled", "'w' was canceled"),
    (pb.Action(id=1, rewind=pb.Rewind()), "child_failed", "UnsupportedAction", "rewind"),
]


@pytest.mark.parametrize("parent", [PARENT, OWN_PARENT], ids=["in another app", "in this app"])
@pytest.mark.parametrize(("action", "kind", "error", "said"), ANSWERS)
def test_the_parent_of_an_instance_is_told_how_it_ended(
    parent: Parent, action: pb.Action, kind: str, error: str, said: str
) -> None:
    changes = Flow().start(parent=parent).turn(action)
    answer = one(changes.set, Kind.RESULT)
    assert (answer.target, answer.source, answer.call) == (parent.actor, ME.workflow("default", "w"), parent.call)
    assert (answer.kept_until_result, answer.due) == (False, NOW)
    assert kind_of(answer.payload) == kind
    ended = getattr(events.decode(answer.payload), kind)
    assert ended.task_scheduled_id == parent.call.task
    if kind == "child_completed":
        assert ended == pb.ChildCompleted(task_scheduled_id=3, result=text(action.complete.result.value or None))
    else:
        assert ended.failure.error_type == error
        assert said in ended.failure.error_message


def test_a_child_keeps_its_parent_over_continue_as_new() -> None:
    flow = Flow().start(parent=PARENT)
    assert flow.turn(renew()).set == ()
    answer = one(flow.turn(end()).set, Kind.RESULT)
    assert (answer.target, answer.call) == PARENT[:2]


# ---------------------------------------------------------------- continue-as-new


def test_a_continued_execution_begins_with_its_input_and_then_what_belongs_to_no_call(flow: Flow) -> None:
    request = flow.turn(task(0), timer(1)).set[0]
    flow.event("seen")
    turn = flow.begin()
    flow.event("a")
    flow.arrive(result(request))
    flow.take(pauses.suspend(flow.at, flow.live, "wait"))
    flow.event("b")
    flow.take(pauses.resume(flow.at, flow.live, None))
    flow.now += SECOND
    early = Timestamp(seconds=5)
    carried = [
        pb.HistoryEvent(event_id=-1, timestamp=early, event_raised=pb.EventRaised(name=name)) for name in ("x", "y")
    ]
    changes = flow.complete(turn, renew('"next"', carryover_events=carried))
    assert changes.truncate == (0, 0)
    rows = [events.decode(row.event) for row in flow.state.inbox]
    assert [row.position for row in flow.state.inbox] == [(3, index) for index in range(1, 8)]
    assert [event.event_raised.name or event.WhichOneof("kind") for event in rows] == [
        *("execution_started", "x", "y", "a", "execution_suspended", "b", "execution_resumed")
    ]
    assert rows[1].timestamp == rows[2].timestamp == events.timestamp(flow.now)
    assert rows[0].execution_started.input.value == '"next"'
    assert flow.state.tail == (3, 8)


def test_a_continued_execution_is_a_new_one_of_the_same_instance(flow: Flow) -> None:
    flow.turn(timer(0), task(1))
    before = flow.instance
    flow.now += SECOND
    changes = flow.turn(renew(), custom_status=StringValue(value='"gen 2"'))
    after = flow.instance
    assert (after.execution, after.status, after.ready, after.last_completed_turn) == (
        SECOND_RUN,
        Status.RUNNING,
        True,
        2,
    )
    assert (after.key, after.id, after.name, after.tags) == (before.key, "w", "order", before.tags)
    assert after.origin == before.origin == "w-1"
    assert (after.created_at, after.started_at, after.completed_at) == (NOW, NOW, None)
    assert (after.custom_status, after.revision) == (None, before.revision + 2)  # E.15: it begins without one
    [begun] = [events.decode(row.event).execution_started for row in changes.append]
    assert (begun.name, begun.instance.instance_id, begun.instance.execution_id.value) == ("order", "w", SECOND_RUN)
    assert (dict(begun.tags), begun.HasField("input"), begun.HasField("parent")) == ({"kind": "big"}, False, False)
    assert flow.turn(task(1)).set[0].call == CallId(SECOND_RUN, 3, 1)


def test_a_workflow_that_went_back_continues_as_the_same_execution_again() -> None:
    runs = [Flow().start(), Flow().start()]
    runs[1].turn(timer(0))
    for flow in runs:
        flow.turn(renew())
        flow.turn(renew())
    assert runs[0].instance.execution == runs[1].instance.execution
    assert len({"w-1", id_after("w-1"), runs[0].instance.execution}) == 3


def test_a_continued_child_is_told_its_parent_again_and_may_change_its_version() -> None:
    flow = Flow().start(parent=PARENT)
    first = events.decode(flow.state.inbox[0].event).execution_started
    changes = flow.turn(renew(new_version=StringValue(value="2")))
    begun = events.decode(changes.append[0].event).execution_started
    assert begun.parent == first.parent
    assert (begun.version.value, flow.instance.version) == ("2", "2")
    assert flow.turn(renew()).append[0].turn == 3
    assert flow.instance.version == "2"


def test_a_continued_child_is_told_the_name_of_its_parent_again() -> None:
    flow = Flow().start(parent=PARENT)
    first = events.decode(flow.state.inbox[0].event).execution_started
    begun = events.decode(flow.turn(renew()).append[0].event).execution_started
    assert begun.parent.name == first.parent.name == StringValue(value="boss-flow")


def test_answers_to_an_earlier_execution_resolve_nothing_in_the_next(flow: Flow) -> None:
    """M43"""
    first = flow.turn(task(0, app="ml"), timer(1)).set
    flow.turn(renew())
    flow.turn(task(0, app="ml"), timer(1))
    before = dict(flow.open)
    assert effect(flow.arrive(result(first[0]), message(1))) == "duplicate+forgotten"
    flow.arrive(first[1])
    assert (flow.open, flow.state.inbox) == (before, [])


def test_a_child_of_an_earlier_execution_is_still_a_child_and_is_told_the_call_that_made_it(flow: Flow) -> None:
    flow.turn(child(0, "c", app="ml"))
    flow.turn(renew())
    flow.turn(child(0, "d", app="ml"))
    decision = operations.terminate(flow.at, flow.live, "stop", recurse=True)
    assert decision.changes is not None
    orders = [reminder for reminder in decision.changes.set if reminder.kind is Kind.TERMINATE]
    assert [(order.target, order.call) for order in orders] == [
        (ML.workflow("", "d"), CallId(SECOND_RUN, 3, 0)),
        (ML.workflow("", "c"), CallId("w-1", 1, 0)),
    ]


# ---------------------------------------------------------------- several ends, and the trace of the next run


def test_of_several_ends_in_one_answer_the_first_counts(flow: Flow) -> None:
    flow.turn(end(Status.COMPLETED, '"first"'), task(1), end(Status.FAILED, failure=FAILURE))
    assert (flow.instance.status, flow.last.output, flow.instance.failure) == (Status.COMPLETED, '"first"', None)
    assert [reminder.kind for reminder in flow.last.set] == [Kind.ACTIVITY]


def test_of_an_end_beside_a_continue_as_new_the_first_counts(flow: Flow) -> None:
    flow.turn(renew("1"), end())
    assert (flow.instance.status, flow.instance.execution) == (Status.RUNNING, SECOND_RUN)


def test_the_end_remembers_the_action_that_made_it(flow: Flow) -> None:
    flow.turn(end())
    assert flow.instance.ended_by == 99


TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.mark.parametrize(("before", "flags"), [(f"{TRACED}-00", "00"), (f"{TRACED}-01", "01"), ("bare", "01")])
def test_each_run_after_a_continue_as_new_is_the_root_of_a_trace(flow: Flow, before: str, flags: str) -> None:
    """E.5: Dapr's runtime does so; its Go client sends a bare trace ID (E.12)."""
    started = pb.ExecutionStarted(name="order", parent_trace_context=pb.TraceContext(trace_parent=before))
    started.instance.execution_id.value = "w-2"
    request = operations.Start(Identity("default", "w", "w-2"), started, None, replaceable=frozenset(Status))
    flow.take(operations.start(flow.at, flow.live, request))
    numbers = count(1)
    flow.ids.new_id = lambda: f"{next(numbers):032x}"
    roots = [before]
    for _ in range(2):
        flow.turn(renew())
        begun = events.decode(flow.state.inbox[0].event).execution_started.parent_trace_context
        roots.append(begun.trace_parent)
        assert begun.trace_parent.split("-")[-1] == flags
        flow.turn(task(1))
        request_ = pb.ActivityRequest.FromString(one(flow.last.set, Kind.ACTIVITY).payload)
        assert request_.parent_trace_context == begun
    assert len(set(roots)) == len(roots)


def test_a_run_after_one_without_a_trace_has_none(flow: Flow) -> None:
    flow.turn(renew())
    assert not events.decode(flow.state.inbox[0].event).execution_started.HasField("parent_trace_context")
