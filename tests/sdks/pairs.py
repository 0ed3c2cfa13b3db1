"""Inputs between languages: what the workflows of each build give to the activities of each other; `make sdks-pairs`.

A cell is one build's `run inputs` beside another's `serve`. Of the builds of a language and family only the first is
in the table: the others write their inputs as it does.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.blackbox.harness import Sidecar
from tests.sdks import report, sidecars
from tests.sdks.programs import OTHER, Line, ProgramError, play, running
from tests.sdks.report import say
from tests.sdks.sdks import BUILDS, LOGS, Build, NotRunError

SCENARIO = "inputs"
_LOGS = LOGS / "pairs"
_AT_ONCE = 2  # callees; what they wait for is mostly the start of programs

Pair = tuple[str, str]  # who calls, and whose activity is called


@dataclass(frozen=True, slots=True)
class Chosen:
    """The builds that are played, and those that are not, with the reason."""

    played: Sequence[Build]
    left_out: Mapping[str, str]


def main(builds: Sequence[Build]) -> int:
    """Plays all pairs of the builds, prints the table and returns the exit code."""
    chosen, faulty = _prepared(one_of_each(builds))
    shutil.rmtree(_LOGS, ignore_errors=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(lambda callee: _called(callee, chosen.played), chosen.played))
    found = {pair: line for row in rows for pair, line in row.items()}
    _save(found, chosen)
    say("\n" + table([build.id for build in chosen.played], found))
    say(details(found, chosen.left_out))
    return 1 if faulty or any(line.result == "fail" for line in found.values()) else 0


def one_of_each(builds: Sequence[Build]) -> Chosen:
    """The first build of each language and family."""
    first: dict[tuple[str, str], Build] = {}
    left_out = {}
    for build in builds:
        known = first.setdefault((build.language, build.family), build)
        if known is not build:
            left_out[build.id] = f"{known.id} stands for it"
    return Chosen(list(first.values()), left_out)


def _prepared(chosen: Chosen) -> tuple[Chosen, bool]:
    """Those of the builds that can run here, and whether one cannot that must."""
    played, left_out, faulty = [], dict(chosen.left_out), False
    for build in chosen.played:
        try:
            build.prepared()
            played.append(build)
        except NotRunError as error:
            left_out[build.id] = str(error)
            faulty = faulty or not error.excused
    return Chosen(played, left_out), faulty


def _called(callee: Build, callers: Sequence[Build]) -> dict[Pair, Line]:
    """A line for each caller. After a failure the rest gets a new program to call: nothing is left over for it."""
    lines: dict[Pair, Line] = {}
    left = list(callers)
    while left:
        try:
            with tempfile.TemporaryDirectory() as directory:
                lines |= _until_failure(callee, left, Path(directory))
        except ProgramError as error:
            caller = left.pop(0)
            lines[caller.id, callee.id] = Line(SCENARIO, "fail", f"serve: {error}")
    say(f"{callee.id} was called: " + " ".join(report.mark(lines[caller.id, callee.id]) for caller in callers))
    return lines


def _until_failure(callee: Build, left: list[Build], directory: Path) -> dict[Pair, Line]:
    """Plays the callers one after the other and takes each out of the list."""
    lines: dict[Pair, Line] = {}
    logs = _LOGS / callee.id
    homes = {build.id: Sidecar(f"home-{build.id.replace('.', '-')}", directory) for build in left}
    with _serving(callee, directory, logs, homes.values()) as other:
        while left:
            caller = left.pop(0)
            home = homes[caller.id]
            home.peers, home.options = {OTHER: other.peer_port}, sidecars.routes()
            with sidecars.running(home, logs):
                [line] = play(caller, sidecars.beside(home), logs / f"{caller.id}.log", [SCENARIO])
            lines[caller.id, callee.id] = line
            if line.result == "fail":
                break
    return lines


@contextmanager
def _serving(callee: Build, directory: Path, logs: Path, homes: Sequence[Sidecar]) -> Iterator[Sidecar]:
    """The sidecar of the other app, and the program that serves there."""
    other = Sidecar(OTHER, directory)
    other.peers = {home.app: home.peer_port for home in homes}
    with ExitStack() as stack:
        stack.enter_context(sidecars.running(other, logs))
        log = logs / "serve.log"
        program = stack.enter_context(running(callee, sidecars.beside(other), callee.id, log, ["serve"]))
        program.ready()
        yield other


def table(ids: Sequence[str], found: Mapping[Pair, Line]) -> str:
    """Whose workflow calls stands on the left, whose activity is called above."""
    first, width = max(len(id_) for id_ in ids) if ids else 0, 10
    lines = [" " * first + "  " + "│".ljust(width) * number + id_ for number, id_ in enumerate(ids)]
    for caller in ids:
        marks = [report.mark(found.get((caller, callee))).ljust(width) for callee in ids]
        lines.append(f"{caller.ljust(first)}  {''.join(marks).rstrip()}")
    passed = sum(line.result == "pass" for line in found.values())
    return "\n".join([*lines, f"{passed} of {len(ids) ** 2} pairs read each input as it was given"])


def details(found: Mapping[Pair, Line], left_out: Mapping[str, str]) -> str:
    """What failed and how, and what was not played."""
    parts = [
        f"\nFAIL {caller} calls {callee}\n    {line.detail}"
        for (caller, callee), line in found.items()
        if line.result == "fail"
    ]
    reasons = {
        line.detail: caller for (caller, _), line in found.items() if line.result in ("not offered", "not built")
    }
    left = [*(f"{id_}: {why}" for id_, why in left_out.items()), *(f"{id_}: {why}" for why, id_ in reasons.items())]
    if left:
        parts += ["\nNot played:", *(f"  {text}" for text in left)]
    return "\n".join(parts)


def _save(found: Mapping[Pair, Line], chosen: Chosen) -> None:
    """Writes build/sdks/pairs.json."""
    rows = [{"caller": caller, "callee": callee, **line.as_json()} for (caller, callee), line in found.items()]
    text = json.dumps({"pairs": rows, "not_played": dict(chosen.left_out)}, indent=1, ensure_ascii=False)
    BUILDS.mkdir(parents=True, exist_ok=True)
    (BUILDS / "pairs.json").write_text(text + "\n")
