"""What `daprd` answers without serving, and how it ends when it cannot serve."""

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import log, system
from sidecar.config import settings
from sidecar.daprd.main import main

# That the sidecar is not imported is what makes it quick, on any machine.
ASK = """
import sys
from sidecar.daprd.main import main
code = main(sys.argv[1:])
print(sorted(name for name in sys.modules if name.startswith("sidecar.")), code)
"""


@pytest.mark.parametrize("flag", ["--version", "-version", "--version=true"])
def test_the_version_is_one_of_dapr_s_and_costs_nothing(flag: str) -> None:
    asked = subprocess.run([sys.executable, "-c", ASK, flag], capture_output=True, text=True, check=True, timeout=60)
    version, imported = asked.stdout.splitlines()
    assert tuple(map(int, version.split("."))) >= (1, 17, 0)
    assert imported == "['sidecar.daprd', 'sidecar.daprd.flags', 'sidecar.daprd.main'] 0"
    assert asked.stderr == ""


def test_the_build_says_what_it_really_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build-info"]) == 0
    assert f"multiapp-workflow-sidecar {settings.version()}\n" in capsys.readouterr().out


def test_help_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--app-id" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no app ID: give --app-id"),
        (["--app-id", "not good"], "--app-id: 'not good' is not allowed"),
        (["--app-id", "a", "--dapr-http-port", "x"], "--dapr-http-port: 'x' is not a port"),
        (["--app-id", "a", "--dapr-grpc-port=99999"], "--dapr-grpc-port: '99999' is not a port"),
        (["--app-id", "a", "--metrics-port=x"], "--metrics-port: 'x' is not a port"),
        (["--app-id", "a", "--log-as-json=x"], "--log-as-json: 'x' is neither"),
        (["--app-id", "a", "--unix-domain-socket", "/tmp"], "--unix-domain-socket: there are no Unix sockets"),
        (["--app-id", "a", "--resources-path", "gone"], "--resources-path: cannot read the folder gone"),
        (["--app-id", "a", "--dapr-listen-addresses", "10.0.0.5"], "'10.0.0.5' is not loopback"),
        (["--app-id", "a", "--max-body-size", "much"], "--max-body-size: 'much' is not a size"),
    ],
)
def test_a_start_that_cannot_be_says_why_in_the_last_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # These are for the whole process, which goes on with other tests.
    monkeypatch.setattr(system, "name_process", lambda name: None)
    monkeypatch.setattr(log, "configure", lambda *args, **options: None)
    assert main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("daprd: ")
    assert reason in last
