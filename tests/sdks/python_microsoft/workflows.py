"""The orchestrators, activities and entities of the program."""

import json
import time
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.task import ActivityContext, OrchestrationContext
from player import APP_ID, INPUTS, LINGER_SECONDS

Steps = Generator[task.Task[Any], Any, Any]

# How often an activity ran, by the name that its caller gives; workers and scenarios are one process.
attempts: Counter[str] = Counter()
# Activities of these names fail.
broken: set[str] = set()

RETRY = task.RetryPolicy(first_retry_interval=timedelta(seconds=0.1), max_number_of_attempts=3)


# --- activities ------------------------------------------------------------------------------------------------------


def say_hello(_: ActivityContext, name: str) -> str:
    return f"Hello, {name}!"


def add_one(_: ActivityContext, number: int) -> int:
    return number + 1


def square(_: ActivityContext, number: int) -> int:
    return number * number


def echo(_: ActivityContext, value: Any) -> Any:
    return value


def fails_twice(_: ActivityContext, key: str) -> int:
    attempts[key] += 1
    if attempts[key] < 3:
        raise RuntimeError(f"attempt {attempts[key]}")
    return attempts[key]


def refuse(_: ActivityContext, text: str) -> None:
    raise ValueError(text)


def counted(_: ActivityContext, key: str) -> str:
    """Counts that it ran; fails while its name is among the broken."""
    attempts[key] += 1
    if key in broken:
        raise RuntimeError(f"{key} is broken")
    return key


def where(_: ActivityContext, __: Any) -> str:
    return APP_ID


def routed_where(_: ActivityContext, __: Any) -> str:
    """Goes to the other app by a route of the sidecar."""
    return APP_ID


def fill(_: ActivityContext, length: int) -> str:
    return "x" * length


def show(_: ActivityContext, value: Any) -> str:
    """What it was given, as JSON."""
    return json.dumps(value, separators=(",", ":"))


show.__name__ = "Show"  # as in the programs of the other languages


def linger(_: ActivityContext, __: Any) -> str:
    time.sleep(LINGER_SECONDS)
    return "done"


ACTIVITIES = (say_hello, add_one, square, echo, fails_twice, refuse, counted, where, routed_where, fill, show, linger)


# --- orchestrators ---------------------------------------------------------------------------------------------------


def hello(ctx: OrchestrationContext, name: str) -> Steps:
    return (yield ctx.call_activity(say_hello, input=name))


def chain(ctx: OrchestrationContext, number: int) -> Steps:
    for _ in range(3):
        number = yield ctx.call_activity(add_one, input=number)
    return number


def fan_out(ctx: OrchestrationContext, width: int) -> Steps:
    squares = yield task.when_all([ctx.call_activity(square, input=number) for number in range(width)])
    return sum(squares)


def fan_in(ctx: OrchestrationContext, length: int) -> Steps:
    """Sixty results at once."""
    texts = yield task.when_all([ctx.call_activity(fill, input=length) for _ in range(60)])
    return sum(len(text) for text in texts)


def retried(ctx: OrchestrationContext, key: str) -> Steps:
    return (yield ctx.call_activity(fails_twice, input=key, retry_policy=RETRY))


def sleeper(ctx: OrchestrationContext, seconds: float) -> Steps:
    """The workflow's clock before and after."""
    before = ctx.current_utc_datetime
    yield ctx.create_timer(timedelta(seconds=seconds))
    return (ctx.current_utc_datetime - before).total_seconds()


def waiter(ctx: OrchestrationContext, name: str) -> Steps:
    return (yield ctx.wait_for_external_event(name))


def two_events(ctx: OrchestrationContext, seconds: float) -> Steps:
    """One event that comes, and one that does not before the time-out."""
    first = yield ctx.wait_for_external_event("first")
    second = ctx.wait_for_external_event("second")
    time_out = ctx.create_timer(timedelta(seconds=seconds))
    winner = yield task.when_any([second, time_out])
    return [first, "timed out" if winner is time_out else second.get_result()]


def sender(ctx: OrchestrationContext, receiver: str) -> str:
    ctx.send_event(receiver, "first", data={"from": ctx.instance_id})
    return "sent"


def child(ctx: OrchestrationContext, number: int) -> Steps:
    doubled = yield ctx.call_activity(add_one, input=number)
    return [ctx.instance_id, ctx.parent_instance_id, doubled]


def parent(ctx: OrchestrationContext, child_id: str) -> Steps:
    """A child with an ID of our choice and one without, at the same time."""
    named = ctx.call_sub_orchestrator(child, input=1, instance_id=child_id)
    unnamed = ctx.call_sub_orchestrator(child, input=10)
    return (yield task.when_all([named, unnamed]))


def remote_activity(ctx: OrchestrationContext, app: str) -> Steps:
    """Here, there by a route, and there by the tag that the sidecar knows."""
    tagged = ctx.call_activity(where, tags={"app-id": app})
    return (yield task.when_all([ctx.call_activity(where), ctx.call_activity(routed_where), tagged]))


def inputs(ctx: OrchestrationContext, app: str) -> Steps:
    """Gives an activity there each kind of input, and at last none."""
    tags, shown = {"app-id": app}, []
    for value in INPUTS:
        shown.append((yield ctx.call_activity(show, input=value, tags=tags)))
    shown.append((yield ctx.call_activity(show, tags=tags)))
    return shown


