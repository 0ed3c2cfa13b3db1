"""What one app can do with its workflows: the same tests for both SDKs, and both SDKs at one sidecar."""

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.blackbox.harness import App, Sidecar, lines, until

MIB = 1 << 20


# Activities and children


def test_a_workflow_without_any_step_completes(app: App) -> None:
    state = app.wait(app.start("hello", "you", id="hello-1"))
    assert (state.id, state.name, state.status) == ("hello-1", "hello", "COMPLETED")
    assert (state.input, state.output) == ("you", "Hello, you!")
    assert state.failure is None


def test_activities_one_after_the_other(app: App) -> None:
    assert app.run("chain", {"start": 5, "steps": 10}) == 15


def test_activities_all_at_once(app: App) -> None:
    assert app.run("fan_out", 100) == 9900


def test_a_failed_activity_is_tried_again_as_its_policy_says(app: App, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    call = {"file": str(attempts), "fail": 2, "value": "third"}
    assert app.run("call_activity", {"name": "flaky", "value": call, "attempts": 5}) == "third"
    assert len(lines(attempts)) == 3


def test_a_retry_policy_gives_up_and_the_failure_ends_the_workflow(app: App, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    call = {"file": str(attempts), "fail": 99, "value": None}
    state = app.wait(app.start("call_activity", {"name": "flaky", "value": call, "attempts": 3}))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "attempt 3" in state.failure["message"]
    assert len(lines(attempts)) == 3


def test_the_failure_of_an_activity_can_be_caught_with_its_details(app: App) -> None:
    caught = app.run("call_activity", {"name": "broken", "value": "no stock", "catch": True})
    assert caught["type"].endswith("ValueError")
    assert caught["message"] == "no stock"
    assert "activities.py" in caught["stack"]


def test_the_failure_of_a_workflow_has_type_message_and_stack(app: App) -> None:
    state = app.wait(app.start("failing", "it broke"))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert state.failure["type"].endswith("RuntimeError")
    assert state.failure["message"] == "it broke"
    assert "workflows.py" in state.failure["stack"]


def test_an_activity_that_no_worker_knows_fails_its_call(app: App) -> None:
    state = app.wait(app.start("call_activity", {"name": "nobody"}))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "nobody" in state.failure["message"]


def test_a_workflow_that_no_worker_knows_fails(app: App) -> None:
    state = app.wait(app.start("no_such_workflow"))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "no_such_workflow" in state.failure["message"]


def test_a_child_with_an_id_of_its_own(app: App) -> None:
    call = {"name": "chain", "value": {"start": 1, "steps": 2}, "id": "my-child"}
    assert app.run("call_child", call) == 3
    child = app.wait("my-child")
    assert (child.name, child.output) == ("chain", 3)


def test_a_child_without_an_id_gets_one_from_its_parent(app: App) -> None:
    assert app.run("call_child", {"name": "hello", "value": "child"}, id="parent-1") == "Hello, child!"
    assert app.wait("parent-1:0001").output == "Hello, child!"


def test_the_failure_of_a_child_can_be_caught_with_its_details(app: App) -> None:
    caught = app.run("call_child", {"name": "failing", "value": "bad child", "catch": True})
    assert caught["type"].endswith("RuntimeError")
    assert "bad child" in caught["message"]


def test_a_failed_child_is_tried_again_as_its_policy_says(app: App, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    call = {"file": str(attempts), "fail": 1, "value": "second"}
    assert app.run("call_child", {"name": "flaky_child", "value": call, "attempts": 3}) == "second"
    assert len(lines(attempts)) == 2


def test_children_of_children(app: App) -> None:
    assert app.run("family", {"depth": 3, "width": 3}) == 27


# Timers and events


def test_a_timer_of_no_time_and_one_in_the_past_fire_at_once(app: App) -> None:
    begin = time.monotonic()
    for seconds in (0, -3600):
        before, after = app.run("timer", seconds)
        assert before <= after
    assert time.monotonic() - begin < 5


def test_a_timer_fires_when_it_is_due_and_the_workflow_clock_agrees(app: App) -> None:
    begin = time.monotonic()
    before, after = (datetime.fromisoformat(text) for text in app.run("timer", 1.5))
    assert 1.5 <= time.monotonic() - begin < 5
    assert 1.5 <= (after - before).total_seconds() < 5


def test_many_timers_at_once(app: App) -> None:
    assert app.run("timers", [n % 7 / 10 for n in range(60)]) == 60


@pytest.mark.parametrize("days", [400, 100_000])
def test_a_timer_in_the_far_future_does_not_fire(app: App, days: int) -> None:
    id = app.start("far_timer", days)
    time.sleep(0.3)
    assert app.status(id) == "RUNNING"
    app.raise_event(id, "enough")
    assert app.output(id) == "event"


def test_events_that_come_before_the_wait(app: App) -> None:
    id = app.start("wait_events", ["a", "b", "c"])
    for name in ("c", "b", "a"):
        app.raise_event(id, name, f"value of {name}")
    assert app.output(id) == ["value of a", "value of b", "value of c"]


def test_events_that_come_after_the_wait(app: App) -> None:
    id = app.start("wait_events", ["a", "a", "b"])
    for n, name in enumerate(("a", "a", "b"), start=1):
        until(lambda: app.status(id) == "RUNNING")
        time.sleep(0.1)
        app.raise_event(id, name, n)
    assert app.output(id) == [1, 2, 3]


def test_event_names_do_not_depend_on_case_and_values_may_be_empty(app: App) -> None:
    id = app.start("wait_events_together", ["Approve", "NOTE"])
    app.raise_event(id, "note")
    app.raise_event(id, "APPROVE", {"by": ["me"]})
    assert app.output(id) == [{"by": ["me"]}, None]


def test_two_events_that_are_equal_are_two_events(app: App) -> None:
    """M44"""
    id = app.start("wait_events", ["a", "a", "a"])
    for _ in range(3):
        app.raise_event(id, "a", "same")
    assert app.output(id) == ["same"] * 3


def test_the_wait_for_an_event_times_out(app: App) -> None:
    assert app.run("event_with_timeout", {"name": "never", "seconds": 0.3}) is None


def test_an_event_before_its_timeout(app: App) -> None:
    id = app.start("event_with_timeout", {"name": "soon", "seconds": 60})
    app.raise_event(id, "soon", 7)
    assert app.output(id) == 7


# Life of an instance


def test_continue_as_new_starts_again_with_its_new_input(app: App) -> None:
    id = app.start("sum_up", {"left": 20})
    state = app.wait(id)
    assert (state.status, state.output) == ("COMPLETED", 420)


def test_continue_as_new_carries_events_that_were_not_taken(app: App) -> None:
    id = app.start("count_events", {"left": 60})
    for answer in [app.post("raise", id=id, name="add", value=n) for n in range(1, 61)]:
        answer.result(30)
    state = app.wait(id)
    assert (state.status, state.output) == ("COMPLETED", 1830)
    assert state.custom_status == {"left": 0}


def test_the_custom_status_is_seen_while_the_workflow_runs(app: App) -> None:
    stages = ["packed", {"at": "depot", "parcels": 3}]
    id = app.start("custom_status", stages)
    for stage in stages:
        until(lambda stage=stage: (app.get(id) or pytest.fail("gone")).custom_status == stage)
        app.raise_event(id, "next")
    assert app.output(id) == "done"


def test_clock_and_ids_are_the_same_in_every_replay(app: App, tmp_path: Path) -> None:
    file = tmp_path / "seen"
    final = app.run("clock_and_ids", {"rounds": 6, "file": str(file)})
    told = [json.loads(line) for line in lines(file)]
    assert told == [final[: n + 1] for n in range(6)]
    times = [when for when, *_ in final]
    assert times == sorted(times)
    assert len({id for _, *ids in final for id in ids}) == 12


def test_a_suspended_workflow_keeps_its_events_until_it_is_resumed(app: App) -> None:
    id = app.start("wait_events", ["a", "b"])
    app.raise_event(id, "a", 1)
    app.call("suspend", id=id)
    until(lambda: app.status(id) == "SUSPENDED")
    app.raise_event(id, "b", 2)
    time.sleep(0.3)
    assert app.status(id) == "SUSPENDED"
    app.call("resume", id=id)
    assert app.output(id) == [1, 2]


def test_suspend_and_resume_twice(app: App) -> None:
    id = app.start("wait_events", ["a"])
    for op, status in [("suspend", "SUSPENDED"), ("suspend", "SUSPENDED"), ("resume", "RUNNING")] * 2:
        app.call(op, id=id)
        until(lambda status=status: app.status(id) == status, what=f"{op} gives {status}")
    app.raise_event(id, "a", "end")
    assert app.output(id) == ["end"]


def test_a_suspended_workflow_can_be_terminated(app: App) -> None:
    id = app.start("wait_events", ["a"])
    app.call("suspend", id=id)
    app.call("terminate", id=id, output="stopped")
    state = app.wait(id)
    assert (state.status, state.output) == ("TERMINATED", "stopped")


def test_terminate_ends_the_children_too(app: App) -> None:
    id = app.start("call_child", {"name": "wait_events", "value": ["never"], "id": "running-child"})
    until(lambda: app.status("running-child") == "RUNNING")
    app.call("terminate", id=id, output={"why": "test"})
    assert app.wait(id).output == {"why": "test"}
    assert app.wait("running-child").status == "TERMINATED"


def test_terminate_without_recursion_leaves_the_children(app: App) -> None:
    """M58"""
    id = app.start("call_child", {"name": "wait_events", "value": ["go"], "id": "left-child"})
    until(lambda: app.status("left-child") == "RUNNING")
    app.call("terminate", id=id, recursive=False)
    assert app.wait(id).status == "TERMINATED"
    app.raise_event("left-child", "go", "on")
    assert app.output("left-child") == ["on"]


# Size and text


def test_payloads_of_a_mebibyte(app: App) -> None:
    text = "0123456789abcdef" * (MIB // 16)
    state = app.wait(app.start("relay", text))
    assert state.input == text
    assert state.output == text
    length, returned = app.run("large", MIB)
    assert (length, len(returned)) == (MIB, MIB)


def test_text_of_all_kinds_comes_back_as_it_was(app: App) -> None:
    text = 'größer ☃ 漢字 \U0001f680 " \\ \n\t end\u2028'
    id = app.start("relay", {text: [text]}, id="größe-☃-\U0001f680")
    state = app.wait(id)
    assert state.output == state.input == state.custom_status == {text: [text]}
    waiting = app.start("wait_events", ["Ünï-☃"])
    app.raise_event(waiting, "Ünï-☃", text)
    assert app.output(waiting) == [text]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_history_of_thousands_of_events(app: App) -> None:
    call = {"rounds": 2, "width": 1000, "steps": 100}
    assert app.output(app.start("long_history", call), timeout=150) == 2 * 999_000 + 100


# Both SDKs at one sidecar


@pytest.mark.timeout(60)
def test_both_sdks_at_one_sidecar_share_the_work(own_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    own_sidecar.start()
    apps = [start_app(dialect, own_sidecar) for dialect in ("microsoft", "dapr")]
    work = [("chain", {"start": 0, "steps": 5}, 5), ("fan_out", 20, 380), ("sum_up", {"left": 4}, 20)]
    started = [
        (app.start(workflow, input, id=f"{app.label}-{workflow}-{n}"), result)
        for n in range(8)
        for app in apps
        for workflow, input, result in work
    ]
    for n, (id, result) in enumerate(started):
        assert apps[n % 2].output(id) == result
        assert apps[(n + 1) % 2].output(id) == result


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("first", "second"), [("microsoft", "dapr"), ("dapr", "microsoft")])
def test_one_sdk_goes_on_with_what_the_other_began(
    own_sidecar: Sidecar, start_app: Callable[..., App], first: str, second: str
) -> None:
    own_sidecar.start()
    one, two = start_app(first, own_sidecar), start_app(second, own_sidecar, connect=False)
    id = one.start("stages", 4)
    time.sleep(1)
    one.kill9()
    two.call("connect")
    assert two.output(id) == [one.label, two.label, 3]
