"""E.9: work that a worker gives back goes to another at once, and to the same one only after a pause that grows."""

import asyncio

import pytest

from sidecar.work.backoff import LONGEST_PAUSE, Refusals
from tests.inprocess.world import DONE, STALE, FakeClock, Hand, World, call, end


async def _rest() -> None:
    await asyncio.sleep(0.03)


async def test_a_turn_that_was_given_back_comes_again_after_a_pause(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    world.answers.abandon_turn(first.token)
    await _rest()
    assert len(hand.turns) == 1, "not at once"
    world.clock.steady += 1.1
    second = await hand.turn(2)
    world.answers.abandon_turn(first.token)
    assert (await world.complete(second, end())).outcome is DONE


@pytest.mark.slow
async def test_each_time_the_pause_is_longer_and_none_is_longer_than_the_longest(world: World, hand: Hand) -> None:
    await world.start("a")
    pauses = []
    for number in range(1, 10):
        world.answers.abandon_turn((await hand.turn(number)).token)
        begun = world.clock.steady
        while len(hand.turns) == number:
            world.clock.steady += 1.0
            await asyncio.sleep(0.005)
        pauses.append(world.clock.steady - begun)
    assert pauses[0] < 10 < pauses[5]
    assert max(pauses) <= LONGEST_PAUSE + 10


async def test_another_worker_gets_a_turn_that_was_given_back_at_once(world: World, hand: Hand) -> None:
    """As when only one of two workers has the version of a workflow."""
    await world.start("a")
    first = await hand.turn(1)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    world.answers.abandon_turn(first.token)
    second = await other.turn(1)
    assert (await world.complete(first, end())).outcome is STALE
    assert (await world.complete(second, end())).outcome is DONE
    await _rest()
    assert len(hand.turns) == 1


async def test_a_worker_that_connects_during_the_pause_gets_the_turn_at_once(world: World, hand: Hand) -> None:
    await world.start("a")
    world.answers.abandon_turn((await hand.turn(1)).token)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    assert (await world.complete(await other.turn(1), end())).outcome is DONE


async def test_an_event_during_the_pause_does_not_cut_it_short(world: World, hand: Hand) -> None:
    await world.start("a")
    world.answers.abandon_turn((await hand.turn(1)).token)
    await world.event("a", "news")
    await world.quiet()
    assert len(hand.turns) == 1


async def test_a_completed_turn_ends_the_reluctance(world: World, hand: Hand) -> None:
    await world.start("a")
    world.answers.abandon_turn((await hand.turn(1)).token)
    world.clock.steady += 1.1
    await world.complete(await hand.turn(2))
    await world.event("a", "news")
    await hand.turn(3)


async def test_other_instances_go_on_during_the_pause(world: World, hand: Hand) -> None:
    await world.start("a")
    world.answers.abandon_turn((await hand.turn(1)).token)
    await world.start("b")
    assert (await hand.turn(2)).instance_id == "b"


async def test_an_activity_that_was_given_back_comes_again_after_a_pause(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    first = await hand.activity(1)
    world.answers.abandon_activity(first.token)
    await _rest()
    assert len(hand.activities) == 1, "not at once"
    world.clock.steady += 1.1
    second = await hand.activity(2)
    world.answers.abandon_activity(first.token)
    await _rest()
    assert len(hand.activities) == 2, "an earlier delivery has nothing to give back"
    assert (await world.answer(second)).outcome is DONE


async def test_another_worker_gets_an_activity_that_was_given_back_at_once(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    first = await hand.activity(1)
    other = Hand("other", turns=0)
    world.dispatch.add_worker(other.worker)
    world.answers.abandon_activity(first.token)
    assert (await world.answer(await other.activity(1))).outcome is DONE
    assert len(hand.activities) == 1


@pytest.mark.parametrize("limit", [1, 2])
async def test_no_more_is_remembered_than_the_limit_and_what_is_forgotten_is_tried_again(limit: int) -> None:
    clock = FakeClock()
    refusals: Refusals[int] = Refusals(clock, limit)
    for item in range(5):
        refusals.refuse(item, "w", for_good=item == 3)
    assert [item for item in range(5) if refusals.of(item)] == list(range(5 - limit, 5))
    clock.steady += 1.1
    assert sorted(refusals.over()) == [0, 1, 2, 4]
    refusals.left("w")
    assert not refusals.of(3)
