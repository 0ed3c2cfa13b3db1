"""The app `ml`: it only has an activity, which workflows of other apps call.

It uses Microsoft's package `durabletask`, unchanged. That package has no environment variable for the address
of the sidecar, so this app has one of its own: SIDECAR_ADDRESS (localhost:4001 if not set). Run it from
the folder `examples`, beside a sidecar with `--app-id ml`:

    python -m ml.app
"""

import os
import time
import zlib

from durabletask.task import ActivityContext
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker
from worklog import note, wait_for_stop


def score_item(ctx: ActivityContext, item: str) -> int:
    """Think for a second, then give the item a score from 0 to 99, always the same for the same item."""
    time.sleep(1)
    note("ml", f"score_item {item}")
    return zlib.crc32(item.encode()) % 100


if __name__ == "__main__":
    worker = TaskHubGrpcWorker(
        host_address=os.environ.get("SIDECAR_ADDRESS", "localhost:4001"),
        # Two at a time, as if this machine had two GPUs. The rest waits at the sidecar, safely on disk.
        concurrency_options=ConcurrencyOptions(maximum_concurrent_activity_work_items=2),
    )
    worker.add_activity(score_item)
    worker.start()
    wait_for_stop()
    worker.stop()
