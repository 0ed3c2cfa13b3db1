"""Trees of workflows over three apps with real processes: removed as one, and looked at before an ID is used again.

All three apps use the `dapr` package; what it cannot ask for, or does not show, is called as it is on the wire.
"""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.blackbox.harness import App, CallError, Deployment, until
from tests.blackbox.wire import Caller

pytestmark = pytest.mark.timeout(120)

NAMES = ("orders", "logistics", "depot")
RECURSIVE, FORCE = {3: 1}, {4: 1}
REACHED_IN = 8.0  # seconds: an app is tried for 5


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("trees"), NAMES)
    try:
        for name in NAMES:
            deployment.sidecars[name].start()
            deployment.app(name, "dapr").start_process()
        yield deployment
    finally:
        deployment.end()


@pytest.fixture
def wire(deployment: Deployment) -> Iterator[Caller]:
    with Caller(deployment.sidecars["orders"].port) as caller:
        yield caller


def start(orders: App, name: str, workflow: str, value: object) -> str:
    """Start a workflow at orders whose child at logistics has one at depot."""
    leaf = {"app": "depot", "name": workflow, "value": value, "id": f"{name}-leaf"}
    branch = {"app": "logistics", "name": "remote_child", "value": leaf, "id": f"{name}-branch"}
    return orders.start("remote_child", branch, id=f"{name}-root")


def left(deployment: Deployment, name: str) -> list[bool]:
    parts = zip(("root", "branch", "leaf"), deployment.apps.values(), strict=True)
    return [app.get(f"{name}-{part}") is not None for part, app in parts]


def failure_of(app: App, op: str, **arguments: object) -> tuple[str, str]:
    error = app.post(op, **arguments).exception(30)
    assert isinstance(error, CallError)
    return error.code, error.text


def test_a_purge_goes_through_three_apps_and_counts_them(deployment: Deployment, orders: App, wire: Caller) -> None:
    """M62, M63, M64"""
    for name in ("sdk", "raw"):
        assert orders.output(start(orders, name, "hello", "you")) == "Hello, you!"
        assert left(deployment, name) == [True] * 3
    orders.call("purge", id="sdk-root")
    assert wire.call("PurgeInstances", {1: "raw-root", **RECURSIVE})[1] == [3]
    assert left(deployment, "sdk") == left(deployment, "raw") == [False] * 3


def test_an_app_that_is_killed_keeps_the_parent_and_its_id(deployment: Deployment, orders: App) -> None:
    """M54, M62: it is named, within the time that an app is tried; when it is back, both can be done."""
    root = start(orders, "down", "hello", "you")
    assert orders.output(root) == "Hello, you!"
    deployment.sidecars["depot"].kill9()
    for op, more in (("purge", {}), ("start", {"workflow": "hello", "input": "again"})):
        began = time.monotonic()
        code, text = failure_of(orders, op, id=root, **more)
        assert (code, "app 'depot'" in text) == ("UNAVAILABLE", True)
        assert time.monotonic() - began < REACHED_IN
    assert orders.wait(root).output == "Hello, you!"
    deployment.sidecars["depot"].start()
    assert deployment.apps["depot"].reconnected().get("down-leaf") is not None
    orders.start("hello", "again", id=root)
    assert orders.output(root) == "Hello, again!"
    orders.call("purge", id=root)
    assert orders.get(root) is None
    assert orders.output(start(orders, "down", "hello", "more")) == "Hello, more!"
    orders.call("purge", id=root)
    assert left(deployment, "down") == [False] * 3


def test_a_leaf_that_runs_is_in_the_way_but_not_of_force(deployment: Deployment, orders: App, wire: Caller) -> None:
    """M53, M65"""
    root = start(orders, "busy", "wait_events", ["never"])
    depot = deployment.apps["depot"]
    until(lambda: depot.status("busy-leaf") == "RUNNING")
    orders.call("terminate", id=root, recursive=False)
    deployment.apps["logistics"].call("terminate", id="busy-branch", recursive=False)
    path = "child workflow 'busy-branch': child workflow 'busy-leaf' has not ended"
    code, text = wire.status("PurgeInstances", {1: root, **RECURSIVE})
    assert (code, path in text) == ("FAILED_PRECONDITION", True)
    code, text = failure_of(orders, "start", workflow="hello", input="again", id=root)
    assert (code, path in text) == ("ALREADY_EXISTS", True)
    assert left(deployment, "busy") == [True] * 3
    assert wire.call("PurgeInstances", {1: root, **RECURSIVE, **FORCE})[1] == [3]
    assert left(deployment, "busy") == [False] * 3


def test_all_that_runs_vanishes_by_force(deployment: Deployment, orders: App, wire: Caller) -> None:
    """M65"""
    root = start(orders, "forced", "wait_events", ["never"])
    until(lambda: deployment.apps["depot"].status("forced-leaf") == "RUNNING")
    assert wire.call("PurgeInstances", {1: root, **RECURSIVE, **FORCE})[1] == [3]
    assert left(deployment, "forced") == [False] * 3


@pytest.mark.parametrize("victim", ["orders", "logistics"])
def test_a_purge_that_is_cut_off_by_a_kill_is_finished_by_the_next(
    deployment: Deployment, orders: App, victim: str
) -> None:
    """M64: kill -9 in the middle of a wide tree."""
    root, sidecar, others = f"wide-{victim}", deployment.sidecars[victim], deployment.apps["logistics"]
    calls = [["logistics", "hello", str(number)] for number in range(300)]
    orders.start("remote_children", calls, id=root)
    assert len(orders.output(root)) == 300
    purge = orders.post("purge", id=root)
    killer = threading.Timer(0.15, sidecar.kill9)
    killer.start()
    killer.join()
    purge.exception(30)
    sidecar.start()
    orders.reconnected().call("purge", id=root)
    assert orders.get(root) is None
    assert [one for one in others.reconnected().call("list", page=100) if one.startswith(root)] == []
