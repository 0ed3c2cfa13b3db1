"""The workflows and activities of the program."""

import json
import time
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import versions
from dapr.ext.workflow import DaprWorkflowContext, RetryPolicy, WorkflowActivityContext, when_all
from player import APP_ID, INPUTS, LINGER_SECONDS

Steps = Generator[Any, Any, Any]

# How often an activity ran, by the name that its caller gives; workers and scenarios are one process.
attempts: Counter[str] = Counter()

RETRY = RetryPolicy(first_retry_interval=timedelta(seconds=0.1), max_number_of_attempts=3)


# --- activities ------------------------------------------------------------------------------------------------------


def say_hello(_: WorkflowActivityContext, name: str) -> str:
    return f"Hello, {name}!"


def add_one(_: WorkflowActivityContext, number: int) -> int:
    return number + 1


def square(_: WorkflowActivityContext, number: int) -> int:
    return number * number


def echo(_: WorkflowActivityContext, value: Any) -> Any:
    return value


def fails_twice(_: WorkflowActivityContext, key: str) -> int:
    attempts[key] += 1
    if attempts[key] < 3:
        raise RuntimeError(f"attempt {attempts[key]}")
    return attempts[key]


def refuse(_: WorkflowActivityContext, text: str) -> None:
    raise ValueError(text)


def where(_: WorkflowActivityContext, _value: Any) -> str:
    return APP_ID


def counted(_: WorkflowActivityContext, call: dict[str, Any]) -> int:
    """Counts that it ran with this value, and adds one to it."""
    attempts[f"{call['key']} {call['value']}"] += 1
    return call["value"] + 1


def fill(_: WorkflowActivityContext, length: int) -> str:
    return "x" * length


def show(_: WorkflowActivityContext, value: Any) -> str:
    """What it was given, as JSON."""
    return json.dumps(value, separators=(",", ":"))


show.__name__ = "Show"  # as in the programs of the other languages


def linger(_: WorkflowActivityContext, _value: Any) -> str:
    time.sleep(LINGER_SECONDS)
    return "done"


ACTIVITIES = (say_hello, add_one, square, echo, fails_twice, refuse, where, counted, fill, show, linger)


# --- workflows -------------------------------------------------------------------------------------------------------


def hello(ctx: DaprWorkflowContext, name: str) -> Steps:
    return (yield ctx.call_activity(say_hello, input=name))


def chain(ctx: DaprWorkflowContext, number: int) -> Steps:
    for _ in range(3):
        number = yield ctx.call_activity(add_one, input=number)
    return number


def fan_out(ctx: DaprWorkflowContext, width: int) -> Steps:
    squares = yield when_all([ctx.call_activity(square, input=number) for number in range(width)])
    return sum(squares)


def fan_in(ctx: DaprWorkflowContext, length: int) -> Steps:
    """Sixty results at once."""
    texts = yield when_all([ctx.call_activity(fill, input=length) for _ in range(60)])
    return sum(len(text) for text in texts)


def retried(ctx: DaprWorkflowContext, key: str) -> Steps:
    return (yield ctx.call_activity(fails_twice, input=key, retry_policy=RETRY))


def sleeper(ctx: DaprWorkflowContext, seconds: float) -> Steps:
    """The workflow's clock before and after."""
    before = ctx.current_utc_datetime
    yield ctx.create_timer(timedelta(seconds=seconds))
    return (ctx.current_utc_datetime - before).total_seconds()


def waiter(ctx: DaprWorkflowContext, name: str) -> Steps:
    return (yield ctx.wait_for_external_event(name))


def two_events(ctx: DaprWorkflowContext, seconds: float) -> Steps:
    """One event that comes, and one that does not before the time-out."""
    first = yield ctx.wait_for_external_event("first")
    second = yield from versions.wait_within(ctx, "second", seconds)
    return [first, second]


def child(ctx: DaprWorkflowContext, number: int) -> Steps:
    result = yield ctx.call_activity(add_one, input=number)
    return [ctx.instance_id, result]


def parent(ctx: DaprWorkflowContext, child_id: str) -> Steps:
    """A child with an ID of our choice and one without, at the same time."""
    named = ctx.call_child_workflow(child, input=1, instance_id=child_id)
    unnamed = ctx.call_child_workflow(child, input=10)
    return (yield when_all([named, unnamed]))


def count(ctx: DaprWorkflowContext, state: dict[str, int]) -> Steps:
    """One event an execution; those that come meanwhile are kept."""
    total = state["total"] + (yield ctx.wait_for_external_event("add"))
    if state["execution"] == 5:
        return [state["execution"], total]
    ctx.continue_as_new({"execution": state["execution"] + 1, "total": total}, save_events=True)
    return None


