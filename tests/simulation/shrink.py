"""Makes a failing plan short: leaves out operations as long as it still fails in the same way."""

import re
import time
from dataclasses import replace

from tests.simulation.plan import Operation, Plan
from tests.simulation.world import Result, simulate


def shrink(failing: Result, seconds: float = 60.0) -> Result:
    """Return the shortest failing run that was found within the time."""
    best = failing
    end = time.monotonic() + seconds
    size = max(1, len(best.plan.operations) // 2)
    while size and time.monotonic() < end:
        shorter = _without_some(best, size, end)
        if shorter is None:
            size //= 2
        else:
            best = shorter
            size = min(size, max(1, len(best.plan.operations) // 2))
    return best


def _without_some(best: Result, size: int, end: float) -> Result | None:
    """Try to leave out each run of `size` operations; return the first run that still fails."""
    operations = best.plan.operations
    for start in range(0, len(operations), size):
        if time.monotonic() > end:
            return None
        kept = operations[:start] + operations[start + size :]
        result = _try(best.plan, kept)
        if result is not None and _kind(result) == _kind(best):
            return result
    return None


def _try(plan: Plan, kept: tuple[Operation, ...]) -> Result | None:
    result = simulate(replace(plan, operations=kept))
    return result if result.violation else None


def _kind(result: Result) -> str:
    """The violation without its names and numbers."""
    return re.sub(r"[\w:.]*\d[\w:.]*", "#", result.violation)[:60]
