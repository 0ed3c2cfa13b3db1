"""A program of the matrix as a process: started beside a sidecar, its lines of JSON read as they come."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.sdks.sdks import Build

HOST = "127.0.0.1"
OTHER = "other"
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
# More than a scenario may take, so that a program reports its own time-outs.
_LINE_SECONDS = 45.0
_TAIL = 3000
# What a program says of a scenario that it does not know.
_UNKNOWN = "this program does not know it"


@dataclass(frozen=True, slots=True)
class Beside:
    """The sidecar that a program works with: as which app, and on which ports."""

    app: str
    port: int
    http_port: int

    def environment(self, run_id: str) -> dict[str, str]:
        port, host = str(self.port), HOST
        return {
            "SIDECAR_HOST": host,
            "SIDECAR_PORT": port,
            "DAPR_GRPC_PORT": port,
            "DAPR_GRPC_ENDPOINT": f"http://{host}:{port}",
            "DAPR_RUNTIME_HOST": host,
            "DAPR_SIDECAR_IP": host,
            "DAPR_HTTP_PORT": str(self.http_port),
            "APP_ID": self.app,
            "OTHER_APP": OTHER,
            "RUN_ID": run_id,
            "GRPC_VERBOSITY": "ERROR",
            "PYTHONUNBUFFERED": "1",
        }


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one scenario."""

    scenario: str
    result: str  # pass, fail, not offered, not built
    detail: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class ProgramError(Exception):
    """The program does not do what the contract says."""


class Program:
    """One process of a build."""

    def __init__(self, build: Build, beside: Beside, run_id: str, log: Path, arguments: Sequence[str]) -> None:
        self.name = f"{build.id} {arguments[0]}"
        self.log = log
        self._ready_made = build.ready
        self._lines: queue.Queue[str | None] = queue.Queue()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                build.command(*arguments),
                cwd=build.folder,
                env=build.environment(beside.environment(run_id)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # A launcher between us and the program must not outlive it.
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self) -> None:
        while not self._next(_READY_SECONDS, "its first line").get("ready"):
            pass

    def line(self, scenario: str) -> Line:
        """The line of the scenario that is next."""
        answer = self._next(_LINE_SECONDS, f"a line for '{scenario}'")
        if "ready" in answer:
            return self.line(scenario)
        if answer.get("scenario") != scenario or answer.get("result") not in ("pass", "fail", "not offered"):
            raise ProgramError(f"expected a line for '{scenario}', got {json.dumps(answer)[:200]}")
        detail, seconds = str(answer.get("detail") or ""), float(answer.get("seconds") or 0)
        if answer["result"] == "not offered" and not detail:
            return Line(scenario, "fail", "not offered, but it does not say why", seconds)
        if self._ready_made and (answer["result"], detail) == ("fail", _UNKNOWN):
            return Line(scenario, "not built", "", seconds)
        return Line(scenario, answer["result"], detail, seconds)

    def send(self, text: str = "") -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def ended(self) -> str:
        """What is wrong with the end that comes after its last line, or nothing."""
        self._close()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"had not ended {_STOP_SECONDS:g} s after it was done"
        return "" if code == 0 else f"ended with {code}"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL:]

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _next(self, seconds: float, what: str) -> dict[str, Any]:
        try:
            text = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise ProgramError(f"{what} did not come within {seconds:g} s") from None
        if text is None:
            code = self._process.wait(_STOP_SECONDS)
            raise ProgramError(f"ended with {code} before {what}")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ProgramError(f"wrote something else than a JSON object: {text.strip()[:200]}")
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout, suppress(ValueError):
            for text in self._process.stdout:
                self._lines.put(text)
        self._lines.put(None)


@contextmanager
def running(build: Build, beside: Beside, run_id: str, log: Path, arguments: Sequence[str]) -> Iterator[Program]:
    """A program that is gone afterwards, whatever happens."""
    program = Program(build, beside, run_id, log, arguments)
    try:
        yield program
    finally:
        program.kill()


def play(build: Build, beside: Beside, log: Path, scenarios: Sequence[str]) -> list[Line]:
    """One line for each scenario. A program that hangs or dies in one is started again for the rest."""
    lines: list[Line] = []
    while len(lines) < len(scenarios):
        rest = scenarios[len(lines) :]
        run_id = f"{build.id.replace('.', '-')}-{int(time.time() * 10)}"
        with running(build, beside, run_id, log, ["run", *rest]) as program:
            try:
                for scenario in rest:
                    lines.append(program.line(scenario))
            except ProgramError as error:
                lines.append(Line(scenarios[len(lines)], "fail", f"{error}\n{program.tail()}"))
                continue
            if wrong := program.ended():
                last = lines[-1]
                lines[-1] = Line(last.scenario, "fail", f"{last.detail} the program {wrong}\n{program.tail()}")
    return lines
