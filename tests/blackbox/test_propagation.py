"""A caller's history for those that it calls, with the real `dapr` package: M83 to M86."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.blackbox.harness import APPS, Deployment, _environment, _python_of

pytestmark = pytest.mark.timeout(120)

CALLER = ["caller", "caller", ["9"]]
MIDDLE = ["caller", "middle", ["4"]]
BEFORE = ["callee", "callee", []]  # the execution that continued as new


@pytest.fixture
def deployment(tmp_path: Path):
    deployment = Deployment(tmp_path, ("caller", "callee"))
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        yield deployment
    finally:
        deployment.end()


def launched(deployment: Deployment, role: str) -> "subprocess.Popen[str]":
    command = [str(_python_of("dapr")), str(APPS / "lineage_app.py"), role]
    port = str(deployment.sidecars[role].port)
    with (deployment.directory / f"{role}.log").open("w") as log:
        return subprocess.Popen(
            command,
            env=_environment(DAPR_GRPC_PORT=port, DAPR_GRPC_ENDPOINT=f"http://127.0.0.1:{port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def test_a_callee_reads_what_its_callers_let_it_see(deployment: Deployment) -> None:
    """M83, M84, M86: off unless asked; the caller's own, or all of its lineage; over continue-as-new of the callee."""
    with launched(deployment, "callee") as callee, launched(deployment, "caller") as caller:
        try:
            out, _ = caller.communicate(timeout=100)
        finally:
            caller.kill()
            callee.kill()
    log = (deployment.directory / "caller.log").read_text()[-3000:]
    assert out, log
    found = json.loads(out.splitlines()[-1])
    assert found["OWN_HISTORY"] == [[CALLER], [CALLER], [MIDDLE, BEFORE], None]
    assert found["LINEAGE"] == [[CALLER], [CALLER], [CALLER, MIDDLE, BEFORE], None]
    assert found["NONE"] == [None, None, None, None]
