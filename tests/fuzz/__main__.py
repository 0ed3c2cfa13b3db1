"""Fuzz the sidecar in process: every target by mutation, and led by coverage where the library for it is installed.

Figures go to `build/figures/fuzz.json`, inputs that found something to `build/fuzz`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz import found
from tests.fuzz.run import COVERAGE, MUTATION, ROOT, finding
from tests.fuzz.targets import BY_NAME, TARGETS, Target

BUILD = ROOT / "build"
FIGURES = BUILD / "figures" / "fuzz.json"
_PATIENCE = 60.0  # seconds that a run may take longer than it was asked to


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for all targets together")
    parser.add_argument("--inputs", type=int, default=1 << 62, help="stop after about so many, if that is sooner")
    parser.add_argument("--seed", type=int, default=0, help="another seed tries other inputs")
    parser.add_argument("--targets", default="", help="only these, with commas between")
    parser.add_argument("--replay", type=Path, help="tell what is wrong with the input in a file, and where")
    asked = parser.parse_args()
    if asked.replay is not None:
        return _replay(asked.replay)
    return _fuzz(asked, [BY_NAME[name] for name in asked.targets.split(",") if name] or list(TARGETS))


def _replay(path: Path) -> int:
    target, data = found.read(path)
    wrong = finding(target, data)
    print(wrong or "nothing is wrong")
    if wrong:
        target.run(data)  # shows where
    return 1 if wrong else 0


def _fuzz(asked: argparse.Namespace, targets: list[Target]) -> int:
    drivers = [MUTATION, COVERAGE] if _library() else [MUTATION]
    if COVERAGE not in drivers:
        print("mutation alone: the library that leads by coverage is not in .venvs/fuzz, or not for this machine")
    whole = sum(target.share for target in targets) * len(drivers)
    jobs = os.cpu_count() or 1
    out = BUILD / "fuzz"
    out.mkdir(parents=True, exist_ok=True)

    def run(target: Target, driver: str) -> dict[str, Any]:
        part = target.share / whole
        limits = (asked.seconds * jobs * part, int(asked.inputs * part) + 1)
        return _one(target, driver, limits, asked.seed, out)

    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(run, target, driver) for target in targets for driver in drivers]
        tallies = [one.result() for one in runs]
    _show(tallies)
    count = sum(len(one["findings"]) for one in tallies)
    led = sum(one["inputs"] for one in tallies if one["driver"] == COVERAGE)
    result = f"{sum(one['inputs'] for one in tallies):,} inputs to {len(targets)} targets, {led:,} of them led by "
    result += f"coverage, in {time.monotonic() - began:.0f} s; {count} findings"
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps({"command": "make fuzz", "result": result, "targets": tallies}, indent=1))
    print(f"\n{result}")
    return 1 if count else 0


def _library() -> Path | None:
    """Where the library that leads by coverage is installed."""
    return next((path.parent for path in (ROOT / ".venvs" / "fuzz").glob("lib/python3*/site-packages/atheris")), None)


def _one(target: Target, driver: str, limits: tuple[float, int], seed: int, out: Path) -> dict[str, Any]:
    """Run a target in a process of its own, for so many seconds or inputs: one that dies is a finding too."""
    seconds, inputs = limits
    figures = out / f"{target.name}.{driver}.json"
    figures.unlink(missing_ok=True)
    environment = dict(os.environ)
    script = ["-m", "tests.fuzz.run"]
    if driver == COVERAGE:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(_library())])
        script = ["-m", "tests.fuzz.covered"]
    arguments = [target.name, driver, f"{seconds}", f"{inputs}", f"{seed}", f"{figures}"]
    log = out / f"{target.name}.{driver}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *script, *arguments], env=environment, cwd=ROOT, stdout=output, stderr=output
        )
        try:
            code: int | str = process.wait(seconds + _PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait() and "none in time"
    if figures.exists():
        tally: dict[str, Any] = json.loads(figures.read_text())
    else:
        empty = {"runs": 0, "inputs": 0, "seconds": seconds, "slowest": 0.0, "peak_mib": 0.0}
        tally = {"target": target.name, "driver": driver, **empty}
        tally["findings"] = {f"the process ended with {code}: {log}": ""}
    for number, (wrong, data) in enumerate(tally["findings"].items()):
        found.write(out / f"{target.name}-{driver}-{number}.txt", target, wrong, bytes.fromhex(data))
    return tally


def _show(tallies: Iterable[dict[str, Any]]) -> None:
    print(f"{'target':14} {'driver':9} {'inputs':>11} {'runs':>10} {'seconds':>8} {'slowest':>8} {'MiB':>5} findings")
    for one in tallies:
        print(
            f"{one['target']:14} {one['driver']:9} {one['inputs']:11,} {one['runs']:10,} {one['seconds']:8.1f} "
            f"{one['slowest']:7.2f}s {one['peak_mib']:5.0f} {len(one['findings'])}"
        )
        for number, (wrong, data) in enumerate(one["findings"].items()):
            print(f"    {wrong}\n        {data[:400]}{'…' if len(data) > 400 else ''}")
            print(f"        python -m tests.fuzz --replay build/fuzz/{one['target']}-{one['driver']}-{number}.txt")


if __name__ == "__main__":
    sys.exit(main())
