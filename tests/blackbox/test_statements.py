"""Statements about addresses, app IDs, children and ends of multi-app workflows, by their numbers (`M…`).

Orders and logistics use the `dapr` package; ml uses Microsoft's `durabletask` and has activities only.
"""

import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.harness import App, CallError, Deployment, lines, until
from tests.blackbox.wire import Caller, decode

pytestmark = pytest.mark.timeout(90)

NAMES = ("orders", "logistics", "ml")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("statements"), NAMES)
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.launch()
        for name, sidecar in deployment.sidecars.items():
            until(sidecar._ready, 15, f"{name} is ready")
            deployment.app(name, "microsoft" if name == "ml" else "dapr", activities_only=name == "ml").start_process()
        yield deployment
    finally:
        deployment.end()


def parent_of(deployment: Deployment, app: str, id: str) -> tuple[str, str] | None:
    """App and ID of the parent that a query of the protocol shows."""
    with Caller(deployment.sidecars[app].port) as caller:
        state = decode(caller.call("GetInstance", {1: id})[2][0])
    if 16 not in state:
        assert 14 not in state
        return None
    return text_of(state[16][0]), text_of(state[14][0])


def text_of(value: bytes) -> str:
    return decode(value)[1][0].decode()


def routers(events: list[dict[str, Any]], kind: str) -> list[tuple[str | None, str | None]]:
    """Source and target of each event of a kind."""
    found = [event.get("router", {}) for event in events if kind in event]
    return [(router.get("sourceAppID"), router.get("targetAppID")) for router in found]


def waiting_child(orders: App, logistics: App, id: str, **call: Any) -> str:
    """A workflow of orders whose child, an instance of logistics with this ID, waits for the event "go"."""
    parent = orders.start("remote_child", {"app": "logistics", "name": "wait_events", "value": ["go"], "id": id} | call)
    until(lambda: logistics.status(id) == "RUNNING")
    return parent


# Addresses, and what the history shows of them


@pytest.mark.parametrize("target", ["ml", "logistics", "orders"])
def test_ids_that_look_like_addresses(orders: App, target: str) -> None:
    """M8: of instances whose IDs read like each other's activities, each has its own results."""
    ids = [f"{target}{end}" for end in ("", "::0", "::1", "::0::1", "::1::1", "::1::1::1", "::", "::::1")]
    for id in ids:
        orders.start("remote_all", [[target, "echo", f"{id} {n}"] for n in range(3)], id=id)
    for id in ids:
        assert orders.output(id) == [f"{id} {n}" for n in range(3)]
    if target != "ml":
        children = {id: orders.start("remote_child", {"app": target, "name": "relay", "value": id}) for id in ids}
        assert [orders.output(child) for child in children.values()] == ids


@pytest.mark.parametrize("activity", ["echo", "broken"])
def test_history_shows_an_activity_of_another_app_from_home_to_its_target(orders: App, activity: str) -> None:
    """M12: of a result and of a failure; one of the own app stays at home."""
    call = {"app": "ml", "name": activity, "value": "x", "catch": True}
    id = orders.start("remote_call", call)
    orders.output(id)
    events = orders.events(id)
    assert routers(events, "taskScheduled") == [("orders", "ml")]
    assert routers(events, "taskCompleted" if activity == "echo" else "taskFailed") == [("orders", "ml")]
    own = orders.start("call_activity", {"name": "echo"})
    orders.output(own)
    events = orders.events(own)
    assert (routers(events, "taskScheduled"), routers(events, "taskCompleted")) == (
        [("orders", None)],
        [("orders", "orders")],
    )


@pytest.mark.parametrize("child", ["relay", "failing"])
def test_history_shows_a_child_in_another_app_out_and_back(orders: App, child: str) -> None:
    """M13: of a result and of a failure."""
    id = orders.start("remote_child", {"app": "logistics", "name": child, "value": "x", "catch": True})
    orders.output(id)
    events = orders.events(id)
    end = "childWorkflowInstanceCompleted" if child == "relay" else "childWorkflowInstanceFailed"
    assert routers(events, "childWorkflowInstanceCreated") == [("orders", "logistics")]
    assert routers(events, end) == [("logistics", "orders")]


