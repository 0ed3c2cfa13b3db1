"""What clients are told: of ids that are taken or missing, of waiting, of instances that have ended."""

import time
from collections.abc import Callable

import pytest

from tests.blackbox.harness import App, CallError, Sidecar, until


def refused(app: App, op: str, **arguments: object) -> CallError:
    """The error of a command that must fail."""
    with pytest.raises(CallError) as caught:
        app.call(op, **arguments)
    return caught.value


def code_of(app: App, op: str, **arguments: object) -> str:
    """The status of a command that may fail."""
    error = app.post(op, **arguments).exception(30)
    return error.code if isinstance(error, CallError) else "OK"


# Ids


def test_an_id_is_made_up_if_none_is_given(app: App) -> None:
    first, second = app.start("hello", "a"), app.start("hello", "b")
    assert first
    assert second
    assert first != second


def test_the_id_of_a_running_instance_is_taken(app: App) -> None:
    app.start("wait_events", ["go"], id="taken")
    error = refused(app, "start", workflow="hello", input="x", id="taken")
    assert error.code == "ALREADY_EXISTS"
    assert "an active workflow with ID 'taken' already exists" in error.text
    app.raise_event("taken", "go", "first")
    assert app.output("taken") == ["first"]


def test_ids_differ_by_case_and_blanks_count(app: App) -> None:
    ids = ["case", "CASE", "case ", "ca se", "case:1", "a/b?c=d&e#f", "x" * 256]
    for id in ids:
        assert app.start("hello", id, id=id) == id
    for id in ids:
        assert app.output(id) == f"Hello, {id}!"


def test_the_id_of_an_ended_instance_can_be_used_again(app: App) -> None:
    """What Dapr always does, and what the sidecar does by default for a client that says nothing about it."""
    assert app.run("hello", "one", id="again") == "Hello, one!"
    assert app.run("chain", {"start": 1, "steps": 1}, id="again") == 2
    state = app.get("again")
    assert state is not None
    assert (state.name, state.output) == ("chain", 2)


@pytest.mark.parametrize("dialect", ["microsoft"], indirect=True)  # no policy in the Dapr protocol
def test_microsoft_replaces_what_its_policy_names(app: App) -> None:
    assert app.run("hello", "one", id="replace") == "Hello, one!"
    assert app.run("hello", "two", id="replace", reuse=["COMPLETED", "FAILED"]) == "Hello, two!"
    error = refused(app, "start", workflow="hello", id="replace", reuse=["FAILED", "TERMINATED"])
    assert error.code == "ALREADY_EXISTS"
    state = app.get("replace")
    assert state is not None
    assert state.output == "Hello, two!"


# What is not there


def test_what_is_not_there_is_not_an_error_for_get_and_is_waited_for_by_wait(app: App) -> None:
    begin = time.monotonic()
    assert app.get("nobody") is None
    assert time.monotonic() - begin < 5
    for op in ("wait_start", "wait"):
        assert refused(app, op, id="nobody", timeout=1).code == "TIMEOUT"


@pytest.mark.parametrize("op", ["raise", "suspend", "resume", "terminate"])
def test_commands_to_what_is_not_there_are_refused(app: App, op: str) -> None:
    arguments = {"name": "a"} if op == "raise" else {}
    error = refused(app, op, id="nobody", **arguments)
    assert error.code == "NOT_FOUND"
    assert "no such instance exists" in error.text


def test_purge_of_what_is_not_there_removes_nothing(app: App) -> None:
    result = app.call("purge", id="nobody")
    assert result in (None, {"count": 0, "complete": True}, {"count": 0, "complete": None})


# Waiting


def test_the_wait_for_the_end_times_out(app: App) -> None:
    id = app.start("wait_events", ["go"])
    begin = time.monotonic()
    assert refused(app, "wait", id=id, timeout=1).code == "TIMEOUT"
    assert 0.9 <= time.monotonic() - begin < 4
    app.raise_event(id, "go")
    assert app.wait(id).status == "COMPLETED"


def test_many_clients_wait_for_one_end(app: App) -> None:
    id = app.start("wait_events", ["go"])
    waits = [app.post("wait", id=id, timeout=30) for _ in range(20)]
    time.sleep(0.3)
    app.raise_event(id, "go", 1)
    assert [wait.result(30)["output"] for wait in waits] == [[1]] * 20


