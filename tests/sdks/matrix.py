"""Runs the programs of all SDKs against real sidecars and prints what came out; `make sdks`, and see README.md."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.blackbox.harness import Sidecar
from tests.sdks import daprds, idle, pairs, ready, report, stops
from tests.sdks.programs import OTHER, Beside, Line, ProgramError, play, running
from tests.sdks.record import Recorder, Recording
from tests.sdks.report import Column, say
from tests.sdks.scenarios import SCENARIOS
from tests.sdks.sdks import LOGS, Build, NotRunError, builds
from tests.sdks.sidecars import HOME, pair


def tested(build: Build, scenarios: Sequence[str], *, record: bool) -> Column:
    """Prepares one build, if need be, and plays the scenarios."""
    try:
        build.prepared()
    except NotRunError as error:
        return Column(build, not_run=str(error), excused=error.excused)
    logs = LOGS / build.id
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory() as directory, pair(Path(directory), logs) as sidecars:
            lines = _played(build, sidecars, logs, scenarios, Recording(build.id) if record else None)
    except ProgramError as error:
        # The program beside the other sidecar never came up.
        lines = [Line(scenario, "fail", str(error)) for scenario in scenarios]
    return Column(build, {line.scenario: line for line in lines})


def _played(
    build: Build, sidecars: dict[str, Sidecar], logs: Path, scenarios: Sequence[str], recording: Recording | None
) -> list[Line]:
    with ExitStack() as stack:
        ports = {app: sidecar.port for app, sidecar in sidecars.items()}
        if recording:
            ports = {app: stack.enter_context(Recorder(recording, port)).port for app, port in ports.items()}
            stack.callback(recording.save)
        beside = {app: Beside(app, ports[app], sidecar.http_port) for app, sidecar in sidecars.items()}
        log = logs / "serve.log"
        other = stack.enter_context(running(build, beside[OTHER], build.id, log, ["serve"]))
        try:
            other.ready()
        except ProgramError as error:
            raise ProgramError(f"serve: {error}\n{other.tail()}") from error
        lines = play(build, beside[HOME], logs / "run.log", scenarios)
        if wrong := other.ended():
            last = lines[-1]
            lines[-1] = Line(last.scenario, "fail", f"{last.detail} afterwards, serve {wrong}\n{other.tail()}")
    return lines


def main() -> int:
    options = _options()
    chosen = _chosen(options)
    if options.idle:
        return idle.main(chosen, options.idle)
    if options.stops is not None:
        return stops.main(chosen, options.stops)
    if options.pairs:
        return pairs.main(chosen)
    if options.daprds:
        return daprds.main(chosen)
    scenarios = [name for name in SCENARIOS if not options.scenarios or name in options.scenarios]
    _known(options.scenarios, scenarios, "scenario")
    columns = []
    for build in chosen:
        say(f"{build.id}: {build.package} {build.version}")
        columns.append(tested(build, scenarios, record=options.record))
        say("  " + _short(columns[-1]))
    if not options.sdks and not options.scenarios:
        report.save(columns, scenarios)
    say("\n" + report.table(columns, scenarios))
    say(report.details(columns))
    return 1 if any(column.failed or (column.not_run and not column.excused) for column in columns) else 0


def _chosen(options: argparse.Namespace) -> list[Build]:
    """The builds that were asked for; ends the program if there is no such build, or no ready one of these sources."""
    chosen = [build for build in builds() if not options.sdks or build.id in options.sdks]
    _known(options.sdks, [build.id for build in chosen], "SDK")
    try:
        return ready.taken(chosen, options.ready)
    except NotRunError as error:
        sys.exit(str(error))


def _short(column: Column) -> str:
    if column.not_run:
        return "not run"
    failed = [line.scenario for line in column.failed]
    return f"{len(column.lines) - len(failed)} well" + (
        f", {len(failed)} failed: {', '.join(failed)}" if failed else ""
    )


def _known(asked: Sequence[str], found: Sequence[str], kind: str) -> None:
    unknown = sorted(set(asked) - set(found))
    if unknown:
        sys.exit(f"no such {kind}: {', '.join(unknown)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdks", type=str.split, default=[], help="builds, with spaces between them; without it, all")
    parser.add_argument("--scenarios", type=str.split, default=[], help="the same for scenarios")
    parser.add_argument("--ready", type=Path, metavar="DIR", help="ready builds for languages whose tools are missing")
    parser.add_argument("--pairs", action="store_true", help="instead: `inputs` between all pairs of languages")
    parser.add_argument("--daprds", action="store_true", help="instead: each beside each other, with a `daprd` each")
    parser.add_argument("--record", action="store_true", help="keep what the SDKs send, in tests/edge/corpus")
    parser.add_argument(
        "--idle",
        type=float,
        nargs="?",
        const=200.0,
        metavar="SECONDS",
        help="instead: all programs do nothing for so long, and then one workflow each",
    )
    parser.add_argument(
        "--stops",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="instead: all sidecars stop in good order, and are then away for so long",
    )
    options = parser.parse_args()
    if options.record and options.scenarios:
        parser.error("a recording is of all scenarios")
    return options


if __name__ == "__main__":
    sys.exit(main())