def test_a_child_knows_the_app_of_its_parent(deployment: Deployment, orders: App, logistics: App) -> None:
    """M10, M9: in its start event and in queries, also after continue-as-new; one that a client started has none."""
    parent = orders.start("remote_child", {"app": "logistics", "name": "sum_up", "value": {"left": 3}, "id": "known"})
    assert orders.output(parent) == 12
    assert parent_of(deployment, "logistics", "known") == ("orders", parent)
    (started,) = [event for event in logistics.events("known") if "executionStarted" in event]
    told = started["executionStarted"]["parentInstance"]
    assert (told["appID"], told["appNamespace"]) == ("orders", "default")
    assert (told["name"], told["workflowInstance"]["instanceId"]) == ("remote_child", parent)

    local = orders.start("call_child", {"name": "hello", "value": "you", "id": "known-at-home"})
    orders.output(local)
    assert parent_of(deployment, "orders", "known-at-home") == ("orders", local)

    orders.at("logistics", "schedule_new_workflow", workflow="hello", input="you", instance_id="of-a-client")
    logistics.output("of-a-client")
    assert parent_of(deployment, "logistics", "of-a-client") is None
    (started,) = [event for event in logistics.events("of-a-client") if "executionStarted" in event]
    assert "parentInstance" not in started["executionStarted"]


def test_a_retried_activity_is_a_new_call_of_the_same_task(orders: App, tmp_path: Path) -> None:
    """M40: each attempt is in the history once, however often the workflow is replayed."""
    flaky = {"file": str(tmp_path / "attempts"), "fail": 3, "value": "fourth"}
    id = orders.start("remote_call", {"app": "ml", "name": "flaky", "value": flaky, "attempts": 5})
    assert orders.output(id) == "fourth"
    assert lines(tmp_path / "attempts") == ["ml"] * 4
    events = orders.events(id)
    assert len(routers(events, "taskScheduled")) == 4
    assert (len(routers(events, "taskFailed")), len(routers(events, "taskCompleted"))) == (3, 1)


# Calls of clients


OPERATIONS: dict[str, dict[str, Any]] = {
    "get_workflow_state": {},
    "wait_for_workflow_start": {"timeout_in_seconds": 20},
    "wait_for_workflow_completion": {"timeout_in_seconds": 20},
    "raise_workflow_event": {"event_name": "go"},
    "pause_workflow": {},
    "resume_workflow": {},
    "terminate_workflow": {},
    "purge_workflow": {},
}


@pytest.mark.parametrize("app", ["no/slash", "a b", "a.b", "ünder", "LOGISTICS", "Orders"])
def test_an_app_id_that_cannot_be_is_refused_at_once(orders: App, logistics: App, app: str) -> None:
    """M14: by every operation of the SDK's client, and nothing is changed, at either app."""
    id = f"guarded-{app}"
    for each in (orders, logistics):
        each.start("wait_events", ["go"], id=id)
        until(lambda each=each: each.status(id) == "RUNNING")  # type: ignore[misc]
    calls = {op: {"instance_id": id, **more} for op, more in OPERATIONS.items()}
    calls["schedule_new_workflow"] = {"workflow": "hello", "instance_id": f"new-{app}"}
    for op, arguments in calls.items():
        began = time.monotonic()
        with pytest.raises(CallError, match=app) as caught:
            orders.at(app, op, **arguments)
        assert (op, caught.value.code) == (op, "INVALID_ARGUMENT")
        assert time.monotonic() - began < 2
    for each in (orders, logistics):
        assert each.status(id) == "RUNNING"
        assert each.get(f"new-{app}") is None
        each.raise_event(id, "go", "on")
        assert each.output(id) == ["on"]


def test_suspend_resume_and_raise_act_on_one_instance(orders: App, logistics: App) -> None:
    """M61: addressed by a client of orders to a parent at logistics, whose child is an instance of orders."""
    call = {"app": "orders", "name": "wait_events", "value": ["go"], "id": "not-meant"}
    orders.at("logistics", "schedule_new_workflow", workflow="remote_child", input=call, instance_id="meant")
    until(lambda: orders.status("not-meant") == "RUNNING")
    orders.at("logistics", "pause_workflow", instance_id="meant")
    assert (logistics.status("meant"), orders.status("not-meant")) == ("SUSPENDED", "RUNNING")
    orders.at("logistics", "raise_workflow_event", instance_id="meant", event_name="go", data=1)
    time.sleep(0.3)
    assert orders.status("not-meant") == "RUNNING"
    orders.raise_event("not-meant", "go", 2)
    assert orders.output("not-meant") == [2]
    assert logistics.status("meant") == "SUSPENDED"
    orders.at("logistics", "resume_workflow", instance_id="meant")
    assert logistics.output("meant") == [2]


def test_two_raises_that_are_equal_are_two_events(orders: App, logistics: App) -> None:
    """M44: also when they are sent on to another app."""
    logistics.start("wait_events", ["go", "go"], id="twice")
    orders.at("logistics", "raise_workflow_event", instance_id="twice", event_name="go", data="same")
    until(lambda: logistics.status("twice") == "RUNNING")
    time.sleep(0.2)
    assert logistics.status("twice") == "RUNNING", "one raise is one event"
    orders.at("logistics", "raise_workflow_event", instance_id="twice", event_name="go", data="same")
    assert logistics.output("twice") == ["same", "same"]


