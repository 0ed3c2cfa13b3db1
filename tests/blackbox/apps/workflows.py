"""The workflows, written once: each takes its input and a `Flow`, made from the context of the app's SDK."""

import json
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, ClassVar, Protocol

from activities import gate as gate_now

Steps = Generator[Any, Any, Any]


class Flow(Protocol):
    """What a workflow may do. Tasks are the SDK's own and are yielded to it."""

    Failed: ClassVar[type[Exception]]
    id: str
    now: datetime

    def uuid(self) -> str: ...
    def activity(self, name: str, value: Any = None, *, attempts: int = 1, app: str | None = None) -> Any: ...
    def child(
        self,
        name: str,
        value: Any = None,
        *,
        id: str | None = None,
        attempts: int = 1,
        app: str | None = None,
    ) -> Any: ...
    def timer(self, seconds: float) -> Any: ...
    def event(self, name: str) -> Any: ...
    def event_within(self, name: str, seconds: float) -> Steps: ...
    def all(self, tasks: list[Any]) -> Any: ...
    def any(self, tasks: list[Any]) -> Any: ...
    def status(self, value: Any) -> None: ...
    def continue_as_new(self, value: Any, *, keep_events: bool = False) -> None: ...
    def failure(self, error: Exception) -> dict[str, Any]: ...


def hello(flow: Flow, name: str) -> str:
    return f"Hello, {name}!"


def chain(flow: Flow, call: dict[str, int]) -> Steps:
    value = call["start"]
    for _ in range(call["steps"]):
        value = yield flow.activity("add_one", value)
    return value


def fan_out(flow: Flow, width: int) -> Steps:
    results = yield flow.all([flow.activity("double", number) for number in range(width)])
    return sum(results)


def spread(flow: Flow, call: dict[str, Any]) -> Steps:
    """Which processes share the work."""
    tasks = [flow.activity("who_slowly", call["seconds"]) for _ in range(call["width"])]
    return (yield flow.all(tasks))


def call_activity(flow: Flow, call: dict[str, Any]) -> Steps:
    """One activity by name; its failure, if caught, is the result."""
    try:
        task = flow.activity(call["name"], call.get("value"), attempts=call.get("attempts", 1))
        return (yield task)
    except flow.Failed as error:
        if not call.get("catch"):
            raise
        return flow.failure(error)


def clean_up(flow: Flow, call: dict[str, Any]) -> Steps:
    """One activity; if it fails another cleans up, and the workflow fails with words of its own."""
    try:
        result = yield flow.activity(call["name"], call.get("value"), attempts=call.get("attempts", 1))
    except flow.Failed:
        yield flow.activity("noted", call["cleaning"])
        raise RuntimeError("cleaned up") from None
    return result


def call_all(flow: Flow, calls: list[list[Any]]) -> Steps:
    """Several activities at the same time."""
    return (yield flow.all([flow.activity(name, value) for name, value in calls]))


def call_in_turn(flow: Flow, calls: list[list[Any]]) -> Steps:
    """Several activities, one after the other."""
    results = []
    for name, value in calls:
        results.append((yield flow.activity(name, value)))
    return results


def call_child(flow: Flow, call: dict[str, Any]) -> Steps:
    """One child by name; its failure, if caught, is the result."""
    try:
        task = flow.child(call["name"], call.get("value"), id=call.get("id"), attempts=call.get("attempts", 1))
        return (yield task)
    except flow.Failed as error:
        if not call.get("catch"):
            raise
        return flow.failure(error)


def family(flow: Flow, call: dict[str, int]) -> Steps:
    """Children of children, `width` at each of `depth` levels; counts the leaves."""
    if call["depth"] == 0:
        return (yield flow.activity("add_one", 0))
    below = {"depth": call["depth"] - 1, "width": call["width"]}
    leaves = yield flow.all([flow.child("family", below) for _ in range(call["width"])])
    return sum(leaves)


def flaky_child(flow: Flow, call: dict[str, Any]) -> Steps:
    """Fails as often as its activity does."""
    return (yield flow.activity("flaky", call))


def timer(flow: Flow, seconds: float) -> Steps:
    """Workflow time before and after."""
    before = flow.now
    yield flow.timer(seconds)
    return [before.isoformat(), flow.now.isoformat()]


