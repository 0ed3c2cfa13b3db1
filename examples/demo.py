"""One workflow across three apps, with a crash in the middle: `make demo`.

Starts three sidecars and the three apps beside this file, places an order, kills the sidecar of `ml` with
SIGKILL while it is at work, starts it again on the same data, waits for the result, and tells the story. Exit
code 0 only if the result is right and everything has ended as it should.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import report
from rich.console import Console

HERE = Path(__file__).resolve().parent
SDK_OF_APP = {"orders": "dapr", "ml": "microsoft", "logistics": "dapr"}
RESULT_WITHIN, START_WITHIN, STOP_WITHIN, DOWN_FOR = 45.0, 20.0, 15.0, 1.0
CRASH_AFTER_SCORES = 2

console = Console(highlight=False)


class DemoError(Exception):
    """The demo did not go as it should; the message says what was expected."""


@dataclass
class Process:
    """A process that the demo has started, and its log."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command,
                cwd=HERE,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the demo, which then ends its processes in order
            )

    def kill(self) -> None:
        """End it as a crash would."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()

    def stop(self) -> str:
        """End it politely; says what was wrong with the way it ended, or nothing."""
        if self.running is None:
            return ""
        process, self.running = self.running, None
        if process.poll() is not None:
            return f"{self.name} had already ended, with exit code {process.returncode}"
        process.terminate()
        try:
            code = process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"{self.name} did not end within {STOP_WITHIN:.0f} s of SIGTERM"
        return f"{self.name} ended with exit code {code}" if code else ""

    def check_alive(self) -> None:
        if self.running is not None and self.running.poll() is not None:
            raise DemoError(f"{self.name} has ended, with exit code {self.running.returncode}")


@dataclass(frozen=True)
class Ports:
    """Where one sidecar listens."""

    grpc: int
    http: int
    peer: int


class Demo:
    """The three apps with their sidecars, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work_log = folder / "work.jsonl"
        ports = iter(free_ports(3 * len(SDK_OF_APP)))
        self.ports = {app: Ports(next(ports), next(ports), next(ports)) for app in SDK_OF_APP}
        self.sidecars = {app: self._sidecar(app) for app in SDK_OF_APP}
        self.apps = {app: self._python(app, f"{app}.app") for app in SDK_OF_APP}
        self.marks: list[report.Note] = []

    def _sidecar(self, app: str) -> Process:
        ports = self.ports[app]
        command = [str(Path(sys.executable).with_name("sidecar")), "run", "--app-id", app]
        command += ["--grpc-port", str(ports.grpc)]
        command += ["--http-port", str(ports.http)]
        command += ["--peer-port", str(ports.peer)]
        command += ["--data-dir", str(self.folder / app)]
        for other in self.ports.keys() - {app}:
            command += ["--peer", f"{other}=127.0.0.1:{self.ports[other].peer}"]
        return Process(f"sidecar-{app}", command, clean_environment(), self.folder / f"sidecar-{app}.log")

    def _python(self, app: str, module: str) -> Process:
        """A script of an app, in the environment of its SDK, told of the sidecar in the way of that SDK."""
        python = HERE.parent / ".venvs" / SDK_OF_APP[app] / "bin" / "python"
        port = str(self.ports[app].grpc)
        environment = clean_environment() | {
            "DAPR_GRPC_PORT": port,
            "SIDECAR_ADDRESS": f"127.0.0.1:{port}",
            "DEMO_LOG": str(self.work_log),
            "PYTHONUNBUFFERED": "1",
        }
        return Process(module, [str(python), "-m", module], environment, self.folder / f"{module}.log")

    @property
    def processes(self) -> list[Process]:
        return [*self.apps.values(), *self.sidecars.values()]

    def wait_until(self, true: Callable[[], bool], what: str, within: float) -> None:
        """Look again and again; fail at once if a process has died, and after a time in any case."""
        deadline = time.monotonic() + within
        while not true():
            for process in self.processes:
                process.check_alive()
            if time.monotonic() > deadline:
                raise DemoError(f"{what}: not within {within:.0f} s")
            time.sleep(0.02)

    def start_sidecars(self, *apps: str) -> None:
        for app in apps:
            self.sidecars[app].start()
        for app in apps:
            port = self.ports[app].http
            self.wait_until(lambda port=port: healthy(port), f"sidecar of {app} ready", START_WITHIN)

    def scores(self) -> int:
        return len({note.what for note in report.read_notes(self.work_log) if note.app == "ml"})

    def crash(self, app: str) -> None:
        """Kill the sidecar of an app, and start it again on the same data."""
        self.sidecars[app].kill()
        self.sidecars[app].running = None
        self.marks.append(report.Note(time.time(), app, report.KILLED))
        time.sleep(DOWN_FOR)
        self.start_sidecars(app)
        self.marks.append(report.Note(time.time(), app, report.RESTARTED))

    def order(self) -> object:
        """Place the order, let the crash happen meanwhile, and return the result of the workflow."""
        place = self._python("orders", "orders.place")
        place.start()
        client = place.running
        began = time.monotonic()
        try:
            self.wait_until(
                lambda: self.scores() >= CRASH_AFTER_SCORES or client.poll() is not None,
                "the first scores",
                RESULT_WITHIN,
            )
            self.crash("ml")
            rest = began + RESULT_WITHIN - time.monotonic()
            self.wait_until(lambda: client.poll() is not None, "the result", rest)
        finally:
            place.kill()
        output = place.log.read_text(encoding="utf-8").splitlines()
        if client.returncode != 0 or not output:
            raise DemoError(f"{place.name} ended with exit code {client.returncode}")
        return json.loads(output[-1])

    def stop(self) -> list[str]:
        """End the apps, then their sidecars; returns what went wrong with that."""
        return [problem for process in self.processes if (problem := process.stop())]

    def print_logs(self, lines: int = 15) -> None:
        for log in sorted(self.folder.glob("*.log")):
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            console.rule(f"last lines of {log.name}", style="red")
            console.print("\n".join(tail) or "(nothing)", markup=False)


