from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import events, operations
from sidecar.core.errors import OvertakenError
from sidecar.core.model import NO_CALL, ActorId, CallId, CallKind, Child, Kind, OpenCall, Position, Status
from sidecar.core.workflow import pauses
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    ME,
    ML,
    NOW,
    SECOND,
    Flow,
    child,
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
    timer,
)

TRACE = pb.TraceContext(trace_parent="00-1-2-01", span_id="2")


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


# ---------------------------------------------------------------- calls


def test_actions_are_confirmed_in_their_order_behind_the_events_of_the_turn(flow: Flow) -> None:
    flow.event("a").event("b")
    changes = flow.turn(timer(4), task(9), send(2, "other"), child(7), kill(5, "third"))
    assert [row.position for row in changes.append] == [(1, 0), (1, 4), (1, 5), (1, 6), (1, 7)]
    confirmed = [events.decode(row.event) for row in changes.append[1:]]
    assert [(event.event_id, event.WhichOneof("kind")) for event in confirmed] == [
        (4, "timer_created"),
        (9, "task_scheduled"),
        (2, "event_sent"),
        (7, "child_created"),
    ]
    assert kinds(changes.append[:1]) == ["orchestrator_started"]
    assert {event.timestamp.seconds for event in confirmed} == {NOW // SECOND}


@pytest.mark.parametrize("app", ["", "orders"])
def test_a_call_to_the_own_app_stays_here_whether_or_not_it_is_named(app: str) -> None:
    changes = Flow().start().turn(task(0, app=app), child(1, "c", app=app))
    assert changes == Flow().start().turn(task(0), child(1, "c"))
    activity, create = one(changes.set, Kind.ACTIVITY), one(changes.set, Kind.CREATE)
    assert activity.target == ME.activity("default", "w::0::1")
    assert create.target == ME.workflow("default", "c")
    assert not activity.kept_until_result
    assert not create.kept_until_result
    assert not any(events.decode(row.event).HasField("router") for row in changes.append)


@pytest.mark.parametrize(("app", "namespace"), [("ml", ""), ("orders", "blue"), ("ml", "blue")])
def test_a_call_to_another_app_is_held_until_its_answer_and_shows_both_apps(
    flow: Flow, app: str, namespace: str
) -> None:
    changes = flow.turn(task(0, app=app, namespace=namespace), child(1, "c", app=app, namespace=namespace))
    activity, create = one(changes.set, Kind.ACTIVITY), one(changes.set, Kind.CREATE)
    place = (namespace or "default", app)
    assert activity.target == ActorId(*place, "activity", "", "w::0::1")
    assert create.target == ActorId(*place, "workflow", "", "c")
    assert activity.kept_until_result
    assert create.kept_until_result
    router = pb.Router(source_app_id="orders", target_app_id=app, target_namespace=namespace)
    assert [events.decode(row.event).router for row in changes.append[1:]] == [router, router]


def test_an_activity_carries_all_of_its_request_and_opens_its_call(flow: Flow) -> None:
    fields: dict[str, Any] = {
        "version": StringValue(value="2"),
        "input": StringValue(value=""),
        "tags": {"b": "2", "a": "1"},
        "parent_trace_context": TRACE,
        "task_execution_id": "t-1",
    }
    changes = flow.turn(task(3, "score", app="ml", **fields))
    [reminder] = changes.set
    instance = pb.WorkflowInstance(instance_id="w", execution_id=StringValue(value="w-1"), app_id="orders")
    wanted = pb.ActivityRequest(name="score", task_id=3, instance=instance, **fields)
    assert pb.ActivityRequest.FromString(reminder.payload) == wanted
    assert events.decode(changes.append[1].event).task_scheduled == pb.TaskScheduled(name="score", **fields)
    assert (reminder.call, reminder.due, reminder.name) == (CallId("w-1", 1, 3), NOW, "score")
    assert (reminder.owner, reminder.source) == (flow.instance.key, ME.workflow("default", "w"))
    call = flow.open[3]
    assert call == OpenCall(reminder.call, CallKind.ACTIVITY, "score", reminder.target, reminder.id, (), "t-1")


def test_a_child_is_told_its_execution_and_the_way_back(flow: Flow) -> None:
    fields: dict[str, Any] = {"input": StringValue(value="5"), "tags": {"a": "1"}, "version": StringValue(value="3")}
    changes = flow.turn(child(2, "c", app="ml", **fields))
    [reminder] = changes.set
    event = events.decode(reminder.payload)
    started = event.execution_started
    assert started.instance.instance_id == "c"
    assert started.instance.execution_id.value == "id-1"
    assert (started.name, started.input.value, dict(started.tags), started.version.value) == (
        "ship",
        "5",
        {"a": "1"},
        "3",
    )
    assert event.router == pb.Router(source_app_id="orders", target_app_id="ml")
    parent = started.parent
    assert (parent.app_id, parent.app_namespace, parent.hub) == ("orders", "default", "default")
    assert (parent.instance.instance_id, parent.instance.execution_id.value) == ("w", "w-1")
    assert (parent.task_scheduled_id, parent.turn, parent.name.value) == (2, 1, "order")
    assert flow.open[2] == OpenCall(CallId("w-1", 1, 2), CallKind.CHILD, "ship", reminder.target, reminder.id)
    assert changes.children == (Child(reminder.target, CallId("w-1", 1, 2)),)
    assert events.decode(changes.append[1].event).child_created == pb.ChildCreated(
        instance_id="c", name="ship", **fields
    )


@pytest.mark.parametrize(("number", "wanted"), [(10, "w:000a"), (0x12345, "w:12345"), (-1, "w:ffffffff")])
def test_a_child_without_an_id_is_named_after_its_parent_and_the_action(flow: Flow, number: int, wanted: str) -> None:
    changes = flow.turn(child(number))
    assert changes.set[0].target.id == wanted
    assert events.decode(changes.append[1].event).child_created.instance_id == wanted


@pytest.mark.parametrize(
    ("action", "failed", "error", "said"),
    [
        (task(0, app="m!l"), "task_failed", "InvalidAppId", "m!l"),
        (task(0, app="ml", namespace="b!ue"), "task_failed", "InvalidAppId", "b!ue"),
        (child(0, "c", app="m l"), "child_failed", "InvalidAppId", "m l"),
        (child(0, "c", namespace="b lue"), "child_failed", "InvalidAppId", "b lue"),
        (child(0, "c\n", app="m l"), "child_failed", "InvalidAppId", "m l"),
        (child(0, "c\n"), "child_failed", "InvalidInstanceId", "control characters"),
        (child(0, "c", name=""), "child_failed", "InvalidName", "is empty"),
        (child(0, "c" * 16_385), "child_failed", "InvalidInstanceId", "16385 characters"),
    ],
)
def test_a_call_to_an_address_that_cannot_exist_fails_in_the_next_turn(
    flow: Flow, action: pb.Action, failed: str, error: str, said: str
) -> None:
    changes = flow.turn(action)
    confirmation, failure = changes.append[1:]
    assert (confirmation.turn, failure.position) == (1, Position(2, 2))
    assert kind_of(failure.event) == failed
    details = getattr(events.decode(failure.event), failed)
    assert details.task_scheduled_id == 0
    assert details.failure.error_type == error
    assert said in details.failure.error_message
    assert details.failure.is_non_retriable
    assert (changes.set, changes.children, flow.open) == ((), (), {})
    assert flow.instance.ready
    assert flow.turn(task(0)).set[0].call == CallId("w-1", 2, 0)


def test_an_open_call_that_is_named_again_is_neither_sent_nor_confirmed_again(flow: Flow) -> None:
    """M40"""
    calls = (task(0), task(1, app="ml"), child(2), timer(3), send(4, "other"))
    flow.turn(*calls)
    before = dict(flow.open)
    changes = flow.turn(*calls, task(5), task(5))
    assert [reminder.call for reminder in changes.set] == [CallId("w-1", 2, 5)]
    assert [events.decode(row.event).event_id for row in changes.append[1:]] == [5]
    assert {number: flow.open[number] for number in before} == before


def test_a_task_id_that_was_answered_is_a_new_call(flow: Flow) -> None:
    """M40"""
    first = flow.turn(task(0, app="ml")).set[0]
    flow.arrive(result(first), message())
    second = flow.turn(task(0, app="ml")).set[0]
    assert (first.call, second.call) == (CallId("w-1", 1, 0), CallId("w-1", 2, 0))
    assert second.target.id == "w::0::2"


# ---------------------------------------------------------------- other instances


def test_an_event_goes_to_an_instance_here_or_in_the_app_that_is_named_in_either_place(flow: Flow) -> None:
    nested = send(2, "other")
    nested.send_event.instance.app_id = "ml"
    own = send(3, "other")
    own.send_event.instance.app_id = "orders"
    changes = flow.turn(send(0, "other", data="1"), send(1, "other", app="ml"), nested, own)
    here, there = ME.workflow("default", "other"), ML.workflow("", "other")
    assert [reminder.target for reminder in changes.set] == [here, there, there, here]
    raised = events.decode(changes.set[0].payload).event_raised
    assert raised == pb.EventRaised(name="paid", input=StringValue(value="1"))
    assert not events.decode(changes.set[1].payload).event_raised.HasField("input")
    assert not any(reminder.kept_until_result for reminder in changes.set)
    sent = events.decode(changes.append[1].event).event_sent
    assert sent == pb.EventSent(instance_id="other", name="paid", input=StringValue(value="1"))
    assert {(call.kind, call.reminder) for call in flow.open.values()} == {(CallKind.EVENT, 0)}


@pytest.mark.parametrize(("app", "namespace"), [("", ""), ("orders", ""), ("orders", "default")])
def test_a_terminate_action_goes_to_an_own_instance_without_a_confirmation(
    flow: Flow, app: str, namespace: str
) -> None:
    changes = flow.turn(kill(0, "other", app=app, namespace=namespace, reason="late", recurse=True))
    [reminder] = changes.set
    assert (reminder.kind, reminder.target, reminder.call) == (
        Kind.TERMINATE,
        ME.workflow("default", "other"),
        NO_CALL,
    )
    order = events.decode(reminder.payload).execution_terminated
    assert (order.input.value, order.recurse) == ("late", True)
    assert (kinds(changes.append), flow.open) == (["orchestrator_started"], {})


# ---------------------------------------------------------------- what cannot be carried out


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (pb.Action(id=1, send_entity_message=pb.SendEntityMessage()), "to an entity without a kind"),
        (pb.Action(id=1, rewind=pb.Rewind()), "rewind"),
        (pb.Action(id=1), "without a kind"),
        (send(1, "other", app="m!l"), "m!l"),
        (send(1, "other", namespace="b!ue"), "b!ue"),
        (kill(1, "other", app="ml"), "another app"),
        (kill(1, "other", namespace="blue"), "another app"),
        (kill(1, "other", app="m!l"), "m!l"),
        (kill(1, "other", namespace="b!ue"), "b!ue"),
        (end(Status.PENDING), "status 6"),
        (end(42), "status 42"),
    ],
)
def test_an_action_that_cannot_be_carried_out_fails_the_instance_and_says_which(
    flow: Flow, action: pb.Action, said: str
) -> None:
    pending = flow.turn(timer(0)).set[0]
    changes = flow.turn(task(7), action, child(8))
    assert flow.instance.status is Status.FAILED
    failure = pb.FailureDetails.FromString(flow.instance.failure or b"")
    assert said in failure.error_message
    assert (failure.error_type, failure.is_non_retriable) == ("UnsupportedAction", True)
    assert (kinds(changes.append), changes.set, changes.children) == (["orchestrator_started"], (), ())
    assert (changes.dropped, flow.open) == ((pending.id,), {})


