"""E.5: what a worker did not process of a turn is first in the next one, whatever happens in between."""

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import Int32Value

from tests.inprocess.world import DONE, STALE, Hand, World, call, end, kinds, raised


def processed(count: int) -> dict[str, Int32Value]:
    return {"num_events_processed": Int32Value(value=count)}


@pytest.mark.parametrize("dropped", [False, True])
async def test_the_rest_of_a_turn_comes_first_in_the_next(world: World, hand: Hand, dropped: bool) -> None:
    await world.start("a")
    first = await hand.turn(1)
    for name in ("one", "two", "three"):
        await world.event("a", name)
    await world.complete(first, call(1))
    second = await hand.turn(2)
    assert raised(second.new) == ["one", "two", "three"]
    await world.event("a", "four")
    await world.complete(second, call(2), **processed(2))
    await hand.turn(3)
    if dropped:
        await world.quiet()
        world.engine.drop(world.actor("a"))
        world.engine.wake(world.actor("a"))
        await hand.turn(4)
    item, past = hand.turns[-1], hand.past_seen[-1]
    assert raised(item.new) == ["two", "three", "four"]
    assert kinds(past)[-3:] == ["orchestrator_started", "event_raised", "task_scheduled"]
    assert raised(past) == ["one"]
    assert (await world.complete(item, end())).outcome is DONE


async def test_an_answer_that_processed_nothing_is_as_good_as_none(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    assert (await world.complete(first, end(), **processed(1))).outcome is STALE
    await asyncio.sleep(0.02)
    assert len(hand.turns) == 1
    world.clock.steady += 1.1
    again = await hand.turn(2)
    assert again.new[1:] == first.new[1:]
    assert (await world.complete(again, end())).outcome is DONE
