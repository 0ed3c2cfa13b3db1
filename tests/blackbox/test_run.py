"""`sidecar run -- COMMAND` and `sidecar run -f FILE`: apps and their sidecars on one terminal, to whatever end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.blackbox.harness import ROOT, Process, _environment, _python_of, until
from tests.ports import free_port

SIDECAR = [sys.executable, "-m", "sidecar", "run"]
END_SECONDS = 20.0
WAITS = "import time; print('up', flush=True); time.sleep(600)"


class Launched(Process):
    """One `sidecar run`, whose output and errors are in its log."""

    def __init__(self, folder: Path, name: str = "run") -> None:
        super().__init__(name, folder / f"{name}.log")
        self.folder = folder
        self.ports = {kind: free_port() for kind in ("grpc", "http", "peer")}

    def start(self, *arguments: str, **environment: str) -> "Launched":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*SIDECAR, *arguments],
                env=_environment(**environment),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                text=True,
            )
        return self

    def beside(self, *command: str, options: tuple[str, ...] = (), **environment: str) -> "Launched":
        """Start it for one app."""
        ports = [part for kind, port in self.ports.items() for part in (f"--{kind}-port", str(port))]
        return self.start("--app-id", "orders", *ports, *options, "--", *command, **environment)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def code(self) -> int:
        assert self._process is not None
        return self._process.wait(END_SECONDS)

    def lines(self, name: str) -> list[str]:
        """What is written under a name."""
        found = [line.partition(" │ ") for line in self.log.read_text().splitlines()]
        return [line for who, _, line in found if who.rstrip() == name]

    def until_line(self, name: str, text: str, times: int = 1) -> None:
        until(lambda: sum(text in line for line in self.lines(name)) >= times, what=f"{name}: {text}")

    def children(self) -> dict[str, int]:
        """Process ID by kind: app, or sidecar, of those that it has started itself."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found["sidecar" if b"run" in command and b"--app-id" in command else "app"] = int(pid)
        return found


def living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    process = Launched(tmp_path)
    yield process
    if process.running:
        for pid in process.children().values():
            os.killpg(pid, signal.SIGKILL)
    process.kill9()


def test_an_app_is_told_where_its_sidecar_is_and_its_exit_code_is_that_of_all(launched: Launched) -> None:
    program = "import json, os, sys; print(json.dumps(dict(os.environ))); print('oh', file=sys.stderr); sys.exit(3)"
    launched.beside(sys.executable, "-c", program, SIDECAR_API_TOKEN="secret")
    assert launched.code() == 3
    told = json.loads(
        launched.lines("orders")[0] if launched.lines("orders")[0] != "oh" else launched.lines("orders")[1]
    )
    grpc, http = launched.ports["grpc"], launched.ports["http"]
    assert {name: told[name] for name in told if name.startswith(("DAPR_", "APP_"))} == {
        "APP_ID": "orders",
        "DAPR_API_TOKEN": "secret",
        "DAPR_GRPC_ENDPOINT": f"http://127.0.0.1:{grpc}",
        "DAPR_GRPC_PORT": str(grpc),
        "DAPR_HTTP_ENDPOINT": f"http://127.0.0.1:{http}",
        "DAPR_HTTP_PORT": str(http),
    }
    assert "oh" in launched.lines("orders")
    said = "\n".join(launched.lines("sidecar"))
    assert all(str(port) in said for port in launched.ports.values())
    assert f"data: {launched.folder / 'sidecar-data'}" in said
    assert "orders has ended, exit code 3" in said
    assert any("stopped" in line for line in launched.lines("orders/sidecar"))
    assert "secret" not in said
    assert "\x1b" not in launched.log.read_text()  # no colours in a file


@pytest.mark.parametrize(
    ("number", "handler", "code"),
    [(signal.SIGINT, "INT", 5), (signal.SIGTERM, "TERM", 5), (signal.SIGINT, "", 128 + signal.SIGTERM)],
)
def test_a_signal_ends_the_app_and_what_it_has_started_and_then_the_sidecar(
    launched: Launched, number: signal.Signals, handler: str, code: int
) -> None:
    # Without a handler of its own it passes over Ctrl-C, as some workers do, and is then asked again.
    trap = f"trap 'echo ending; exit 5' {handler}" if handler else "trap '' INT"
    launched.beside("bash", "-c", f"{trap}; sleep 600 & echo child $!; wait; wait")
    launched.until_line("orders", "child")
    child = int(launched.lines("orders")[0].split()[1])
    children = launched.children()
    launched.send(number)
    assert launched.code() == code
    assert not any(living(pid) for pid in (child, *children.values()))
    whole = launched.log.read_text()
    assert "ending" not in whole or whole.index("ending") < whole.index("stopped")


def test_a_second_ctrl_c_ends_all_at_once(launched: Launched) -> None:
    launched.beside("bash", "-c", "trap '' INT TERM; echo up; sleep 600 & wait; sleep 600")
    launched.until_line("orders", "up")
    children = launched.children()
    launched.send(signal.SIGINT)
    time.sleep(0.3)
    launched.send(signal.SIGINT)
    begin = time.monotonic()
    assert launched.code() == 128 + signal.SIGKILL
    assert time.monotonic() - begin < 5
    assert not any(map(living, children.values()))


def test_an_app_that_dies_is_said_to_and_is_started_again_if_that_was_asked(launched: Launched) -> None:
    launched.beside(sys.executable, "-c", WAITS, options=("--restart", "on-failure"))
    launched.until_line("orders", "up")
    before = launched.children()
    os.kill(before["app"], signal.SIGKILL)
    launched.until_line("sidecar", "orders has ended, by SIGKILL (exit code 137): it starts again in 1 s")
    launched.until_line("orders", "up", times=2)
    after = launched.children()
    assert after["app"] != before["app"]
    assert after["sidecar"] == before["sidecar"]
    launched.send(signal.SIGTERM)
    assert launched.code() == 128 + signal.SIGTERM


