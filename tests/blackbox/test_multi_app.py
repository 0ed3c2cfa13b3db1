"""Workflows over several apps, each with a sidecar of its own. `M…` are the numbers of the statements tested.

Orders, logistics and depot use the `dapr` package, ml uses Microsoft's `durabletask`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import App, Deployment, lines, until

pytestmark = pytest.mark.timeout(90)

NAMES = ("orders", "ml", "logistics", "depot")
MIB = 1 << 20


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), NAMES)
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        for name in NAMES:
            deployment.app(name, "microsoft" if name == "ml" else "dapr").start_process()
        yield deployment
    finally:
        deployment.end()


# Activities


def test_to_and_fro_between_the_own_app_and_others(orders: App) -> None:
    """M1, M2: also addressed to its own app ID."""
    apps = [None, "ml", None, "orders", "logistics", "ml", "orders"]
    assert orders.run("tour", apps) == [app or "orders" for app in apps]


def test_four_apps_in_order(orders: App) -> None:
    """M3"""
    assert orders.run("tour", ["depot", "logistics", "ml", "orders"]) == [
        "depot",
        "logistics",
        "ml",
        "orders",
    ]


def test_each_app_can_be_the_home_of_a_workflow(deployment: Deployment) -> None:
    for name in ("orders", "logistics", "depot"):
        others = [other for other in NAMES if other != name]
        assert deployment.apps[name].run("tour", others) == others


def test_fan_out_over_apps(orders: App) -> None:
    total, workers = orders.run("remote_fan_out", {"apps": [None, "ml", "logistics", "depot"], "each": 10})
    assert total == 2 * sum(range(40))
    assert workers == ["orders"] * 10 + ["ml"] * 10 + ["logistics"] * 10 + ["depot"] * 10


@pytest.mark.parametrize("app", ["ml", "logistics"])
def test_values_cross_unchanged(orders: App, app: str) -> None:
    """M1"""
    for value in ["größe ☃ \U0001f680", {"deep": [None, 1.5, True, {"": []}]}, 0, "", "x" * MIB]:
        assert orders.run("remote_call", {"app": app, "name": "echo", "value": value}) == value


def test_local_and_remote_work_mixed(orders: App) -> None:
    for app in ("ml", "logistics"):
        assert orders.run("mixed_load", {"app": app, "width": 10}) == 180


def test_the_same_name_runs_where_it_was_sent(deployment: Deployment) -> None:
    """M5: all apps register the same names."""
    started = [(app, app.start("spread", {"width": 10, "seconds": 0.01})) for app in deployment.apps.values()]
    for app, id in started:
        assert {label for label, _ in app.output(id)} == {app.label}


# Children


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_a_child_lives_in_its_app_only(deployment: Deployment, orders: App, target: str) -> None:
    call = {"app": target, "name": "chain", "value": {"start": 1, "steps": 3}, "id": f"child-at-{target}"}
    assert orders.run("remote_child", call) == 4
    child = deployment.apps[target].wait(call["id"])
    assert (child.name, child.output) == ("chain", 4)
    assert orders.get(call["id"]) is None


def test_a_child_without_an_id_gets_one_from_its_parent(orders: App, logistics: App) -> None:
    """M11"""
    call = {"app": "logistics", "name": "hello", "value": "child"}
    assert orders.run("remote_child", call, id="remote-parent") == "Hello, child!"
    assert logistics.wait("remote-parent:0001").output == "Hello, child!"


def test_children_of_children_call_back(orders: App) -> None:
    """M4: each level works in its own app and in the first one."""
    route = ["logistics", "depot", "logistics"]
    result = orders.run("nested", {"home": "orders", "route": route})
    assert result == [[app, "orders"] for app in ["orders", *route]]


def test_a_child_uses_timers_events_and_continue_as_new(orders: App, logistics: App) -> None:
    one = orders.start("remote_child", {"app": "ml", "name": "sum_up", "value": {"left": 5}})
    two = orders.start("remote_child", {"app": "logistics", "name": "timers", "value": [0.1, 0.5]})
    call = {"app": "logistics", "name": "wait_events", "value": ["go"], "id": "eventful-child"}
    three = orders.start("remote_child", call)
    until(lambda: logistics.status("eventful-child") == "RUNNING")
    logistics.raise_event("eventful-child", "go", "on")
    assert [orders.output(id) for id in (one, two, three)] == [30, 2, ["on"]]


def test_two_apps_may_use_the_same_id(orders: App, logistics: App, ml: App) -> None:
    """M6"""
    for app in (orders, logistics, ml):
        app.start("wait_events", ["go"], id="shared")
    logistics.raise_event("shared", "go", "logistics")
    orders.call("terminate", id="shared", output="orders")
    assert logistics.output("shared") == ["logistics"]
    assert orders.wait("shared").status == "TERMINATED"
    assert ml.status("shared") == "RUNNING"
    ml.raise_event("shared", "go", "ml")
    assert ml.output("shared") == ["ml"]


def test_terminate_ends_a_child_in_another_app(orders: App, logistics: App) -> None:
    """M56"""
    call = {"app": "logistics", "name": "wait_events", "value": ["never"], "id": "remote-running"}
    id = orders.start("remote_child", call)
    until(lambda: logistics.status("remote-running") == "RUNNING")
    orders.call("terminate", id=id)
    assert orders.wait(id).status == "TERMINATED"
    assert logistics.wait("remote-running").status == "TERMINATED"


# Failures


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_a_failed_remote_activity_is_tried_again(orders: App, tmp_path: Path, target: str) -> None:
    attempts = tmp_path / "attempts"
    flaky = {"file": str(attempts), "fail": 2, "value": "third"}
    call = {"app": target, "name": "flaky", "value": flaky, "attempts": 4}
    assert orders.run("remote_call", call) == "third"
    assert lines(attempts) == [target] * 3


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_a_failure_crosses_with_its_details(orders: App, target: str) -> None:
    call = {"app": target, "name": "broken", "value": "no stock ☃", "catch": True}
    caught = orders.run("remote_call", call)
    assert caught["type"].endswith("ValueError")
    assert caught["message"] == "no stock ☃"
    assert "activities.py" in caught["stack"]


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_the_failure_of_a_child_crosses_too(orders: App, tmp_path: Path, target: str) -> None:
    caught = orders.run("remote_child", {"app": target, "name": "failing", "value": "bad", "catch": True})
    assert caught["type"].endswith("RuntimeError")
    assert "bad" in caught["message"]
    flaky = {"file": str(tmp_path / "attempts"), "fail": 1, "value": "second"}
    call = {"app": target, "name": "flaky_child", "value": flaky, "attempts": 3}
    assert orders.run("remote_child", call) == "second"


def test_a_failure_that_nobody_catches_ends_the_workflow(orders: App) -> None:
    state = orders.wait(orders.start("remote_call", {"app": "ml", "name": "broken", "value": "no stock"}))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "no stock" in state.failure["message"]


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_a_name_that_the_target_does_not_know_fails_the_call(orders: App, target: str) -> None:
    """M19"""
    for workflow in ("remote_call", "remote_child"):
        caught = orders.run(workflow, {"app": target, "name": "nobody", "catch": True})
        assert "nobody" in caught["message"]


def test_an_unknown_app_keeps_the_workflow_waiting(orders: App) -> None:
    """M15, M27: its state can be read, others are not held up, and it can be ended."""
    id = orders.start("remote_call", {"app": "nowhere", "name": "who"})
    assert orders.run("tour", ["ml"]) == ["ml"]
    assert orders.status(id) == "RUNNING"
    orders.call("terminate", id=id)
    assert orders.wait(id).status == "TERMINATED"
