"""Queries, lists, history, purges and retention, as the packages show them."""

import time
from collections.abc import Callable

import pytest

from tests.blackbox.harness import App, CallError, Sidecar, until

microsoft = pytest.mark.parametrize("dialect", ["microsoft"], indirect=True)
Some = Callable[[str, int], list[str]]
dapr = pytest.mark.parametrize("dialect", ["dapr"], indirect=True)


@pytest.fixture
def some(app: App) -> Some:
    """Workflows that have ended, by a prefix that no other test uses."""

    def run(prefix: str, count: int) -> list[str]:
        ids = [app.start("hello", "you", id=f"{prefix}-{number}") for number in range(count)]
        for id in ids:
            app.wait(id)
        return ids

    return run


def ids(states: list[dict[str, object]]) -> list[object]:
    return [state["id"] for state in states]


def refused(app: App, op: str, **arguments: object) -> CallError:
    with pytest.raises(CallError) as caught:
        app.call(op, **arguments)
    return caught.value


# Queries


@microsoft
@pytest.mark.parametrize("page", [1, 3, 7, 100, None])
def test_a_query_finds_all_by_prefix_whatever_the_page(app: App, some: Some, page: int | None) -> None:
    expected = some(f"page{page}", 7)
    assert ids(app.call("query", prefix=f"page{page}-", page=page)) == expected


@microsoft
def test_a_query_by_status_and_time(app: App, some: Some) -> None:
    ended = some("by", 2)
    begin = time.time()
    live = app.start("wait_events", ["go"], id="by-live")
    until(lambda: app.status(live) == "RUNNING")
    failed = app.start("failing", "no", id="by-failed")
    app.wait(failed)
    query = {"prefix": "by-"}
    assert ids(app.call("query", **query, statuses=["COMPLETED"])) == ended
    assert ids(app.call("query", **query, statuses=["FAILED", "RUNNING"])) == [live, failed]
    assert ids(app.call("query", **query, created_from=begin)) == [live, failed]
    assert ids(app.call("query", **query, created_to=begin)) == ended
    assert app.call("query", **query, statuses=["TERMINATED"]) == []
    app.raise_event(live, "go")
    app.wait(live)


@microsoft
def test_a_query_has_payloads_if_asked(app: App, some: Some) -> None:
    some("payload", 1)
    (state,) = app.call("query", prefix="payload-", payloads=True)
    assert (state["input"], state["output"], state["name"], state["status"]) == (
        "you",
        "Hello, you!",
        "hello",
        "COMPLETED",
    )
    (state,) = app.call("query", prefix="payload-")
    assert (state["input"], state["output"]) == (None, None)


@microsoft
def test_a_query_of_more_than_a_client_can_receive_comes_in_several_pages(app: App) -> None:
    """Seven megabytes of payloads, for a client that receives four in one message."""
    expected = [app.start("hello", "x" * 700_000, id=f"large-{number}") for number in range(5)]
    for id in expected:
        app.wait(id)
    states = app.call("query", prefix="large-", payloads=True)
    assert ids(states) == expected
    assert {len(state["output"]) for state in states} == {700_008}


# Lists


@microsoft
def test_microsofts_list_pages_through_what_has_ended(app: App, some: Some) -> None:
    begin = time.time()
    expected = some("list", 5)
    app.start("wait_events", ["go"], id="list-live")
    found, token = [], None
    while True:
        page = app.call("list_page", since=begin - 0.001, page=2, token=token)
        found.append(page["ids"])
        token = page["token"]
        if token is None:
            break
    assert [len(page) for page in found] == [2, 2, 1]
    assert sorted(id for page in found for id in page) == expected
    assert app.call("list_page", since=begin, statuses=["FAILED"]) == {"ids": [], "token": None}
    app.call("terminate", id="list-live")


@dapr
@pytest.mark.parametrize("page", [1, 2, 1000])
def test_daprs_list_has_every_instance_once(app: App, some: Some, page: int) -> None:
    some(f"list{page}", 3)
    app.start("wait_events", ["go"], id=f"list{page}-live")
    found = app.call("list", page=page)
    assert [id for id in found if id.startswith(f"list{page}-")] == [
        *(f"list{page}-{n}" for n in range(3)),
        f"list{page}-live",
    ]
    assert len(found) == len(set(found))


def test_a_token_that_was_made_up_is_refused(app: App) -> None:
    error = refused(app, "list_page", token="1")
    assert (error.code, "token" in error.text) == ("INVALID_ARGUMENT", True)


# History


def test_the_history_of_a_workflow(app: App) -> None:
    id = app.start("chain", {"start": 1, "steps": 1})
    app.wait(id)
    started, task, done, end = "ExecutionStarted", "TaskScheduled", "TaskCompleted", "ExecutionCompleted"
    expected = ["OrchestratorStarted", started, task, "OrchestratorStarted", done, end]
    if app.dialect == "dapr":
        names = {"OrchestratorStarted": "WORKFLOW_STARTED", started: "EXECUTION_STARTED", task: "TASK_SCHEDULED"}
        names |= {done: "TASK_COMPLETED", end: "EXECUTION_COMPLETED"}
        expected = [names[name] for name in expected]
    assert app.call("history", id=id) == expected
    assert refused(app, "history", id="nobody").code == "NOT_FOUND"