# ---------------------------------------------------------------- the turn itself


def test_a_turn_has_all_that_waits_and_what_comes_later_waits_for_the_next(flow: Flow) -> None:
    flow.event("a")
    turn = flow.begin()
    flow.event("b")
    assert (turn.key, turn.execution, turn.number) == (flow.instance.key, "w-1", 1)
    assert kinds(turn.rows) == ["execution_started", "event_raised"]
    changes = flow.complete(turn, task(0))
    assert (flow.instance.last_completed_turn, flow.instance.ready) == (1, True)
    assert [row.turn for row in flow.state.inbox] == [2]
    assert changes.append[-1].position < flow.state.inbox[0].position
    flow.turn()
    assert (flow.instance.last_completed_turn, flow.instance.ready, flow.state.inbox) == (2, False, [])


def test_a_turn_that_is_handed_out_again_covers_what_came_meanwhile(flow: Flow) -> None:
    flow.begin()
    flow.event("a")
    changes = flow.turn(task(0))
    assert [row.position for row in changes.append] == [(1, 0), (2, 3)]
    assert flow.instance.last_completed_turn == 2
    assert flow.open[0].call == CallId("w-1", 2, 0)


def test_an_empty_custom_status_clears_it_and_none_at_all_keeps_it(flow: Flow) -> None:
    """E.15: who sends an empty one with each turn (JavaScript, Java) sets the status again whenever it replays."""
    flow.turn(custom_status=StringValue(value='"half"'))
    flow.turn()
    assert flow.instance.custom_status == '"half"'
    flow.turn(custom_status=StringValue(value=""))
    assert flow.instance.custom_status is None


