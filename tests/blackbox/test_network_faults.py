"""Workflows over several apps while the network or the other app misbehaves.

Between any two sidecars stands a proxy of the test's own. Orders and logistics use the `dapr` package, ml uses
Microsoft's `durabletask` and has activities only.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.harness import App, CallError, Deployment, Sidecar, lines, memory, until
from tests.blackbox.proxy import Network, Proxy
from tests.blackbox.wire import Caller
from tests.conftest import Injected

pytestmark = [pytest.mark.timeout(180), pytest.mark.hard]

NAMES = ("orders", "ml", "logistics")
NOTICED_SECONDS = 15.0
PAUSE_SECONDS = 15.0  # in which a worker whose process lives may be at work still, and be back
FURTHER = 20


class Wired:
    """The deployment, and the proxies of its links by both ends."""

    def __init__(self, directory: Path) -> None:
        self.network = Network()
        self.deployment = Deployment(directory, NAMES)
        self.sidecars = self.deployment.sidecars
        self.proxies: dict[tuple[str, str], Proxy] = {}
        for app, sidecar in self.sidecars.items():
            for other in self.sidecars.values():
                if other is not sidecar:
                    proxy = self.proxies[app, other.app] = Proxy(self.network, other.peer_port)
                    sidecar.peers[other.app] = proxy.port

    def start(self) -> None:
        for sidecar in self.sidecars.values():
            sidecar.start()
        self.deployment.app("orders", "dapr").start_process()
        self.deployment.app("logistics", "dapr").start_process()
        self.deployment.app("ml", "microsoft", activities_only=True).start_process()

    def between(self, one: str, other: str) -> list[Proxy]:
        return [self.proxies[one, other], self.proxies[other, one]]

    def connected(self, one: str, other: str) -> bool:
        peers = self.sidecars[one].metadata()["peers"]
        return any(peer["appId"] == other and peer["state"] == "connected" for peer in peers)

    def end(self) -> None:
        self.deployment.end()
        self.network.end()


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    wired = Wired(tmp_path_factory.mktemp("network"))
    try:
        wired.start()
        yield wired
    finally:
        wired.end()


@pytest.fixture
def deployment(wired: Wired) -> Deployment:
    return wired.deployment


@pytest.fixture(autouse=True)
def _ends_well(wired: Wired) -> Iterator[None]:
    """After each test the network is whole and further workflows over all apps finish."""
    yield
    for proxy in wired.proxies.values():
        proxy.mend()
    orders = wired.deployment.apps["orders"].reconnected()
    ids = [orders.start("tour", ["ml", None, "logistics"]) for _ in range(FURTHER)]
    assert [orders.output(id) for id in ids] == [["ml", "orders", "logistics"]] * FURTHER


@pytest.mark.fault(3, "A call over two apps comes out right and once, whenever both sidecars are killed")
def test_both_sidecars_of_a_call_are_killed(wired: Wired, orders: App, tmp_path: Path, injected: Injected) -> None:
    steps = 10
    for step in range(steps):
        done = tmp_path / f"done-{step}"
        calls = [["ml", "noted", {"file": str(done), "line": str(n), "value": n}] for n in range(20)]
        id = orders.start("remote_all", calls)
        time.sleep(step * 0.02)
        for name in ("orders", "ml"):
            wired.sidecars[name].kill9()
        for name in ("ml", "orders"):
            wired.sidecars[name].start()
        assert orders.reconnected().output(id) == list(range(20))
        assert set(lines(done)) == {str(n) for n in range(20)}
    injected(2 * steps, "kills")


@pytest.mark.fault(
    19, "A link to another app that is dead is noticed within 15 s, and its work goes on when it is back"
)
def test_a_link_that_is_dead_without_having_been_closed(wired: Wired, orders: App, injected: Injected) -> None:
    until(lambda: wired.connected("orders", "logistics"))
    for proxy in wired.between("orders", "logistics"):
        proxy.silence()
    began = time.monotonic()
    id = orders.start("remote_call", {"app": "logistics", "name": "who"})
    until(lambda: not wired.connected("orders", "logistics"), NOTICED_SECONDS, "the dead link was noticed")
    until(lambda: not wired.connected("logistics", "orders"), NOTICED_SECONDS - (time.monotonic() - began))
    assert orders.run("tour", ["ml", None]) == ["ml", "orders"]
    assert orders.status(id) == "RUNNING"
    for proxy in wired.between("orders", "logistics"):
        proxy.mend()
    assert orders.output(id) == "logistics"
    injected(2, "connections fell silent")


@pytest.mark.fault(19, "The work of a worker whose connection is dead goes to another within 30 s")
def test_a_worker_whose_connection_is_dead(wired: Wired, tmp_path: Path, injected: Injected) -> None:
    sidecar = Sidecar("solo", tmp_path).start()
    proxy = Proxy(wired.network, sidecar.port)
    dead = App("microsoft", proxy.port, tmp_path, "dead")
    client = App("microsoft", sidecar.port, tmp_path, "alive")
    try:
        dead.start_process()
        client.start_process(connect=False)
        started = tmp_path / "started"
        gate = {"started": str(started), "until": str(tmp_path / "open"), "value": "through"}
        id = client.start("call_activity", {"name": "gate", "value": gate})
        until(lambda: lines(started), what="the worker has the activity")
        proxy.silence()
        client.call("connect")
        (tmp_path / "open").touch()
        until(lambda: len(lines(started)) == 2, NOTICED_SECONDS + PAUSE_SECONDS, "the other worker has it")
        assert client.output(id) == "through"
        injected(1, "connection fell silent")
    finally:
        for process in (dead, client, sidecar):
            process.kill9()


@pytest.mark.fault(21, "An app that comes and goes is reached when it is there; calls to others take no longer")
def test_an_app_that_comes_and_goes(wired: Wired, orders: App, tmp_path: Path, injected: Injected) -> None:
    done = tmp_path / "done"
    ids = []
    flaps = 6
    for flap in range(flaps):
        wired.sidecars["logistics"].kill9()
        call = ["logistics", "noted", {"file": str(done), "line": str(flap), "value": flap}]
        ids.append(orders.start("remote_all", [call] * 5))
        began = time.monotonic()
        assert orders.run("tour", ["ml", None, "ml"]) == ["ml", "orders", "ml"]
        assert time.monotonic() - began < 5
        wired.sidecars["logistics"].start()
        time.sleep(1)
    assert [orders.output(id) for id in ids] == [[flap] * 5 for flap in range(flaps)]
    injected(flaps, "restarts of the other app")


@pytest.mark.fault(22, "What arrived although its acknowledgement was lost is done once")
def test_answers_are_lost_on_their_way_back(wired: Wired, orders: App, tmp_path: Path, injected: Injected) -> None:
    done = tmp_path / "done"
    ids, times = [], 5
    for each in range(times):
        until(lambda: wired.connected("orders", "ml"))
        for proxy in wired.between("orders", "ml"):
            proxy.lose_answers()
        calls = [["ml", "noted", {"file": str(done), "line": f"{each}-{n}", "value": n}] for n in range(20)]
        ids.append(orders.start("remote_all", calls))
        time.sleep(1.0)
        for proxy in wired.between("orders", "ml"):
            proxy.mend()
    assert [orders.output(id) for id in ids] == [list(range(20))] * times
    ran = Counter(lines(done))
    assert set(ran.values()) == {1}
    assert len(ran) == 20 * times
    injected(times, "times no answer came back")


@pytest.mark.fault(31, "An activity that takes long, and an app that answers nothing, delay no timer and nobody else")
def test_one_that_is_slow_delays_nobody(wired: Wired, orders: App, injected: Injected) -> None:
    slow = orders.start("remote_call", {"app": "orders", "name": "who_slowly", "value": 8.0})
    for proxy in wired.between("orders", "logistics"):
        proxy.silence()
    waiting = orders.start("remote_call", {"app": "logistics", "name": "who"})
    timers = {n: orders.start("timers", [1.0 + n * 0.1]) for n in range(20)}
    for n, id in timers.items():
        state = orders.wait(id)
        assert state.updated_at - state.created_at < 1.0 + n * 0.1 + 1.5
    for proxy in wired.between("orders", "logistics"):
        proxy.mend()
    assert orders.output(waiting) == "logistics"
    assert orders.output(slow)[0] == "orders"
    injected(2, "things that were slow")


@pytest.mark.fault(42, "Of a hundred starts of one ID at once, by two apps, one wins and the others are told so")
def test_one_id_is_started_a_hundred_times_at_once(orders: App, logistics: App, injected: Injected) -> None:
    answers: list[str] = []

    def own(_: int) -> None:
        answers.append(_outcome(lambda: logistics.start("wait_events", ["go"], id="wanted")))

    def from_afar(_: int) -> None:
        arguments = {"workflow": "wait_events", "input": ["go"], "instance_id": "wanted"}
        answers.append(_outcome(lambda: orders.at("logistics", "schedule_new_workflow", **arguments)))

    threads = [threading.Thread(target=own if n % 2 else from_afar, args=[n]) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answers) == {"started": 1, "ALREADY_EXISTS": 99}
    logistics.raise_event("wanted", "go", 1)
    assert logistics.output("wanted") == [1]
    injected(100, "starts of one ID")


def _outcome(start: Any) -> str:
    try:
        start()
    except CallError as error:
        return error.code
    return "started"


@pytest.mark.fault(39, "What sleeps and waits costs disk, not memory; memory comes back after a burst of waits")
def test_much_to_remember(tmp_path: Path, injected: Injected) -> None:
    sidecar = Sidecar("solo", tmp_path).start()
    waits, sleeping = 4_000, 6_000
    try:
        with Caller(sidecar.port) as caller:
            caller.call("StartInstance", {1: "waited-for", 2: "nobody-runs-this"})
            _many_waits(caller, 1_000)
            before = memory(sidecar)
            for _ in range(waits // 1_000):
                _many_waits(caller, 1_000)
            for n in range(sleeping):
                due = {1: int(time.time()) + 86_400}
                caller.call("StartInstance", {1: f"sleeper-{n}", 2: f"name-{n}", 4: {1: "x" * 1_000}, 5: due})
            grown = memory(sidecar) - before
        assert grown < 40 * 2**20, f"{grown / 2**20:.0f} MiB more"
        sidecar.stop()
        began = time.monotonic()
        sidecar.start()
        assert time.monotonic() - began < 5
        assert memory(sidecar) < before * 1.2
        injected(waits, "waits that timed out")
        injected(sleeping, "sleeping workflows with as many names")
    finally:
        sidecar.kill9()


def _many_waits(caller: Caller, count: int) -> None:
    waits = [caller.begin("WaitForInstanceCompletion", {1: "waited-for"}, timeout=0.5) for _ in range(count)]
    codes = {wait.code().name for wait in waits}
    assert codes == {"DEADLINE_EXCEEDED"}
