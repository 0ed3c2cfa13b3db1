"""A workflow reads as running as soon as a worker has its first turn (E.5): to who gets it, waits for it, or lists."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core.model import Status
from sidecar.services.clients import InstanceView
from sidecar.store.protocol import BEGINNING, Criteria, Order
from tests.inprocess.world import Hand, World, at, call, end


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def listed(world: World, *statuses: Status) -> list[tuple[str, Status]]:
    criteria = Criteria("default", frozenset(statuses))
    page = await world.services.queries.page(criteria, Order.CREATED, BEGINNING, 10)
    return [(one.id, one.status) for one in page.found]


async def test_it_is_pending_until_a_worker_has_it_and_runs_from_then_on(world: World) -> None:
    await world.start("a")
    await world.start("b")
    assert await world.status("a") == Status.PENDING
    hand = Hand(turns=1)
    world.dispatch.add_worker(hand.worker)
    item = await hand.turn(1)
    assert await world.status(item.instance_id) == Status.RUNNING
    instance = await world.clients.instance(at(item.instance_id))
    assert instance is not None
    assert instance.started_at is not None
    other = "b" if item.instance_id == "a" else "a"
    assert await listed(world, Status.RUNNING) == [(item.instance_id, Status.RUNNING)]
    assert await listed(world, Status.PENDING) == [(other, Status.PENDING)]
    assert len(await listed(world, *Status)) == 2
    await world.complete(item, call(1))
    assert await listed(world, Status.RUNNING) == [(item.instance_id, Status.RUNNING)]
    after = await world.clients.instance(at(item.instance_id))
    assert after is not None
    assert after.started_at == instance.started_at


async def test_who_waits_for_its_start_is_told_when_a_worker_has_it(world: World) -> None:
    """WaitForInstanceStart does not wait for the end of the first turn, which may take long."""
    await world.start("a")
    waiting: asyncio.Task[InstanceView | None] = asyncio.create_task(
        world.clients.wait(at("a"), ended=False, payloads=False)
    )
    await world.quiet()
    assert not waiting.done()
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    item = await hand.turn(1)
    view = await asyncio.wait_for(waiting, 2)
    assert view is not None
    assert view.instance.status is Status.RUNNING
    await world.complete(item, end())


async def test_what_its_worker_has_lost_before_an_answer_waits_again(world: World) -> None:
    await world.start("a")
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await hand.turn(1)
    world.dispatch.remove_worker(hand.worker)
    await world.quiet()
    assert await world.status("a") == Status.PENDING
