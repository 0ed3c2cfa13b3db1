"""Rewind and restart, with Microsoft's SDK as client and worker (E.11)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import App, CallError, Deployment, Sidecar, lines
from tests.blackbox.wire import Caller, text


@pytest.fixture
def app(own_sidecar: Sidecar, tmp_path: Path) -> Iterator[App]:
    process = App("microsoft", own_sidecar.start().port, tmp_path)
    try:
        yield process.start_process()
    finally:
        process.kill9()


def once(tmp_path: Path, value: str = "mended") -> dict[str, object]:
    """An activity that fails the first time."""
    return {"file": str(tmp_path / "attempts"), "fail": 1, "value": value}


def test_a_failed_activity_is_run_again_and_the_others_are_not(app: App, tmp_path: Path) -> None:
    good = {"file": str(tmp_path / "good"), "line": "once", "value": "kept"}
    id = app.start("call_all", [["noted", good], ["flaky", once(tmp_path)], ["noted", good]])
    assert app.wait(id).status == "FAILED"
    before = lines(tmp_path / "good")
    app.call("rewind", id=id, reason="mended")
    assert app.output(id) == ["kept", "mended", "kept"]
    assert lines(tmp_path / "good") == before == ["once", "once"]
    assert len(lines(tmp_path / "attempts")) == 2


def test_a_rewound_workflow_may_fail_and_be_rewound_again(app: App, tmp_path: Path) -> None:
    call = once(tmp_path) | {"fail": 2}
    id = app.start("call_activity", {"name": "flaky", "value": call})
    for _ in range(2):
        assert app.wait(id).status == "FAILED"
        app.call("rewind", id=id)
    assert app.output(id) == "mended"


@pytest.mark.parametrize("family", ["microsoft", "dapr"])
def test_a_workflow_with_a_retry_policy_that_cleaned_up_and_raised_again_is_rewound_as_often_as_it_takes(
    own_sidecar: Sidecar, tmp_path: Path, family: str
) -> None:
    """The timers between attempts and what cleaned up are no part of what is replayed."""
    own_sidecar.start()
    app = App(family, own_sidecar.port, tmp_path)
    try:
        app.start_process()
        cleaning = {"file": str(tmp_path / "cleaned"), "line": "once", "value": None}
        call = {"name": "flaky", "value": once(tmp_path) | {"fail": 7}, "attempts": 3, "cleaning": cleaning}
        id = app.start("clean_up", call)
        with Caller(own_sidecar.port) as caller:
            for _ in range(2):
                assert app.wait(id).status == "FAILED"
                assert caller.status("RewindInstance", {1: id, 2: text("mended")}) == ("OK", "")
        assert app.output(id) == "mended"
        assert len(lines(tmp_path / "attempts")) == 8
        assert lines(tmp_path / "cleaned") == ["once", "once"]
    finally:
        app.kill9()


def test_failed_children_are_rewound_with_their_parent(app: App, tmp_path: Path) -> None:
    id = app.start("call_child", {"name": "flaky_child", "value": once(tmp_path), "id": "kid"})
    assert app.wait(id).status == "FAILED"
    assert app.status("kid") == "FAILED"
    app.call("rewind", id=id, reason="both")
    assert app.output(id) == "mended"
    assert app.output("kid") == "mended"


def test_a_child_that_was_purged_meanwhile_is_created_again(app: App, tmp_path: Path) -> None:
    id = app.start("call_child", {"name": "flaky_child", "value": once(tmp_path), "id": "kid"})
    assert app.wait(id).status == "FAILED"
    app.call("purge", id="kid")
    assert app.status("kid") == "NONE"
    app.call("rewind", id=id)
    assert app.output(id) == "mended"


def test_a_rewind_works_for_an_app_and_a_sidecar_that_have_just_started(
    app: App, own_sidecar: Sidecar, tmp_path: Path
) -> None:
    """Nothing is known yet of the worker that replays it."""
    id = app.start("call_child", {"name": "flaky_child", "value": once(tmp_path)})
    assert app.wait(id).status == "FAILED"
    app.kill9()
    own_sidecar.restart()
    app.start_process()
    app.call("rewind", id=id)
    assert app.output(id) == "mended"


def test_only_what_has_failed_is_rewound(app: App) -> None:
    id = app.start("hello", "world")
    app.wait(id)
    for which, code in ((id, "FAILED_PRECONDITION"), ("nobody", "NOT_FOUND")):
        with pytest.raises(CallError) as refused:
            app.call("rewind", id=which)
        assert refused.value.code == code


def test_a_workflow_that_has_ended_is_started_again_under_its_id_or_a_new_one(app: App) -> None:
    id = app.start("hello", "world", id="first")
    app.wait(id)
    before = app.get(id)
    assert app.call("restart", id=id) == id
    assert app.output(id) == "Hello, world!"
    after = app.get(id)
    assert before is not None
    assert after is not None
    assert after.created_at > before.created_at
    other = app.call("restart", id=id, new_id=True)
    assert other not in ("", id)
    assert app.output(other) == "Hello, world!"
    assert app.get(id) == after


def test_only_what_has_ended_is_started_again(app: App) -> None:
    id = app.start("wait_events", ["go"])
    for which, code in ((id, "FAILED_PRECONDITION"), ("nobody", "NOT_FOUND")):
        with pytest.raises(CallError) as refused:
            app.call("restart", id=which)
        assert refused.value.code == code
    app.raise_event(id, "go", 1)
    assert app.output(id) == [1]


def test_a_rewind_crosses_apps_and_families(tmp_path: Path) -> None:
    """The parent is run by Dapr's SDK, which knows no rewind, its child by Microsoft's."""
    deployment = Deployment(tmp_path, ("orders", "ml"))
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        orders = deployment.app("orders", "dapr").start_process()
        ml = deployment.app("ml", "microsoft").start_process()
        child = {"name": "flaky_child", "value": once(tmp_path), "id": "kid", "app": "ml"}
        id = orders.start("remote_child", child)
        assert orders.wait(id).status == "FAILED"
        assert ml.status("kid") == "FAILED"
        with Caller(deployment.sidecars["orders"].port) as caller:
            assert caller.status("RewindInstance", {1: id, 2: text("mended")}) == ("OK", "")
        assert orders.output(id) == "mended"
        assert ml.output("kid") == "mended"
    finally:
        deployment.end()
