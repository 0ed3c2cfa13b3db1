"""Messages of one instance to another arrive in the order in which they were sent, whatever happens to the first."""

import asyncio
from collections.abc import Sequence

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Changes, Child, Kind, Position
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Refusal, UnavailableError
from tests.inprocess.test_found_by_simulation import event, message
from tests.inprocess.wires import Wire, ends
from tests.inprocess.world import DONE, ME, Hand, World, at, end, raised, until


def send(task: int, instance_id: str, name: str) -> pb.Action:
    action = pb.Action(id=task, send_event=pb.SendEvent(name=name, data=StringValue(value="1")))
    action.send_event.instance.instance_id = instance_id
    return action


def detach(task: int, instance_id: str) -> pb.Action:
    return pb.Action(id=task, create_detached=pb.CreateDetached(instance_id=instance_id, name="flow"))


class Pause:
    """What waits for a second waits until the test lets it."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = asyncio.Event()
        monkeypatch.setattr(world.clock, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self.over.wait()
        await asyncio.sleep(0.002)


async def log_of(world: World, instance_id: str) -> list[str]:
    state = await world.store.load(*at(instance_id))
    events = await world.store.events(state.instance.key, Position(0, -1), 1 << 60)
    return raised(events)


async def test_a_message_does_not_overtake_one_whose_delivery_failed(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(world, monkeypatch)
    failed: list[str] = []

    def fail_once(batch: Sequence[Changes]) -> list[Refusal | None] | None:
        names = [name for changes in batch for name in raised([row.event for row in changes.append])]
        if names == ["first"] and not failed:
            failed.extend(names)
            raise UnavailableError("the disk is on fire")
        return None

    world.store.refuse = fail_once
    await world.start("to")
    await world.start("from")
    await hand.turn(2)
    items = {item.instance_id: item for item in hand.turns}
    await world.complete(items["to"])
    await world.complete(items["from"], send(1, "to", "first"))
    await until(lambda: failed)
    await world.event("from", "go on")
    await world.complete(await hand.turn(3), send(2, "to", "second"))
    await world.quiet()
    pause.over.set()
    await until(lambda: len(hand.turns) >= 4)
    await world.quiet()
    assert await log_of(world, "to") == ["first", "second"]


async def test_a_message_does_not_overtake_a_start_that_must_be_looked_at_first(world: World, hand: Hand) -> None:
    """The ID that the start takes was that of an instance that has ended; the event is for the new one."""
    await world.start("to")
    await world.complete(await hand.turn(1), end())
    await world.start("from")
    await world.complete(await hand.turn(2), detach(1, "to"), send(2, "to", "first"))
    await until(lambda: len(hand.turns) >= 3)
    await world.quiet()
    assert await log_of(world, "to") == ["first"]


async def test_a_message_does_not_overtake_such_a_start_when_all_that_waits_is_read_again_meanwhile(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the store drops what is in memory, but not that something is being read for the start."""
    looking, over, read = asyncio.Event(), asyncio.Event(), world.store.real.children

    async def children(key: int) -> list[Child]:
        looking.set()
        await over.wait()
        return await read(key)

    await world.start("to")
    await world.complete(await hand.turn(1), end())
    await world.start("from")
    monkeypatch.setattr(world.store, "children", children, raising=False)
    await world.complete(await hand.turn(2), detach(1, "to"), send(2, "to", "first"))
    await looking.wait()
    world.dispatch.store_failed()
    await until(lambda: not world.dispatch._recovering)
    await world.quiet()
    over.set()
    await until(lambda: len(hand.turns) >= 3)
    await world.quiet()
    assert await log_of(world, "to") == ["first"]


async def test_what_a_peer_sends_to_an_instance_waits_for_the_start_that_came_before_it(
    world: World, hand: Hand
) -> None:
    """Both in one batch; the start takes the ID of an instance that has ended, which must be looked at first."""
    await world.start("to")
    await world.complete(await hand.turn(1), end())
    wire = Wire()
    receiver, sender = ends(world, wire)
    running = [asyncio.create_task(link.run()) for link in (receiver, sender)]
    started = pb.ExecutionStarted(name="flow", instance=pb.WorkflowInstance(instance_id="to"))
    started.instance.execution_id.value = "the new one"
    payload = pb.HistoryEvent(execution_started=started).SerializeToString()
    start = message(7, Kind.DETACHED, ME.workflow("default", "to"), payload)
    try:
        replies = await sender.deliver([start, event(8, "to"), event(9, "to")], 7)
        assert [reply.outcome for reply in replies] == [DONE] * 3
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert await log_of(world, "to") == ["e", "e"]
