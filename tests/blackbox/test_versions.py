"""Workflows that only some workers can run: versions and patches of Dapr's SDK, versions of Microsoft's, sizes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blackbox.harness import DIALECTS, App, CallError, Sidecar, lines, until

pytestmark = pytest.mark.timeout(120)

Starter = Callable[..., App]
V1, V2 = {"v1": True}, {"v2": True}


@pytest.fixture
def sidecar_alone(own_sidecar: Sidecar) -> Sidecar:
    return own_sidecar.start()


def stalled(app: App, id: str) -> None:
    until(lambda: app.status(id) == "STALLED", 20, f"{id} is stalled")


def made_with_v1(app: App) -> str:
    """A workflow that waits for its second event and was made by a worker with version v1, which has gone."""
    app.call("connect", versions=V1)
    id = app.start("versioned", ["first", "second"])
    app.raise_event(id, "first", 1)
    until(lambda: app.call("history", id=id).count("EVENT_RAISED") == 1, 10)
    app.call("disconnect")
    return id


@pytest.mark.fault(37, "A workflow whose version no worker has waits, and goes on when one comes")
def test_a_workflow_stalls_without_its_version_and_goes_on_with_it(sidecar_alone: Sidecar, start_app: Starter) -> None:
    """M88 to M90, with the sidecar restarted and all workers gone in between."""
    app = start_app("dapr", sidecar_alone, connect=False)
    id = made_with_v1(app)
    app.call("connect", versions=V2)
    app.raise_event(id, "second", 2)
    stalled(app, id)
    for op, more in (("raise", {"name": "x"}), ("suspend", {}), ("resume", {}), ("terminate", {}), ("purge", {})):
        with pytest.raises(CallError, match="is stalled: Version not available: v1") as refused:
            app.call(op, id=id, **more)
        assert refused.value.code == "FAILED_PRECONDITION", op
    app.call("disconnect")
    sidecar_alone.restart()
    app.reconnected()
    with pytest.raises(CallError, match="is stalled"):
        app.raise_event(id, "x")
    app.call("connect", versions=V2)
    assert app.run("chain", {"start": 0, "steps": 3}) == 3
    assert app.status(id) == "STALLED"

    both = start_app("dapr", sidecar_alone, connect=False)
    both.call("connect", versions={"v1": False, "v2": True})
    assert both.output(id) == [1, 2]
    assert app.call("history", id=id).count("EXECUTION_STALLED") == 1


def test_a_workflow_whose_patches_do_not_fit_stalls_until_they_do(sidecar_alone: Sidecar, start_app: Starter) -> None:
    app = start_app("dapr", sidecar_alone, connect=False)
    app.call("connect", patches=["p1", "p2"])
    id = app.start("patched", ["first", "second", "third"])
    app.raise_event(id, "first")
    until(lambda: app.call("history", id=id).count("EVENT_RAISED") == 1, 10)
    app.call("disconnect")
    app.call("connect", patches=["p1"])
    app.raise_event(id, "second")
    stalled(app, id)
    with pytest.raises(CallError, match=r"Patch mismatch. History patches: \[p1, p2.*\], current patches: \[p1"):
        app.raise_event(id, "third")
    app.call("disconnect")
    app.call("connect", patches=["p1", "p2"])
    until(lambda: app.status(id) == "RUNNING", 10)
    app.raise_event(id, "third")
    assert app.output(id) == [["p1", "p2"]] * 3


@pytest.mark.fault(24, "A turn that is too large stalls its workflow alone, until more may be sent")
def test_a_turn_that_is_too_large_stalls_its_workflow_alone_until_more_may_be_sent(
    own_sidecar: Sidecar, start_app: Starter
) -> None:
    """M91, with a worker that is sent the whole history each time."""
    own_sidecar.options = ["--max-message-bytes", "1MiB"]
    own_sidecar.start()
    app = start_app("dapr", own_sidecar, connect=False)
    app.call("connect", keep_history=False)
    id = app.start("long_relay", {"size": 200_000, "rounds": 8})
    stalled(app, id)
    with pytest.raises(CallError, match=r"Payload size exceeded: the turn has [0-9]+ bytes"):
        app.raise_event(id, "x")
    assert app.run("chain", {"start": 0, "steps": 3}) == 3
    own_sidecar.options = []
    own_sidecar.restart()
    assert app.reconnected().output(id) == 8 * 200_000


@pytest.mark.parametrize("sdk", DIALECTS)
@pytest.mark.parametrize("size", [1_100_000, 4_000_000])
def test_an_activity_whose_result_is_too_large_fails_alone(
    own_sidecar: Sidecar, start_app: Starter, tmp_path: Path, sdk: str, size: int
) -> None:
    own_sidecar.options = ["--max-message-bytes", "1MiB"]
    app = start_app(sdk, own_sidecar.start())
    started, opened = tmp_path / "started", tmp_path / "open"
    held = {"started": str(started), "until": str(opened), "value": "beside"}
    beside = app.start("call_activity", {"name": "gate", "value": held})
    until(lambda: lines(started))
    state = app.wait(app.start("call_activity", {"name": "repeat", "value": size}))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "and at most 1048576 are taken" in state.failure["message"]
    opened.touch()
    assert app.output(beside) == "beside"
    assert len(lines(started)) == 1
    assert len(own_sidecar.logged("answer is too large")) == 1
    assert len(own_sidecar.logged("worker disconnected")) == 0


def test_a_workflow_goes_to_the_worker_that_has_its_version(sidecar_alone: Sidecar, start_app: Starter) -> None:
    """E.9: a worker of another version gives it back; that is no reason to ask it again and again."""
    old, new = (start_app("microsoft", sidecar_alone, f"microsoft-{version}", connect=False) for version in "12")
    old.call("connect", version="1.0")
    id = old.start("chain", {"start": 0, "steps": 3}, version="2.0")
    time.sleep(3)
    assert old.status(id) in ("PENDING", "RUNNING")
    assert old.log.read_text().count("Abandoning orchestration") in (1, 2, 3)
    new.call("connect", version="2.0")
    assert new.output(id) == 3
    assert new.output(new.start("hello", "you", version="1.0")) == "Hello, you!"


def test_a_worker_may_fail_what_is_not_of_its_version(sidecar_alone: Sidecar, start_app: Starter) -> None:
    app = start_app("microsoft", sidecar_alone, connect=False)
    app.call("connect", version="1.0", on_mismatch="FAIL")
    state = app.wait(app.start("hello", "you", version="2.0"))
    assert state.status == "FAILED"
    assert state.failure is not None
    assert "version" in state.failure["message"]
