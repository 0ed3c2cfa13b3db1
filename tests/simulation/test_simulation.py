"""The simulation itself: it holds, it is the same each time, it finds a planted bug and makes it short."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.work.turns import TurnWork
from tests.conftest import Injected
from tests.simulation import mutants, programs, rare
from tests.simulation import plan as plans
from tests.simulation.shrink import shrink
from tests.simulation.world import simulate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", [5, 51, 1047])
def test_a_deployment_keeps_all_promises(seed: int) -> None:
    result = simulate(plans.make(seed))
    assert not result.violation
    assert result.workflows >= 67  # reruns make more
    assert sum(rare.seen(result.trace).values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.fault(34, "A commit that fails, written or not, leaves no trace in memory; nothing is lost or doubled")
@pytest.mark.fault(35, "What a crash between a commit and its wake-up has left is found at the start")
@pytest.mark.fault(32, "Purge, terminate and reuse race with everything else, and nothing is left behind")
def test_many_deployments_keep_all_promises(injected: Injected) -> None:
    seen: Counter[str] = Counter()
    for seed in range(1001, 1021):
        result = simulate(plans.make(seed))
        assert not result.violation, f"seed {seed}"
        seen += rare.seen(result.trace)
    for what in (
        *("a sidecar dies before a commit", "a sidecar dies after a commit, before anybody was told"),
        *("a commit fails and nothing is written", "a commit fails and yet it is written", "an ID is used again"),
        *("frames are lost", "an app comes back with another store"),
    ):
        assert seen[what], what
        injected(seen[what], f"times {what}")


@pytest.mark.slow
def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    """Also where sets have another order."""
    code = "from tests.simulation import plan, world; print(*world.simulate(plan.make(7)).trace, sep='\\n')"

    def story(hash_seed: str) -> bytes:
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True).stdout

    first = story("0")
    assert first == story("2")
    assert len(first.splitlines()) > 1000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bug_is_found_and_its_plan_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker had is not given back when it hangs up, and no time-out helps."""
    monkeypatch.setattr(TurnWork, "left", lambda self, worker, lost: None)
    monkeypatch.setattr(TurnWork, "sweep", lambda self: None)
    failing = next(found for seed in range(1, 40) if (found := simulate(plans.make(seed))).violation)
    short = shrink(failing, seconds=40)
    assert short.violation
    assert len(short.plan.operations) < len(failing.plan.operations)


def test_fewer_operations_are_a_shorter_story() -> None:
    plan = plans.make(3)
    short = simulate(replace(plan, operations=plan.operations[:2]))
    assert not short.violation
    assert short.workflows <= 2


def test_the_outcome_of_a_program_can_be_told_without_running_it() -> None:
    steps = [
        ["act", "a", 2],
        ["fan", [["a", 1], ["b", 2]]],
        ["child", "a", "c1", [["act", "a", 1], ["fail"]]],
        ["can"],
        ["tell", "b", "c2", [5, 6], [["hear", "c2", [5, 6]], ["say", "sc2", 3]]],
    ]
    rest = 7 + 4 + 7 + 1
    assert programs.outcomes(steps) == {(programs.COMPLETED, rest + 5 + 6 + 3)}
    assert programs.outcomes(steps, ["c2"]) == {(programs.COMPLETED, rest + 5 + 6 + 3), (programs.COMPLETED, rest + 1)}
    assert programs.outcomes([["act", "a", 1], ["fail"]]) == {(programs.FAILED, 4)}


def test_what_is_weak_fails_until_it_is_mended() -> None:
    steps = [["act", "a", 1], ["must", "b", "c1", [["act", "a", 2], ["weak", "a", 3]]], ["weak", "a", 4]]
    assert {status for status, _ in programs.outcomes(steps)} == {programs.FAILED}
    assert programs.outcomes(steps, mended=True) == {(programs.COMPLETED, 4 + 7 + 10 + 13)}
    assert not programs.may_be_struck(steps)
    assert programs.may_be_struck([["detach", "b", [["child", "b", "c2", []]]]])


def test_what_is_a_child_shows_in_its_id() -> None:
    assert programs.tag_of("w1:c5.2.77") == "c5"
    assert programs.tag_of("w1:d3.77:c6.1.80") == "c6"
    assert [programs.tag_of(one) for one in ("w1", "w1:d3.77", "w1r:0002")] == [None, None, None]


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_code_as_it_is(mutant: mutants.Mutant) -> None:
    assert (ROOT / "sidecar" / mutant.file).read_text().count(mutant.text) == 1
