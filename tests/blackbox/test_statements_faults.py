"""Statements about apps that are down, hang, lose their disk, or live in another namespace, by their numbers.

Orders, logistics and depot use the `dapr` package, ml Microsoft's `durabletask`. Each has its own data directory.
"""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.harness import App, Deployment, Sidecar, lines, until

pytestmark = pytest.mark.timeout(90)

NAMES = ("orders", "ml", "logistics")


def deploy(directory: Path, *names: str, namespace: str = "default") -> Deployment:
    """Sidecars, each with its own data directory, and apps beside them; none of them started."""
    directory.mkdir(parents=True, exist_ok=True)
    deployment = Deployment(directory, names)
    for name, sidecar in deployment.sidecars.items():
        sidecar.data = directory / f"data-{name}"
        sidecar.options = ["--namespace", namespace]
        deployment.app(name, "microsoft" if name == "ml" else "dapr", activities_only=name == "ml")
    return deployment


def begin(deployment: Deployment, *names: str) -> None:
    for name in names:
        deployment.sidecars[name].launch()
    for name in names:
        until(deployment.sidecars[name]._ready, 15, f"{name} is ready")
        deployment.apps[name].start_process()


def lose_disk(sidecar: Sidecar) -> Sidecar:
    """As if its machine had burnt down: nothing of its data is left."""
    sidecar.kill9()
    shutil.rmtree(sidecar.data)
    return sidecar.start()


def peer(sidecar: Sidecar, app: str) -> dict[str, Any]:
    """How it goes with another app, as the metadata show it."""
    (found,) = [one for one in sidecar.metadata()["peers"] if one["appId"] == app]
    return found


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = deploy(tmp_path_factory.mktemp("losses"), *NAMES)
    try:
        begin(deployment, *NAMES)
        yield deployment
    finally:
        deployment.end()


def gated(directory: Path, value: object) -> list[Any]:
    """A call to ml that hangs until the file `open` is there, and says in `started` each time it began."""
    return ["ml", "gate", {"started": str(directory / "started"), "until": str(directory / "open"), "value": value}]


# A target that loses its disk


def test_the_target_loses_its_disk_in_the_middle_of_100_activities(
    deployment: Deployment, orders: App, tmp_path: Path
) -> None:
    """M29, M30, M33: some were done, some ran, the rest waited; all complete, each with its own result."""
    done = tmp_path / "done"
    calls = [["ml", "noted", {"file": str(done), "line": str(n), "value": n}] for n in range(30)]
    calls += [gated(tmp_path, n) for n in range(30, 100)]
    id = orders.start("remote_all", calls)
    until(lambda: lines(done) and len(lines(tmp_path / "started")) == 16)
    lose_disk(deployment.sidecars["ml"])
    assert orders.status(id) == "RUNNING"
    until(lambda: peer(deployment.sidecars["orders"], "ml")["state"] == "connected")
    until(lambda: peer(deployment.sidecars["orders"], "ml")["waiting"] == 0)
    (tmp_path / "open").touch()
    assert orders.output(id) == list(range(100))
    assert set(lines(done)) == {str(n) for n in range(30)}


def test_the_target_loses_its_disk_while_its_child_runs(deployment: Deployment, orders: App, logistics: App) -> None:
    """M31: the child begins again, with its ID and its parent."""
    call = {"app": "logistics", "name": "wait_events", "value": ["go"], "id": "burnt"}
    id = orders.start("remote_child", call)
    until(lambda: logistics.status("burnt") == "RUNNING")
    lose_disk(deployment.sidecars["logistics"])
    logistics.reconnected()
    until(lambda: logistics.status("burnt") == "RUNNING")
    assert orders.status(id) == "RUNNING"
    logistics.raise_event("burnt", "go", "again")
    assert orders.output(id) == ["again"]
    assert logistics.get("burnt") is not None