def routed_child(ctx: OrchestrationContext, _: Any) -> Steps:
    """Goes to the other app by a route of the sidecar."""
    place = yield ctx.call_activity(where)
    return [ctx.instance_id, place]


def remote_child(ctx: OrchestrationContext, child_id: str) -> Steps:
    return (yield ctx.call_sub_orchestrator(routed_child, instance_id=child_id))


def count(ctx: OrchestrationContext, state: dict[str, int]) -> Steps:
    """One event an execution; those that come meanwhile are kept."""
    total = state["total"] + (yield ctx.wait_for_external_event("add"))
    if state["execution"] == 5:
        return [state["execution"], total]
    ctx.continue_as_new({"execution": state["execution"] + 1, "total": total}, save_events=True)
    return None


def guardian(ctx: OrchestrationContext, child_id: str) -> Steps:
    """Waits for a child that waits for an event."""
    return (yield ctx.call_sub_orchestrator(waiter, input="never", instance_id=child_id))


def catches(ctx: OrchestrationContext, text: str) -> Steps:
    try:
        yield ctx.call_activity(refuse, input=text)
    except task.TaskFailedError as error:
        return [error.details.is_caused_by(ValueError), error.details.message]


def fails(ctx: OrchestrationContext, text: str) -> Steps:
    yield ctx.call_activity(refuse, input=text)


def stages(ctx: OrchestrationContext, _: Any) -> Steps:
    ctx.set_custom_status({"stage": 1})
    yield ctx.wait_for_external_event("next")
    ctx.set_custom_status({"stage": 2})
    return "done"


def relay(ctx: OrchestrationContext, value: Any) -> Steps:
    return (yield ctx.call_activity(echo, input=value))


def tagged(ctx: OrchestrationContext, _: Any) -> Steps:
    return (yield ctx.call_activity(echo, input=1, tags={"step": "only"}))


def versioned(ctx: OrchestrationContext, nested: bool) -> Steps:
    """Its version, and that of a child for which none is given."""
    if not nested:
        return ctx.version
    below = yield ctx.call_sub_orchestrator(versioned, input=False)
    return [ctx.version, below]


def shaky_child(ctx: OrchestrationContext, key: str) -> Steps:
    return (yield ctx.call_activity(counted, input=f"{key}-below"))


def shaky(ctx: OrchestrationContext, key: str) -> Steps:
    """One activity that works, one that may not, and a child with one that may not."""
    first = yield ctx.call_activity(counted, input=f"{key}-sound")
    both = [
        ctx.call_activity(counted, input=f"{key}-shaky"),
        ctx.call_sub_orchestrator(shaky_child, input=key, instance_id=f"{key}-child"),
    ]
    return [first, *(yield task.when_all(both))]


def started_at(ctx: OrchestrationContext, _: Any) -> float:
    return time.time()


def clearing(ctx: OrchestrationContext, execution: int) -> Steps:
    """Has a status, clears it, has one again, and goes on as a new execution without."""
    if execution == 2:
        yield ctx.wait_for_external_event("end")
        return
    for event, status in (("clear", "busy"), ("again", ""), ("continue", "busy again")):
        ctx.set_custom_status(status)
        yield ctx.wait_for_external_event(event)
    ctx.continue_as_new(2)


def lingering(ctx: OrchestrationContext, _: Any) -> Steps:
    return (yield ctx.call_activity(linger))


# --- entities --------------------------------------------------------------------------------------------------------


class Tally(DurableEntity):
    """Registered as "counter": counts, and can tell others to do something."""

    def add(self, number: int) -> int:
        total = self.get_state(int, 0) + number
        self.set_state(total)
        return total

    def get(self) -> int:
        return self.get_state(int, 0)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def tell(self, call: dict[str, Any]) -> None:
        """Signals another counter and starts an orchestration."""
        self.signal_entity(EntityInstanceId("counter", call["other"]), "add", call["number"])
        self.schedule_new_orchestration("hello", "Kyoto", call["start"])


def use_counter(ctx: OrchestrationContext, key: str) -> Steps:
    """Signals and calls: what one orchestration does to an entity happens in order."""
    counter = EntityInstanceId("counter", key)
    ctx.signal_entity(counter, "add", 5)
    first = yield ctx.call_entity(counter, "add", 10)
    try:
        yield ctx.call_entity(counter, "fail", "no")
    except task.TaskFailedError as error:
        return [first, (yield ctx.call_entity(counter, "get")), "no" in str(error)]


def transfer(ctx: OrchestrationContext, call: dict[str, Any]) -> Steps:
    """Moves an amount between two counters that nobody else can see in between."""
    source, target = EntityInstanceId("counter", call["from"]), EntityInstanceId("counter", call["to"])
    with (yield ctx.lock_entities([source, target])):
        balance = yield ctx.call_entity(source, "get")
        if balance < call["amount"]:
            return False
        yield ctx.call_entity(source, "add", -call["amount"])
        yield ctx.call_entity(target, "add", call["amount"])
    return True


ORCHESTRATORS = (
    *(
        hello,
        chain,
        fan_out,
        fan_in,
        retried,
        sleeper,
        waiter,
        two_events,
        sender,
        child,
        parent,
        count,
        guardian,
        catches,
    ),
    *(remote_activity, inputs, routed_child, remote_child),
    *(fails, stages, relay, tagged, versioned, shaky_child, shaky, started_at, use_counter, transfer),
    *(clearing, lingering),
)
