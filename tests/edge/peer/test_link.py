"""What one end of a link does with what the other sends, over a link in memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.core.model import Kind, Outcome, Reminder
from sidecar.edge.peer.link import PeerLink
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.test_found_by_simulation import message
from tests.inprocess.wires import Wire, ends
from tests.inprocess.world import DONE, ME, Hand, World, raised, until


@pytest.fixture
def wire() -> Wire:
    """From this app to the other one."""
    return Wire()


@pytest.fixture
async def sender(world: World, wire: Wire) -> AsyncIterator[PeerLink]:
    """The end of app ml, from which messages come to this one."""
    receiver, sender = ends(world, wire)
    running = [asyncio.create_task(link.run(), name=f"end of {link.peer[1]}") for link in (receiver, sender)]
    yield sender
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def named(number: int, name: str) -> Reminder:
    """An event for instance a."""
    payload = pb.HistoryEvent(event_raised=pb.EventRaised(name=name)).SerializeToString()
    return message(number, Kind.EVENT, ME.workflow("default", "a"), payload)


async def test_what_comes_behind_a_message_that_is_to_be_sent_again_is_not_taken(
    world: World, sender: PeerLink
) -> None:
    await world.start("a")
    batch = [named(number, name) for number, name in enumerate(["one", "two", "three"], start=7)]
    world.store.failing["commit"] = 1
    assert [reply.outcome for reply in await sender.deliver(batch, 7)] == [Outcome.UNAVAILABLE] * 3
    assert [reply.outcome for reply in await sender.deliver(batch, 7)] == [DONE] * 3
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    assert raised((await hand.turn(1)).new) == ["one", "two", "three"]


async def test_the_numbers_of_messages_that_come_are_seen(world: World, sender: PeerLink) -> None:
    """So the app is told when its store has gone back, though it has had no answer to them."""
    await sender.deliver([named(9, "one"), named(7, "two")], 7)
    assert world.messages.highest.of(("default", "ml")) == ("store of ml", 9)


async def test_a_call_that_has_no_answer_ends_with_the_link(sender: PeerLink, wire: Wire) -> None:
    wire.losing = {"response"}
    calling = asyncio.create_task(sender.call(peer_pb2.Request(id="a", method="none")))
    await until(lambda: "response" in wire.sent)
    (running,) = [task for task in asyncio.all_tasks() if task.get_name() == "end of orders"]
    running.cancel()
    async with asyncio.timeout(2.0):
        with pytest.raises(LinkBrokenError):
            await calling
