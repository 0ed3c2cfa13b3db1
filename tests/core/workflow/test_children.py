"""Children: how they come to be when a parent asks for them, and whose commands they take."""

from dataclasses import replace

import pytest

from sidecar.core import delivery, events
from sidecar.core.delivery import Arrival
from sidecar.core.identity import AppIdentity
from sidecar.core.model import NO_CALL, ActorId, CallId, Changes, Child, Kind, Outcome, Parent, Status
from sidecar.core.workflow.next_execution import id_after
from sidecar.core.workflow.rewind import Record
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    MADE,
    ME,
    ML,
    NOW,
    OWN_PARENT,
    PARENT,
    Flow,
    child,
    command,
    creation,
    effect,
    end,
    message,
    one,
    renew,
    result,
    timer,
)

# ---------------------------------------------------------------- creation


@pytest.mark.parametrize("parent", [PARENT, OWN_PARENT], ids=["by another app", "by this app"])
def test_a_child_is_created_as_its_parent_asked_and_remembers_who_that_was(parent: Parent) -> None:
    flow = Flow()
    forged = creation(parent)
    event = events.decode(forged.payload)
    event.execution_started.parent.app_id = "bank"
    event.execution_started.parent.instance.instance_id = "vault"
    event.router.source_app_id = "bank"
    flow.arrive(replace(forged, payload=events.encode(event)), message(1, parent.actor.app))
    instance = flow.instance
    assert (instance.id, instance.execution, instance.name, instance.parent) == ("w", "w-1", "order", parent)
    assert (instance.status, instance.ready) == (Status.PENDING, True)
    [row] = flow.state.inbox
    begun = events.decode(row.event)
    assert begun.router == pb.Router(source_app_id=parent.actor.app, target_app_id="orders")
    told = begun.execution_started.parent
    assert (told.app_id, told.app_namespace, told.instance.instance_id) == (parent.actor.app, "default", "boss")
    assert (told.instance.execution_id.value, told.turn, told.task_scheduled_id) == ("boss-1", 7, 3)
    assert (told.name.value, instance.origin) == ("boss-flow", "w-1")


