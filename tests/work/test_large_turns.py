"""Turns whose events are together more than their worker receives: as many as fit go out, the rest comes next."""

from pathlib import Path

import pytest

from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.world import COMPLETED, FakeClock, Hand, World, at, call, end, kinds, raised, until

COUNT = 12


def streaming(name: str = "worker", most: int = 1_500) -> Hand:
    """A worker that fetches the past of a turn: what is new alone must fit."""
    hand = Hand(name, streams_history=True)
    hand.worker.fits = lambda item: sum(1 for end in _ends(item.new) if end <= most)
    return hand


def _ends(new: list[bytes]) -> list[int]:
    return [sum(map(len, new[: count + 1])) for count in range(len(new))]


async def with_events(world: World, count: int = COUNT) -> None:
    """An instance whose first turn has many events."""
    await world.start("a")
    for number in range(count):
        await world.event("a", f"e{number}", "x" * 400)


async def play(world: World, hand: Hand, *, first: int = 1) -> list[str]:
    """Answer turns until all events came; return them in their order."""
    seen: list[str] = []
    number = first
    while len(seen) < COUNT:
        item = await hand.turn(number)
        seen += raised(item.new)
        await world.complete(item, *([end()] if len(seen) == COUNT else []))
        number += 1
    return seen


async def test_results_that_together_exceed_what_the_worker_receives_come_in_several_turns(world: World) -> None:
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    item = await hand.turn(1)
    await world.complete(item, *(call(task) for task in range(COUNT)))
    await hand.activity(COUNT)
    hand.worker.max_turns = 0
    for activity in hand.activities:
        await world.answer(activity, "x" * 400)
    hand.worker.max_turns = 1
    world.dispatch.pump()
    number, tasks = 2, []
    while len(tasks) < COUNT:
        item = await hand.turn(number)
        events = [pb.HistoryEvent.FromString(event) for event in item.new[1:]]
        tasks += [event.task_completed.task_scheduled_id for event in events]
        assert sum(map(len, item.new)) <= 1_500
        number += 1
        await world.complete(item, *([end()] if len(tasks) == COUNT else []))
    assert sorted(tasks) == list(range(COUNT))
    assert await world.status("a") == COMPLETED


async def test_events_keep_their_order_over_the_turns_that_they_need(world: World) -> None:
    await with_events(world)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    assert await play(world, hand) == [f"e{number}" for number in range(COUNT)]
    assert len(hand.turns) == 4
    assert await world.status("a") == COMPLETED


async def test_what_arrives_while_a_part_is_out_comes_behind_the_rest(world: World) -> None:
    await with_events(world, COUNT - 1)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    await hand.turn(1)
    await world.event("a", f"e{COUNT - 1}", "x" * 400)
    assert await play(world, hand) == [f"e{number}" for number in range(COUNT)]


async def test_the_past_shows_each_event_once_and_in_the_order_of_the_turns(world: World) -> None:
    await with_events(world)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    await play(world, hand)
    for before, after, item in zip(hand.past_seen, hand.past_seen[1:], hand.turns, strict=False):
        assert after[: len(before)] == before
        assert [event for event in after[len(before) :] if kinds([event]) != ["orchestrator_started"]] == item.new[1:]


@pytest.mark.parametrize("answered", [0, 1, 2])
async def test_a_restart_between_two_parts_loses_nothing(tmp_path: Path, answered: int) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    world.run()
    await with_events(world)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    seen: list[str] = []
    for number in range(1, answered + 1):
        item = await hand.turn(number)
        seen += raised(item.new)
        await world.complete(item)
    await hand.turn(answered + 1)
    await world.close()

    world = await World.open(tmp_path, clock)
    await world.dispatch.refill()
    world.run()
    hand = streaming("another")
    world.dispatch.add_worker(hand.worker)
    number = 1
    while len(seen) < COUNT:
        item = await hand.turn(number)
        seen += raised(item.new)
        await world.complete(item, *([end()] if len(seen) == COUNT else []), peer="ipv4:another")
        number += 1
    assert seen == [f"e{number}" for number in range(COUNT)]
    await world.close()


async def test_an_answer_whose_commit_was_lost_or_not_stands_for_what_its_worker_has_seen(world: World) -> None:
    await with_events(world)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    item = await hand.turn(1)
    world.store.lost = 1
    await world.complete(item)
    seen = raised(item.new)
    number = 2
    while len(seen) < COUNT:
        item = await hand.turn(number)
        assert raised(item.new)[0] == f"e{len(seen)}"
        seen += raised(item.new)
        await world.complete(item)
        number += 1
    assert seen == [f"e{number}" for number in range(COUNT)]


async def test_a_worker_that_receives_more_gets_more_at_once(world: World) -> None:
    await with_events(world)
    world.dispatch.add_worker(Hand("large", streams_history=True).worker)
    await until(lambda: world.dispatch.turns.out)
    assert len(next(iter(world.dispatch.turns.out.values())).turn.rows) == COUNT + 1  # type: ignore[union-attr]


async def test_a_worker_that_keeps_the_past_and_comes_anew_is_told_of_it_in_portions(world: World) -> None:
    before = Hand("before", keeps_history=True, max_bytes=2_000)
    world.dispatch.add_worker(before.worker)
    await world.start("a")
    for number in range(1, 12):
        await world.complete(await before.turn(number), peer=before.worker.peer)
        await world.event("a", f"e{number}", "x" * 400)
    await before.turn(12)
    world.dispatch.remove_worker(before.worker, farewell=True)

    hand = Hand(keeps_history=True, max_bytes=2_000)
    world.dispatch.add_worker(hand.worker)
    told, number = 0, 1
    while (item := await hand.turn(number)).shown is not None:
        assert (item.known, kinds(item.new)) == (told, ["orchestrator_started"])
        assert item.shown > told
        told, number = item.shown, number + 1
        await world.complete(item, call(99), end(), peer=hand.worker.peer)  # what it makes of a part means nothing
    assert number > 2
    assert (item.known, raised(item.new)) == (told, ["e11"])
    assert hand.activities == []
    await world.complete(item, end(), peer=hand.worker.peer)
    assert await world.status("a") == COMPLETED


async def test_after_a_turn_that_filled_a_worker_that_keeps_the_past_the_next_event_finds_room(world: World) -> None:
    """It has kept what was past at that turn, so that the events of this turn come once more before the next ones."""
    await with_events(world)
    hand = Hand(keeps_history=True, max_bytes=1_500)
    world.dispatch.add_worker(hand.worker)
    seen: list[str] = []
    number = 1
    while len(seen) < COUNT:
        item = await hand.turn(number)
        seen += raised(item.new)
        await world.complete(item, *([end()] if len(seen) == COUNT else []), peer=hand.worker.peer)
        number += 1
    assert seen == [f"e{number}" for number in range(COUNT)]
    assert any(item.shown is not None for item in hand.turns)
    assert await world.status("a") == COMPLETED


async def test_a_part_that_comes_to_nothing_goes_out_again_with_what_fits(world: World) -> None:
    await with_events(world)
    hand = streaming()
    world.dispatch.add_worker(hand.worker)
    first = await hand.turn(1)
    world.answers.abandon_turn(first.token)
    large = Hand("large")
    world.dispatch.add_worker(large.worker)
    item = await large.turn(1)
    assert raised(item.new) == [f"e{number}" for number in range(COUNT)]
    await world.complete(item, end(), peer="ipv4:large")
    assert await world.status("a") == COMPLETED
    assert not world.dispatch.turns.out
    assert await world.clients.instance(at("a")) is not None
