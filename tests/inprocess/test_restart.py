"""Another engine over the same store takes up everything that the first one left."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from sidecar.core.model import Kind
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import DamagedError
from tests.inprocess.world import (
    COMPLETED,
    DONE,
    SUSPENDED,
    FakeClock,
    Hand,
    World,
    at,
    call,
    end,
    kinds,
    raised,
    timer,
)


async def _reopen(directory: Path, clock: FakeClock) -> World:
    world = await World.open(directory, clock)
    await world.dispatch.refill()
    world.run()
    return world


async def test_all_that_waits_is_handed_out_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await _reopen(tmp_path, clock)
    for name in ("turn out", "activity out", "event waits", "timer runs", "suspended"):
        await world.start(name)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await hand.turn(5)
    turns = {item.instance_id: item for item in hand.turns}
    await world.complete(turns["activity out"], call(1))
    await world.complete(turns["timer runs"], timer(1, clock.wall + 60_000_000))
    await world.event("event waits", "news")
    await world.clients.suspend(at("suspended"), None)
    await hand.activity(1)
    await world.close()

    world = await _reopen(tmp_path, clock)
    again = Hand()
    world.dispatch.add_worker(again.worker)
    await again.turn(2)
    await again.activity(1)
    await world.quiet()
    assert {item.instance_id for item in again.turns} == {"turn out", "event waits"}
    assert raised(next(item for item in again.turns if item.instance_id == "event waits").new) == ["news"]
    assert (await world.complete(turns["turn out"], end())).outcome is not DONE, "a token of the earlier process"

    clock.wall += 61_000_000
    assert kinds((await again.turn(3)).new) == ["orchestrator_started", "timer_fired"]
    assert (await world.answer(again.activities[0])).outcome is DONE
    assert kinds((await again.turn(4)).new) == ["orchestrator_started", "task_completed"]
    assert await world.status("suspended") == SUSPENDED
    await world.close()


async def test_the_past_is_the_same_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await _reopen(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), call(1), call(2))
    first, second = await hand.activity(1), await hand.activity(2)
    await world.answer(second)
    item = await hand.turn(2)
    seen = hand.past_seen[1] + item.new
    await world.complete(item, call(3))
    await world.answer(first)
    await hand.turn(3)
    await world.close()

    world = await _reopen(tmp_path, clock)
    again = Hand()
    world.dispatch.add_worker(again.worker)
    await again.turn(1)
    assert again.past_seen[0][: len(seen)] == seen
    assert again.past_seen[0] == hand.past_seen[2]
    await world.close()


async def test_an_activity_of_the_earlier_process_may_be_answered_after_a_restart(tmp_path: Path) -> None:
    """Nothing was lost: the token names the activity in the store, and the first answer counts."""
    clock = FakeClock()
    world = await _reopen(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    item = await hand.activity(1)
    await world.close()

    world = await _reopen(tmp_path, clock)
    assert (await world.answer(item)).outcome is DONE
    again = Hand()
    world.dispatch.add_worker(again.worker)
    assert kinds((await again.turn(1)).new) == ["orchestrator_started", "task_completed"]
    await world.quiet()
    assert again.activities == []
    await world.close()


async def test_a_scheduled_start_that_came_due_while_the_sidecar_was_down_begins_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await _reopen(tmp_path, clock)
    await world.start("a", scheduled_at=clock.wall + 3_600_000_000)
    await world.close()

    clock.wall += 7_200_000_000
    world = await _reopen(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.complete(await hand.turn(1), end())
    assert await world.status("a") == COMPLETED
    await world.close()


async def test_order_numbers_and_keys_are_never_used_again(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await _reopen(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), call(1), end())
    await world.answer(await hand.activity(1))
    await world.purge(at("a"), recursive=False, force=False)
    key, order = world.engine.ids.next_key, world.engine.ids.next_order
    await world.close()

    world = await _reopen(tmp_path, clock)
    assert world.engine.ids.next_key >= key
    assert world.engine.ids.next_order >= order
    await world.close()


async def test_a_queue_that_overflowed_is_filled_again_from_the_store(world: World) -> None:
    world.dispatch.pool.turns.limit = world.dispatch.pool.activities.limit = 8
    await asyncio.gather(*(world.start(f"i{number}") for number in range(40)))
    hand = Hand(turns=3, activities=3)
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 41):
        await world.complete(await hand.turn(number), call(1))
    assert len({item.instance_id for item in hand.turns}) == 40
    for number in range(1, 41):
        assert (await world.answer(await hand.activity(number))).outcome is DONE


@pytest.mark.parametrize("large", [False, True])
async def test_an_activity_that_left_memory_is_read_from_the_store(world: World, large: bool) -> None:
    await world.start("a")
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    action = call(1)
    action.schedule_task.input.value = "x" * (200_000 if large else 10)
    item = await hand.turn(1)
    hand.worker.max_activities = 0
    await world.complete(item, action)
    await world.quiet()
    if not large:
        world.dispatch.activities.at_hand.clear()
    assert not world.dispatch.activities.at_hand, "a large payload is not kept while its activity waits"
    hand.worker.max_activities = 1
    world.dispatch.pump()
    assert len((await hand.activity(1)).request) > (200_000 if large else 10)


async def test_an_activity_that_cannot_be_read_is_handed_out_later(world: World, hand: Hand) -> None:
    """M49"""
    await world.start("a")
    action = call(1)
    action.schedule_task.input.value = "x" * 200_000
    item = await hand.turn(1)
    world.store.failing["reminder"] = 1
    await world.complete(item, action)
    await hand.activity(1)


async def test_reminders_of_other_apps_are_left_to_the_outbox(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1, app="ml"))
    await world.quiet()
    (reminder,) = world.outbox.waiting.values()
    assert (reminder.kind, reminder.target.app, reminder.kept_until_result) == (Kind.ACTIVITY, "ml", True)
    assert hand.activities == []


async def _halfway(directory: Path, clock: FakeClock) -> None:
    """Leave the workflows "good" and "bad" each with a turn to take and a call that is open."""
    world = await _reopen(directory, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    for number, name in enumerate(("good", "bad"), start=1):
        await world.start(name)
        await world.complete(await hand.turn(number), call(1), call(2))
    await hand.activity(4)
    for activity in hand.activities:
        if pb.ActivityRequest.FromString(activity.request).task_id == 1:
            await world.answer(activity)
    await world.quiet()
    await world.close()


def _spoil(directory: Path, what: str) -> None:
    """Set something of the workflow "bad" to what no version has written."""
    statement = f"UPDATE {what} WHERE key = (SELECT key FROM instances WHERE id = 'bad')"  # noqa: S608 (constants)
    (file,) = directory.glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


@pytest.mark.fault(9, "Rows that cannot be read harm their own instance alone; its clients are told so")
@pytest.mark.parametrize(
    ("damage", "readable"),
    [
        ("history SET event = x'ffffffff'", True),
        ("instances SET status = 99", False),
        ("open_calls SET kind = 99", False),
    ],
    ids=["event", "status", "call"],
)
async def test_rows_that_cannot_be_read_harm_nobody_else(tmp_path: Path, damage: str, readable: bool) -> None:
    clock = FakeClock()
    await _halfway(tmp_path, clock)
    _spoil(tmp_path, damage)
    world = await _reopen(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    try:
        assert (await hand.turn(1)).instance_id == "good"
        assert (await world.start("new")).outcome is DONE
        assert (await hand.turn(2)).instance_id == "new"
        if readable:
            assert await world.status("bad") == 0
        else:
            with pytest.raises(DamagedError, match="'bad' cannot be read"):
                await world.status("bad")
        assert not world.dispatch._recovering, "the store is sound"
    finally:
        await world.close()
