"""A pause, and its end, that reaches the children of an instance (`cascade_suspend`)."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import events, operations
from sidecar.core.identity import AppIdentity
from sidecar.core.model import Kind, Outcome, Reminder, Status
from sidecar.core.workflow import pauses, stalls
from tests.core.builders import (
    ME,
    ML,
    NOW,
    PARENT,
    SECOND,
    Flow,
    child,
    command,
    detach,
    effect,
    kinds,
    message,
    renew,
    result,
)

CASCADING = replace(ME, cascade_suspend=True)
PAUSE, GO_ON = events.suspended(NOW, "why"), events.resumed(NOW, "on")


def order(number: int, payload: bytes) -> Reminder:
    return replace(command(Kind.PAUSE, PARENT, payload), id=number)


def told(flow: Flow) -> list[tuple[str, str, str]]:
    """Which children were told what by the last step."""
    found = [reminder for reminder in flow.last.set if reminder.kind is Kind.PAUSE]
    kind = [events.decode(reminder.payload).WhichOneof("kind") or "" for reminder in found]
    return [(one.target.app, one.target.id, what) for one, what in zip(found, kind, strict=True)]


def family(me: AppIdentity = CASCADING, **start: Any) -> Flow:
    """An instance with a child here, one at ml, one that has ended, and a detached workflow."""
    flow = Flow(me).start(**start)
    made = flow.turn(child(0, "a"), child(1, "b", app="ml"), child(2, "c"), detach(3, "d"))
    flow.arrive(result(made.set[2]))
    return flow


def test_a_pause_and_its_end_reach_the_children_that_have_not_ended_and_no_detached_workflow() -> None:
    flow = family()
    made = {one.actor.id: one.call for one in flow.state.children.values()}
    flow.take(pauses.suspend(flow.at, flow.live, "why"))
    assert told(flow) == [("orders", "a", "execution_suspended"), ("ml", "b", "execution_suspended")]
    assert [one.call for one in flow.last.set] == [made["a"], made["b"]]
    assert events.decode(flow.last.set[0].payload).execution_suspended.input.value == "why"
    flow.take(pauses.resume(flow.at, flow.live, None))
    assert told(flow) == [("orders", "a", "execution_resumed"), ("ml", "b", "execution_resumed")]


def test_without_the_setting_children_are_left_alone() -> None:
    """M61."""
    flow = family(ME)
    for decide in (pauses.suspend, pauses.resume):
        flow.take(decide(flow.at, flow.live, None))
        assert told(flow) == []


def test_a_command_that_changes_nothing_is_not_passed_on() -> None:
    flow = family()
    assert pauses.resume(flow.at, flow.live, None).changes is None
    flow.take(pauses.suspend(flow.at, flow.live, None))
    assert pauses.suspend(flow.at, flow.live, None).changes is None


def test_a_child_carries_orders_out_and_passes_them_on_whatever_its_own_configuration_says() -> None:
    flow = family(ME, parent=PARENT)
    flow.now += SECOND
    flow.arrive(order(5, PAUSE), message(5, "front"))
    assert (flow.instance.status, flow.instance.suspended, flow.instance.ready) == (Status.SUSPENDED, True, False)
    assert told(flow) == [("orders", "a", "execution_suspended"), ("ml", "b", "execution_suspended")]
    event = events.decode(flow.last.append[0].event)
    assert (event.execution_suspended.input.value, events.micros(event.timestamp)) == ("why", flow.now)
    flow.arrive(order(6, GO_ON), message(6, "front"))
    assert (flow.instance.status, flow.instance.suspended, flow.instance.ready) == (Status.RUNNING, False, True)
    assert [what for _, _, what in told(flow)] == ["execution_resumed"] * 2


def test_an_order_that_was_overtaken_by_a_later_one_is_not_carried_out() -> None:
    flow = family(parent=PARENT)
    flow.arrive(order(6, GO_ON), message(6, "front"))
    assert (flow.last.append, told(flow)[0][2]) == ((), "execution_resumed")
    for number in (5, 6):
        assert effect(flow.arrive(order(number, PAUSE), message(10 + number, "front"))) == "done"
    assert (flow.instance.suspended, flow.instance.last_order) == (False, 6)
    flow.arrive(order(7, PAUSE), message(7, "front"))
    assert flow.instance.suspended


def test_the_last_order_of_a_child_is_kept_over_continue_as_new() -> None:
    flow = Flow(CASCADING).start(parent=PARENT)
    flow.arrive(order(6, GO_ON), message(6, "front"))
    flow.turn(renew())
    assert effect(flow.arrive(order(5, PAUSE), message(5, "front"))) == "done"
    assert not flow.instance.suspended


def test_a_child_that_is_paused_already_passes_the_order_on() -> None:
    flow = family(ME, parent=PARENT)
    flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.arrive(order(5, PAUSE), message(5, "front"))
    assert (kinds(flow.last.append), len(told(flow))) == ([], 2)


def test_a_child_that_is_stalled_stays_so_and_passes_the_order_on() -> None:
    flow = family(ME, parent=PARENT)
    changes = stalls.stalled(flow.at, flow.state, stalls.too_large(2, 1))
    assert changes is not None
    flow.commit(changes)
    flow.arrive(order(5, PAUSE), message(5, "front"))
    assert (flow.instance.status, flow.instance.suspended, flow.instance.ready) == (Status.STALLED, False, True)
    assert len(told(flow)) == 2


ENDS = {
    "terminated": lambda flow: operations.terminate(flow.at, flow.live, None, recurse=False),
    "purged by force": lambda flow: operations.purge(flow.at, flow.live, force=True),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("paused", [True, False])
def test_an_instance_that_ends_alone_while_it_is_paused_lets_its_children_go_on(end: str, paused: bool) -> None:
    """M58: they would wait for ever."""
    flow = family()
    if paused:
        flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.take(ENDS[end](flow))
    assert [what for _, _, what in told(flow)] == ["execution_resumed"] * 2 * paused


def test_an_instance_that_is_terminated_with_its_children_does_not_wake_them_first() -> None:
    flow = family()
    flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.take(operations.terminate(flow.at, flow.live, None, recurse=True))
    assert told(flow) == []


def test_an_instance_that_is_replaced_while_it_is_paused_lets_its_children_go_on() -> None:
    flow = family()
    flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.start(execution="w-2", replaceable=frozenset({Status.SUSPENDED}))
    assert [what for _, _, what in told(flow)] == ["execution_resumed"] * 2


def test_an_order_for_a_child_that_has_gone_is_final() -> None:
    flow = Flow(ML)
    decision = flow.arrive(order(5, PAUSE), message(5, "front"))
    assert decision.reply.outcome is Outcome.MISSING
