"""Workers come, share work, die and go: whatever they had in hand is done by another, at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blackbox.harness import App, Sidecar, lines, until

pytestmark = pytest.mark.timeout(90)

Starter = Callable[..., App]
AT_ONCE = 5.0


@pytest.fixture
def gate(tmp_path: Path) -> "Gate":
    return Gate(tmp_path)


class Gate:
    """Holds activities until it is opened, and knows which processes have begun them."""

    def __init__(self, directory: Path) -> None:
        self.started = directory / "started"
        self.until = directory / "open"

    def call(self, value: object = None) -> dict[str, object]:
        return {"started": str(self.started), "until": str(self.until), "value": value}

    def open(self) -> None:
        self.until.touch()

    def begun_by(self, app: App) -> int:
        return sum(line.startswith(f"{app.label} ") for line in lines(self.started))


def test_all_workers_get_work(sidecar: Sidecar, dialect: str, start_app: Starter) -> None:
    apps = [start_app(dialect, sidecar) for _ in range(3)]
    until(lambda: sidecar.metadata()["workflows"]["connectedWorkers"] == 3)
    results = apps[0].run("spread", {"width": 90, "seconds": 0.05})
    assert len(results) == 90
    assert {label for label, _ in results} == {app.label for app in apps}


@pytest.mark.fault(2, "The activities of a worker that was killed go to another at once")
def test_items_of_a_killed_worker_go_to_another_at_once(
    sidecar: Sidecar, dialect: str, start_app: Starter, gate: Gate
) -> None:
    """E.6: what a stream had is queued again when it is lost."""
    victim = start_app(dialect, sidecar)
    id = victim.start("call_all", [["gate", gate.call(n)] for n in range(4)])
    until(lambda: gate.begun_by(victim) == 4)
    other = start_app(dialect, sidecar)
    victim.kill9()
    killed = time.monotonic()
    until(lambda: gate.begun_by(other) == 4, AT_ONCE, "the other worker has all four")
    gate.open()
    assert other.output(id) == [0, 1, 2, 3]
    assert time.monotonic() - killed < AT_ONCE
    assert len(lines(gate.started)) == 8


@pytest.mark.fault(2, "The turn of a worker that was killed goes to another at once")
def test_a_turn_of_a_killed_worker_goes_to_another_at_once(
    sidecar: Sidecar, dialect: str, start_app: Starter, gate: Gate
) -> None:
    """E.6: the same of a turn."""
    victim = start_app(dialect, sidecar)
    id = victim.start("gated_turn", gate.call("done"))
    until(lambda: gate.begun_by(victim) == 1)
    other = start_app(dialect, sidecar)
    victim.kill9()
    until(lambda: gate.begun_by(other) == 1, AT_ONCE, "the other worker has the turn")
    gate.open()
    assert other.output(id) == "done"


def test_items_wait_for_the_next_worker_when_the_only_one_is_killed(
    sidecar: Sidecar, dialect: str, start_app: Starter, gate: Gate
) -> None:
    victim = start_app(dialect, sidecar)
    id = victim.start("call_all", [["gate", gate.call(n)] for n in range(3)])
    until(lambda: gate.begun_by(victim) == 3)
    victim.kill9()
    gate.open()
    other = start_app(dialect, sidecar, connect=False)
    assert other.status(id) == "RUNNING"
    other.call("connect")
    assert other.output(id) == [0, 1, 2]


def test_items_of_a_worker_that_hangs_up_go_to_another(
    sidecar: Sidecar, dialect: str, start_app: Starter, gate: Gate
) -> None:
    """The one that left may still answer; whichever answer is first, the call ends once."""
    leaver, other = start_app(dialect, sidecar), start_app(dialect, sidecar, connect=False)
    id = leaver.start("call_all", [["gate", gate.call(n)] for n in range(2)])
    until(lambda: gate.begun_by(leaver) == 2)
    other.call("connect")
    leaving = leaver.post("disconnect")
    until(lambda: gate.begun_by(other) == 2, 15, "the other worker has both")
    gate.open()
    assert other.output(id) == [0, 1]
    leaving.result(40)
    assert other.run("fan_out", 5) == 20


def test_a_worker_that_comes_back_loses_nothing(sidecar: Sidecar, dialect: str, start_app: Starter) -> None:
    app = start_app(dialect, sidecar)
    ids = [app.start("timers", [0.2, 1.0, 2.0]) for _ in range(5)]
    for _ in range(3):
        app.call("disconnect")
        ids.append(app.start("chain", {"start": 1, "steps": 3}))
        app.call("connect")
    assert [app.output(id) for id in ids] == [3] * 5 + [4] * 3


def test_an_idle_worker_of_another_process_is_not_disturbed_by_a_crash(
    sidecar: Sidecar, dialect: str, start_app: Starter
) -> None:
    steady = start_app(dialect, sidecar)
    for _ in range(2):
        start_app(dialect, sidecar).kill9()
        assert steady.run("chain", {"start": 0, "steps": 3}) == 3


def test_the_metadata_tells_whether_workers_are_connected(sidecar: Sidecar, dialect: str, start_app: Starter) -> None:
    def connected() -> int:
        return sidecar.metadata()["workflows"]["connectedWorkers"]

    until(lambda: connected() == 0, 5)
    app = start_app(dialect, sidecar)
    until(lambda: connected() == 1, 1)
    metadata = sidecar.metadata()
    assert metadata["id"] == "orders"
    types = {actor["type"] for actor in metadata["actorRuntime"]["activeActors"]}
    assert {f"dapr.internal.default.orders.{kind}" for kind in ("workflow", "activity", "retentioner")} == types
    app.kill9()
    until(lambda: connected() == 0, 1)
    assert not sidecar.metadata()["actorRuntime"].get("activeActors")
