"""Real processes for the tests: sidecars, and apps with an unchanged SDK in its own virtual environment.

Every process keeps its output in a file; what lives when a test fails is shown with the failure.
"""

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
DIALECTS = ("microsoft", "dapr")
HOST = "127.0.0.1"
ENDED = ("COMPLETED", "FAILED", "TERMINATED")
_START_SECONDS = 15.0
_STOP_SECONDS = 10.0
_CALL_SECONDS = 60.0
_LOG_TAIL = 6000

living: list["Process"] = []


def until(check: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """The first true value of `check`, asked again and again; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what or check}")
        time.sleep(0.03)
    return value


def lines(path: Path) -> list[str]:
    """The lines that activities have left in a file."""
    return path.read_text().splitlines() if path.exists() else []


class Process:
    """One child process with its output in `log`."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill9(self) -> None:
        """As if the machine had lost it: no handler runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reap()

    def log_tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-_LOG_TAIL:]

    def _launch(self, command: list[str], environment: Mapping[str, str], **options: Any) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=dict(environment), stderr=log, cwd=ROOT, text=True, **options)
        if self not in living:
            living.append(self)

    def _reap(self) -> None:
        self._process = None
        if self in living:
            living.remove(self)


class Sidecar(Process):
    """One sidecar with fixed ports and its own data directory, so that it can be started again."""

    def __init__(self, app: str, directory: Path, peers: Mapping[str, int] | None = None) -> None:
        super().__init__(f"sidecar {app}", directory / f"sidecar-{app}.log")
        self.app = app
        self.data = directory / "data"
        self.port, self.http_port, self.peer_port = free_port(), free_port(), free_port()
        self.peers = dict(peers or {})
        self.options: list[str] = []
        self.prefix: list[str] = []  # a program that runs it
        self.environment: dict[str, str] = {}
        self.most_files = 0  # that it may have open; 0 for as many as this process

    def start(self) -> Self:
        """Starts it and waits until it is ready."""
        self.launch()
        until(self._ready, _START_SECONDS, f"{self.name} is ready")
        return self

    def launch(self) -> None:
        """Starts it and waits for nothing."""
        self._launch(self._command(), _environment(**self.environment), stdout=subprocess.DEVNULL)

    def restart(self) -> Self:
        self.kill9()
        return self.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end and expects that it does so in time, with exit code 0."""
        assert self._process is not None
        self._process.send_signal(how)
        self.stopped()

    def signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)

    def stopped(self) -> None:
        assert self._process is not None
        code = self._process.wait(_STOP_SECONDS)
        log = self.log_tail()
        self._reap()
        assert code == 0, f"{self.name} ended with {code}\n{log}"

    def metadata(self) -> dict[str, Any]:
        status, body = self.http("/v1.0/metadata")
        assert status == HTTPStatus.OK
        return json.loads(body)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that say this, with their fields."""
        found = [json.loads(line) for line in lines(self.log) if line.startswith("{")]
        return [line for line in found if line.get("event") == event]

    def run_command(self, *options: str) -> subprocess.CompletedProcess[str]:
        """A start that is expected to fail: its exit code and output."""
        return subprocess.run(
            [*self._command(), *options],
            env=_environment(),
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def _command(self) -> list[str]:
        ports = {"grpc": self.port, "http": self.http_port, "peer": self.peer_port}
        command = [*self.prefix, sys.executable, "-m", "sidecar", "run", "--app-id", self.app, "--log-format", "json"]
        command += ["--data-dir", str(self.data)]
        for name, port in ports.items():
            command += [f"--{name}-port", str(port)]
        for app, port in self.peers.items():
            command += ["--peer", f"{app}={HOST}:{port}"]
        if self.most_files:
            command = ["sh", "-c", f'ulimit -n {self.most_files} && exec "$@"', "sh", *command]
        return command + self.options

    def _ready(self) -> bool:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            pytest.fail(f"{self.name} ended with {code} at its start\n{self.log_tail()}")
        with suppress(OSError):
            return self.http("/v1.0/healthz")[0] == HTTPStatus.NO_CONTENT
        return False

    def http(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=5)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


@dataclass(frozen=True, slots=True)
class State:
    """An instance as an SDK's client shows it."""

    id: str
    name: str
    status: str
    input: Any
    output: Any
    custom_status: Any
    failure: dict[str, Any] | None
    created_at: float
    updated_at: float


