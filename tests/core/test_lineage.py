"""A caller's history for those that it calls: M83 to M86."""

from dataclasses import replace

import pytest

from sidecar.core import delivery, events
from sidecar.core import turn as turns
from sidecar.core.model import Kind
from sidecar.core.rewind import Record
from sidecar.schema import taskhub_pb2 as pb

from .builders import Flow, child, message, task

GRANDPARENT = pb.PropagatedChunk(raw_events=[b"old"], app_id="stock", instance_id="g", workflow_name="root")
GIVEN = pb.PropagatedHistory(scope=2, chunks=[GRANDPARENT]).SerializeToString()


def asked(scope: int, *, given: bytes = b"") -> list[bytes]:
    """What goes with an activity and a child that ask for a scope."""
    flow = Flow().start()
    first = task(0, "x", history_propagation_scope=scope)
    second = child(1, history_propagation_scope=scope)
    record = Record(flow.instance.covered, flow.instance.execution, [b"past"], lineage=given)
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
        kinds = [events.decode(event).WhichOneof("kind") for event in own.raw_events[1:]]
        assert kinds == ["orchestrator_started", "execution_started"]


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
