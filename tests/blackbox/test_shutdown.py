"""How a sidecar ends when it is asked to, and what is there when it starts again."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blackbox.harness import DIALECTS, App, CallError, Sidecar, lines, until

pytestmark = pytest.mark.timeout(90)

Starter = Callable[..., App]
each_dialect = pytest.mark.parametrize("sdk", DIALECTS)


def held(tmp_path: Path, value: object) -> tuple[dict[str, object], Path, Path]:
    """Input of an activity that hangs, the file in which it says so, and the file that ends it."""
    started, opened = tmp_path / "started", tmp_path / "open"
    return {"started": str(started), "until": str(opened), "value": value}, started, opened


@pytest.mark.fault(38, "SIGTERM ends it in time with exit code 0 beside hanging work")
@each_dialect
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_with_hanging_work_and_waiting_clients(
    own_sidecar: Sidecar, start_app: Starter, tmp_path: Path, sdk: str, how: signal.Signals
) -> None:
    app = start_app(sdk, own_sidecar.start())
    call, started, opened = held(tmp_path, "late")
    ids = [app.start("call_activity", {"name": "gate", "value": call}), app.start("timers", [1.0, 30.0])]
    waits = [app.post("wait", id=id, timeout=60) for id in ids for _ in range(3)]
    until(lambda: lines(started))
    own_sidecar.stop(how)
    opened.touch()
    own_sidecar.start()
    assert app.reconnected().output(ids[0]) == "late"
    app.call("terminate", id=ids[1])
    outcomes = [_outcome(wait) for wait in waits]
    assert set(outcomes) <= {"COMPLETED", "TERMINATED", "UNAVAILABLE", "CANCELLED"}


def test_sighup_reads_the_files_again_and_ends_nothing(own_sidecar: Sidecar, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: deny")
    own_sidecar.options = ["--policy", str(policy)]
    own_sidecar.start()
    policy.write_text("allow: [{caller: ml, workflow: '*'}]")
    for _ in range(2):
        own_sidecar.signal(signal.SIGHUP)
        until(lambda: own_sidecar.metadata()["files"] == [{"file": str(policy), "counts": "1 rules", "error": ""}])
    own_sidecar.stop()


def _outcome(wait: object) -> str:
    try:
        return wait.result(60)["status"]
    except CallError as error:
        return error.code


@each_dialect
def test_what_a_worker_finishes_while_it_ends_is_kept(
    own_sidecar: Sidecar, start_app: Starter, tmp_path: Path, sdk: str
) -> None:
    app = start_app(sdk, own_sidecar.start())
    call, started, opened = held(tmp_path, "in time")
    id = app.start("call_activity", {"name": "gate", "value": call})
    until(lambda: lines(started))
    own_sidecar.signal(signal.SIGTERM)
    time.sleep(1)
    opened.touch()
    own_sidecar.stopped()
    own_sidecar.start()
    assert app.reconnected().output(id) == "in time"
    assert len(lines(started)) == 1, "the activity ran again although its result had been accepted"


@each_dialect
def test_workers_come_back_by_themselves_and_go_on(own_sidecar: Sidecar, start_app: Starter, sdk: str) -> None:
    """E.6: how a stream ends decides whether its worker comes back."""
    app = start_app(sdk, own_sidecar.start())
    ids = [app.start("timers", [0.5, 2.0]), app.start("wait_events", ["go"])]
    own_sidecar.stop()
    own_sidecar.start()
    app.reconnected().raise_event(ids[1], "go", 1)
    assert app.output(ids[0]) == 2
    assert app.output(ids[1]) == [1]
    assert app.run("sum_up", {"left": 3}) == 12


def test_it_ends_at_once_when_there_is_nothing_to_wait_for(own_sidecar: Sidecar) -> None:
    own_sidecar.options = ["--drain-timeout", "300"]
    for _ in range(2):
        own_sidecar.start()
        begin = time.monotonic()
        own_sidecar.stop()
        assert time.monotonic() - begin < 60


@pytest.mark.fault(38, "A second signal does no harm")
def test_a_second_signal_does_no_harm(own_sidecar: Sidecar, start_app: Starter, tmp_path: Path) -> None:
    app = start_app("microsoft", own_sidecar.start())
    call, started, opened = held(tmp_path, "kept")
    id = app.start("call_activity", {"name": "gate", "value": call})
    until(lambda: lines(started))
    own_sidecar.signal(signal.SIGTERM)
    time.sleep(0.2)
    own_sidecar.stop()
    opened.touch()
    own_sidecar.start()
    assert app.reconnected().output(id) == "kept"


@pytest.mark.fault(10, "The second sidecar on a data directory ends with a message that names the first")
def test_two_sidecars_do_not_share_a_store(own_sidecar: Sidecar, tmp_path: Path) -> None:
    own_sidecar.start()
    second = Sidecar("orders", tmp_path)
    result = second.run_command()
    assert result.returncode == 2
    *_, reason = result.stderr.strip().splitlines()
    assert str(second.data) in reason
    assert "Traceback" not in result.stderr
    assert own_sidecar.running


def test_a_taken_port_ends_the_start(own_sidecar: Sidecar, tmp_path: Path) -> None:
    own_sidecar.start()
    (tmp_path / "other").mkdir()
    for port in ("port", "http_port", "peer_port"):
        second = Sidecar("ml", tmp_path / "other")
        setattr(second, port, getattr(own_sidecar, port))
        result = second.run_command()
        assert result.returncode == 2
        *_, reason = result.stderr.strip().splitlines()
        assert str(getattr(own_sidecar, port)) in reason
        assert "Traceback" not in result.stderr


def test_an_option_that_does_not_exist_ends_the_start(own_sidecar: Sidecar) -> None:
    assert own_sidecar.run_command("--no-such-option").returncode == 2
