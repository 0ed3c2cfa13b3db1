"""Workers that keep the past of instances are sent only what is new, and all of it whenever that is in doubt."""

import asyncio

import pytest

from sidecar.core.work_items import TurnItem
from sidecar.work.workers import Seen
from tests.inprocess.world import CONTINUED_AS_NEW, DONE, STALE, Hand, World, at, call, end, kinds


@pytest.fixture
async def keeper(world: World) -> Hand:
    """A worker that keeps what it has seen."""
    hand = Hand("keeper", keeps_history=True)
    world.dispatch.add_worker(hand.worker)
    return hand


async def step(world: World, hand: Hand, number: int) -> TurnItem:
    """Answer the n-th turn with a call, and that with a result."""
    item = await hand.turn(number)
    assert (await world.complete(item, call(number), peer=hand.worker.peer)).outcome is DONE
    await world.answer(await hand.activity(number), peer=hand.worker.peer)
    return item


async def test_only_what_came_since_the_turn_before_is_sent(world: World, keeper: Hand) -> None:
    await world.start("a")
    for number in range(1, 7):
        await step(world, keeper, number)
        # What a worker keeps is what it was sent as the past, not what was new in the same turn.
        past = len(keeper.past_seen[number - 2]) if number > 1 else 0
        assert keeper.turns[number - 1].known == past
    assert keeper.turns[5].known > 10


async def test_a_worker_that_keeps_nothing_is_sent_everything(world: World, hand: Hand) -> None:
    await world.start("a")
    for number in range(1, 5):
        assert (await step(world, hand, number)).known == 0


async def test_a_worker_that_has_not_seen_an_instance_is_sent_everything(world: World, keeper: Hand) -> None:
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    await keeper.turn(3)
    other = Hand("other", keeps_history=True)
    world.dispatch.add_worker(other.worker)
    world.dispatch.remove_worker(keeper.worker)
    assert (await other.turn(1)).known == 0


async def test_a_worker_that_connects_again_is_sent_everything(world: World, keeper: Hand) -> None:
    """The SDK empties its cache when a stream begins."""
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    assert (await keeper.turn(3)).known
    world.dispatch.remove_worker(keeper.worker)
    again = Hand("again", keeps_history=True, peer=keeper.worker.peer)
    world.dispatch.add_worker(again.worker)
    assert (await again.turn(1)).known == 0


@pytest.mark.parametrize("how", ["times out", "is given back", "lacks its past"])
async def test_after_a_turn_that_failed_everything_is_sent(world: World, keeper: Hand, how: str) -> None:
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    third = await keeper.turn(3)
    assert third.known
    if how == "times out":
        world.clock.steady += 121
    elif how == "is given back":
        world.answers.abandon_turn(third.token)
        world.clock.steady += 1.1
    else:
        world.answers.resend_turn(third.token)
    again = await keeper.turn(4)
    assert again.known == 0
    await world.complete(again, call(3), peer=keeper.worker.peer)
    assert (await world.complete(third, call(3), peer=keeper.worker.peer)).outcome is STALE
    await world.answer(await keeper.activity(3), peer=keeper.worker.peer)
    assert (await keeper.turn(5)).known == again.past.frames("", bytes).upto(len(keeper.past_seen[3]))[0]


async def test_requires_history_for_a_turn_that_came_whole_is_a_turn_given_back(world: World, hand: Hand) -> None:
    """E.5: else the two would ask each other for ever."""
    await world.start("a")
    world.answers.resend_turn((await hand.turn(1)).token)
    await asyncio.sleep(0.02)
    assert len(hand.turns) == 1
    world.clock.steady += 1.1
    await hand.turn(2)


async def test_a_new_execution_is_sent_whole(world: World, keeper: Hand) -> None:
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    await world.complete(await keeper.turn(3), end('"again"', CONTINUED_AS_NEW), peer=keeper.worker.peer)
    fresh = await keeper.turn(4)
    assert (fresh.known, keeper.past_seen[3]) == (0, [])


async def test_an_instance_that_takes_an_id_is_sent_whole(world: World, keeper: Hand) -> None:
    """The worker was never told that the one before had ended."""
    await world.start("a", name="old")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    await keeper.turn(3)
    await world.clients.terminate(at("a"), None, False)
    await world.start("a", name="new")
    for number in range(4, 7):
        item = await keeper.turn(number)
        before = len(keeper.past_seen[number - 2]) if number > 4 else 0
        assert item.known == before
        await world.complete(item, call(number), peer=keeper.worker.peer)
        await world.answer(await keeper.activity(number - 1), peer=keeper.worker.peer)


async def test_the_history_during_a_turn_is_what_the_turn_stands_on(world: World, keeper: Hand) -> None:
    """A worker that has lost what it kept reads it there, beside the new events that it was sent."""
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    item = await keeper.turn(3)
    await world.event("a", "meanwhile")
    assert await world.clients.history(at("a")) == item.past.events
    assert await world.clients.history(at("a"), for_turn=True) == item.past.events
    await world.complete(item, end(), peer=keeper.worker.peer)
    assert kinds(await world.clients.history(at("a")) or [])[-1] == "execution_completed"


async def test_an_instance_that_left_memory_goes_on_with_what_is_new(world: World, keeper: Hand) -> None:
    await world.start("a")
    await step(world, keeper, 1)
    await step(world, keeper, 2)
    item = await keeper.turn(3)
    await world.complete(item, peer=keeper.worker.peer)
    await world.quiet()
    world.engine.drop(world.actor("a"))
    await world.event("a", "more")
    assert (await keeper.turn(4)).known == len(keeper.past_seen[2])


def test_what_is_remembered_of_a_worker_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.work.workers.SEEN_LIMIT", 3)
    seen = Seen()
    for number in range(5):
        seen.keep(("default", str(number)), "e", 7)
    assert [seen.take(("default", str(number)), "e") for number in range(5)] == [0, 0, 7, 7, 7]
    seen.keep(("default", "x"), "e", 7)
    assert seen.take(("default", "x"), "another execution") == 0
    assert seen.take(("default", "x"), "e") == 0, "once asked for, it is relied on no more"
