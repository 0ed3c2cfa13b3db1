"""A short run of the fuzzing, the same one each time: over all targets, and over sockets."""

from pathlib import Path

import pytest

from tests.conftest import Injected
from tests.fuzz import sockets
from tests.fuzz.run import mutate
from tests.fuzz.targets import TARGETS, Target

_CALLS = {"calls": 2_000, "peer": 2_000}  # messages in stories; the others take single inputs
_OTHERS = 3_000
_SLOW_ONES = {
    "settings-yaml": 300,
    "policy": 300,
    "peers": 300,
    "resources": 300,
    "configuration": 300,
}  # PyYAML takes milliseconds


@pytest.mark.slow
@pytest.mark.fault(25, "Malformed input is refused with the caller's status, and workflows go on")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_input_is_refused_and_does_no_harm(target: Target, injected: Injected) -> None:
    wanted = {**_CALLS, **_SLOW_ONES}.get(target.name, _OTHERS)
    tally = mutate(target, lambda tally: tally.inputs >= wanted, seed=1)
    injected(tally.inputs, "hostile inputs in process")
    assert tally.findings == {}


@pytest.mark.slow
@pytest.mark.fault(25, "Malformed requests and wrong frames over sockets end neither the process nor its work")
def test_a_sidecar_that_is_attacked_over_sockets_answers_and_works_on(tmp_path: Path, injected: Injected) -> None:
    tallies, errors, peak = sockets.attack(60, 1, tmp_path)
    injected(sum(tally.inputs for tally in tallies), "hostile inputs over sockets")
    assert [(tally.method, tally.findings) for tally in tallies if tally.findings] == []
    assert errors == []
    assert peak < sockets.MOST_MIB
