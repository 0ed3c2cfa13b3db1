"""What a peer that has proved who it is may still not do: fill the memory of this sidecar."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.core.ids import PeerId
from sidecar.core.model import Reply
from sidecar.core.receipts import Forgotten
from sidecar.edge.peer import forward, links
from sidecar.edge.peer.forward import Served
from sidecar.edge.peer.link import MOST_BATCHES
from sidecar.edge.transport.ports import Call, Closed, StatusCode
from sidecar.schema import peer_pb2
from tests.inprocess.sidecars import PlayedPeer, Start, hello
from tests.inprocess.test_found_by_simulation import event
from tests.inprocess.wires import Wire, ends
from tests.inprocess.world import DONE, World, until

ML, PAY = ("default", "ml"), ("default", "pay")


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


async def echo(_: Call, body: bytes) -> bytes:
    return body


async def wait(_: Call, body: bytes) -> bytes:
    await asyncio.Event().wait()
    return body


@pytest.fixture
def served() -> Served:
    """Answers "Echo" with what it was sent, and a wait for the end of a workflow never."""

    async def release(_: Forgotten) -> None:
        return None

    served = Served(release)
    served.methods |= {"Echo": echo, "WaitForInstanceCompletion": wait}
    return served


def waiting(served: Served, peer: PeerId, numbers: Iterator[str], how_many: int) -> list["asyncio.Task[object]"]:
    """Waits of an app, as its link has them."""
    requests = [peer_pb2.Request(id=next(numbers), method="WaitForInstanceCompletion") for _ in range(how_many)]
    return [asyncio.create_task(served.serve(peer, f"store of {peer[1]}", request)) for request in requests]


async def echoed(served: Served, peer: PeerId, numbers: Iterator[str], size: int = 0) -> tuple[str, int]:
    """A call's ID, and the status of its answer."""
    request = peer_pb2.Request(id=next(numbers), method="Echo", body=b"x" * size)
    return request.id, (await served.serve(peer, f"store of {peer[1]}", request)).status


async def test_what_is_kept_of_forwarded_calls_is_bounded_in_bytes(
    numbers: Iterator[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(forward, "MOST_BYTES", 2_000)
    served = request.getfixturevalue("served")
    first, status = await echoed(served, ML, numbers, 5_000)
    assert status == 0, "a single one may be as large as it is allowed to be"
    assert (await echoed(served, ML, numbers, 1))[1] == StatusCode.RESOURCE_EXHAUSTED
    other, status = await echoed(served, PAY, numbers, 1)
    assert status == 0, "and that shuts no other app out"
    for peer, call_id in ((ML, first), (PAY, other)):
        served.release(peer, call_id)
    calls = [await echoed(served, ML, numbers, 200) for _ in range(4)]
    assert [status for _, status in calls] == [0, 0, 0, StatusCode.RESOURCE_EXHAUSTED], "200 came in, and 200 went out"
    served.release(ML, calls[0][0])
    assert (await echoed(served, ML, numbers, 200))[1] == 0


async def test_an_app_with_as_many_waits_as_it_gets_shuts_no_other_out(
    numbers: Iterator[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(forward, "MOST_CALLS", 12)
    served = request.getfixturevalue("served")
    waits = waiting(served, ML, numbers, 12)
    await asyncio.sleep(0)
    refused = [one.result() for one in await done_at_once(waits)]
    assert [answer.status for answer in refused] == [StatusCode.RESOURCE_EXHAUSTED] * 6, "half is left"
    assert "6 calls of app 'ml'" in refused[0].text
    assert (await echoed(served, PAY, numbers))[1] == 0
    waits += waiting(served, PAY, numbers, 12)
    await done_at_once(waits)
    assert (await echoed(served, ("default", "ship"), numbers))[1] == 0, "and so for a third"
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def done_at_once(tasks: list["asyncio.Task[object]"]) -> list["asyncio.Task[Any]"]:
    return list((await asyncio.wait(tasks, timeout=0.1))[0])


async def test_waits_of_an_app_that_has_left_hold_no_room(numbers: Iterator[str], served: Served) -> None:
    """A link that ends cancels what it has served."""
    waits = waiting(served, ML, numbers, 20)
    await asyncio.sleep(0.05)
    assert served._shares.held(ML)[0] == 20
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert served._shares.held(ML) == (0, 0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "forwarded call"]


async def test_a_command_is_kept_until_the_sender_has_its_answer(numbers: Iterator[str], served: Served) -> None:
    """A link that broke with the answer on it is no reason to have the effect twice."""
    call_id, _ = await echoed(served, ML, numbers, 7)
    assert served._shares.held(ML) == (1, 14)
    served.release(ML, call_id)
    assert served._shares.held(ML) == (0, 0)


async def test_a_command_that_somebody_waits_for_again_is_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link broke, and the call came again over the next."""
    monkeypatch.setattr(forward, "KEPT_SECONDS", 0.05)
    served.reads = frozenset()
    first, again = (waiting(served, ML, iter(["a"]), 1)[0] for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0.2)
    assert not again.done()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    last = waiting(served, ML, iter(["a"]), 1)[0]
    await asyncio.sleep(0.2)
    assert not last.done()
    last.cancel()
    await until(lambda: not served._calls)


async def test_a_command_is_kept_for_a_time_that_begins_when_the_last_has_left(served: Served) -> None:
    """Each of two links broke: the time of the first must not end what the second has left."""
    served.reads = frozenset()
    ends = []
    for _ in range(2):
        (task,) = waiting(served, ML, iter(["a"]), 1)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (kept,) = served._calls.values()
        ends.append(kept.expiry)
    first, last = ends
    assert first is not None
    assert last is not None
    assert (first.cancelled(), last.cancelled(), last.when() > first.when()) == (True, False, True)
    served.release(ML, "a")
    assert last.cancelled(), "a call under its ID would end with it"


async def test_a_link_that_ends_leaves_the_later_one_of_its_app(start: Start) -> None:
    ml = await start("ml")
    earlier, later = PlayedPeer(ml), PlayedPeer(ml)
    for peer in (earlier, later):
        assert await peer.introduce(hello("orders")) == ""
    found = ml.sidecar.peers.link("default", "orders")
    await earlier.close()
    await until(lambda: len(ml.sidecar.peers._since) == 1)
    assert ml.sidecar.peers.link("default", "orders") is found is not None
    await later.close()
    await until(lambda: ml.sidecar.peers.link("default", "orders") is None)


async def test_an_app_has_so_many_links_and_no_more(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MOST_LINKS", 3)
    ml = await start("ml")
    peers = [PlayedPeer(ml) for _ in range(4)]
    answers = [await peer.introduce(hello("evil")) for peer in peers]
    assert answers == ["", "", "", "app 'evil' has 3 links already: close some"]
    other = PlayedPeer(ml)
    assert await other.introduce(hello("orders")) == ""
    await peers[0].close()
    await until(lambda: sum(link.peer[1] == "evil" for link in ml.sidecar.peers._since) == 2)
    again = PlayedPeer(ml)
    assert await again.introduce(hello("evil")) == ""
    for peer in (*peers[1:], other, again):
        await peer.close()
