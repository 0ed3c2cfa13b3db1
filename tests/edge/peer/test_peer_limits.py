"""What a peer that has proved who it is may still not do: fill the memory of this sidecar."""

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.core.model import Reply
from sidecar.core.receipts import Forgotten
from sidecar.edge.peer import forward
from sidecar.edge.peer.forward import Served
from sidecar.edge.peer.link import MOST_BATCHES
from sidecar.edge.transport.ports import Call, Closed, StatusCode
from sidecar.schema import peer_pb2
from tests.inprocess.test_found_by_simulation import event
from tests.inprocess.wires import Wire, ends
from tests.inprocess.world import DONE, World

ML = ("default", "ml")


async def test_a_peer_that_sends_batches_without_end_loses_its_link(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def deliver(*_: object) -> Reply:
        await held.wait()
        return DONE

    monkeypatch.setattr(world.messages, "deliver", deliver)
    wire = Wire()
    receiver, sender = ends(world, wire)
    running = asyncio.create_task(receiver.run())
    sent = [asyncio.create_task(sender.deliver([event(number, "a")], 1)) for number in range(1, MOST_BATCHES + 2)]
    async with asyncio.timeout(5):
        with pytest.raises(Closed, match="without waiting"):
            await running
    for task in sent:
        task.cancel()
    await asyncio.gather(*sent, return_exceptions=True)


@pytest.fixture
def numbers() -> Iterator[str]:
    return (f"{number:x}" for number in range(1, 100))


async def test_what_is_kept_of_forwarded_calls_is_bounded_in_bytes(
    numbers: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_BYTES", 1_000)

    async def echo(_: Call, body: bytes) -> bytes:
        return body

    async def release(_: Forgotten) -> None:
        return None

    served = Served(release)
    served.methods["Echo"] = echo

    async def call(size: int) -> tuple[str, int]:
        request = peer_pb2.Request(id=next(numbers), method="Echo", body=b"x" * size)
        return request.id, (await served.serve(ML, "store of ml", request)).status

    first, status = await call(5_000)
    assert status == 0, "a single one may be as large as it is allowed to be"
    assert (await call(1))[1] == StatusCode.RESOURCE_EXHAUSTED
    served.release(ML, first)
    calls = [await call(200) for _ in range(4)]
    assert [status for _, status in calls] == [0, 0, 0, StatusCode.RESOURCE_EXHAUSTED], "200 came in, and 200 went out"
    served.release(ML, calls[0][0])
    assert (await call(200))[1] == 0
