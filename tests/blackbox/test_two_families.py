"""Workers of both SDK families at one sidecar at once: each gets only what it can read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import DIALECTS, App, Sidecar, until
from tests.blackbox.test_entities import EntitiesApp

# What the SDKs say of a message or an item that they cannot read.
COMPLAINTS = ("deserializ", "nexpected work item", "unknown work item", "Don't know how to handle", "Traceback")


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    process = Sidecar("orders", tmp_path)
    try:
        yield process.start()
    finally:
        process.kill9()


def complaints(app: App) -> list[str]:
    return [line for line in app.log.read_text(errors="replace").splitlines() if any(one in line for one in COMPLAINTS)]


def test_workflows_run_on_workers_of_both_families_whichever_takes_a_turn(sidecar: Sidecar, tmp_path: Path) -> None:
    apps = [App(dialect, sidecar.port, tmp_path) for dialect in DIALECTS]
    try:
        for app in apps:
            app.start_process()
        until(lambda: sidecar.metadata()["workflows"]["connectedWorkers"] == len(apps))
        chains = [(app, app.start("chain", {"start": n, "steps": 4}), n + 4) for n in range(10) for app in apps]
        fans = [(app, app.start("fan_out", n), n * (n - 1)) for n in range(2, 8) for app in apps]
        workers = {worker for app in apps for worker in app.run("call_all", [["who", None]] * 20)}
        for app, id, expected in [*chains, *fans]:
            assert app.output(id) == expected
        assert workers == set(DIALECTS), "both have worked"
        assert [complaints(app) for app in apps] == [[], []]
    finally:
        for app in apps:
            app.kill9()


def test_operations_of_entities_go_to_the_family_that_has_them(sidecar: Sidecar, tmp_path: Path) -> None:
    dapr, shop = App("dapr", sidecar.port, tmp_path), EntitiesApp(sidecar.port, tmp_path)
    try:
        dapr.start_process()
        until(lambda: sidecar.metadata()["workflows"]["connectedWorkers"] == 1)
        shop.start_process()
        for number in range(30):
            shop.signal(f"k{number % 3}", "set", number)
        until(lambda: [shop.value(f"k{n}") for n in range(3)] == [27, 28, 29])
        assert (complaints(dapr), complaints(shop)) == ([], [])
    finally:
        for app in (dapr, shop):
            app.kill9()
