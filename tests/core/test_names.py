"""Which IDs there may be: what a client chooses is short, what programs make of it is held to a far larger limit."""

import pytest

from sidecar.core import names
from sidecar.core.model import CallKind
from tests.core.builders import Flow, child, detach, kind_of, send


@pytest.mark.parametrize("length", [1, 251, 252, 256])
def test_a_workflow_with_an_id_that_may_be_chosen_may_have_children_and_detached_ones(length: int) -> None:
    chosen = "x" * length
    assert names.invalid_chosen_id(chosen) is None
    flow = Flow().start(instance_id=chosen)
    changes = flow.turn(child(1), child(2, app="ml"), detach(3))
    assert [kind_of(row.event) for row in changes.append if "failed" in kind_of(row.event)] == []
    assert {task: call.kind for task, call in flow.open.items() if call.kind is CallKind.CHILD} == {
        1: CallKind.CHILD,
        2: CallKind.CHILD,
    }
    assert [reminder.target.id for reminder in changes.set] == [f"{chosen}:0001", f"{chosen}:0002", f"{chosen}-0"]


def test_children_of_children_may_be_thousands_deep() -> None:
    made = "x" * names.MAX_ID_LENGTH
    depth = 0
    while names.invalid_new_id(made) is None:
        made, depth = f"{made}:0001", depth + 1
    assert depth > 3_000
    assert names.invalid_instance_id(made) == f"the instance ID has {len(made)} characters; at most 16384 are allowed"


def test_a_workflow_sends_events_to_one_with_a_long_id() -> None:
    flow = Flow().start()
    changes = flow.turn(send(1, "x" * 300))
    assert [reminder.target.id for reminder in changes.set] == ["x" * 300]


@pytest.mark.parametrize("taken", ["@a@", "@a@b", "@a@\n", "@a b@:1"])
def test_what_would_make_its_children_entities_is_no_id_to_create_a_workflow_with(taken: str) -> None:
    assert names.invalid_new_id(taken) is not None
    assert names.invalid_chosen_id(taken) is not None
    flow = Flow().start()
    assert [kind_of(row.event) for row in flow.turn(child(1, taken)).append][-1] == "child_failed"


@pytest.mark.parametrize("free", ["@", "@a", "@@", "@@a", "a@b@c", "a@b", "@a b"])
def test_others_with_at_signs_may_be_and_their_children_too(free: str) -> None:
    assert names.invalid_chosen_id(free) is None
    assert names.invalid_new_id(f"{free}:0001") is None
    assert names.invalid_instance_id(f"{free}:0001") is None


def test_what_there_is_under_the_id_of_an_entity_without_a_key_can_be_asked_for() -> None:
    assert names.invalid_instance_id("@a@") is None
    assert names.invalid_instance_id("@a@b") is not None
    assert names.entity_id("@A@" + "k" * 300) == "@a@" + "k" * 300