class CallError(Exception):
    """The SDK raised an error: the gRPC status code's name, or TIMEOUT, or the class."""

    def __init__(self, code: str, text: str | None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text or ""


class App(Process):
    """One app process; every command of the test is a call of its SDK."""

    def __init__(
        self,
        dialect: str,
        port: int,
        directory: Path,
        label: str = "",
        *,
        activities_only: bool = False,
        task_hub: str = "",
        script: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        label = label or dialect
        super().__init__(f"app {label}", directory / f"app-{label}.log")
        self.dialect = dialect
        self.port = port
        self.label = label
        self._options = ["--activities-only"] if activities_only else []
        self._options += ["--task-hub", task_hub] if task_hub else []
        self._script = APPS / (script or f"{dialect}_app.py")
        self._environment = dict(environment or {})
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}

    def start_process(self, *, connect: bool = True) -> Self:
        """Starts the process, and its worker too if `connect`."""
        up: Future[Any] = Future()
        self._waiting = {0: up}
        self._launch(
            [str(_python_of(self.dialect)), str(self._script), "--port", str(self.port), *self._options],
            _environment(APP_LABEL=self.label, **self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._read, args=[self._process, self._waiting], daemon=True).start()
        up.result(_START_SECONDS)
        if connect:
            self.call("connect")
        return self

    def post(self, op: str, **arguments: Any) -> Future[Any]:
        """Sends a command; the answer comes as the future's result."""
        if self._process is None or self._process.stdin is None or not self.running:
            raise CallError("GONE", f"{self.name} does not run")
        number = next(self._numbers)
        answer: Future[Any] = Future()
        self._waiting[number] = answer
        with self._writing:
            self._process.stdin.write(json.dumps({"n": number, "op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        return answer

    def call(self, op: str, **arguments: Any) -> Any:
        return self.post(op, **arguments).result(_CALL_SECONDS)

    def start(self, workflow: str, input: Any = None, **options: Any) -> str:
        return self.call("start", workflow=workflow, input=input, **options)

    def get(self, id: str, **options: Any) -> State | None:
        return _state(self.call("get", id=id, **options))

    def wait(self, id: str, timeout: float = 40.0) -> State:
        """The state of an instance that has ended; fails when there is no such instance."""
        state = _state(self.call("wait", id=id, timeout=timeout))
        assert state is not None, f"{id} does not exist"
        assert state.status in ENDED
        return state

    def run(self, workflow: str, input: Any = None, **options: Any) -> Any:
        """The output of a workflow that is expected to complete."""
        return self.output(self.start(workflow, input, **options))

    def output(self, id: str, timeout: float = 40.0) -> Any:
        state = self.wait(id, timeout)
        assert state.status == "COMPLETED", state
        return state.output

    def status(self, id: str) -> str:
        state = self.get(id)
        return state.status if state else "NONE"

    def reconnected(self) -> Self:
        """After a restart of the sidecar: waits until the SDK's client has noticed."""
        until(lambda: self.post("get", id="nobody").exception(10) is None, 20, f"{self.name} reaches its sidecar")
        return self

    def raise_event(self, id: str, name: str, value: Any = None) -> None:
        self.call("raise", id=id, name=name, value=value)

    def at(self, app: str, method: str, **arguments: Any) -> Any:
        """A method of the SDK's client, addressed to another app (Dapr's SDK alone)."""
        return self.call("at", app=app, method=method, **arguments)

    def events(self, id: str) -> list[dict[str, Any]]:
        """The history of an instance, as JSON (Dapr's SDK alone)."""
        events: list[dict[str, Any]] = self.call("events", id=id)
        return events

    def _read(self, process: subprocess.Popen[str], waiting: dict[int, Future[Any]]) -> None:
        assert process.stdout is not None
        with process.stdout, suppress(ValueError):
            for line in process.stdout:
                answer = json.loads(line)
                future = waiting.pop(answer["n"])
                if "ok" in answer:
                    future.set_result(answer["ok"])
                else:
                    future.set_exception(CallError(answer["code"], answer["text"]))
        for future in list(waiting.values()):
            future.set_exception(CallError("GONE", f"{self.name} has ended"))

    def _reap(self) -> None:
        process = self._process
        super()._reap()
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()


class Deployment:
    """Several sidecars that know each other, and the apps beside them."""

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.directory = directory
        self.sidecars = {name: Sidecar(name, directory) for name in names}
        self.apps: dict[str, App] = {}
        for sidecar in self.sidecars.values():
            others = {other.app: other.peer_port for other in self.sidecars.values()}
            sidecar.peers = {app: port for app, port in others.items() if app != sidecar.app}

    def app(self, name: str, dialect: str, **options: Any) -> App:
        """The app beside the sidecar `name`, not started."""
        self.apps[name] = App(dialect, self.sidecars[name].port, self.directory, name, **options)
        return self.apps[name]

    def end_apps(self) -> None:
        for app in self.apps.values():
            app.kill9()

    def end(self) -> None:
        self.end_apps()
        for sidecar in self.sidecars.values():
            sidecar.kill9()


def memory(process: Process) -> int:
    """Resident bytes of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def cpu_seconds(process: Process) -> float:
    """What a process has had of the processors."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def attempt(app: App, op: str, seconds: float = 60.0, **arguments: Any) -> Any:
    """A command, tried again while its sidecar is down; a start that finds its id taken had worked before."""
    end = time.monotonic() + seconds
    while True:
        try:
            return app.call(op, **arguments)
        except CallError as error:
            if error.code == "ALREADY_EXISTS" and op == "start":
                return arguments["id"]
            if error.code not in ("UNAVAILABLE", "CANCELLED", "TIMEOUT") or time.monotonic() > end:
                raise
        time.sleep(0.2)


def _state(answer: dict[str, Any] | None) -> State | None:
    return None if answer is None else State(**answer)


def _environment(**more: str) -> dict[str, str]:
    unwanted = ("SIDECAR_", "DAPR_", "PYTEST_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "GRPC_VERBOSITY": "ERROR", "PYTHONUNBUFFERED": "1", **more}


def _python_of(dialect: str) -> Path:
    python = ROOT / ".venvs" / dialect / "bin" / "python"
    if not python.exists():
        pytest.fail(f"no {python.relative_to(ROOT)}: run make setup-sdks")
    return python
