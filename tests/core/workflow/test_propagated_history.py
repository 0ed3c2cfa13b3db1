"""A caller's history for those that it calls, and what a policy reads in it: M82 to M86."""

from dataclasses import replace

import pytest

from sidecar.core import delivery, events
from sidecar.core.model import ActorId, Kind
from sidecar.core.policy import Happened, Required, Rule
from sidecar.core.workflow import propagated_history
from sidecar.core.workflow import turn as turns
from sidecar.core.workflow.rewind import Record
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import Flow, child, kind_of, message, renew, task

GRANDPARENT = pb.PropagatedChunk(
    raw_events=[pb.HistoryEvent(event_id=7).SerializeToString()], app_id="stock", instance_id="g", workflow_name="root"
)
GIVEN = pb.PropagatedHistory(scope=2, chunks=[GRANDPARENT]).SerializeToString()


def asked(scope: int, *, given: bytes = b"") -> list[bytes]:
    """What goes with an activity and a child that ask for a scope."""
    flow = Flow().start()
    first = task(0, "x", history_propagation_scope=scope)
    second = child(1, history_propagation_scope=scope)
    record = Record(flow.instance.last_completed_turn, flow.instance.execution, [b"past"], lineage=given)
    response = pb.OrchestratorResponse(instance_id=flow.instance.id, actions=[first, second])
    changes = turns.complete(flow.at, flow.state, flow.begin(), response, record)
    found = []
    for reminder in changes.set:
        if reminder.kind is Kind.ACTIVITY:
            found.append(pb.ActivityRequest.FromString(reminder.payload).lineage)
        else:
            found.append(events.decode(reminder.payload).execution_started.lineage)
    return found


@pytest.mark.parametrize("scope", [0, 3])
def test_nothing_is_passed_on_unless_it_is_asked_for(scope: int) -> None:
    """M83."""
    assert asked(scope, given=GIVEN) == [b"", b""]


@pytest.mark.parametrize(("scope", "ancestors"), [(1, []), (2, ["root"])])
def test_the_caller_comes_last_behind_its_ancestors_if_those_are_asked_for(scope: int, ancestors: list[str]) -> None:
    """M84, M85: each call has a copy of its own."""
    for encoded in asked(scope, given=GIVEN):
        history = pb.PropagatedHistory.FromString(encoded)
        assert history.scope == scope
        assert [chunk.workflow_name for chunk in history.chunks] == [*ancestors, "order"]
        own = history.chunks[-1]
        assert (own.app_id, own.instance_id, own.raw_events[0]) == ("orders", "w", b"past")


def test_what_the_same_turn_has_called_so_far_is_in_it_the_call_included() -> None:
    """E.15: Dapr sends it with each call as the history is once that call is in it."""
    begun = ["orchestrator_started", "execution_started"]
    first, second = (pb.PropagatedHistory.FromString(encoded).chunks[-1].raw_events[1:] for encoded in asked(1))
    assert list(map(kind_of, first)) == [*begun, "task_scheduled"]
    assert list(map(kind_of, second)) == [*begun, "task_scheduled", "child_created"]


def continued(given: bytes, size: int = 4) -> list[pb.PropagatedChunk]:
    """What the next execution is given when one, which was given this, continues as new after so many bytes."""
    flow = Flow().start()
    record = Record(flow.instance.last_completed_turn, flow.instance.execution, [b"p" * size], lineage=given)
    response = pb.OrchestratorResponse(instance_id=flow.instance.id, actions=[renew()])
    changes = turns.complete(flow.at, flow.state, flow.begin(), response, record)
    return list(pb.PropagatedHistory.FromString(changes.lineage).chunks)


def test_the_execution_that_ends_is_added_to_what_it_was_given_when_it_continues_as_new() -> None:
    """E.15: its events come last; a root that was given nothing begins its next execution with nothing."""
    root, own = continued(GIVEN)
    assert root == GRANDPARENT
    assert (own.app_id, own.instance_id, own.workflow_name, own.raw_events[0]) == ("orders", "w", "order", b"pppp")
    assert continued(b"") == []


