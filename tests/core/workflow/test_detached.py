"""Detached workflows: started by a workflow, and then nobody's child (M11, M52, M71 to M76)."""

from dataclasses import replace

import pytest

from sidecar.core import delivery, events
from sidecar.core.delivery import Arrival
from sidecar.core.model import Kind, Outcome, Reminder, Status
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, ML, NOW, PARENT, SECOND, Flow, detach, end, kinds, message, one, renew, text


def started_by(reminder: Reminder) -> pb.ExecutionStarted:
    return events.decode(reminder.payload).execution_started


def received(reminder: Reminder, flow: Flow | None = None) -> Flow:
    """Return the app ml after it got a start, with what was there before."""
    there = flow or Flow(ML)
    there.arrive(replace(reminder, target=ML.workflow("default", reminder.target.id)), message(reminder.id, "orders"))
    return there


def test_a_detached_workflow_carries_all_that_it_was_given_and_no_parent() -> None:
    """M75, M76, M10."""
    flow = Flow().start(parent=PARENT)
    fields = {"input": text("1"), "version": text("2.0"), "tags": {"team": "growth"}}
    changes = flow.turn(detach(4, "report", **fields), end())
    reminder = one(changes.set, Kind.DETACHED)
    started = started_by(reminder)
    assert (started.name, started.input.value, started.version.value) == ("report-flow", "1", "2.0")
    assert dict(started.tags) == {"team": "growth"}
    assert not started.HasField("parent")
    assert started.instance.execution_id.value not in ("", flow.instance.execution)
    assert reminder.target == ME.workflow("default", "report")
    assert not reminder.kept_until_result
    assert (flow.instance.status, flow.state.children, changes.children) == (Status.COMPLETED, {}, ())


def test_the_caller_sees_one_event_and_never_an_answer() -> None:
    """M71."""
    flow = Flow().start()
    changes = flow.turn(detach(4, "report"))
    assert kinds(changes.append) == ["orchestrator_started", "detached_created"]
    confirmed = events.decode(changes.append[-1].event)
    assert (confirmed.event_id, confirmed.detached_created.instance_id) == (4, "report")
    assert not flow.instance.ready


def test_replay_does_not_start_it_again_and_a_new_execution_may() -> None:
    """M72."""
    flow = Flow().start()
    assert len(flow.turn(detach(1, "a")).set) == 1
    assert flow.turn(detach(1, "a")).set == ()
    assert one(flow.turn(detach(2, "b"), renew()).set, Kind.DETACHED).target.id == "b"
    assert one(flow.turn(detach(1, "a")).set, Kind.DETACHED).target.id == "a"


def test_only_unnamed_ones_are_counted_over_the_whole_life() -> None:
    """M11."""
    flow = Flow().start()
    flow.turn(detach(1), detach(2, "named"), detach(3))
    assert [reminder.target.id for reminder in flow.last.set] == ["w-0", "named", "w-1"]
    flow.turn(detach(4), renew())
    assert [reminder.target.id for reminder in flow.last.set] == ["w-2"]
    flow.turn(detach(1))
    assert [reminder.target.id for reminder in flow.last.set] == ["w-3"]


def test_one_for_another_app_is_a_message_to_it_without_a_way_back() -> None:
    flow = Flow().start()
    changes = flow.turn(detach(4, "report", app="ml"))
    reminder = one(changes.set, Kind.DETACHED)
    assert (reminder.target.app, reminder.target.hub, reminder.kept_until_result) == ("ml", "", False)
    router = events.decode(changes.append[-1].event).router
    assert (router.source_app_id, router.target_app_id) == ("orders", "ml")
    there = received(reminder)
    assert (there.instance.parent, there.instance.status) == (None, Status.PENDING)
    assert there.instance.execution == started_by(reminder).instance.execution_id.value
    assert not started_by(reminder).instance.app_id.startswith("orders")
    assert events.decode(there.state.inbox[0].event).router.source_app_id == "ml"


def test_a_parent_that_a_peer_claims_for_a_detached_start_is_not_believed() -> None:
    flow = Flow().start()
    reminder = one(flow.turn(detach(4, "report", app="ml")).set, Kind.DETACHED)
    forged = events.decode(reminder.payload)
    forged.execution_started.parent.app_id = "bank"
    there = received(replace(reminder, payload=events.encode(forged)))
    assert there.instance.parent is None
    assert not events.decode(there.state.inbox[0].event).execution_started.HasField("parent")


def test_a_future_start_waits_at_its_receiver() -> None:
    """M75."""
    flow = Flow().start()
    start = events.timestamp(NOW + 60 * SECOND)
    reminder = one(flow.turn(detach(4, "report", app="ml", scheduled_start=start)).set, Kind.DETACHED)
    assert reminder.due == NOW
    there = received(reminder)
    waiting = one(there.last.set, Kind.START)
    assert not there.instance.began
    assert (there.instance.scheduled_at, waiting.due) == (NOW + 60 * SECOND, NOW + 60 * SECOND)


def test_an_occupied_id_is_left_alone_and_nobody_is_told() -> None:
    """M52, M74."""
    flow = Flow().start()
    reminder = one(flow.turn(detach(4, "w", app="ml")).set, Kind.DETACHED)
    there = Flow(ML).start()
    before = there.instance
    arrival = Arrival(replace(reminder, target=ML.workflow("default", "w")), received=(message(7, "orders"),))
    decision = delivery.arrive(there.at, there.live, arrival)
    assert decision.reply.outcome is Outcome.EXISTS
    assert decision.changes is not None
    assert (decision.changes.set, decision.changes.received) == ((), (message(7, "orders"),))
    there.take(decision)
    assert there.instance is before


@pytest.mark.parametrize(
    ("action", "named"),
    [(detach(1, "a\nb"), "a"), (detach(1, "a", app="no/slash"), "no/slash"), (detach(1, "a", name=""), "name")],
)
def test_one_that_cannot_be_ends_the_caller_with_a_reason(action: pb.Action, named: str) -> None:
    flow = Flow().start()
    assert flow.turn(action).set == ()
    assert flow.instance.status is Status.FAILED
    assert named in pb.FailureDetails.FromString(flow.instance.failure or b"").error_message


def test_its_trace_is_its_own_else_that_of_its_caller() -> None:
    trace = pb.TraceContext(trace_parent="00-1-2-01")
    flow = Flow().start()
    flow.state.instance = replace(flow.instance, trace=trace.SerializeToString())
    own = pb.TraceContext(trace_parent="00-3-4-01")
    flow.turn(detach(1, "a"), detach(2, "b", parent_trace_context=own))
    found = [started_by(reminder).parent_trace_context.trace_parent for reminder in flow.last.set]
    assert found == ["00-1-2-01", "00-3-4-01"]


def test_what_is_not_an_execution_is_no_start() -> None:
    flow = Flow().start()
    reminder = one(flow.turn(detach(4, "report", app="ml")).set, Kind.DETACHED)
    there = Flow(ML)
    for payload in (b"", events.event_raised(NOW, "paid", None)):
        arrival = Arrival(replace(reminder, payload=payload), received=(message(1),))
        decision = delivery.arrive(there.at, None, arrival)
        assert decision.reply.outcome is Outcome.INVALID
