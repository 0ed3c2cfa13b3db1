"""What every fault test ends with: and then so many further workflows finish."""

import time
import uuid

from tests.blackbox.harness import Sidecar
from tests.blackbox.wire import Caller, Worker, decode, encode, text

COMPLETED = 1
STATUS, OUTPUT = 4, 9


def only(*names: str, turns: int = 100) -> bytes:
    """The request of a worker that takes turns and activities of these names alone."""
    filters = [{1: name} for name in names]
    return encode({1: turns, 2: turns, 11: {1: filters, 2: filters}})


def further_workflows_finish(sidecar: Sidecar, count: int = 10, seconds: float = 20.0) -> float:
    """Starts workflows of a name that nobody else has, finishes them, and returns the seconds that it took.

    No worker without filters may be connected: it would take them too.
    """
    name = f"afterwards-{uuid.uuid4().hex}"
    begun = time.monotonic()
    with Caller(sidecar.port) as caller, caller.work(only(name), timeout=seconds) as worker:
        ids = [caller.call("StartInstance", {2: name})[1][0].decode() for _ in range(count)]
        for _ in range(count):
            item = worker.item()
            instance = decode(item[Worker.TURN][0])[1][0]
            end = {1: 1, 6: {1: COMPLETED, 2: text(f'"{instance.decode()}"')}}
            caller.call("CompleteOrchestratorTask", {1: instance, 2: end, 4: item[Worker.TOKEN][0]})
        for id in ids:
            state = decode(caller.call("WaitForInstanceCompletion", {1: id, 2: 1})[2][0])
            assert state[STATUS] == [COMPLETED]
            assert decode(state[OUTPUT][0])[1] == [f'"{id}"'.encode()]
    assert sidecar.running
    return time.monotonic() - begun
