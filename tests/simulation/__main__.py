"""Runs simulations: many seeds on all cores until nothing new is found, or one seed as a story.

python -m tests.simulation                    a short run, as in CI
python -m tests.simulation --seed 7           one deployment; prints its trace
python -m tests.simulation --seed 7 --steps 9 only the first nine operations of its plan
python -m tests.simulation --seconds 3600     as long as that
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.reliability import keep_figures
from tests.simulation import plan as plans
from tests.simulation import rare
from tests.simulation.shrink import shrink
from tests.simulation.world import Result, simulate

QUIET = 60  # deployments in a row without anything new that end a run
FOLDER = Path("build/simulation")


@dataclass
class Report:
    """What many deployments came to."""

    deployments: int = 0
    workflows: int = 0
    lines: int = 0
    last_new: int = 0
    signatures: set[tuple[Any, ...]] = field(default_factory=set)
    rare: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)

    def add(self, outcome: "Outcome") -> None:
        """Take the outcome of one more deployment in."""
        self.deployments += 1
        self.workflows += outcome.workflows
        self.lines += outcome.lines
        if not outcome.signatures <= self.signatures:
            self.last_new = self.deployments
        self.signatures |= outcome.signatures
        self.rare += outcome.rare
        if outcome.violation:
            self.failed.append(outcome.seed)
            print(f"seed {outcome.seed}: {outcome.violation[:400]}", flush=True)  # noqa: T201

    @property
    def quiet(self) -> bool:
        """Whether nothing new has turned up for a while."""
        return self.deployments - self.last_new >= QUIET


@dataclass(frozen=True)
class Outcome:
    """What one deployment came to, small enough to send between processes."""

    seed: int
    workflows: int
    lines: int
    violation: str
    signatures: set[tuple[Any, ...]]
    rare: Counter[str]


def one(seed: int) -> Outcome:
    """Run the deployment of a seed."""
    result = simulate(plans.make(seed))
    found = rare.seen(result.trace)
    return Outcome(seed, result.workflows, len(result.trace), result.violation, result.signatures, found)


def many(options: argparse.Namespace) -> Report:
    """Run seeds until the least was done and nothing new is found, or the time is up, or one fails."""
    report = Report()
    end = time.monotonic() + options.seconds
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        seeds: Iterator[int] = itertools.count(options.first, options.every)
        seeds = (seed for seed in seeds if not options.losing or plans.make(seed).loses)
        for outcome in pool.imap_unordered(one, seeds):
            report.add(outcome)
            enough = report.deployments >= options.deployments and report.workflows >= options.workflows
            if report.failed or time.monotonic() > end or (enough and report.quiet and not options.soak):
                break
        pool.terminate()
    return report


def story(seed: int, steps: int | None) -> Result:
    """Run one seed, or the first operations of it."""
    plan = plans.make(seed)
    return simulate(plan if steps is None else replace(plan, operations=plan.operations[:steps]))


def _fail(seed: int) -> None:
    """Shorten a failing run and leave its trace in a file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    failing = simulate(plans.make(seed))
    (FOLDER / f"{seed}.trace").write_text("\n".join(failing.trace) + "\n")
    short = shrink(failing)
    (FOLDER / f"{seed}.short.trace").write_text("\n".join([*_operations(short), *short.trace]) + "\n")
    kept = f"{len(short.plan.operations)} of {len(failing.plan.operations)} operations"
    print(f"make sim SEED={seed} replays it; {FOLDER}/{seed}.short.trace shows it with {kept}")  # noqa: T201


def _operations(result: Result) -> list[str]:
    return [f"plan: {one.at:8.3f} {one.kind} {one.app} {one.details}" for one in result.plan.operations]


def _print(report: Report, seconds: float, *, complete: bool) -> bool:
    """Print the figures; return whether all is well."""
    print(  # noqa: T201
        f"{report.deployments} deployments, {report.workflows} workflows, {report.lines} trace lines, "
        f"{len(report.signatures)} kinds of step, {seconds:.0f} s; the last new kind in deployment {report.last_new}"
    )
    if report.deployments >= QUIET:
        result = (
            f"{report.deployments} deployments with {report.workflows:,} workflows, {len(report.failed)} violations"
        )
        keep_figures("simulation", "make sim", f"{result}, in {seconds:.0f} s")
    missing = [name for name in rare.RARE if not report.rare[name]]
    for name in rare.RARE:
        print(f"  {report.rare[name]:7}  {name}")  # noqa: T201
    if complete and missing:
        print("never reached: " + "; ".join(missing))  # noqa: T201
    return not report.failed and not (complete and missing)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="tests.simulation")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="only each n-th seed: with --first 2 --every 2 on SQLite")
    parser.add_argument("--losing", action="store_true", help="only seeds whose stores lose time")
    parser.add_argument("--deployments", type=int, default=300)
    parser.add_argument("--workflows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=170.0)
    parser.add_argument("--soak", action="store_true", help="go on until the time is up")
    parser.add_argument("--no-shrink", action="store_true", help="do not shorten a failing run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        result = story(options.seed, options.steps)
        print("\n".join(result.trace))  # noqa: T201
        print(result.violation or "all held")  # noqa: T201
        return 1 if result.violation else 0
    began = time.monotonic()
    report = many(options)
    well = _print(report, time.monotonic() - began, complete=options.deployments >= 300)
    for seed in [] if options.no_shrink else report.failed[:1]:
        _fail(seed)
    return 0 if well else 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(  # noqa: S606 (itself, again)
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