def test_a_workflow_without_end_hands_on_as_many_of_its_last_executions_as_have_room() -> None:
    """Each adds its history: without a bound the workflow would outgrow what its worker receives, and stall."""
    given = pb.PropagatedHistory.FromString(GIVEN)
    for number in range(3):
        chunk = given.chunks.add(app_id="orders", instance_id="w")
        chunk.raw_events.append(bytes([number]) * (propagated_history.MOST_OF_GENERATIONS * 3 // 5))
    root, last, own = continued(given.SerializeToString())
    assert (root, last.raw_events[0][:1], own.raw_events[0]) == (GRANDPARENT, b"\2", b"pppp")
    assert continued(GIVEN, propagated_history.MOST_OF_GENERATIONS) == [GRANDPARENT]


def test_a_child_keeps_what_it_was_given_beside_its_log() -> None:
    """M86: over continue-as-new; a creation without it leaves none."""
    home = Flow().start()
    [created] = home.turn(child(0)).set
    event = events.decode(created.payload)
    event.execution_started.lineage = GIVEN
    there = Flow()
    decision = delivery.arrive(
        there.at, None, delivery.Arrival(replace(created, payload=events.encode(event)), received=(message(),))
    )
    assert decision.changes is not None
    assert decision.changes.instance is not None
    assert (decision.changes.lineage, decision.changes.instance.lineage) == (GIVEN, True)
    assert not events.decode(decision.changes.append[0].event).execution_started.lineage
    plain = delivery.arrive(there.at, None, delivery.Arrival(created, received=(message(),))).changes
    assert plain is not None
    assert plain.instance is not None
    assert (plain.lineage, plain.instance.lineage) == (b"", False)


# ---------------------------------------------------------------- what a policy reads in it

CALLER = ActorId("default", "shop", "workflow", "default", "s")
LOG = [
    pb.HistoryEvent(event_id=1, task_scheduled=pb.TaskScheduled(name="validate")),
    pb.HistoryEvent(event_id=2, child_created=pb.ChildCreated(name="approve"), router=pb.Router(target_app_id="stock")),
    pb.HistoryEvent(child_completed=pb.ChildCompleted(task_scheduled_id=2)),
    pb.HistoryEvent(event_raised=pb.EventRaised(name="paid")),
    pb.HistoryEvent(task_failed=pb.TaskFailed(task_scheduled_id=1)),
    pb.HistoryEvent(event_id=1, task_scheduled=pb.TaskScheduled(name="again")),
    pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1)),
    pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=7)),
]


def chunk(app: str = "shop", instance: str = "s") -> pb.PropagatedChunk:
    return pb.PropagatedChunk(app_id=app, instance_id=instance, raw_events=map(events.encode, LOG))


def read(*chunks: pb.PropagatedChunk) -> list[Happened]:
    encoded = pb.PropagatedHistory(scope=2, chunks=chunks).SerializeToString()
    return list(propagated_history.happened(encoded, CALLER))


def test_a_history_tells_what_was_called_how_it_ended_and_what_was_raised() -> None:
    """M82: an end counts for the call that was made last under its number."""
    assert read(chunk()) == [
        Happened("activity", "validate", "scheduled", "shop"),
        Happened("workflow", "approve", "scheduled", "stock"),
        Happened("workflow", "approve", "completed", "stock"),
        Happened("event", "paid", "raised", "shop"),
        Happened("activity", "validate", "failed", "shop"),
        Happened("activity", "again", "scheduled", "shop"),
        Happened("activity", "again", "completed", "shop"),
    ]


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk(app="stock")],
        [chunk(instance="other")],
        [chunk(), pb.PropagatedChunk(app_id="stock", instance_id="s")],
        [chunk(app="stock"), pb.PropagatedChunk(app_id="shop", instance_id="s")],
        [pb.PropagatedChunk(app_id="shop", instance_id="s", raw_events=[b"\xff"])],
    ],
)
def test_only_what_the_proven_caller_says_of_its_own_instance_counts(chunks: list[pb.PropagatedChunk]) -> None:
    """M82: the history of another instance, or of an ancestor, shows nothing."""
    assert read(*chunks) == []


def test_what_is_no_history_shows_nothing() -> None:
    """M82."""
    assert list(propagated_history.happened(b"\xff\xff", CALLER)) == []


@pytest.mark.parametrize(
    ("required", "met"),
    [
        ([Required("activity", "val*", "scheduled"), Required("event", "paid", "raised")], True),
        ([Required("event", "paid", "raised"), Required("activity", "val*", "scheduled")], False),
        ([Required("activity", "validate", "completed")], False),
        ([Required("workflow", "approve", "completed", "st*")], True),
        ([Required("workflow", "approve", "completed", "shop")], False),
        ([Required("event", "paid", "raised")] * 2, False),
        ([Required("activity", "a*", "completed"), Required("activity", "a*", "completed")], False),
    ],
)
def test_a_rule_wants_all_that_it_requires_in_order(required: list[Required], met: bool) -> None:
    """M82."""
    rule = Rule("*", "activity", "*", frozenset(), tuple(required))
    assert rule.met_by(lambda: read(chunk())) is met
