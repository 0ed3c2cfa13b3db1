"""Where a call goes: the app that it names, else that of its tag, else that of a route, else home."""

from dataclasses import replace

import pytest

from sidecar.core.model import Kind
from tests.core.builders import ME, Flow, child, task

ROUTED = replace(
    ME, routes=(("activity", "gpu-*", "ml"), ("activity", "*", "rest"), ("workflow", "ship*", "logistics"))
)


@pytest.mark.parametrize(
    ("name", "app", "tags", "goes_to"),
    [
        ("gpu-train", "", {}, "ml"),
        ("other", "", {}, "rest"),
        ("gpu-train", "", {"app-id": "lab"}, "lab"),
        ("gpu-train", "stock", {"app-id": "lab"}, "stock"),
        ("gpu-train", "orders", {}, "orders"),
    ],
)
def test_an_activity_goes_to_the_app_it_names_before_its_tag_before_a_route(
    name: str, app: str, tags: dict[str, str], goes_to: str
) -> None:
    action = task(0, name, app=app)
    action.schedule_task.tags.update(tags)
    [request] = Flow(ROUTED).start().turn(action).set
    assert (request.kind, request.target.app, request.kept_until_result) == (
        Kind.ACTIVITY,
        goes_to,
        goes_to != "orders",
    )


def test_a_child_goes_by_the_routes_of_workflows() -> None:
    [created] = Flow(ROUTED).start().turn(child(0, name="shipping")).set
    assert created.target.app == "logistics"
    [here] = Flow(ROUTED).start().turn(child(0, name="gpu-train")).set
    assert here.target.app == "orders"


def test_a_tag_that_names_an_app_that_cannot_exist_fails_the_call() -> None:
    action = task(0, "x")
    action.schedule_task.tags["app-id"] = "no such!"
    flow = Flow(ROUTED).start()
    flow.turn(action)
    assert not flow.last.set
