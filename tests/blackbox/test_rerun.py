"""Rerun from an event, with Dapr's SDK as client and worker (M69, M70, E.11)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import App, CallError, Sidecar, lines


@pytest.fixture
def app(own_sidecar: Sidecar, tmp_path: Path) -> Iterator[App]:
    process = App("dapr", own_sidecar.start().port, tmp_path)
    try:
        yield process.start_process()
    finally:
        process.kill9()


def events(app: App, id: str, kind: str) -> list[int]:
    """The numbers of the events of a kind in the history of an instance."""
    return [number for number, found in app.call("numbered", id=id) if found == kind]


def test_only_what_follows_the_event_is_executed_again(app: App, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    steps = [{"file": str(seen), "line": line, "value": line} for line in ("one", "two", "three")]
    id = app.start("call_in_turn", [["noted", step] for step in steps])
    assert app.output(id) == ["one", "two", "three"]
    before = app.call("numbered", id=id)
    second = events(app, id, "taskScheduled")[1]
    new = app.call("rerun", id=id, event=second)
    assert app.output(new) == ["one", "two", "three"]
    assert lines(seen) == ["one", "two", "three", "two", "three"]
    assert app.call("numbered", id=id) == before


def test_the_input_of_the_event_may_be_another(app: App) -> None:
    id = app.start("chain", {"start": 1, "steps": 3})
    assert app.output(id) == 4
    last = events(app, id, "taskScheduled")[-1]
    assert app.call("rerun", id=id, event=last, input=41, new_instance_id="chosen") == "chosen"
    assert app.output("chosen") == 42


def test_a_child_is_run_again_under_an_id_of_its_own(app: App) -> None:
    """M70"""
    id = app.start("call_child", {"name": "chain", "value": {"start": 1, "steps": 2}, "id": "kid"})
    assert app.output(id) == 3
    [created] = events(app, id, "childWorkflowInstanceCreated")
    again = {"start": 5, "steps": 2}
    new = app.call("rerun", id=id, event=created, input=again, new_child_workflow_instance_id="kid 2")
    assert app.output(new) == 7
    assert app.output("kid 2") == 7
    assert app.output("kid") == 3
    new = app.call("rerun", id=id, event=created)
    assert app.output(new) == 3
    assert app.output(f"{new}:{created:04x}") == 3


def test_a_timer_fires_again(app: App) -> None:
    id = app.start("timer", 0.3)
    before = app.output(id)
    [created] = events(app, id, "timerCreated")
    new = app.call("rerun", id=id, event=created)
    assert app.output(new)[0] == before[0]


def test_a_failed_workflow_is_rerun_from_the_activity_that_failed(app: App, tmp_path: Path) -> None:
    flaky = {"file": str(tmp_path / "attempts"), "fail": 1, "value": "mended"}
    id = app.start("call_activity", {"name": "flaky", "value": flaky})
    assert app.wait(id).status == "FAILED"
    [number] = events(app, id, "taskScheduled")
    assert app.output(app.call("rerun", id=id, event=number)) == "mended"
    assert app.wait(id).status == "FAILED"


def test_what_cannot_be_rerun_is_refused(app: App) -> None:
    app.output(app.start("call_child", {"name": "hello", "value": "x", "id": "kid"}, id="parent"))
    app.output(app.start("timer", 0.1, id="nap"))
    app.start("wait_events", ["go"], id="live")
    refused = {
        "NOT_FOUND": [{"id": "nobody", "event": 0}, {"id": "parent", "event": 77}],
        "INVALID_ARGUMENT": [
            {"id": "live", "event": 1},
            {"id": "kid", "event": 1},
            {"id": "nap", "event": events(app, "nap", "timerCreated")[0], "input": 1},
            {"id": "parent", "event": 1, "new_instance_id": "parent"},
        ],
        "ALREADY_EXISTS": [{"id": "parent", "event": 1, "new_instance_id": "nap"}],
    }
    for code, calls in refused.items():
        for call in calls:
            with pytest.raises(CallError) as error:
                app.call("rerun", **call)
            assert error.value.code == code, call
    app.call("terminate", id="live")