def timers(flow: Flow, seconds: list[float]) -> Steps:
    """Several timers at once: how many there were."""
    yield flow.all([flow.timer(each) for each in seconds])
    return len(seconds)


def far_timer(flow: Flow, days: float) -> Steps:
    """Waits for an event or for a time that no test sees."""
    event = flow.event("enough")
    winner = yield flow.any([event, flow.timer(days * 86400)])
    return "event" if winner is event else "timer"


def wait_events(flow: Flow, names: list[str]) -> Steps:
    values = []
    for name in names:
        values.append((yield flow.event(name)))
    return values


def wait_events_together(flow: Flow, names: list[str]) -> Steps:
    return (yield flow.all([flow.event(name) for name in names]))


def event_with_timeout(flow: Flow, call: dict[str, Any]) -> Steps:
    return (yield from flow.event_within(call["name"], call["seconds"]))


def sum_up(flow: Flow, state: dict[str, int]) -> Steps:
    """One activity a generation."""
    total = state.get("total", 0) + (yield flow.activity("double", state["left"]))
    if state["left"] == 1:
        return total
    flow.continue_as_new({"left": state["left"] - 1, "total": total})
    return None


def count_events(flow: Flow, state: dict[str, int]) -> Steps:
    """One event a generation; those not yet taken are carried on."""
    number = yield flow.event("add")
    total, left = state.get("total", 0) + number, state["left"] - 1
    flow.status({"left": left})
    if left == 0:
        return total
    flow.continue_as_new({"left": left, "total": total}, keep_events=True)
    return None


def custom_status(flow: Flow, stages: list[Any]) -> Steps:
    for stage in stages:
        flow.status(stage)
        yield flow.event("next")
    return "done"


def clock_and_ids(flow: Flow, call: dict[str, Any]) -> Steps:
    """Each turn tells what it saw in all turns so far; if replay is right, that never changes."""
    seen: list[list[str]] = []
    for _ in range(call["rounds"]):
        seen.append([flow.now.isoformat(), flow.uuid(), flow.uuid()])
        yield flow.activity("noted", {"file": call["file"], "line": json.dumps(seen)})
        yield flow.timer(0.01)
    return seen


def relay(flow: Flow, value: Any) -> Steps:
    flow.status(value if len(json.dumps(value)) < 1000 else "large")
    return (yield flow.activity("echo", value))


def long_relay(flow: Flow, call: dict[str, int]) -> Steps:
    """A history that grows by a large text each turn."""
    total = 0
    for _ in range(call["rounds"]):
        total += len((yield flow.activity("repeat", call["size"])))
    return total


def large(flow: Flow, size: int) -> Steps:
    text = yield flow.activity("repeat", size)
    length = yield flow.activity("size", text)
    return [length, text]


def long_history(flow: Flow, call: dict[str, int]) -> Steps:
    total = 0
    for _ in range(call["rounds"]):
        results = yield flow.all([flow.activity("double", number) for number in range(call["width"])])
        total += sum(results)
    for _ in range(call["steps"]):
        total = yield flow.activity("add_one", total)
    return total


def failing(flow: Flow, message: str) -> Steps:
    yield flow.activity("echo", message)
    raise RuntimeError(message)


def stages(flow: Flow, seconds: float) -> Steps:
    """Which app works before and which after a pause."""
    before = yield flow.activity("who")
    yield flow.timer(seconds)
    after = yield flow.activity("who")
    children = yield flow.child("chain", {"start": 1, "steps": 2})
    return [before, after, children]


def gated_turn(flow: Flow, call: dict[str, Any]) -> Any:
    """Keeps its turn as an activity would; no workflow should, but a worker may die in a turn."""
    return gate_now(call)


WORKFLOWS: tuple[Callable[..., Any], ...] = (
    hello,
    chain,
    fan_out,
    spread,
    call_activity,
    clean_up,
    call_all,
    call_in_turn,
    call_child,
    family,
    flaky_child,
    timer,
    timers,
    far_timer,
    wait_events,
    wait_events_together,
    event_with_timeout,
    sum_up,
    count_events,
    custom_status,
    clock_and_ids,
    relay,
    long_relay,
    large,
    long_history,
    failing,
    stages,
    gated_turn,
)