def guardian(ctx: DaprWorkflowContext, child_id: str) -> Steps:
    """Waits for a child that waits for an event."""
    return (yield ctx.call_child_workflow(waiter, input="never", instance_id=child_id))


def catches(ctx: DaprWorkflowContext, text: str) -> Steps:
    try:
        yield ctx.call_activity(refuse, input=text)
    except versions.TaskFailedError as error:
        return [error.details.error_type, error.details.message]


def fails(ctx: DaprWorkflowContext, text: str) -> Steps:
    yield ctx.call_activity(refuse, input=text)


def stages(ctx: DaprWorkflowContext, _: Any) -> Steps:
    ctx.set_custom_status("stage 1")
    yield ctx.wait_for_external_event("next")
    ctx.set_custom_status("stage 2")
    return "done"


def relay(ctx: DaprWorkflowContext, value: Any) -> Steps:
    return (yield ctx.call_activity(echo, input=value))


def remote_activity(ctx: DaprWorkflowContext, app: str) -> Steps:
    """Here and there, at the same time; then one of that app that fails."""
    places = yield when_all([ctx.call_activity(where, app_id=app), ctx.call_activity(where)])
    try:
        yield ctx.call_activity(refuse, input="not there", app_id=app)
    except versions.TaskFailedError as error:
        return [*places, error.details.message]


def inputs(ctx: DaprWorkflowContext, app: str) -> Steps:
    """Gives an activity there each kind of input, and at last none; a version that names no app does so by a route."""
    there, shown = {"app_id": app} if versions.CALLS_OTHER_APPS else {}, []
    for value in INPUTS:
        shown.append((yield ctx.call_activity(show, input=value, **there)))
    shown.append((yield ctx.call_activity(show, **there)))
    return shown


def where_am_i(ctx: DaprWorkflowContext, _: Any) -> Steps:
    place = yield ctx.call_activity(where)
    return [ctx.instance_id, place]


def remote_child(ctx: DaprWorkflowContext, call: dict[str, str]) -> Steps:
    named = ctx.call_child_workflow(where_am_i, instance_id=call["id"], app_id=call["app"])
    unnamed = ctx.call_child_workflow(where_am_i, app_id=call["app"])
    return (yield when_all([named, unnamed]))


def counting_chain(ctx: DaprWorkflowContext, call: dict[str, Any]) -> Steps:
    """Three activities, each of which counts its runs."""
    value = call["value"]
    for _ in range(3):
        value = yield ctx.call_activity(counted, input={"key": call["key"], "value": value})
    return value


def started_at(ctx: DaprWorkflowContext, _: Any) -> float:
    return time.time()


def clearing(ctx: DaprWorkflowContext, execution: int) -> Steps:
    """Has a status, clears it, has one again, and goes on as a new execution without."""
    if execution == 2:
        yield ctx.wait_for_external_event("end")
        return
    for event, status in (("clear", "busy"), ("again", ""), ("continue", "busy again")):
        ctx.set_custom_status(status)
        yield ctx.wait_for_external_event(event)
    ctx.continue_as_new(2)


def filling(ctx: DaprWorkflowContext, _: Any) -> Steps:
    """Asks one after the other for 40 texts of 150,000 characters, and then waits for an event."""
    total = 0
    for _ in range(40):
        total += len((yield ctx.call_activity(fill, input=150_000)))
    ctx.set_custom_status("filled")
    yield ctx.wait_for_external_event("end")
    return total


def lingering(ctx: DaprWorkflowContext, _: Any) -> Steps:
    return (yield ctx.call_activity(linger))


class Deployment:
    """What the code of the workflow below is at the moment: with the patch or without."""

    patched = False


def patched(ctx: DaprWorkflowContext, _: Any) -> Steps:
    """Says which way it took, and once more after it has been replayed."""
    ways = []
    for name in ("first", "second"):
        way = "new" if Deployment.patched and ctx.is_patched("another way") else "old"
        ways.append((yield ctx.call_activity(echo, input=way)))
        yield ctx.wait_for_external_event(name)
    return ways


def greeter_1(ctx: DaprWorkflowContext, _: Any) -> Steps:
    yield ctx.wait_for_external_event("go")
    return "version 1"


def greeter_2(ctx: DaprWorkflowContext, _: Any) -> Steps:
    yield ctx.wait_for_external_event("go")
    return "version 2"


GREETERS = {"v1": greeter_1, "v2": greeter_2}

WORKFLOWS = (
    *(
        hello,
        chain,
        fan_out,
        fan_in,
        retried,
        sleeper,
        waiter,
        two_events,
        child,
        parent,
        count,
        guardian,
        catches,
        fails,
    ),
    *(stages, relay, remote_activity, inputs, where_am_i, remote_child, counting_chain, started_at, patched),
    *(clearing, filling, lingering),
)
