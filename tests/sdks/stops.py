"""All SDKs at once, each beside a sidecar that goes away: a stop in good order while an activity runs, and an outage.

After either, each program must be able to go on without being started again. `make sdks-stops`.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.sdks.idle import Idler, all_started
from tests.sdks.programs import ProgramError
from tests.sdks.report import say
from tests.sdks.sdks import Build

_SETTLE_SECONDS = 5.0
_AT_ONCE = 4  # sidecars that stop; to start one takes more of the machine than to wait for it
_SCENARIO = "graceful-stop"
# Less than the activity of the scenario takes, and enough for it to begin.
_UNDER_WAY_SECONDS = 2.0
# The longest that an SDK waits before it connects again is 120 s (.NET, whose channel doubles its pauses).
_BACK_SECONDS = 180.0


def main(chosen: Sequence[Build], seconds: float) -> int:
    """Returns the exit code. `seconds`: how long the outage takes; 0 for none."""
    with ExitStack() as stack:
        idlers = all_started(chosen, stack)
        if idlers is None:
            return 1
        time.sleep(_SETTLE_SECONDS)
        faults = _each(_AT_ONCE, idlers, "a stop in good order", _stopped)
        if seconds:
            say(f"no sidecar for {seconds:g} s")
            for idler in idlers:
                idler.sidecar.kill9()
            time.sleep(seconds)
            for idler in idlers:
                idler.sidecar.launch()
            faults += _each(len(idlers), idlers, f"an outage of {seconds:g} s", _back)
    return 1 if faults else 0


def _each(at_once: int, idlers: Sequence[Idler], what: str, play: Callable[[Idler], str]) -> list[str]:
    """Plays it with each, says what came out, and returns what was wrong."""
    faults = []
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        for idler, said in zip(idlers, pool.map(_guarded(play), idlers), strict=True):
            say(f"{idler.build.id}, {what}: {said}")
            faults += [said] if said.startswith("FAIL") else []
    return faults


def _guarded(play: Callable[[Idler], str]) -> Callable[[Idler], str]:
    def guarded(idler: Idler) -> str:
        try:
            return play(idler)
        except (ProgramError, AssertionError, OSError, pytest.fail.Exception) as error:
            return f"FAIL {error}\n{idler.program.tail()}"

    return guarded


def _stopped(idler: Idler) -> str:
    idler.program.send(_SCENARIO)
    time.sleep(_UNDER_WAY_SECONDS)
    begin = time.monotonic()
    idler.sidecar.stop()
    stopped = time.monotonic() - begin
    idler.sidecar.start()
    try:
        line = idler.program.line(_SCENARIO)
    except ProgramError:
        if idler.build.ready:
            return f"not built (its sidecar stopped within {stopped:.1f} s)"
        raise
    if line.result != "pass":
        return f"FAIL {line.detail}"
    return f"done after {line.seconds:.1f} s (its sidecar stopped within {stopped:.1f} s)"


def _back(idler: Idler) -> str:
    """Asks again until a workflow runs: what was asked while the sidecar was away may fail as the SDK likes."""
    begin = time.monotonic()
    while True:
        idler.program.send()
        line = idler.program.line("hello")
        waited = time.monotonic() - begin
        if line.result == "pass":
            return f"back after {waited:.0f} s"
        if waited > _BACK_SECONDS:
            return f"FAIL not back after {waited:.0f} s: {line.detail}"
        time.sleep(0.5)
