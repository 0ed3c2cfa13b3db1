"""Workflows that call other apps by app ID. Only an SDK that can name an app registers them.

Those of `BY_ACTIVITY` have no children: Microsoft's SDK names the app of an activity by a tag, and children have none.
"""

from collections.abc import Callable
from typing import Any

from workflows import Flow, Steps


def remote_call(flow: Flow, call: dict[str, Any]) -> Steps:
    """One activity in another app; its failure, if caught, is the result."""
    try:
        task = flow.activity(call["name"], call.get("value"), attempts=call.get("attempts", 1), app=call["app"])
        return (yield task)
    except flow.Failed as error:
        if not call.get("catch"):
            raise
        return flow.failure(error)


def remote_child(flow: Flow, call: dict[str, Any]) -> Steps:
    """One child in another app; its failure, if caught, is the result."""
    try:
        task = flow.child(
            call["name"],
            call.get("value"),
            id=call.get("id"),
            attempts=call.get("attempts", 1),
            app=call["app"],
        )
        return (yield task)
    except flow.Failed as error:
        if not call.get("catch"):
            raise
        return flow.failure(error)


def tour(flow: Flow, apps: list[str | None]) -> Steps:
    """One activity after the other, each where the list says (nothing: here)."""
    visited = []
    for app in apps:
        visited.append((yield flow.activity("who", app=app)))
    return visited


def remote_fan_out(flow: Flow, call: dict[str, Any]) -> Steps:
    """`each` activities in each app, all at once: the sum, and who worked."""
    places = [app for app in call["apps"] for _ in range(call["each"])]
    numbers = yield flow.all([flow.activity("double", i, app=app) for i, app in enumerate(places)])
    workers = yield flow.all([flow.activity("who", app=app) for app in places])
    return [sum(numbers), workers]


def remote_all(flow: Flow, calls: list[list[Any]]) -> Steps:
    """Several activities at the same time, each `[app, name, value]`."""
    return (yield flow.all([flow.activity(name, value, app=app) for app, name, value in calls]))


def remote_children(flow: Flow, calls: list[list[Any]]) -> Steps:
    """Several children at the same time, each `[app, name, value]`."""
    return (yield flow.all([flow.child(name, value, app=app) for app, name, value in calls]))


def nested(flow: Flow, call: dict[str, Any]) -> Steps:
    """At each app of the route: a local activity, one of the first app, then a child at the next app."""
    here = yield flow.activity("who")
    back = yield flow.activity("who", app=call["home"])
    if not call["route"]:
        return [[here, back]]
    rest = {"home": call["home"], "route": call["route"][1:]}
    below = yield flow.child("nested", rest, app=call["route"][0])
    return [[here, back], *below]


def late_call(flow: Flow, call: dict[str, Any]) -> Steps:
    """A timer first, then an activity in another app."""
    yield flow.timer(call["seconds"])
    return (yield flow.activity(call["name"], call.get("value"), app=call["app"]))


def gathered(flow: Flow, call: dict[str, Any]) -> Steps:
    """Activities of another app, all at once, and then a child there: in which turn depends on how results come."""
    numbers = yield flow.all([flow.activity("double", i, app=call["app"]) for i in range(call["width"])])
    slept = yield flow.child("timers", [0.5 * i for i in range(call["width"])], app=call["app"])
    return sum(numbers) + slept


def remote_rounds(flow: Flow, state: dict[str, Any]) -> Steps:
    """One child in another app a generation, under the same ID each time."""
    total = state.get("total", 0) + (yield flow.child("timers", [0.3 * i for i in range(4)], app=state["app"]))
    if state["left"] == 1:
        return total
    flow.continue_as_new({**state, "left": state["left"] - 1, "total": total})
    return None


def mixed_load(flow: Flow, call: dict[str, Any]) -> Steps:
    """Local and remote, activities and a child: the sum of all."""
    numbers = [flow.activity("double", i, app=call["app"] if i % 2 else None) for i in range(call["width"])]
    child = flow.child("fan_out", call["width"], app=call["app"])
    *results, below = yield flow.all([*numbers, child])
    return sum(results) + below


BY_ACTIVITY: tuple[Callable[..., Any], ...] = (remote_call, tour, remote_fan_out, remote_all, late_call)
REMOTE_WORKFLOWS: tuple[Callable[..., Any], ...] = (
    *BY_ACTIVITY,
    remote_child,
    remote_children,
    nested,
    gathered,
    remote_rounds,
    mixed_load,
)
