"""The queues over the store: what overflows is read again, and what nobody takes keeps nothing else out."""

import asyncio
from typing import Any

import pytest

from sidecar.actors.payloads import AtHand
from sidecar.core.model import Kind, Reminder
from sidecar.store.protocol import Ready
from sidecar.work.workers import Filter
from tests.inprocess.world import DONE, Hand, World, call


async def test_ready_instances_of_a_name_that_nobody_takes_do_not_starve_other_names(world: World) -> None:
    """With more of them than the queue holds, and committed first, so that they are first in the store."""
    world.dispatch.pool.turns.limit = 8
    await asyncio.gather(*(world.start(f"dead {number}", name="dead") for number in range(30)))
    await asyncio.gather(*(world.start(f"live {number}", name="live") for number in range(30)))
    hand = Hand(turns=3, turn_filter=Filter({"live": frozenset()}))
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 31):
        await world.complete(await hand.turn(number))
    assert {item.instance_id for item in hand.turns} == {f"live {number}" for number in range(30)}


async def test_ready_instances_of_a_name_that_nobody_takes_do_not_starve_others_after_a_restart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read from the store, page by page, is more of it than the queue holds."""
    monkeypatch.setattr("sidecar.work.actor_queue.PAGE", 5)
    world.dispatch.pool.turns.limit = 8
    await asyncio.gather(*(world.start(f"dead {number}", name="dead") for number in range(30)))
    await asyncio.gather(*(world.start(f"live {number}", name="live") for number in range(12)))
    for number in range(30):
        world.dispatch.pool.turns.discard(("default", f"dead {number}"))
    for number in range(12):
        world.dispatch.pool.turns.discard(("default", f"live {number}"))
    await world.dispatch.refill()
    hand = Hand(turns=3, turn_filter=Filter({"live": frozenset()}))
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 13):
        await world.complete(await hand.turn(number))


async def test_activities_of_a_name_that_nobody_takes_do_not_starve_other_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.work.activities.PAGE", 5)
    world.dispatch.pool.activities.limit = 8
    flows = Hand("flows", activity_filter=Filter({}))
    world.dispatch.add_worker(flows.worker)
    await world.start("a")
    calls = [call(number, "dead") for number in range(30)] + [call(100 + number, "live") for number in range(20)]
    await world.complete(await flows.turn(1), *calls)
    hand = Hand(activities=2, turn_filter=Filter({}), activity_filter=Filter({"live": frozenset()}))
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 21):
        assert (await world.answer(await hand.activity(number))).outcome is DONE


async def test_an_activity_that_overflows_the_queue_while_it_is_read_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read began before the activity was stored, so that it is not in what was read."""
    activities, backlog = world.dispatch.activities, world.dispatch.pool.activities
    backlog.limit = 2
    gate, read = asyncio.Event(), world.store.activities
    await world.start("a")
    hand = Hand(activities=0)
    world.dispatch.add_worker(hand.worker)
    item = await hand.turn(1)

    async def slow(after: int, limit: int) -> list[Reminder]:
        found: list[Reminder] = await read(after, limit)
        await gate.wait()
        return found

    monkeypatch.setattr(activities._store, "activities", slow)
    reading = asyncio.create_task(activities.refill())
    await asyncio.sleep(0.01)
    await world.complete(item, *(call(number) for number in range(5)))
    await world.quiet()
    gate.set()
    await reading
    hand.worker.max_activities = 5
    world.dispatch.pump()
    await hand.activity(5)


async def test_an_instance_that_overflows_the_queue_while_it_is_read_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog, read = world.dispatch.pool.turns, world.store.ready
    backlog.limit = 2
    gate = asyncio.Event()

    async def slow(after: int, limit: int, entities: bool = False) -> list[Ready]:
        found: list[Ready] = await read(after, limit, entities)
        await gate.wait()
        return found

    monkeypatch.setattr(world.store, "ready", slow, raising=False)
    reading = asyncio.create_task(world.dispatch.refill())
    await asyncio.sleep(0.01)
    await asyncio.gather(*(world.start(f"i{number}") for number in range(5)))
    gate.set()
    await reading
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await hand.turn(5)


