"""The token of the app's ports, with the SDKs as they are."""

from pathlib import Path

import pytest

from tests.blackbox.harness import DIALECTS, CallError, Sidecar, until

FIRST, SECOND, WRONG = "canary-first", "canary-second", "canary-wrong"


def variables(dialect: str, token: str) -> dict[str, str]:
    """What an app's process is given so that it sends a token."""
    return {"DAPR_API_TOKEN" if dialect == "dapr" else "APP_TOKEN": token}


@pytest.mark.fault(41, "Without the valid token nobody is served; it changes without a restart, and no log has it")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_app_works_with_the_token_alone_and_no_log_shows_it(
    dialect: str, own_sidecar: Sidecar, start_app, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{FIRST}\n")
    own_sidecar.options = ["--api-token-file", str(file), "--log-level", "debug"]
    own_sidecar.start()
    first = start_app(dialect, own_sidecar, environment=variables(dialect, FIRST))
    assert first.run("hello", "there") is not None
    for label, environment in (("none", {}), ("wrong", variables(dialect, WRONG))):
        stranger = start_app(dialect, own_sidecar, label, connect=False, environment=environment)
        with pytest.raises(CallError, match="dapr-api-token") as refused:
            stranger.call("get", id="nobody")
        assert refused.value.code == "UNAUTHENTICATED"
    status, _ = own_sidecar.http("/v1.0/metadata")
    assert status == 401

    file.write_text(f"{FIRST}\n{SECOND}\n")
    second = start_app(dialect, own_sidecar, "second", environment=variables(dialect, SECOND))
    assert second.run("hello", "there") is not None
    file.write_text(f"{SECOND}\n")
    until(lambda: first.post("get", id="nobody").exception(10) is not None, what="the first token is void")
    until(lambda: len(own_sidecar.logged("worker disconnected")) == 1, what="who has the old token is no worker now")
    assert second.run("hello", "there") is not None
    own_sidecar.stop()
    log = own_sidecar.log.read_text()
    assert "worker connected" in log
    assert "canary" not in log


def test_a_token_file_that_is_not_there_ends_the_start_in_one_line(own_sidecar: Sidecar, tmp_path: Path) -> None:
    ended = own_sidecar.run_command("--api-token-file", str(tmp_path / "nothing"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("sidecar: cannot read")
    assert len(ended.stderr.splitlines()) == 1