def test_the_start_is_kept_from_the_first_turn(flow: Flow) -> None:
    flow.turn()
    begun = flow.instance.started_at
    flow.now += SECOND
    flow.turn()
    assert begun == flow.instance.started_at == NOW
    assert (flow.instance.status, flow.instance.updated_at) == (Status.RUNNING, NOW + SECOND)


def test_the_version_that_a_worker_tells_stands_on_the_start_of_the_turn(flow: Flow) -> None:
    version = pb.WorkflowVersion(patches=["p1", "p2"], name="v3")
    turn = flow.begin()
    changes = flow.complete(turn, version=version)
    started = events.decode(changes.append[0].event)
    assert started.orchestrator_started.version == version
    assert events.micros(started.timestamp) == turn.time


OVERTAKEN: dict[str, Callable[[Flow], Any]] = {
    "terminated": lambda flow: flow.take(operations.terminate(flow.at, flow.live, None, False)),
    "suspended": lambda flow: flow.take(pauses.suspend(flow.at, flow.live, None)),
    "replaced": lambda flow: flow.start(execution="w-2", replaceable=frozenset({Status.PENDING})),
    "removed, and its ID used again": lambda flow: (
        flow.take(operations.purge(flow.at, flow.live, force=True)),
        flow.start(),
    ),
    "continued": lambda flow: flow.turn(renew()),
    "continued, and events came": lambda flow: (flow.turn(renew()), flow.event("a").event("b")),
    "answered": lambda flow: flow.turn(task(0)),
    "answered with more": lambda flow: flow.event("a").turn(task(0)),
    "ended": lambda flow: flow.turn(end()),
}


