"""Apps of different languages, each beside a `daprd` started as Dapr's tools start one; `make sdks-daprd`.

Nobody tells one of the other: they find each other by the list of the machine.
"""

import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.blackbox.dapr_tools import Daprd
from tests.sdks import report, sidecars
from tests.sdks.programs import OTHER, Beside, Line, ProgramError, play, running
from tests.sdks.report import say
from tests.sdks.sdks import LOGS, Build, NotRunError
from tests.sdks.sidecars import HOME

SCENARIOS = ("hello", "inputs")  # of those that call another app, the one that means the same in all languages
_LOGS = LOGS / "daprds"


def main(builds: Sequence[Build]) -> int:
    """Plays each build beside each other, prints what came out and returns the exit code."""
    played, faulty = [], False
    for build in builds:
        try:
            build.prepared()
            played.append(build)
        except NotRunError as error:
            say(f"{build.id}: not run: {error}")
            faulty = faulty or not error.excused
    for home, other in itertools.permutations(played, 2):
        lines = _played(home, other)
        faulty = faulty or any(line.result == "fail" for line in lines)
        say(f"{home.id} calls {other.id}: " + ", ".join(f"{line.scenario} {report.mark(line)}" for line in lines))
        for line in lines:
            if line.result == "fail":
                say(f"    {line.scenario}: {line.detail}")
    return 1 if faulty or len(played) < 2 else 0


def _played(home: Build, other: Build) -> list[Line]:
    logs = _LOGS / f"{home.id}-{other.id}"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        daprds = {name: Daprd(name, folder) for name in (HOME, OTHER)}
        daprds[HOME].environment = {"SIDECAR_ROUTE": ",".join(sidecars.ROUTES)}
        for one in daprds.values():
            one.log = logs / f"daprd-{one.app}.log"
            one.log.unlink(missing_ok=True)
            stack.callback(one.kill9)
            one.start()
        beside = {name: Beside(one.app, one.port, one.http_port) for name, one in daprds.items()}
        try:
            program = stack.enter_context(running(other, beside[OTHER], other.id, logs / "serve.log", ["serve"]))
            program.ready()
        except ProgramError as error:
            return [Line(scenario, "fail", f"serve: {error}") for scenario in SCENARIOS]
        return play(home, beside[HOME], logs / "run.log", SCENARIOS)
