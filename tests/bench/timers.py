"""How fast a sidecar delivers timers that are all due at the same moment, and how much memory that takes.

python -m tests.bench.timers COUNT   prepares a store with COUNT workflows that are to start at once, starts a sidecar
on it without a worker, and prints how fast they start and the most memory that the sidecar has had, in MiB.
"""

import argparse
import asyncio
import itertools
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import operations
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.ids import Ids
from sidecar.core.model import Changes
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite import store as sqlite
from tests.bench.memory import peak
from tests.blackbox.harness import Sidecar, until

ME = AppIdentity("default", "orders")
BATCH = 1_000
FINE_SECONDS = 120  # a store is opened after a crash


async def fill(directory: Path, count: int) -> None:
    """Store workflows that are to start a moment from now."""
    store = await sqlite.open_store(ME, directory, "s" * 32)
    numbers = itertools.count(1)
    at = Context(ME, time.time_ns() // 1_000, Ids(1, 1, lambda: f"id-{next(numbers)}"))
    for first in range(0, count, BATCH):
        await store.commit([_scheduled(at, number) for number in range(first, min(first + BATCH, count))])
    await store.close()


def _scheduled(at: Context, number: int) -> Changes:
    started = pb.ExecutionStarted(name="flow", input=StringValue(value='"09:00"'))
    identity = Identity("default", f"i{number}", f"e{number}")
    changes = operations.start(at, None, operations.Start(identity, started, at.now + 1)).changes
    assert changes is not None
    return changes


def left(file: Path) -> int:
    """How many are not delivered."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM reminders").fetchone()[0])
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        asyncio.run(fill(directory / "data", count))
        sidecar = Sidecar("orders", directory)
        try:
            sidecar.launch()
            until(sidecar._ready, FINE_SECONDS, "the sidecar is ready")
            [file] = (directory / "data").glob("*.db")
            begun = time.monotonic()
            waiting = first = left(file)
            while waiting and time.monotonic() - begun < 3_600:
                time.sleep(5)
                waiting = left(file)
                rate = (first - waiting) / (time.monotonic() - begun)
                cpu = _cpu(sidecar.pid)
                print(f"{waiting:,} left, {rate:.0f}/s, {cpu:.0f} s of CPU, {peak(sidecar.pid)} MiB", flush=True)  # noqa: T201
        finally:
            sidecar.kill9()


def _cpu(pid: int) -> float:
    """How many seconds of CPU a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