@pytest.mark.parametrize("what", OVERTAKEN)
def test_the_answer_to_a_turn_that_was_overtaken_is_refused_and_changes_nothing(flow: Flow, what: str) -> None:
    """M47"""
    turn = flow.begin()
    OVERTAKEN[what](flow)
    before, last = deepcopy(flow.state), flow.last
    for action in (task(5), end(), renew(), pb.Action(id=1)):
        with pytest.raises(OvertakenError):
            flow.complete(turn, action)
    assert (flow.state, flow.last) == (before, last)


def test_a_turn_of_the_execution_before_is_refused_even_if_it_had_more_events_than_the_one_that_continued(
    flow: Flow,
) -> None:
    first = flow.begin()
    second = flow.event("a").begin()
    flow.complete(first, renew())
    assert second.number > flow.instance.last_completed_turn
    with pytest.raises(OvertakenError):
        flow.complete(second, task(5))


ACTIONS = st.one_of(
    st.builds(task, st.integers(0, 5), app=st.sampled_from(["", "ml", "m!l"]), tags=st.just({"a": "1"})),
    st.builds(child, st.integers(0, 5), app=st.sampled_from(["", "ml"])),
    st.builds(timer, st.integers(0, 5), st.integers(0, 2 * NOW)),
    st.builds(send, st.integers(0, 5), st.just("other")),
    st.builds(renew, st.just("1")),
    st.builds(end),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ACTIONS, max_size=6))
def test_equal_answers_to_equal_instances_give_equal_changes(actions: list[pb.Action]) -> None:
    def taken(actions: list[pb.Action]) -> Any:
        flow = Flow().start()
        flow.turn(timer(4), child(5))
        return flow.turn(*actions)

    copies = [pb.Action.FromString(action.SerializeToString()) for action in actions]
    assert taken(actions) == taken(copies)
    assert [action.SerializeToString() for action in actions] == [copy.SerializeToString() for copy in copies]


def test_the_order_in_which_a_worker_names_tags_does_not_show_in_what_is_stored() -> None:
    tags = [(f"t{number}", str(number)) for number in range(12)]
    forward = Flow().start().turn(task(0, tags=dict(tags)), child(1, tags=dict(tags)))
    assert forward == Flow().start().turn(task(0, tags=dict(tags[::-1])), child(1, tags=dict(tags[::-1])))


def test_the_first_attempt_of_a_child_is_told_with_each_that_follows(flow: Flow) -> None:
    """E.15: it stays in the history, at the number where one family looks for it."""
    changes = flow.turn(child(3, "c2", retry_parent=pb.RetryParent(instance_id="c1")))
    created = events.decode(changes.append[1].event).child_created
    assert created.retry_parent.instance_id == "c1"
    assert b"\x42\x04\x0a\x02c1" in created.SerializeToString()
