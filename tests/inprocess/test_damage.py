"""Rows that cannot be read, one of each kind: they are left out and said, and everything else goes on."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.actors.tasks import kept_up
from sidecar.services.retention import Retention
from sidecar.store.protocol import BEGINNING, Criteria, Order
from sidecar.store.sqlite import check
from tests.inprocess.world import START, FakeClock, Hand, World, call, end, timer, until

# ruff: noqa: ASYNC240, S608 (files are looked at while nothing else runs; statements are the test's)
SECOND = 1_000_000


def run(directory: Path, statement: str) -> None:
    (file,) = directory.glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


@pytest.fixture
async def sleepers(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[World]]]:
    """Workflows "bad" and "good" that have set a timer; opened anew when something of them was spoilt."""
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    for number, name in enumerate(("bad", "good"), start=1):
        await world.start(name)
        await world.complete(await hand.turn(number), timer(1, START + number * SECOND))
    await world.close()
    opened: list[World] = []

    async def spoilt(statement: str) -> World:
        run(tmp_path, statement)
        clock.wall = START + 10 * SECOND
        opened.append(await World.open(tmp_path, clock))
        return opened[-1]

    yield spoilt
    for one in opened:
        await one.close()


BAD = "(SELECT key FROM instances WHERE id = 'bad')"


@pytest.mark.fault(9, "A reminder that cannot be read is left out, and shown by the check; the others fire")
@pytest.mark.parametrize(
    "spoil",
    ["kind = 99", "kind = 'x'", "task = 'x'", "target_id = CAST(x'ff' AS TEXT)", "payload = 7"],
    ids=["kind", "number", "call", "text", "payload"],
)
async def test_a_reminder_that_cannot_be_read_is_left_out_and_the_others_fire(
    tmp_path: Path, sleepers: Callable[[str], Awaitable[World]], spoil: str
) -> None:
    with capture_logs() as logs:
        world = await sleepers(f"UPDATE reminders SET {spoil} WHERE owner = {BAD}")
        hand = Hand()
        world.dispatch.add_worker(hand.worker)
        world.run()
        item = await hand.turn(1)
        assert item.instance_id == "good"
        assert all(not task.done() for task in world._side), "nothing that serves has ended"
    said = [entry for entry in logs if "left out" in entry["event"]]
    assert [entry["of"] for entry in said] == ["reminder"], "once, however often it is read"
    (file,) = tmp_path.glob("*.db")
    assert any("reminder 1 cannot be read" in line for line in check.problems(file))


async def test_a_damaged_instance_with_a_due_timer_lets_nothing_be_read_again_and_again(
    sleepers: Callable[[str], Awaitable[World]],
) -> None:
    with capture_logs() as logs:
        world = await sleepers("UPDATE instances SET rewind = 99 WHERE id = 'bad'")
        hand = Hand()
        world.dispatch.add_worker(hand.worker)
        world.run()
        assert (await hand.turn(1)).instance_id == "good"
        await asyncio.sleep(0.05)  # the clock's sleepers wake after 2 ms: 25 rounds
        assert world.outbox.reloads == 0
    assert len([entry for entry in logs if entry["event"] == "an instance cannot be read"]) == 1


async def test_a_command_that_needs_a_damaged_instance_blocks_nothing_behind_it(
    sleepers: Callable[[str], Awaitable[World]],
) -> None:
    world = await sleepers(f"UPDATE reminders SET kind = 8 WHERE owner = {BAD}")  # an order of an older sidecar
    await world.close()
    world = await sleepers("UPDATE instances SET rewind = 99 WHERE id = 'bad'")
    world.run()
    await until(lambda: not world.reminders._reading)
    await asyncio.sleep(0.02)
    assert not world.reminders._held
    assert world.outbox.reloads == 0


@pytest.mark.parametrize("spoil", ["rewind = 99", "name = x'ff'", "custom_status = CAST(x'ff' AS TEXT)"])
async def test_retention_and_queries_go_past_an_instance_that_cannot_be_read(tmp_path: Path, spoil: str) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    for number, name in enumerate(("a", "bad", "c"), start=1):
        await world.start(name)
        await world.complete(await hand.turn(number), end())
    await world.close()
    run(tmp_path, f"UPDATE instances SET {spoil} WHERE id = 'bad'")
    world = await World.open(tmp_path, clock)
    found = []
    cursor = BEGINNING
    while cursor is not None:
        page = await world.store.query(Criteria("default"), Order.CREATED, cursor, 1)
        found += [one.id for one in page.found]
        cursor = page.next
    assert found == ["a", "c"]
    clock.wall += 100 * SECOND
    assert await Retention(world.engine, {"any": 1.0}).sweep() == 2
    assert await Retention(world.engine, {"any": 1.0}).sweep() == 0
    await world.close()


async def test_retention_goes_past_an_instance_whose_calls_cannot_be_read(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.start("bad")
    await world.complete(await hand.turn(1), call(1), end())
    await world.start("good")
    await world.complete(await hand.turn(2), end())
    await world.close()
    columns = "key, task, turn, execution, kind, name, target_namespace, target_app, target_kind, target_hub, target_id"
    values = f"{BAD}, 7, 1, 'e', 99, '', '', '', '', '', ''"
    run(tmp_path, f"INSERT INTO open_calls ({columns}, reminder, entities) VALUES ({values}, 0, '')")
    world = await World.open(tmp_path, clock)
    clock.wall += 100 * SECOND
    assert await Retention(world.engine, {"any": 1.0}).sweep() == 1
    assert await world.status("good") == -1
    await world.close()


async def test_an_activity_whose_request_cannot_be_read_keeps_no_other_from_the_workers(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    hand = Hand(activities=0)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), call(1, "broken"), call(2, "fine"))
    await world.close()
    run(tmp_path, "UPDATE reminders SET payload = x'ffffffff' WHERE name = 'broken'")
    world = await World.open(tmp_path)
    worker = Hand(turns=0)
    world.dispatch.add_worker(worker.worker)
    await world.dispatch.refill()
    await worker.activity(1)
    await world.quiet()
    assert len(worker.activities) == 1
    await world.close()


async def test_what_serves_for_ever_is_started_again_after_a_pause_and_the_failure_is_logged() -> None:
    began = 0
    slept: list[float] = []

    async def work() -> None:
        nonlocal began
        began += 1
        if began < 3:
            raise ValueError("a row")

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with capture_logs() as logs:
        await kept_up(work, "outbox ml", sleep)
    assert (began, slept) == (3, [0.5, 1.0])
    assert [entry["task"] for entry in logs] == ["outbox ml"] * 2