def test_a_result_for_an_instance_that_is_gone_is_dropped(deployment: Deployment, orders: App, tmp_path: Path) -> None:
    """M37: home lost its disk while the result waited for it; ml asks once, and keeps nothing."""
    home, target = deployment.sidecars["orders"], deployment.sidecars["ml"]
    refused = target.log.read_text().count('"message refused"')
    id = orders.start("remote_all", [gated(tmp_path, "late")])
    until(lambda: lines(tmp_path / "started"))
    home.kill9()
    (tmp_path / "open").touch()
    until(lambda: peer(target, "orders")["waiting"] == 1)
    shutil.rmtree(home.data)
    home.start()
    until(lambda: peer(target, "orders")["waiting"] == 0)
    assert orders.reconnected().get(id) is None
    target.restart()
    until(lambda: peer(target, "orders")["state"] == "connected")
    time.sleep(0.5)
    assert peer(target, "orders")["waiting"] == 0
    assert target.log.read_text().count('"message refused"') == refused + 1
    assert orders.run("tour", ["ml"]) == ["ml"]


# A target that is down or hangs


@pytest.mark.parametrize("how", ["down", "hung"])
def test_terminate_does_not_wait_for_a_child_that_cannot_be_reached(
    deployment: Deployment, orders: App, logistics: App, how: str
) -> None:
    """M57, M56: the parent has ended at once and for good, also after a restart; the child is told later."""
    home, target = deployment.sidecars["orders"], deployment.sidecars["logistics"]
    call = {"app": "logistics", "name": "wait_events", "value": ["never"], "id": f"{how}-child"}
    id = orders.start("remote_child", call)
    until(lambda: logistics.status(f"{how}-child") == "RUNNING")
    target.kill9() if how == "down" else target.signal(signal.SIGSTOP)
    began = time.monotonic()
    orders.call("terminate", id=id, output="enough")
    assert orders.status(id) == "TERMINATED"
    assert time.monotonic() - began < 20, "it waits for no other app"
    home.restart()
    assert orders.reconnected().status(id) == "TERMINATED"
    target.start() if how == "down" else target.signal(signal.SIGCONT)
    assert logistics.reconnected().wait(f"{how}-child").status == "TERMINATED"
    assert orders.wait(id).output == "enough"


def test_a_target_that_hangs_holds_up_nothing_else(deployment: Deployment, orders: App, tmp_path: Path) -> None:
    """M26, M27, M28: one action waits for it; the others go on, reads answer, and the history does not grow."""
    target = deployment.sidecars["logistics"]
    noted = [None, "noted", {"file": str(tmp_path / "local"), "line": "ran", "value": "local"}]
    target.signal(signal.SIGSTOP)
    try:
        id = orders.start("remote_all", [["logistics", "who", None], noted, ["ml", "who", None]])
        until(lambda: sum("taskCompleted" in event for event in orders.events(id)) == 2)
        before = orders.events(id)
        for _ in range(20):
            began = time.monotonic()
            assert orders.status(id) == "RUNNING"
            assert time.monotonic() - began < 20, "it waits for no other app"
            time.sleep(0.05)
        assert orders.run("tour", ["ml", None]) == ["ml", "orders"]
        assert orders.events(id) == before
    finally:
        target.signal(signal.SIGCONT)
    assert orders.output(id) == ["logistics", "local", "ml"]
    assert lines(tmp_path / "local") == ["ran"]


def test_what_is_tried_again_and_again_stays_one_message(tmp_path: Path) -> None:
    """M26: history and what waits do not grow by attempts or by a restart, and the work is done once."""
    deployment = deploy(tmp_path, "orders", "logistics")
    orders, home = deployment.apps["orders"], deployment.sidecars["orders"]
    noted = {"file": str(tmp_path / "ran"), "line": "ran", "value": "done"}
    try:
        begin(deployment, "orders")
        id = orders.start("remote_all", [["logistics", "noted", noted]])
        until(lambda: peer(home, "logistics")["waiting"] == 1)
        before = orders.events(id)
        assert [next(kind for kind in event if kind in KINDS) for event in before] == list(KINDS)
        time.sleep(1.5)
        assert (orders.events(id), peer(home, "logistics")["waiting"]) == (before, 1)
        home.restart()
        assert orders.reconnected().events(id) == before
        until(lambda: peer(home, "logistics")["waiting"] == 1)
        begin(deployment, "logistics")
        assert orders.output(id) == ["done"]
        assert lines(tmp_path / "ran") == ["ran"]
        until(lambda: peer(home, "logistics")["waiting"] == 0)
    finally:
        deployment.end()