def test_the_wait_for_the_start_ends_with_the_start(app: App) -> None:
    id = app.start("wait_events", ["go"])
    state = app.call("wait_start", id=id, timeout=20)
    assert state["status"] == "RUNNING"
    app.raise_event(id, "go")
    app.wait(id)
    assert app.call("wait_start", id=id, timeout=20)["status"] == "COMPLETED"


def test_payloads_are_left_out_when_not_asked_for(app: App) -> None:
    id = app.start("hello", "you")
    app.wait(id)
    state = app.get(id, payloads=False)
    assert state is not None
    assert (state.status, state.input, state.output) == ("COMPLETED", None, None)


# Scheduled start


def test_a_scheduled_start_waits_for_its_time(app: App) -> None:
    begin = time.time()
    id = app.start("hello", "later", start_at=begin + 1.5)
    assert app.status(id) == "PENDING"
    started = app.post("wait_start", id=id, timeout=20)
    assert app.output(id) == "Hello, later!"
    assert 1.4 <= time.time() - begin < 6
    assert started.result(5)["status"] in ("RUNNING", "COMPLETED")


@pytest.mark.parametrize("ago", [1, 86400 * 365 * 40])
def test_a_start_that_was_scheduled_for_the_past_is_now(app: App, ago: float) -> None:
    assert app.run("hello", "now", start_at=time.time() - ago) == "Hello, now!"


def test_an_event_for_a_scheduled_start_is_kept(app: App) -> None:
    id = app.start("wait_events", ["early"], start_at=time.time() + 1)
    app.raise_event(id, "early", "bird")
    assert app.output(id) == ["bird"]


def test_a_scheduled_start_can_be_terminated(app: App) -> None:
    id = app.start("hello", "never", start_at=time.time() + 3600)
    app.call("terminate", id=id, output="cancelled")
    state = app.wait(id)
    assert (state.status, state.output) == ("TERMINATED", "cancelled")


def test_times_of_an_instance(app: App) -> None:
    begin = time.time()
    state = app.wait(app.start("timer", 0.2))
    assert begin - 1 <= state.created_at <= state.updated_at <= time.time() + 1
    assert state.updated_at - state.created_at >= 0.2


# After the end


def test_terminate_of_an_ended_instance_changes_nothing(app: App) -> None:
    """M59"""
    id = app.start("hello", "you")
    before = app.wait(id)
    app.call("terminate", id=id, output="too late")
    assert app.get(id) == before


def test_an_event_for_an_ended_instance_changes_nothing(app: App) -> None:
    id = app.start("hello", "you")
    before = app.wait(id)
    app.raise_event(id, "late", 1)
    assert app.get(id) == before


def test_purge_removes_an_ended_instance(app: App) -> None:
    id = app.start("hello", "you")
    app.wait(id)
    result = app.call("purge", id=id)
    if app.dialect == "microsoft":
        assert result == {"count": 1, "complete": True}
    assert app.get(id) is None
    assert app.run("hello", "new", id=id) == "Hello, new!"


def test_purge_removes_the_children_too(app: App) -> None:
    id = app.start("call_child", {"name": "hello", "value": "x", "id": "purged-child"})
    app.wait(id)
    result = app.call("purge", id=id)
    if app.dialect == "microsoft":
        assert result == {"count": 2, "complete": True}
    assert app.get("purged-child") is None


def test_purge_leaves_an_instance_that_runs(app: App) -> None:
    id = app.start("wait_events", ["go"])
    until(lambda: app.status(id) == "RUNNING")
    assert code_of(app, "purge", id=id) in ("OK", "FAILED_PRECONDITION")
    app.raise_event(id, "go", 1)
    assert app.output(id) == [1]


def test_a_client_without_a_worker(own_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    """Nothing fails for want of a worker: the work waits, and is done when one comes."""
    app = start_app("microsoft", own_sidecar.start(), connect=False)
    ids = [app.start("chain", {"start": n, "steps": 2}) for n in range(5)]
    time.sleep(1)
    assert {app.status(id) for id in ids} <= {"PENDING", "RUNNING"}
    app.call("connect")
    assert [app.output(id) for id in ids] == [2, 3, 4, 5, 6]