def test_no_event_is_lost_among_many_writers(orders: App, logistics: App) -> None:
    """M48: clients of two apps, turns and continue-as-new write to one instance at the same time."""
    logistics.start("count_events", {"left": 60}, id="crowded")
    event = {"name": "add", "value": 1, "id": "crowded"}
    here = [logistics.post("raise", **event) for _ in range(30)]
    wanted = {"instance_id": "crowded", "event_name": "add", "data": 100}
    there = [orders.post("at", app="logistics", method="raise_workflow_event", **wanted) for _ in range(30)]
    done, _ = wait([*here, *there], 40)
    assert [future.exception() for future in done] == [None] * 60
    assert logistics.output("crowded") == 30 + 30 * 100


# A child whose ID is taken


def test_the_id_of_a_live_instance_is_not_given_to_a_child(orders: App, logistics: App) -> None:
    """M50"""
    logistics.start("wait_events", ["go"], id="occupied")
    until(lambda: logistics.status("occupied") == "RUNNING")
    before = logistics.events("occupied")
    call = {"app": "logistics", "name": "hello", "value": "you", "id": "occupied"}
    began = time.monotonic()
    caught = orders.run("remote_child", call | {"catch": True})
    assert time.monotonic() - began < 5
    assert caught["type"] == "WorkflowInstanceAlreadyExists"
    assert "'occupied'" in caught["message"]
    failed = orders.wait(orders.start("remote_child", call))
    assert failed.status == "FAILED"
    assert failed.failure is not None
    assert "'occupied'" in failed.failure["message"]
    assert logistics.events("occupied") == before
    logistics.raise_event("occupied", "go", "mine")
    assert logistics.output("occupied") == ["mine"]


@pytest.mark.parametrize("how", ["it ends", "it is purged"])
def test_a_retry_policy_gets_the_id_once_it_is_free(orders: App, logistics: App, how: str) -> None:
    """M51"""
    id = f"freed, {how}"
    logistics.start("wait_events", ["go"], id=id)
    call = {"app": "logistics", "name": "hello", "value": "you", "id": id, "attempts": 100}
    parent = orders.start("remote_child", call)
    until(lambda: routers(orders.events(parent), "childWorkflowInstanceFailed"))
    logistics.raise_event(id, "go", "done")
    assert logistics.output(id) in (["done"], "Hello, you!")
    if how == "it is purged":
        logistics.call("purge", id=id)
    assert orders.output(parent) == "Hello, you!"


# Ends


def test_terminate_goes_down_to_children_of_other_apps(orders: App, logistics: App) -> None:
    """M56: and on to their children, at home again; the call returns."""
    below = {"app": "orders", "name": "wait_events", "value": ["never"], "id": "grandchild"}
    parent = orders.start("remote_child", {"app": "logistics", "name": "remote_child", "value": below, "id": "middle"})
    until(lambda: orders.status("grandchild") == "RUNNING")
    orders.call("terminate", id=parent, output="enough")
    assert (orders.status(parent), orders.get(parent).output) == ("TERMINATED", "enough")  # type: ignore[union-attr]
    assert logistics.wait("middle").status == "TERMINATED"
    assert orders.wait("grandchild").status == "TERMINATED"


def test_terminate_without_recursion_leaves_children_of_other_apps(orders: App, logistics: App) -> None:
    """M58"""
    parent = waiting_child(orders, logistics, "spared")
    orders.call("terminate", id=parent, recursive=False)
    assert orders.wait(parent).status == "TERMINATED"
    time.sleep(0.5)
    assert logistics.status("spared") == "RUNNING"
    logistics.raise_event("spared", "go", 1)
    assert logistics.output("spared") == [1]


def test_terminate_of_what_has_ended_is_an_accepted_no_op(orders: App, logistics: App) -> None:
    """M59: for one that completed and one that was terminated, from here and from another app."""
    logistics.run("hello", "you", id="was-done")
    logistics.start("wait_events", ["never"], id="was-ended")
    orders.at("logistics", "terminate_workflow", instance_id="was-ended", output="first")
    before = [logistics.get(id) for id in ("was-done", "was-ended")]
    assert [state and state.status for state in before] == ["COMPLETED", "TERMINATED"]
    for id in ("was-done", "was-ended"):
        logistics.call("terminate", id=id, output="second")
        orders.at("logistics", "terminate_workflow", instance_id=id, output="third")
    assert [logistics.get(id) for id in ("was-done", "was-ended")] == before