def clean_environment() -> dict[str, str]:
    """The environment without a person's settings for another sidecar, and with no proxy for loopback."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "DAPR_"))}
    return kept | {"no_proxy": "127.0.0.1,localhost"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v1.0/healthz")
        return connection.getresponse().status == http.HTTPStatus.NO_CONTENT
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def step(doing: str, done: str) -> Iterator[None]:
    """Say what is going on, with a spinner where there is a terminal, and then that it is done."""
    began = time.monotonic()
    with console.status(f"{doing} …") if console.is_terminal else contextlib.nullcontext():
        yield
    console.print(f"[green]✓[/] {done} [dim]{time.monotonic() - began:.1f} s[/]")


def tell(demo: Demo) -> list[str]:
    """Run the demo and print its story; returns what was wrong."""
    with step("starting three sidecars", "three sidecars are up"):
        demo.start_sidecars(*SDK_OF_APP)
    with step("starting three apps", "three apps have been started: two with dapr, one with durabletask"):
        for app in demo.apps.values():
            app.start()
    began = time.time()
    with step("placing the order, and killing a sidecar meanwhile", "the order has been shipped"):
        result = demo.order()
    seconds = time.time() - began
    with step("stopping everything", "everything has been stopped"):
        problems = demo.stop()
    notes = sorted(report.read_notes(demo.work_log) + demo.marks)
    wrong = report.differences(result, notes)
    report.show(console, notes, result, wrong, seconds)
    return wrong + problems


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            problems = tell(demo)
        except DemoError as error:
            problems = [str(error)]
        except KeyboardInterrupt:
            console.print("\ninterrupted: stopping what was started")
            return 130
        finally:
            demo.stop()
        if problems:
            demo.print_logs()
            for problem in problems:
                console.print(f"✗ {problem}", style="bold red", markup=False)
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