@pytest.mark.parametrize("parent", [PARENT, OWN_PARENT], ids=["in another app", "in this app"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_child_whose_id_is_taken_fails_at_its_parent_and_the_occupant_stays(parent: Parent, reuse: bool) -> None:
    """M50"""
    flow = Flow(AppIdentity("default", "orders", reuse_ended=reuse)).start()
    if not reuse:
        flow.turn(end())
    before = flow.instance
    decision = flow.arrive(creation(parent, execution="w-2"))
    assert decision.reply.outcome is Outcome.EXISTS
    answer = one(flow.last.set, Kind.RESULT)
    assert (answer.target, answer.call) == parent[:2]
    assert answer.source == ME.workflow("default", "w")
    failed = events.decode(answer.payload).child_failed
    assert (failed.task_scheduled_id, failed.failure.error_type) == (3, "WorkflowInstanceAlreadyExists")
    assert "'w'" in failed.failure.error_message
    assert flow.instance is before


def test_a_creation_that_is_repeated_after_the_child_continued_as_new_is_the_same_child() -> None:
    """M45"""
    flow = Flow().start(parent=PARENT)
    flow.turn(renew())
    assert (flow.instance.origin, flow.instance.execution) == ("w-1", id_after("w-1"))
    assert effect(flow.arrive(creation(PARENT), message(8, "front"))) == "duplicate"
    another = Parent(PARENT.actor, PARENT.call._replace(execution="boss-2", turn=8))
    assert effect(flow.arrive(creation(another, execution="w-2"), message(7, "front"))) == "exists+answered"
    flow.turn(end())
    assert effect(flow.arrive(creation(PARENT), message(9, "front"))) == "duplicate+answered"


ANEW = PARENT._replace(call=PARENT.call._replace(turn=8))
ORPHANED = Parent(PARENT.actor, PARENT.call._replace(execution="boss-0", turn=6))


def test_a_call_that_a_parent_makes_anew_in_another_turn_is_answered_by_the_child_that_runs() -> None:
    """A parent that went back gets its results in other portions, and so makes the call in another turn."""
    flow = Flow().start(parent=PARENT)
    assert effect(flow.arrive(creation(ANEW, execution="w-2"), message(7, "front"))) == "duplicate"
    assert (flow.instance.parent, flow.instance.execution) == (ANEW, "w-1")
    assert [each.call for each in flow.turn(end()).set if each.kind is Kind.RESULT] == [ANEW.call]


def test_a_call_that_a_parent_makes_anew_is_answered_by_the_child_that_has_completed() -> None:
    flow = Flow().start(parent=PARENT)
    changes = flow.turn(end(result="out"))
    record = Record(flow.instance.last_completed_turn, flow.instance.execution, output=changes.output)
    decision = delivery.arrive(flow.at, flow.live, Arrival(creation(ANEW, execution="w-2"), record=record))
    assert effect(decision) == "duplicate+ended"
    assert decision.changes is not None
    assert decision.changes.instance is not None
    assert decision.changes.instance.parent == ANEW
    assert [each.call for each in decision.changes.set] == [ANEW.call]


def test_a_call_that_is_made_again_after_a_failure_is_a_new_one() -> None:
    flow = Flow().start(parent=PARENT)
    flow.turn(end(Status.FAILED, failure=ODD))
    looked = Arrival(creation(ANEW, execution="w-2"), looked=flow.instance.key)
    assert effect(delivery.arrive(flow.at, flow.live, looked)) == "done+created"


def test_a_child_of_a_later_execution_of_a_parent_that_went_back_is_waited_for() -> None:
    flow = Flow().start(parent=PARENT)
    decision = flow.arrive(creation(ORPHANED, execution="w-2"), message(7, "front"))
    assert (decision.changes, decision.reply.outcome) == (None, Outcome.UNAVAILABLE)
    assert "'w'" in decision.reply.text
    own = Flow().start(parent=OWN_PARENT)
    assert effect(own.arrive(creation(ORPHANED._replace(actor=OWN_PARENT.actor), execution="w-2"))) == "exists+answered"


ODD = pb.FailureDetails(error_type="Odd", error_message="odd", is_non_retriable=True)
ENDS = {
    "completed": end(result="out"),
    "without a result": end(),
    "failed": end(Status.FAILED, failure=ODD),
    "terminated": end(Status.TERMINATED),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_child_that_has_ended_answers_its_creation_as_it_did_at_its_end(how: str) -> None:
    flow = Flow().start(parent=PARENT)
    changes = flow.turn(ENDS[how])
    (first,) = [each for each in changes.set if each.kind is Kind.RESULT]
    record = Record(flow.instance.last_completed_turn, flow.instance.execution, output=changes.output)
    decision = delivery.arrive(flow.at, flow.live, Arrival(creation(PARENT), received=(message(9),), record=record))
    assert decision.changes is not None
    (again,) = decision.changes.set
    assert (again.kind, again.target, again.call, again.payload) == (
        *(Kind.RESULT, first.target, first.call),
        first.payload,
    )
    assert decision.changes.unanswered == ((*PARENT.actor[:2], PARENT.call),)


def test_a_child_that_was_removed_is_not_made_again_while_its_answer_is_on_its_way() -> None:
    decision = delivery.arrive(Flow().at, None, Arrival(creation(PARENT), received=(message(9),)))
    assert decision.changes is not None
    assert decision.changes.unanswered == ((*PARENT.actor[:2], PARENT.call),)
    own = delivery.arrive(Flow().at, None, Arrival(creation(OWN_PARENT), received=(message(9),)))
    assert own.changes is not None
    assert own.changes.unanswered == ()


def test_an_answer_again_waits_for_what_was_read_of_the_end() -> None:
    flow = Flow().start(parent=PARENT)
    flow.turn(end())
    for read in (None, Record(0, "another execution")):
        arrival = Arrival(creation(PARENT), received=(message(9),), record=read)
        decision = delivery.arrive(flow.at, flow.live, arrival)
        assert (decision.changes, decision.reply.outcome) == (None, Outcome.UNAVAILABLE)
        assert delivery.must_look(decision, flow.live, arrival)


@pytest.mark.parametrize("spoil", ["name", "execution", "kind"])
def test_a_creation_without_a_name_or_an_execution_is_refused_for_good(spoil: str) -> None:
    event = events.decode(creation().payload)
    if spoil == "name":
        event.execution_started.name = ""
    elif spoil == "execution":
        event.execution_started.instance.ClearField("execution_id")
    else:
        event.event_raised.name = "x"
    decision = Flow().arrive(replace(creation(), payload=events.encode(event)), message())
    assert effect(decision) == "invalid"


@pytest.mark.parametrize("generations", [1, 2])
def test_a_second_child_under_a_taken_id_does_not_hide_the_first_from_its_parent(generations: int) -> None:
    flow = Flow().start()
    first = flow.turn(child(0, "c")).set[0]
    if generations == 2:
        flow.turn(renew())
    second = flow.turn(child(1, "c")).set[0]
    assert flow.state.children == {sent.call: Child(sent.target, sent.call) for sent in (first, second)}
    taken = events.child_failed(NOW, 1, events.failure("WorkflowInstanceAlreadyExists", "taken"))
    flow.arrive(result(second, taken))
    assert 1 not in flow.open
    assert flow.last.ended == (second.call,)
    assert flow.state.children == {first.call: Child(first.target, CallId("w-1", 1, 0))}


# ---------------------------------------------------------------- commands


BOSS = PARENT.actor
ORDERS = {
    "terminate": command(Kind.TERMINATE),
    "purge": command(Kind.PURGE),
}


@pytest.mark.parametrize("what", ORDERS)
@pytest.mark.parametrize(
    ("actor", "call"),
    [
        (BOSS, MADE._replace(execution="boss-2")),
        (BOSS, MADE._replace(execution="")),
        (BOSS, MADE._replace(turn=8)),
        (BOSS, MADE._replace(task=4)),
        (BOSS, CallId("boss-1", 0, 0)),
        (BOSS, NO_CALL),
        (BOSS._replace(id="boss2"), MADE),
        (BOSS._replace(app="back"), MADE),
        (BOSS._replace(namespace="blue"), MADE),
        (ME.workflow("default", "boss"), MADE),
    ],
)
def test_a_child_takes_commands_only_of_the_call_that_made_it(what: str, actor: ActorId, call: CallId) -> None:
    """M81"""
    flow = Flow().start(parent=PARENT)
    flow.turn(timer(0))
    before = flow.instance
    order = replace(ORDERS[what], source=actor, call=call)
    assert effect(flow.arrive(order, message(1))) == "denied"
    assert flow.instance is before
    done = "done+ended" if what == "terminate" else "wrong_state"  # it is gone before, or may not go
    assert effect(flow.arrive(ORDERS[what], message(2))) == done


def test_an_own_workflow_may_end_any_instance_but_another_app_may_not_claim_that_right() -> None:
    flow = Flow().start()
    assert effect(flow.arrive(command(Kind.TERMINATE, PARENT, call=NO_CALL), message())) == "denied"
    order = command(Kind.TERMINATE, OWN_PARENT, events.terminated(NOW, "late", recurse=False), call=NO_CALL)
    assert effect(flow.arrive(order)) == "done+ended"
    assert flow.last.output == "late"


def test_a_terminate_from_the_parent_goes_on_to_the_children_if_it_says_so() -> None:
    flow = Flow().start(parent=PARENT)
    flow.turn(child(0, "c", app="ml"))
    for recurse in (False, True):
        order = command(Kind.TERMINATE, payload=events.terminated(NOW, "stop", recurse))
        changes = delivery.arrive(flow.at, flow.live, Arrival(order, received=(message(),))).changes
        assert changes is not None
        sent = [reminder for reminder in changes.set if reminder.kind is Kind.TERMINATE]
        assert [(order.target, order.call) for order in sent] == [(ML.workflow("", "c"), CallId("w-1", 1, 0))] * recurse
        assert all(events.decode(order.payload).execution_terminated.recurse for order in sent)


@pytest.mark.parametrize("payload", [b"", b"force", b"please"])
def test_an_order_to_purge_a_child_finds_it_gone_or_is_refused(payload: bytes) -> None:
    """Older sidecars send it. The sidecar removes the child before the order is decided, if it may go."""
    flow = Flow().start(parent=PARENT)
    arrival = Arrival(command(Kind.PURGE, payload=payload), received=(message(),))
    for state, reply in ((flow.live, "wrong_state"), (None, "done")):
        decision = delivery.arrive(flow.at, state, arrival)
        assert effect(decision) == reply
        assert decision.changes == Changes(received=(message(),))