@microsoft
def test_microsofts_export_writes_every_history(app: App, some: Some) -> None:
    """The package's own export, over its list of what has ended and the stream of each history."""
    expected = some("export", 5)
    waiting = app.start("event_with_timeout", {"name": "never", "seconds": 0.1}, id="export-event")
    app.wait(waiting)
    parent = app.start("call_child", {"name": "hello", "value": "x", "id": "export-child"}, id="export-parent")
    app.wait(parent)
    exported = app.call("export")
    assert [result for result in exported["results"] if not result["success"]] == []
    assert {*expected, waiting, parent, "export-child"} <= set(exported["written"])


# Purges


@microsoft
def test_a_purge_by_filter_removes_what_has_ended_in_the_range(app: App, some: Some) -> None:
    before = some("kept", 1)
    begin = time.time()
    some("purged", 5)
    failed = app.start("failing", "no", id="purged-failed")
    app.wait(failed)
    live = app.start("wait_events", ["go"], id="purged-live")
    assert app.call("purge_by", created_from=begin, statuses=["COMPLETED"], timeout=30) == {
        "count": 5,
        "complete": True,
    }
    assert ids(app.call("query", prefix="purged-")) == [failed, live]
    assert app.call("purge_by", created_from=begin) == {"count": 1, "complete": True}
    assert ids(app.call("query", prefix="purged-")) == [live]
    assert ids(app.call("query", prefix="kept-")) == before
    app.call("terminate", id=live)


@microsoft
def test_a_purge_of_several_counts_what_was_there(app: App, some: Some) -> None:
    batch = some("batch", 3)
    assert app.call("purge_batch", ids=[*batch[:2], "nobody"]) == 2
    assert ids(app.call("query", prefix="batch-")) == batch[2:]


@microsoft
def test_several_are_terminated_at_once(app: App, some: Some) -> None:
    (ended,) = some("skip", 1)
    live = [app.start("wait_events", ["go"], id=f"skip-live-{number}") for number in range(3)]
    assert app.call("terminate_batch", ids=[*live, ended, "nobody"]) == [ended, "nobody"]
    assert {app.wait(id).status for id in live} == {"TERMINATED"}


# Retention


def test_what_has_ended_goes_after_its_time(own_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    own_sidecar.options = ["--retention", "completed=1s,terminated=500ms"]
    app = start_app("microsoft", own_sidecar.start())
    failed = app.start("failing", "no", id="failed")
    live = app.start("wait_events", ["go"], id="live")
    app.wait(failed)
    begin = time.monotonic()
    assert app.run("hello", "you", id="done") == "Hello, you!"
    assert app.status("done") == "COMPLETED"
    until(lambda: app.status("done") == "NONE", 10)
    assert time.monotonic() - begin >= 1
    app.call("terminate", id=live)
    until(lambda: app.status(live) == "NONE", 10)
    assert app.status(failed) == "FAILED"
    own_sidecar.restart()
    app.reconnected()
    assert ids(app.call("query")) == ["failed"]


# Task hubs


def test_each_task_hub_has_its_own_workflows_and_workers(own_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    own_sidecar.options = ["--task-hubs", "separate", "--allow-hub-deletion"]
    own_sidecar.start()
    blue = start_app("microsoft", own_sidecar, "blue", task_hub="blue")
    green = start_app("microsoft", own_sidecar, "green", task_hub="green", connect=False)
    plain = start_app("dapr", own_sidecar, "plain")
    for app in (blue, green, plain):
        app.start("spread", {"width": 3, "seconds": 0.01}, id="same")
    assert {label for label, _ in blue.output("same")} == {"blue"}
    assert {label for label, _ in plain.output("same")} == {"plain"}
    assert green.status("same") == "PENDING"
    green.call("connect")
    assert {label for label, _ in green.output("same")} == {"green"}
    only = blue.start("hello", "you")
    blue.wait(only)
    assert (blue.status(only), green.status(only), plain.status(only)) == ("COMPLETED", "NONE", "NONE")
    assert ids(blue.call("query")) == ["same", only]
    assert ids(green.call("query")) == ["same"]
    assert plain.call("list", page=10) == ["same"]
    green.call("create_hub")
    green.call("delete_hub")
    assert (green.call("query"), ids(blue.call("query"))) == ([], ["same", only])


def test_a_task_hub_that_is_not_in_the_list_is_refused(own_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    own_sidecar.options = ["--task-hubs", "blue"]
    own_sidecar.start()
    assert start_app("microsoft", own_sidecar, "blue", task_hub="blue").run("hello", "you") == "Hello, you!"
    red = start_app("microsoft", own_sidecar, "red", task_hub="red", connect=False)
    error = refused(red, "start", workflow="hello", input="you")
    assert (error.code, "'red'" in error.text) == ("PERMISSION_DENIED", True)
    plain = start_app("microsoft", own_sidecar, "plain", connect=False)
    assert refused(plain, "delete_hub").code == "PERMISSION_DENIED"
