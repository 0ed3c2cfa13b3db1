"""Ended workflows go when they have been kept for their time, and nothing else does."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.model import Changes, Instance, Kind, Parent, Position, Status
from sidecar.services.retention import Retention, kept_for
from tests.inprocess.world import START, Hand, World, at, child, end, until
from tests.store.builders import instance, reminder, workflow

DAY = 86_400.0
MICROS = 1_000_000


async def put(world: World, *instances: Instance) -> None:
    assert set(await world.store.real.commit([Changes(key=one.key, instance=one) for one in instances])) <= {None}


def ended(key: int, status: Status = Status.COMPLETED, ago: float = 2 * DAY, **fields: Any) -> Instance:
    return instance(key, f"i{key}", **{"status": status, "completed_at": START - int(ago * MICROS)} | fields)


async def left(world: World) -> set[str]:
    found = [await world.store.real.load("default", f"i{key}") for key in range(1, 10)]
    return {state.instance.id for state in found if state is not None}


async def gone(world: World) -> None:
    async with asyncio.timeout(5):
        while await left(world):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_a_policy_is_by_status_and_any_is_for_the_others() -> None:
    assert kept_for({}) == {}
    assert kept_for({"completed": 1.0}) == {Status.COMPLETED: 1.0}
    assert kept_for({"any": 5.0, "failed": 9.0}) == {
        Status.COMPLETED: 5.0, Status.FAILED: 9.0, Status.TERMINATED: 5.0, Status.CANCELED: 5.0,
    }  # fmt: skip


async def test_what_has_ended_goes_after_the_time_for_its_status(world: World) -> None:
    statuses = [Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED]
    rows = [ended(key, status) for key, status in enumerate(statuses, 1)]
    live = [instance(key, f"i{key}", status=status, created_at=1, updated_at=1) for key, status in
            ((5, Status.RUNNING), (6, Status.PENDING), (7, Status.SUSPENDED), (8, Status.STALLED))]  # fmt: skip
    await put(world, *rows, *live)
    retention = Retention(world.engine, {"completed": DAY, "canceled": DAY, "failed": 3 * DAY})
    assert await retention.sweep() == 2
    assert await left(world) == {"i2", "i3", "i5", "i6", "i7", "i8"}
    world.clock.wall += int(DAY * MICROS)
    assert await retention.sweep() == 1
    assert await left(world) == {"i3", "i5", "i6", "i7", "i8"}


@pytest.mark.parametrize(("ago", "goes"), [(10.0, True), (9.999_999, False)])
async def test_the_time_is_kept_to_the_microsecond(world: World, ago: float, goes: bool) -> None:
    await put(world, ended(1, ago=ago))
    assert await Retention(world.engine, {"completed": 10.0}).sweep() == goes


async def test_all_of_what_has_piled_up_goes_in_every_hub(world: World) -> None:
    await put(world, *(ended(key) for key in range(1, 221)), *(ended(key, hub="blue") for key in range(301, 321)))
    assert await Retention(world.engine, {"any": DAY}).sweep() == 240
    assert await world.store.real.hubs() == []
    assert max(len(batch) for batch in world.store.batches) <= 50


@pytest.mark.parametrize("what", ["purged", "started anew", "changed", "runs again"])
async def test_what_changed_meanwhile_is_left_alone_without_a_word(
    world: World, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """M68: a retention that fires for an ID that was since restarted, purged or stalled is dropped silently."""
    seen = ended(1)
    await put(world, seen)
    query = world.store.real.query

    async def then_it_changes(*given: Any) -> Any:
        page = await query(*given)
        if what == "purged":
            await world.purge(at("i1"), recursive=False, force=False)
        elif what == "started anew":
            await world.start("i1")
        else:
            status = Status.FAILED if what == "changed" else Status.STALLED
            row = replace(seen, revision=2, status=status, custom_status="new")
            assert await world.store.real.commit([Changes(key=1, expected=1, instance=row)]) == [None]
        return page

    world.store.query = then_it_changes  # type: ignore[attr-defined]
    assert await Retention(world.engine, {"completed": DAY}).sweep() == 0
    assert await left(world) == (set() if what == "purged" else {"i1"})
    assert capsys.readouterr().out == ""


async def test_a_child_is_kept_by_its_own_end(world: World, hand: Hand) -> None:
    """M67: never recursive."""
    await world.start("i1")
    await world.complete(await hand.turn(1), child(1, "i2"))
    await world.complete(await hand.turn(2), end())
    await world.complete(await hand.turn(3), end())
    await until(lambda: not world.dispatch.busy())
    assert await left(world) == {"i1", "i2"}
    world.clock.wall += 10 * MICROS
    state = await world.store.real.load("default", "i2")
    assert state is not None
    row = replace(state.instance, revision=state.instance.revision + 1, completed_at=world.clock.wall)
    await world.engine.tasks.drain()
    world.engine.drop(world.actor("i2"))
    assert await world.store.real.commit([Changes(key=row.key, expected=row.revision - 1, instance=row)]) == [None]
    assert await Retention(world.engine, {"completed": 5.0}).sweep() == 1
    assert await left(world) == {"i2"}
    assert await world.store.real.due(2**62, Position(-1, 0), 10) == []


async def test_the_result_of_a_child_that_is_on_its_way_is_not_lost(world: World) -> None:
    home = workflow("far", ("default", "ml"))
    answer = reminder(1, Kind.RESULT, target=home, source=workflow("i1"))
    one = ended(1, parent=Parent(home, answer.call))
    assert await world.store.real.commit([Changes(key=1, instance=one, set=(answer,))]) == [None]
    assert await Retention(world.engine, {"any": DAY}).sweep() == 1
    assert await world.store.real.reminder(1) == answer


async def test_it_goes_on_for_ever_and_over_failures_of_the_store(world: World) -> None:
    retention = asyncio.create_task(Retention(world.engine, {"completed": DAY}).run())
    world.store.failing["query"] = 1
    await put(world, ended(1))
    await until(lambda: not world.store.failing["query"])
    await gone(world)
    await put(world, ended(2))
    await gone(world)
    retention.cancel()


async def test_a_failed_commit_is_tried_again_at_the_next_look(world: World) -> None:
    await put(world, ended(1))
    world.store.failing["commit"] = 1
    retention = asyncio.create_task(Retention(world.engine, {"completed": DAY}).run())
    await gone(world)
    assert not retention.done()
    retention.cancel()


async def test_without_a_policy_nothing_is_looked_at(world: World) -> None:
    await put(world, ended(1))
    await asyncio.wait_for(Retention(world.engine, {}).run(), 1.0)
    assert await left(world) == {"i1"}


@pytest.mark.parametrize(("seconds", "pause"), [(0.1, 0.05), (10.0, 0.5), (30 * DAY, 60.0)])
async def test_it_looks_as_often_as_the_shortest_time_asks_for(world: World, seconds: float, pause: float) -> None:
    retention = asyncio.create_task(Retention(world.engine, {"completed": seconds, "failed": 90 * DAY}).run())
    await until(lambda: pause in world.clock.slept)
    retention.cancel()
