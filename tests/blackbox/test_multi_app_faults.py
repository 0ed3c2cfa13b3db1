"""Workflows over several apps while sidecars and workers are down, killed, or come late.

Orders and logistics use the `dapr` package, ml uses Microsoft's `durabletask` and has activities only.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import HOST, App, Deployment, Sidecar, lines, until

pytestmark = pytest.mark.timeout(90)

NAMES = ("orders", "ml", "logistics")


def deploy(directory: Path) -> Deployment:
    """Three sidecars and apps, none of them started."""
    deployment = Deployment(directory, NAMES)
    deployment.app("orders", "dapr")
    deployment.app("ml", "microsoft", activities_only=True)
    deployment.app("logistics", "dapr")
    return deployment


def begin(deployment: Deployment, *names: str) -> None:
    for name in names:
        deployment.sidecars[name].start()
        deployment.apps[name].start_process()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = deploy(tmp_path_factory.mktemp("faults"))
    try:
        begin(deployment, *NAMES)
        yield deployment
    finally:
        deployment.end()


class Gate:
    """An activity that hangs until it is opened."""

    def __init__(self, directory: Path) -> None:
        self.started = directory / "started"
        self._opened = directory / "open"

    def at(self, app: str, value: object = "through") -> dict[str, object]:
        call = {"started": str(self.started), "until": str(self._opened), "value": value}
        return {"app": app, "name": "gate", "value": call}

    def open(self) -> None:
        self._opened.touch()

    def wait(self, times: int = 1) -> None:
        until(lambda: len(lines(self.started)) >= times, 30, f"the activity began {times} times")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# Down when called


@pytest.mark.fault(20, "Work for apps that are down waits; nothing local waits with it or is repeated")
@pytest.mark.timeout(120)
def test_work_for_apps_that_are_down_waits_for_them(tmp_path: Path) -> None:
    """M20 to M28: nothing fails, nothing local waits or repeats, and the work is done when its app comes."""
    deployment = deploy(tmp_path)
    orders = deployment.apps["orders"]
    once = tmp_path / "local"
    local = [None, "noted", {"file": str(once), "line": "ran", "value": "local"}]
    try:
        begin(deployment, "orders")
        activity = orders.start("remote_call", {"app": "ml", "name": "who"})
        child = orders.start("remote_child", {"app": "logistics", "name": "hello", "value": "you"})
        late = orders.start("late_call", {"seconds": 0.5, "app": "ml", "name": "who"})
        remote_first = orders.start("remote_all", [["ml", "who", None], local])
        local_first = orders.start("remote_all", [local, ["ml", "who", None]])
        both = orders.start("remote_all", [["ml", "who", None], ["logistics", "who", None]])
        until(lambda: lines(once) == ["ran", "ran"])
        time.sleep(2)
        everything = (activity, child, late, remote_first, local_first, both)
        assert {orders.status(id) for id in everything} == {"RUNNING"}
        begin(deployment, "ml")
        assert [orders.output(id) for id in (activity, late)] == ["ml", "ml"]
        assert orders.output(remote_first) == ["ml", "local"]
        assert orders.output(local_first) == ["local", "ml"]
        assert [orders.status(id) for id in (child, both)] == ["RUNNING", "RUNNING"]
        begin(deployment, "logistics")
        assert orders.output(child) == "Hello, you!"
        assert orders.output(both) == ["ml", "logistics"]
        assert lines(once) == ["ran", "ran"]
    finally:
        deployment.end()


def test_work_sent_before_a_restart_of_home_is_sent_after_it(tmp_path: Path) -> None:
    """M26"""
    deployment = deploy(tmp_path)
    orders = deployment.apps["orders"]
    try:
        begin(deployment, "orders")
        id = orders.start("remote_fan_out", {"apps": ["ml"], "each": 10})
        time.sleep(0.5)
        deployment.sidecars["orders"].restart()
        begin(deployment, "ml")
        assert orders.reconnected().output(id) == [90, ["ml"] * 10]
    finally:
        deployment.end()


def test_peers_from_the_config_file_and_an_answer_to_an_app_without_an_address(tmp_path: Path) -> None:
    """Only orders knows where ml is; what ml answers comes back by the link that orders opened."""
    deployment = deploy(tmp_path)
    orders, ml = deployment.sidecars["orders"], deployment.sidecars["ml"]
    config = tmp_path / "sidecar.yaml"
    config.write_text(f'peers:\n  ml: "{HOST}:{ml.peer_port}"\n')
    orders.peers, orders.options, ml.peers = {}, ["--config", str(config)], {}
    try:
        begin(deployment, "orders", "ml")
        home = deployment.apps["orders"]
        assert home.run("tour", ["ml", None, "ml"]) == ["ml", "orders", "ml"]
        ml.restart()
        assert home.run("tour", ["ml", None]) == ["ml", "orders"]
    finally:
        deployment.end()


# Killed in the middle


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_the_target_is_killed_while_it_works(deployment: Deployment, orders: App, gate: Gate, target: str) -> None:
    """M29, M30: home waits without an error; the activity is delivered again."""
    id = orders.start("remote_call", gate.at(target))
    gate.wait()
    deployment.sidecars[target].kill9()
    time.sleep(0.5)
    assert orders.status(id) == "RUNNING"
    assert orders.run("tour", [None]) == ["orders"]
    deployment.sidecars[target].start()
    gate.open()
    assert orders.output(id) == "through"


def test_the_target_is_killed_while_its_child_runs(deployment: Deployment, orders: App) -> None:
    """M31"""
    logistics = deployment.apps["logistics"]
    call = {"app": "logistics", "name": "wait_events", "value": ["one", "two"], "id": "surviving-child"}
    id = orders.start("remote_child", call)
    until(lambda: logistics.status("surviving-child") == "RUNNING")
    logistics.raise_event("surviving-child", "one", 1)
    deployment.sidecars["logistics"].restart()
    logistics.reconnected().raise_event("surviving-child", "two", 2)
    assert orders.output(id) == [1, 2]


@pytest.mark.parametrize("target", ["ml", "logistics"])
def test_home_is_killed_and_the_result_waits_for_it(
    deployment: Deployment, orders: App, gate: Gate, target: str
) -> None:
    """M34, M36: the activity ends while its home is down, and does not run again."""
    id = orders.start("remote_call", gate.at(target))
    gate.wait()
    deployment.sidecars["orders"].kill9()
    gate.open()
    time.sleep(1)
    deployment.sidecars["orders"].start()
    assert orders.reconnected().output(id) == "through"
    assert len(lines(gate.started)) == 1


def test_home_is_killed_while_a_child_runs_elsewhere(deployment: Deployment, orders: App) -> None:
    logistics = deployment.apps["logistics"]
    call = {"app": "logistics", "name": "wait_events", "value": ["go"], "id": "child-of-killed"}
    id = orders.start("remote_child", call)
    until(lambda: logistics.status("child-of-killed") == "RUNNING")
    deployment.sidecars["orders"].kill9()
    logistics.raise_event("child-of-killed", "go", 1)
    assert logistics.output("child-of-killed") == [1]
    deployment.sidecars["orders"].start()
    assert orders.reconnected().output(id) == [1]


def test_all_are_killed_at_once(deployment: Deployment, orders: App, gate: Gate) -> None:
    id = orders.start("remote_call", gate.at("ml"))
    child = orders.start("remote_child", {"app": "logistics", "name": "timers", "value": [0.5, 3]})
    gate.wait()
    for sidecar in deployment.sidecars.values():
        sidecar.kill9()
    gate.open()
    for sidecar in deployment.sidecars.values():
        sidecar.start()
    assert orders.reconnected().output(id) == "through"
    assert orders.output(child) == 2


@pytest.mark.parametrize("victim", ["orders", "ml"])
def test_a_kill_in_the_middle_of_a_fan_out(deployment: Deployment, orders: App, tmp_path: Path, victim: str) -> None:
    done = tmp_path / "done"
    calls = [["ml", "noted", {"file": str(done), "line": str(n), "value": n}] for n in range(200)]
    id = orders.start("remote_all", calls)
    until(lambda: len(lines(done)) > 20)
    deployment.sidecars[victim].restart()
    assert orders.reconnected().output(id) == list(range(200))
    assert set(lines(done)) == {str(n) for n in range(200)}


# Workers


def test_the_worker_of_the_target_goes_and_comes_back(deployment: Deployment, orders: App, gate: Gate) -> None:
    """M33: in the middle of an activity, and while more is sent."""
    ml = deployment.apps["ml"]
    id = orders.start("remote_call", gate.at("ml"))
    gate.wait()
    ml.kill9()
    more = orders.start("tour", ["ml", None, "ml"])
    time.sleep(0.5)
    assert [orders.status(each) for each in (id, more)] == ["RUNNING", "RUNNING"]
    gate.open()
    ml.start_process()
    assert orders.output(id) == "through"
    assert orders.output(more) == ["ml", "orders", "ml"]
    assert len(lines(gate.started)) == 2


def test_the_worker_of_home_is_gone_when_the_result_comes(deployment: Deployment, orders: App, gate: Gate) -> None:
    """M35"""
    id = orders.start("remote_call", gate.at("ml"))
    gate.wait()
    orders.kill9()
    gate.open()
    time.sleep(0.5)
    orders.start_process()
    assert orders.output(id) == "through"
    assert len(lines(gate.started)) == 1


def test_sidecars_that_know_each_other_start_in_any_order(tmp_path: Path) -> None:
    deployment = deploy(tmp_path)
    try:
        begin(deployment, "ml")
        begin(deployment, "orders")
        assert deployment.apps["orders"].run("tour", ["ml"]) == ["ml"]
        sidecar: Sidecar = deployment.sidecars["ml"]
        sidecar.stop()
        id = deployment.apps["orders"].start("tour", ["ml"])
        sidecar.start()
        assert deployment.apps["orders"].output(id) == ["ml"]
    finally:
        deployment.end()