async def test_an_activity_that_was_done_while_it_was_read_does_not_come_back(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    item = await hand.activity(1)
    read = world.store.activities

    async def slow(*args: Any) -> list[Reminder]:
        found: list[Reminder] = await read(*args)
        await world.answer(item)
        return found

    monkeypatch.setattr(world.dispatch.activities._store, "activities", slow)
    await world.dispatch.activities.refill()
    await world.quiet()
    assert len(hand.activities) == 1
    assert all(reminder.kind is not Kind.ACTIVITY for reminder in await read(0, 10))


async def test_a_slot_whose_activity_is_gone_is_given_to_another_at_once(world: World) -> None:
    """Its payload is read from the store when it is handed out, and by then a purge has removed it."""
    flows = Hand("flows", activity_filter=Filter({}))
    world.dispatch.add_worker(flows.worker)
    await world.start("a")
    await world.start("b")
    await world.complete(await flows.turn(1), call(1))
    await world.complete(await flows.turn(2), call(1))
    await world.quiet()
    activities = world.dispatch.activities
    activities.at_hand.clear()
    read, asked = world.store.reminder, []

    async def gone(number: int) -> Reminder | None:
        asked.append(number)
        return None if len(asked) == 1 else await read(number)

    activities._store.reminder = gone  # type: ignore[method-assign]
    hand = Hand(activities=1, turn_filter=Filter({}))
    world.dispatch.add_worker(hand.worker)
    await hand.activity(1)
    assert len(asked) == 2


async def test_an_activity_whose_worker_leaves_while_it_is_read_goes_to_another(world: World) -> None:
    flows = Hand("flows", activity_filter=Filter({}))
    world.dispatch.add_worker(flows.worker)
    await world.start("a")
    await world.complete(await flows.turn(1), call(1))
    await world.quiet()
    activities = world.dispatch.activities
    activities.at_hand.clear()
    read, asked, over = world.store.reminder, asyncio.Event(), asyncio.Event()

    async def slow(number: int) -> Reminder | None:
        asked.set()
        await over.wait()
        return await read(number)

    activities._store.reminder = slow  # type: ignore[method-assign]
    leaving, staying = (Hand(name, turn_filter=Filter({})) for name in ("leaving", "staying"))
    world.dispatch.add_worker(leaving.worker)
    await asked.wait()
    world.dispatch.remove_worker(leaving.worker)
    world.dispatch.add_worker(staying.worker)
    over.set()
    assert (await world.answer(await staying.activity(1))).outcome is DONE
    assert leaving.activities == []


async def test_a_page_of_activities_that_its_bytes_make_short_is_not_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = Hand("flows", activity_filter=Filter({}))
    world.dispatch.add_worker(flows.worker)
    await world.start("a")
    await world.complete(await flows.turn(1), *(call(number) for number in range(5)))
    await world.quiet()
    activities, read = world.dispatch.activities, world.store.activities
    for reminder in await read(0, 10):
        activities.discard(reminder.id)

    async def two(after: int, limit: int) -> list[Reminder]:
        found: list[Reminder] = await read(after, min(limit, 2))
        return found

    monkeypatch.setattr(activities._store, "activities", two, raising=False)
    await activities.refill()
    assert len(world.dispatch.pool.activities) == 5


async def test_activities_that_wait_take_no_more_memory_than_they_may(world: World) -> None:
    activities = world.dispatch.activities
    activities.at_hand = AtHand(200_000)
    flows = Hand("flows", activity_filter=Filter({}))
    world.dispatch.add_worker(flows.worker)
    await world.start("a")
    calls = [call(number) for number in range(10)]
    for one in calls:
        one.schedule_task.input.value = "x" * 60_000
    await world.complete(await flows.turn(1), *calls)
    await world.quiet()
    assert (len(world.dispatch.pool.activities), len(activities.at_hand)) == (10, 3)
    hand = Hand(activities=2, turn_filter=Filter({}))
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 11):
        assert (await world.answer(await hand.activity(number))).outcome is DONE