KINDS = ("workflowStarted", "executionStarted", "taskScheduled")


# Namespaces


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Deployment]]:
    """Apps orders and logistics in each of two namespaces, and depot in blue; all data in one directory.

    Orders of the namespace default was given the address of depot in blue.
    """
    directory = tmp_path_factory.mktemp("namespaces")
    green = deploy(directory / "green", "orders", "logistics")
    blue = deploy(directory / "blue", "orders", "logistics", "depot", namespace="blue")
    green.sidecars["orders"].peers["depot"] = blue.sidecars["depot"].peer_port
    for sidecar in (*green.sidecars.values(), *blue.sidecars.values()):
        sidecar.data = directory / "data"
    try:
        begin(green, "orders", "logistics")
        begin(blue, "orders", "logistics", "depot")
        yield {"default": green, "blue": blue}
    finally:
        green.end()
        blue.end()


def test_an_app_id_in_two_namespaces_is_two_apps(namespaces: dict[str, Deployment], tmp_path: Path) -> None:
    """M16: the same IDs in both; calls, children, events and ends stay in their namespace."""
    child = {"app": "logistics", "name": "wait_events", "value": ["go"], "id": "same-child"}
    for name, deployment in namespaces.items():
        orders = deployment.apps["orders"]
        noted = {"file": str(tmp_path / name), "line": "ran", "value": name}
        orders.start("remote_all", [["logistics", "noted", noted]], id="same")
        orders.start("remote_child", child, id="same-parent")
    for name, deployment in namespaces.items():
        assert deployment.apps["orders"].output("same") == [name]
        assert lines(tmp_path / name) == ["ran"]
        until(lambda: deployment.apps["logistics"].status("same-child") == "RUNNING")  # noqa: B023
    blue, green = namespaces["blue"].apps, namespaces["default"].apps
    blue["orders"].at("logistics", "raise_workflow_event", instance_id="same-child", event_name="go", data="blue")
    assert blue["orders"].output("same-parent") == ["blue"]
    green["orders"].call("terminate", id="same-parent")
    assert green["logistics"].wait("same-child").status == "TERMINATED"
    assert blue["logistics"].wait("same-child").output == ["blue"]
    blue["logistics"].call("purge", id="same-child")
    assert (blue["logistics"].get("same-child"), green["logistics"].status("same-child")) == (None, "TERMINATED")


def test_an_app_of_another_namespace_is_as_one_that_is_unknown(
    namespaces: dict[str, Deployment], tmp_path: Path
) -> None:
    """M16: even where its address is known: the calls wait, nothing is sent, and it is said why."""
    green, blue = namespaces["default"], namespaces["blue"]
    orders, noted = green.apps["orders"], {"file": str(tmp_path / "crossed"), "line": "crossed"}
    ids = [orders.start("remote_all", [[app, "noted", noted]]) for app in ("depot", "nowhere")]
    ids.append(orders.start("remote_child", {"app": "depot", "name": "hello", "value": "you", "id": "crossed"}))
    until(lambda: "namespace" in peer(green.sidecars["orders"], "depot")["error"])
    time.sleep(0.5)
    assert {orders.status(id) for id in ids} == {"RUNNING"}
    assert peer(green.sidecars["orders"], "depot")["state"] == "connecting"
    assert blue.apps["orders"].run("tour", ["depot"]) == ["depot"]
    assert (lines(tmp_path / "crossed"), blue.apps["depot"].get("crossed")) == ([], None)
    for id in ids:
        orders.call("terminate", id=id)
        assert orders.wait(id).status == "TERMINATED"
