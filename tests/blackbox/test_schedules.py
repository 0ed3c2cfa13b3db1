"""A real sidecar is killed with -9 around the times of its schedules: each time starts one run, and none twice."""

import asyncio
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.methods import ADMIN
from sidecar.schema import admin_pb2
from sidecar.schema import schedule_pb2 as pb
from sidecar.store.sqlite import check
from tests.blackbox.harness import Sidecar
from tests.conftest import Injected

pytestmark = pytest.mark.blackbox

SECOND = 1_000_000
SCHEDULES = ("a", "b", "c", "d", "e")
KILLS = 6  # 30 times


@pytest.mark.fault(44, "Killed around its times, a schedule starts one run for each, and none twice")
def test_a_sidecar_that_is_killed_around_each_time_starts_one_run_for_each(tmp_path: Path, injected: Injected) -> None:
    chance = random.Random(5)
    sidecar = Sidecar("orders", tmp_path).start()
    asyncio.run(define(sidecar))
    for _ in range(KILLS):
        now = time.time()
        # From just before the next second to when all five are surely stored.
        time.sleep(int(now) + 1 - now + chance.uniform(-0.004, 0.03) if now % 1 < 0.99 else 0.01)
        sidecar.kill9()
        sidecar.start()
    time.sleep(1.0)
    sidecar.stop(signal.SIGTERM)
    path = next(sidecar.data.glob("*.db"))
    assert check.problems(path) == []
    started = [progress_of(path, one) for one in SCHEDULES]
    for schedule_id, (progress, runs) in zip(SCHEDULES, started, strict=True):
        times = sorted(runs)
        assert len(times) == len(set(times)) == progress.started
        assert (progress.skipped, progress.missed, progress.failed) == (0, 0, 0)
        assert times == list(range(times[0], times[0] + len(times))), f"a second of schedule {schedule_id} has no run"
        assert times[-1] == progress.upto // SECOND
    assert sum(progress.started for progress, _ in started) >= KILLS * len(SCHEDULES)
    injected(KILLS, "kills around the times of five schedules")


async def define(sidecar: Sidecar) -> None:
    """Schedules whose times are those of each second."""
    channel = GrpcChannel(f"127.0.0.1:{sidecar.port}")
    wanted = [pb.Schedule(id=one, every=SECOND, workflow="flow", overlap=pb.OVERLAP_ALLOW) for one in SCHEDULES]
    request = admin_pb2.ApplySchedulesRequest(schedules=wanted)
    await channel.unary(f"{ADMIN}ApplySchedules", request.SerializeToString(), timeout=10.0)
    await channel.close()


def progress_of(path: Path, schedule_id: str) -> tuple[pb.Progress, list[int]]:
    """How far a schedule has come, and the seconds since the epoch for which there are runs."""
    with closing(sqlite3.connect(path)) as connection:
        (progress,) = connection.execute("SELECT progress FROM schedules WHERE id = ?", (schedule_id,)).fetchone()
        found = connection.execute(
            "SELECT CAST(strftime('%s', substr(id, 3)) AS INTEGER) FROM instances WHERE id LIKE ?",
            (f"{schedule_id}-%",),
        )
        return pb.Progress.FromString(progress), [second for (second,) in found]
