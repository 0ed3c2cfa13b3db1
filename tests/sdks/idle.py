"""All SDKs at once with nothing to do: no stream is lost, no sidecar is busy, and afterwards a workflow still runs."""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.blackbox.harness import Sidecar
from tests.sdks.programs import Program, ProgramError, running
from tests.sdks.report import say
from tests.sdks.sdks import LOGS, Build, NotRunError
from tests.sdks.sidecars import HOME, beside

# Connecting takes the CPU that it takes; what is measured begins after it.
_SETTLE_SECONDS = 5.0
_CPU_SECONDS = 2.0
_CONNECTED = '"worker connected"'


@dataclass(slots=True)
class Idler:
    """One program and its sidecar."""

    build: Build
    sidecar: Sidecar
    program: Program
    connected: int = 0
    cpu: float = 0.0
    used: float = 0.0

    def begin(self) -> None:
        self.connected, self.cpu = _connections(self.sidecar), _cpu_seconds(self.sidecar.pid)

    def wrong(self) -> str:
        """What is not as it must be at the end, or nothing."""
        faults = []
        again = _connections(self.sidecar) - self.connected
        self.used = _cpu_seconds(self.sidecar.pid) - self.cpu
        if self.connected == 0:
            faults.append("no worker had connected")
        if again:
            faults.append(f"its worker connected {again} times more")
        if self.used > _CPU_SECONDS:
            faults.append(f"its sidecar used {self.used:.1f} s of CPU")
        try:
            self.program.send()
            line = self.program.line("hello")
            if line.result != "pass":
                faults.append(f"hello: {line.detail}")
        except (ProgramError, OSError) as error:
            faults.append(f"hello: {error}\n{self.program.tail()}")
        else:
            faults += [f"it {end}" for end in [self.program.ended()] if end]
        return "; ".join(faults)


def main(chosen: Sequence[Build], seconds: float) -> int:
    """Returns the exit code."""
    with ExitStack() as stack:
        idlers = all_started(chosen, stack)
        if idlers is None:
            return 1
        time.sleep(_SETTLE_SECONDS)
        for idler in idlers:
            idler.begin()
        say(f"{len(idlers)} programs idle for {seconds:g} s")
        time.sleep(seconds)
        faults = [idler.wrong() for idler in idlers]
    for idler, fault in zip(idlers, faults, strict=True):
        say(f"{idler.build.id}: {fault or 'ok'} (CPU of its sidecar: {idler.used:.2f} s)")
    return 1 if any(faults) else 0


def all_started(chosen: Sequence[Build], stack: ExitStack) -> list[Idler] | None:
    """A silent program of each build, beside a sidecar of its own; None if one that must be here is not."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    idlers = []
    for build in chosen:
        try:
            build.prepared()
            idlers.append(_started(build, directory / build.id, stack))
        except (NotRunError, ProgramError) as error:
            say(f"{build.id}: {error}")
            if not (isinstance(error, NotRunError) and error.excused):
                return None
    return idlers


def _started(build: Build, directory: Path, stack: ExitStack) -> Idler:
    logs = LOGS / f"{build.id}-idle"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    directory.mkdir()
    sidecar = Sidecar(HOME, directory)
    sidecar.log = logs / "sidecar.log"
    stack.callback(sidecar.kill9)
    sidecar.start()
    program = stack.enter_context(
        running(build, beside(sidecar), build.id.replace(".", "-"), logs / "idle.log", ["idle"])
    )
    program.ready()
    return Idler(build, sidecar, program)


def _connections(sidecar: Sidecar) -> int:
    return sidecar.log.read_text().count(_CONNECTED)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