def test_a_sidecar_that_dies_ends_its_app(launched: Launched) -> None:
    launched.beside(sys.executable, "-c", WAITS)
    launched.until_line("orders", "up")
    children = launched.children()
    os.kill(children["sidecar"], signal.SIGKILL)
    assert launched.code() == 1
    assert not living(children["app"])
    assert "the sidecar of orders has ended, by SIGKILL (exit code 137)" in launched.lines("sidecar")
    assert "orders is ended: it has no sidecar" in launched.lines("sidecar")


def test_a_sidecar_that_dies_is_started_again_if_that_was_asked(launched: Launched) -> None:
    launched.beside(sys.executable, "-c", WAITS, options=("--restart", "always"))
    launched.until_line("orders", "up")
    before = launched.children()
    os.kill(before["sidecar"], signal.SIGKILL)
    launched.until_line("orders/sidecar", "ready", times=2)
    after = launched.children()
    assert after["app"] == before["app"]
    assert after["sidecar"] != before["sidecar"]
    launched.send(signal.SIGINT)
    launched.code()


def test_a_sidecar_that_cannot_start_is_said_and_no_app_is_started(launched: Launched) -> None:
    (launched.folder / "sidecar-data").write_text("no folder")
    launched.beside("touch", "started")
    assert launched.code() == 2
    assert "the sidecar of orders could not start" in launched.log_tail().splitlines()[-1]
    assert "sidecar-data" in launched.lines("orders/sidecar")[-1]
    assert not (launched.folder / "started").exists()


def test_a_command_that_is_not_there_has_the_exit_code_of_a_shell(launched: Launched) -> None:
    launched.beside("no-such-program", "--flag")
    assert launched.code() == 127
    assert "orders cannot be started: no-such-program: No such file or directory" in launched.lines("sidecar")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-f", "dapr.yaml", "--", "x"], "'x': with --run-file the commands of the apps stand in the file"),
        (["-f", "dapr.yaml", "--http-port", "1"], "--http-port: with --run-file each app has its own"),
        (["-f", "none.yaml"], "--run-file: cannot read none.yaml"),
        (["--", "x"], "no app ID"),
    ],
)
def test_what_cannot_be_started_ends_with_one_line(launched: Launched, arguments: list[str], expected: str) -> None:
    launched.start(*arguments)
    assert launched.code() == 2
    assert launched.log_tail().count("\n") == 1
    assert expected in launched.log_tail()


@pytest.fixture
def in_folder(launched: Launched) -> Callable[..., Launched]:
    """Starts the apps of a `dapr.yaml`, a Python program each."""

    def start(programs: Mapping[str, str], common: Mapping[str, Any], **more: Mapping[str, Any]) -> Launched:
        apps = []
        for name, program in programs.items():
            (launched.folder / name).mkdir()
            (launched.folder / name / "app.py").write_text(program)
            python = _python_of("dapr" if "dapr" in program else "microsoft")
            ports = {f"dapr{kind}Port": free_port() for kind in ("GRPC", "HTTP", "InternalGRPC")}
            apps.append(
                {"appID": name, "appDirPath": name, "command": [str(python), "app.py"], **ports, **more.get(name, {})}
            )
        (launched.folder / "dapr.yaml").write_text(yaml.safe_dump({"version": 1, "common": dict(common), "apps": apps}))
        return launched.start("-f", ".")

    return start


def block(kind: str, name: str) -> str:
    """A file of the README."""
    [text] = re.findall(rf"```{kind}\n# {re.escape(name)}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(text)


def test_the_example_of_the_readme_runs_a_workflow_over_both_apps(in_folder: Callable[..., Launched]) -> None:
    said = yaml.safe_load(block("yaml", "dapr.yaml"))
    programs = {app["appID"]: block("python", app["command"][1]) for app in said["apps"]}
    common = {"resourcesPath": "./components", "env": {"PYTHONWARNINGS": "default"}}
    logged = {"appLogDestination": "fileAndConsole", "daprdLogDestination": "file"}
    launched = in_folder(programs, common, printer={"restart": "on-failure", **logged})
    launched.until_line("greeter", '"HELLO WORLD"')
    launched.until_line("sidecar", "greeter has ended, exit code 0")  # which ends no other
    assert "not used here: resourcesPath" in launched.lines("sidecar")
    assert launched.lines("printer/sidecar") == []
    data = launched.folder / "sidecar-data"
    logs = {path.name.split("_")[1]: path.read_text() for path in (data / "logs").iterdir()}
    assert logs["app"].splitlines()[:1] == launched.lines("printer")[:1]
    assert "ready" in logs["sidecar"]
    assert {path.name for path in data.glob("*.db")} == {"default.greeter.db", "default.printer.db"}
    launched.send(signal.SIGINT)
    assert launched.code() == 0


def test_with_several_apps_the_first_failure_in_order_is_the_exit_code(in_folder: Callable[..., Launched]) -> None:
    programs = {"a": "raise SystemExit(0)", "b": "raise SystemExit(4)", "c": "raise SystemExit(5)"}
    launched = in_folder(programs, {})
    assert launched.code() == 4
    assert [line for line in launched.lines("sidecar") if re.search("[abc] has ended", line)]
    assert len([line for name in "abc" for line in launched.lines(f"{name}/sidecar") if "stopped" in line]) == 3
