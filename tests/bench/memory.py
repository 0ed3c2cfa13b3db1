"""How much memory a sidecar needs for work that waits: at its start, and while a worker takes some of it.

python -m tests.bench.memory COUNT BYTES TAKEN   prepares a store with COUNT activities of BYTES each, starts a sidecar
on it, lets a worker take TAKEN of them, and prints the most memory that the sidecar has had, in MiB.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import grpc

from sidecar.core.identity import AppIdentity
from sidecar.core.model import ActorId, CallId, Changes, Kind, Reminder
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite import store as sqlite
from tests.blackbox.harness import HOST, Sidecar, until
from tests.blackbox.wire import SERVICE, decode

ME = AppIdentity("default", "orders")
CALLER = ActorId("default", "shop", "workflow", "default", "a")
BATCH = 100
FINE_SECONDS = 120  # in which even a loaded machine has opened a store of 10 GB


async def fill(directory: Path, count: int, size: int) -> None:
    """Store activities that another app has called."""
    store = await sqlite.open_store(ME, directory, "s" * 32)
    target = ME.activity("default", "work")
    for first in range(1, count + 1, BATCH):
        numbers = range(first, min(first + BATCH, count + 1))
        await store.commit([Changes(set=tuple(_activity(number, target, size) for number in numbers))])
    await store.close()


def _activity(number: int, target: ActorId, size: int) -> Reminder:
    request = pb.ActivityRequest(name="work", task_id=number)
    request.input.value = "x" * size
    call = CallId("execution", 1, number)
    payload = request.SerializeToString()
    return Reminder(number, Kind.ACTIVITY, 0, target, CALLER, call, 0, "work", payload)


def take(port: int, count: int) -> None:
    """Be a worker that answers so many activities."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"{HOST}:{port}", options) as channel:
        items = channel.unary_stream(f"{SERVICE}GetWorkItems")(
            pb.GetWorkItemsRequest(max_activities=50).SerializeToString()
        )
        answer = channel.unary_unary(f"{SERVICE}CompleteActivityTask")
        taken = 0
        while taken < count:
            item = decode(next(items))
            if 2 in item:
                request = pb.ActivityRequest.FromString(item[2][0])
                done = pb.ActivityResponse(task_id=request.task_id, completion_token=item[10][0].decode())
                answer(done.SerializeToString())
                taken += 1
        items.cancel()


def peak(pid: int) -> int:
    """The most memory that a process has had, in MiB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("bytes", type=int)
    parser.add_argument("taken", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        asyncio.run(fill(directory / "data", given.count, given.bytes))
        sidecar = Sidecar("orders", directory)
        begun = time.monotonic()
        try:
            sidecar.launch()
            until(sidecar._ready, FINE_SECONDS, "the sidecar is ready")
            started = time.monotonic() - begun
            time.sleep(2.0)
            at_start = peak(sidecar.pid)
            take(sidecar.port, given.taken)
            print(  # noqa: T201
                f"{given.count:,} activities of {given.bytes:,} bytes wait: ready after {started:.1f} s, "
                f"{at_start} MiB at the start, {peak(sidecar.pid)} MiB when {given.taken:,} were taken"
            )
        finally:
            sidecar.kill9()


if __name__ == "__main__":
    main()
