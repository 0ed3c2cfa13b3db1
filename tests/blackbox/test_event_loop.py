"""The event loop is never held up: no callback takes it for more than 50 ms of CPU time, under a mixed load."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blackbox.harness import Deployment, Sidecar
from tests.blackbox.test_crash import Load, across, anywhere, wrong

SECONDS = 15.0
MOST_MS = 50.0


def watched(sidecar: Sidecar) -> Path:
    """Has a sidecar run under the watch, and returns the file that its report will be in."""
    report = sidecar.log.with_suffix(".loop.json")
    plain = sidecar._command

    def command() -> list[str]:
        return [word if word != "sidecar" else "tests.blackbox.loopwatch" for word in plain()]

    sidecar._command = command  # type: ignore[method-assign]
    sidecar.environment["LOOPWATCH"] = str(report)
    return report


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_callback_takes_the_event_loop_for_more_than_50_ms_of_cpu_time(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    deployment = Deployment(tmp_path, ("orders", "ml"))
    try:
        reports = {name: watched(sidecar) for name, sidecar in deployment.sidecars.items()}
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        orders = deployment.app("orders", "dapr").start_process()
        ml = deployment.app("ml", "microsoft").start_process()
        seed = random.randrange(10**6)
        loads = [Load(orders, across, seed, pause=0.02), Load(ml, anywhere, seed + 1, pause=0.02)]
        time.sleep(SECONDS)
        big = [orders.start("relay", "x" * 2**20), ml.start("fan_out", 1000)]
        started = [each for load in loads for each in load.stop()]
        assert wrong(started, 60) == []
        assert [len(orders.output(big[0])), ml.output(big[1])] == [2**20, 1000 * 999]
        for process in deployment.apps.values():
            process.kill9()
        for sidecar in deployment.sidecars.values():
            sidecar.stop()
        figures = {name: json.loads(report.read_text()) for name, report in reports.items()}
        tell(f"seed {seed}, {len(started)} workflows, {json.dumps(figures, indent=1)}")
        assert all(each["callbacks"] > 1000 for each in figures.values())
        assert all(each["cpu_ms"] <= MOST_MS for each in figures.values()), figures
    finally:
        deployment.end()
