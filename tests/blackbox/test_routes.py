"""Microsoft's SDK, which cannot name an app, takes part in multi-app workflows: by routes of its sidecar, and by a tag.

Orders and ml use `durabletask`, logistics the `dapr` package.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import App, Deployment, lines, until

pytestmark = pytest.mark.timeout(90)

# What fits none of these runs at orders. The first that fits counts.
ROUTES = ("activity:who=ml", "activity:who_*=logistics", "workflow:relay=ml", "workflow:*chain=logistics")
ROUTES += ("activity:flaky=logistics", "workflow:wait_events=logistics")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("routes"), ("orders", "ml", "logistics"))
    deployment.sidecars["orders"].options = [word for route in ROUTES for word in ("--route", route)]
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        for name in deployment.sidecars:
            deployment.app(name, "dapr" if name == "logistics" else "microsoft").start_process()
        yield deployment
    finally:
        deployment.end()


def test_an_activity_runs_where_its_route_says_and_without_one_at_home(orders: App) -> None:
    """M1, M2."""
    calls = [["who", None], ["who_slowly", 0], ["double", 4], ["who", None]]
    ml, (logistics, _), eight, again = orders.run("call_in_turn", calls)
    assert (ml, logistics, eight, again) == ("ml", "logistics", 8, "ml")


def test_many_at_once_go_by_their_routes(orders: App) -> None:
    results = orders.run("call_all", [["who", None], ["double", 1], ["who_slowly", 0]] * 10)
    assert [one if isinstance(one, int) else one[0] if isinstance(one, list) else one for one in results] == [
        *("ml", 2, "logistics")
    ] * 10


def test_a_child_lives_where_its_route_says(orders: App, ml: App, logistics: App) -> None:
    """M5: all apps have a workflow of that name."""
    call = {"name": "chain", "value": {"start": 1, "steps": 3}, "id": "routed-child"}
    assert orders.run("call_child", call) == 4
    child = logistics.wait("routed-child")
    assert (child.name, child.output) == ("chain", 4)
    assert (orders.get("routed-child"), ml.get("routed-child")) == (None, None)
    assert orders.run("call_child", {"name": "relay", "value": "big ☃", "id": "routed-relay"}) == "big ☃"
    assert ml.wait("routed-relay").output == "big ☃"


def test_a_routed_activity_is_tried_again_where_it_was_sent(orders: App, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    flaky = {"file": str(attempts), "fail": 2, "value": "third"}
    assert orders.run("call_activity", {"name": "flaky", "value": flaky, "attempts": 4}) == "third"
    assert lines(attempts) == ["logistics"] * 3


def test_a_routed_child_ends_with_its_parent(orders: App, logistics: App) -> None:
    """M56."""
    id = orders.start("call_child", {"name": "wait_events", "value": ["never"], "id": "routed-waiting"})
    until(lambda: logistics.status("routed-waiting") == "RUNNING")
    orders.call("terminate", id=id)
    assert orders.wait(id).status == "TERMINATED"
    assert logistics.wait("routed-waiting").status == "TERMINATED"


def test_a_tag_names_the_app_of_an_activity_and_beats_a_route(orders: App) -> None:
    apps = [None, "logistics", "orders", "ml", None]
    assert orders.run("tour", apps) == [app or "ml" for app in apps]
    total, workers = orders.run("remote_fan_out", {"apps": ["orders", "ml", "logistics"], "each": 5})
    assert (total, workers) == (2 * sum(range(15)), ["orders"] * 5 + ["ml"] * 5 + ["logistics"] * 5)


def test_a_sidecar_without_routes_needs_only_the_tag(ml: App) -> None:
    assert ml.run("tour", [None, "orders", "logistics"]) == ["ml", "orders", "logistics"]


@pytest.mark.parametrize("app", ["no such!", "a.b"])
def test_a_tag_that_is_no_app_id_fails_the_call(orders: App, app: str) -> None:
    """M14."""
    caught = orders.run("remote_call", {"app": app, "name": "who", "catch": True})
    assert (caught["type"], app in caught["message"]) == ("InvalidAppId", True)
