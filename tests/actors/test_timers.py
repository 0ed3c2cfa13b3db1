"""Reminders are delivered when they are due: in order, once, whatever the clock does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sidecar.actors import timers as module
from sidecar.actors.payloads import AtHand
from sidecar.actors.timers import HORIZON_MICROS, Timers
from sidecar.core.model import NO_CALL, ActorId, Kind, Position, Reminder
from sidecar.store.protocol import UnavailableError
from tests.inprocess.world import ME, START, FakeClock, until

SECOND = 1_000_000
TARGET = ME.workflow("default", "a")


NOBODY = ActorId("", "", "", "", "")


def reminder(number: int, due: int) -> Reminder:
    return Reminder(number, Kind.TIMER, 1, TARGET, NOBODY, NO_CALL, START + due, "", b"")


class Shelf:
    """The stored reminders."""

    def __init__(self) -> None:
        self.stored: dict[int, Reminder] = {}
        self.failing = 0
        self.reads = 0
        self.fetched: list[int] = []

    async def recovered(self) -> None:
        """There is no trouble that would last."""

    async def reminder(self, number: int) -> Reminder | None:
        self.fetched.append(number)
        if self.failing:
            self.failing -= 1
            raise UnavailableError("no disk")
        return self.stored.get(number)

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        self.reads += 1
        if self.failing:
            self.failing -= 1
            raise UnavailableError("no disk")
        found = sorted((item for item in self.stored.values() if item.due <= before), key=lambda r: (r.due, r.id))
        await asyncio.sleep(0)
        return [item for item in found if (item.due, item.id) > after][:limit]


class Bench:
    """Timers over a shelf; what is delivered leaves the shelf, as after a commit."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.shelf = Shelf()
        self.delivered: list[int] = []
        self.early: list[int] = []
        self.slow: list[asyncio.Future[None]] | None = None  # deliveries that the test ends, if it wants to
        self.timers = Timers(self.shelf, self.clock, self._deliver)  # type: ignore[arg-type]

    def _deliver(self, item: Reminder) -> "asyncio.Future[None] | None":
        self.delivered.append(item.id)
        self.shelf.stored.pop(item.id, None)
        if item.due > self.clock.wall:
            self.early.append(item.id)
        if self.slow is None:
            return None
        self.slow.append(asyncio.get_running_loop().create_future())
        return self.slow[-1]

    def set(self, *items: Reminder) -> None:
        for item in items:
            self.shelf.stored[item.id] = item
            self.timers.add(item)

    def drop(self, number: int) -> None:
        del self.shelf.stored[number]
        self.timers.discard(number)

    async def filled(self) -> None:
        """Return when the timers have read the shelf."""
        reads = self.shelf.reads
        await until(lambda: self.shelf.reads > reads or reads)
        await asyncio.sleep(0.01)

    async def look(self) -> None:
        """Let the timers look at the clock now, as they do once a second."""
        self.timers._changed.set()
        await asyncio.sleep(0.01)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.create_task(bench.timers.run())
    yield bench
    assert not task.done(), "the timers died"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.early == []


async def test_what_is_due_goes_in_order_of_its_time_then_of_its_number(bench: Bench) -> None:
    await bench.filled()
    bench.set(reminder(5, 20), reminder(4, 10), reminder(3, 20), reminder(2, 10), reminder(9, 5))
    assert bench.timers.pop_due(START + 4) == []
    assert bench.timers.pop_due(START + 10) == [9, 2, 4]
    assert bench.timers.pop_due(START + 10**9) == [3, 5]
    assert bench.timers.pop_due(START + 10**9) == []


async def test_a_reminder_that_is_due_at_once_is_delivered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes the timers, which do not look at the clock for an hour."""
    monkeypatch.setattr(module, "_LONGEST_NAP", 3_600.0)
    bench = Bench()
    task = asyncio.create_task(bench.timers.run())
    await bench.filled()
    bench.set(reminder(1, 0), reminder(2, -SECOND))
    await until(lambda: bench.delivered == [2, 1])
    task.cancel()


async def test_of_a_crowd_that_is_due_at_once_a_part_at_a_time_is_under_way(bench: Bench) -> None:
    """Else a start that comes in waits behind all of it."""
    await bench.filled()
    bench.slow = []
    bench.set(*(reminder(number, 1) for number in range(1, 251)))
    bench.clock.wall += 10
    await bench.look()
    assert bench.delivered == list(range(1, 101))
    for slow in bench.slow:
        slow.set_result(None)
    await until(lambda: len(bench.delivered) == 200)
    await until(lambda: len(bench.delivered) == 250)  # nobody is held up for long by one that is slow
    assert bench.delivered == list(range(1, 251))


async def test_a_dropped_reminder_is_not_delivered(bench: Bench) -> None:
    await bench.filled()
    bench.set(reminder(1, SECOND), reminder(2, SECOND))
    bench.drop(1)
    bench.timers.discard(77)
    bench.clock.wall += 2 * SECOND
    await bench.look()
    assert bench.delivered == [2]


async def test_what_is_stored_is_read_at_the_start() -> None:
    bench = Bench()
    bench.shelf.stored = {number: reminder(number, -number) for number in range(1, 4)}
    task = asyncio.create_task(bench.timers.run())
    await until(lambda: bench.delivered == [3, 2, 1])
    task.cancel()


async def test_what_is_far_away_stays_in_the_store_until_it_is_near(bench: Bench) -> None:
    await bench.filled()
    far = HORIZON_MICROS * 3
    bench.set(reminder(1, far), reminder(2, SECOND))
    assert len(bench.timers._heap) == 1
    for _ in range(7):
        bench.clock.wall += HORIZON_MICROS // 2 - 1
        await bench.look()
        assert bench.delivered == ([2, 1] if bench.clock.wall >= START + far else [2])
    assert bench.delivered == [2, 1]


async def test_reading_again_delivers_nothing_twice(bench: Bench) -> None:
    await bench.filled()
    bench.set(*(reminder(number, number * SECOND) for number in range(1, 6)))
    bench.timers.reload()
    await bench.look()
    bench.timers.reload()
    bench.set(reminder(6, 6 * SECOND))
    await bench.look()
    bench.clock.wall += 10 * SECOND
    await bench.look()
    assert bench.delivered == [1, 2, 3, 4, 5, 6]


async def test_a_store_that_cannot_be_read_is_read_again(bench: Bench) -> None:
    """M49"""
    bench.shelf.failing = 2
    bench.shelf.stored[1] = reminder(1, 0)
    bench.timers.reload()
    await bench.look()
    await bench.look()
    await bench.look()
    assert bench.delivered == [1]


@pytest.mark.fault(11, "A clock that jumps forward loses no timer")
async def test_a_clock_that_jumps_forward_loses_nothing(bench: Bench) -> None:
    await bench.filled()
    bench.set(*(reminder(number, number * HORIZON_MICROS // 3) for number in range(1, 13)))
    bench.clock.wall += 100 * HORIZON_MICROS
    await bench.look()
    assert bench.delivered == list(range(1, 13))


async def test_a_clock_that_jumps_back_delivers_nothing_early_and_loses_nothing(bench: Bench) -> None:
    await bench.filled()
    bench.set(reminder(1, 10 * SECOND), reminder(2, 20 * SECOND))
    bench.clock.wall += 11 * SECOND
    await bench.look()
    assert bench.delivered == [1]
    bench.clock.wall -= 3_600 * SECOND
    await bench.look()
    bench.set(reminder(3, -3_000 * SECOND), reminder(4, 15 * SECOND))
    await bench.look()
    assert bench.delivered == [1]
    bench.clock.wall += 700 * SECOND
    await bench.look()
    assert bench.delivered == [1, 3]
    bench.clock.wall += 3_600 * SECOND
    await bench.look()
    assert bench.delivered == [1, 3, 4, 2]


async def test_more_than_is_held_at_once_is_read_page_by_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(module, "LIMIT", 10)
    bench.shelf.stored = {number: reminder(number, (number // 4) * SECOND) for number in range(1, 101)}
    bench.timers.reload()
    for _ in range(60):
        await bench.look()
        bench.clock.wall += SECOND
    assert bench.delivered == list(range(1, 101))


async def test_a_page_that_its_bytes_make_short_is_not_the_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.filled()
    read = bench.shelf.due

    async def two(before: int, after: Position, _limit: int) -> list[Reminder]:
        return await read(before, after, 2)

    monkeypatch.setattr(bench.shelf, "due", two)
    for number in range(1, 8):
        bench.shelf.stored[number] = reminder(number, number * SECOND)
    bench.timers.reload()
    await bench.look()
    bench.clock.wall += 10 * SECOND
    await bench.look()
    await until(lambda: bench.delivered == list(range(1, 8)))


async def test_what_is_let_go_since_too_many_wait_is_read_again_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 10)
    await bench.filled()
    bench.set(*(reminder(number, number * SECOND) for number in range(1, 26)))
    assert len(bench.timers._known) < 25
    for _ in range(6):
        bench.clock.wall += 5 * SECOND
        await bench.look()
    await until(lambda: bench.delivered == list(range(1, 26)))


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_full_heap_of_later_reminders_does_not_hold_up_an_earlier_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    """Many sleep, or were dropped before their time; one set meanwhile is due soon."""
    monkeypatch.setattr(module, "LIMIT", 10)
    await bench.filled()
    bench.set(*(reminder(number, HORIZON_MICROS - SECOND) for number in range(1, 21)))
    if dropped:
        for number in range(1, 21):
            bench.drop(number)
    bench.clock.wall += HORIZON_MICROS // 2 + SECOND
    await bench.look()
    bench.set(reminder(99, HORIZON_MICROS // 2 + 2 * SECOND))
    bench.clock.wall += 2 * SECOND
    for _ in range(5):
        await bench.look()
    assert bench.delivered == [99]


async def test_reminders_that_are_dropped_before_their_time_do_not_pile_up(bench: Bench) -> None:
    """A time-out that is set and taken back for each of a million calls costs nothing for ten minutes."""
    await bench.filled()
    for number in range(1, 20_001):
        bench.set(reminder(number, HORIZON_MICROS // 2))
        bench.drop(number)
    assert len(bench.timers._heap) < 10_000


async def test_dropping_while_the_store_is_read_does_no_harm(bench: Bench) -> None:
    await bench.filled()
    bench.set(*(reminder(number, SECOND) for number in range(1, 50)))
    bench.clock.wall += HORIZON_MICROS // 2 + SECOND

    def racing(before: int, after: Position, limit: int) -> Any:
        read = real(before, after, limit)

        async def answer() -> list[Reminder]:
            found = await read
            for item in found[:10]:
                bench.drop(item.id)
            return list(found)

        return answer()

    real, bench.shelf.due = bench.shelf.due, racing  # type: ignore[method-assign]
    bench.clock.wall -= HORIZON_MICROS // 2
    bench.timers._complete_until = 0
    await bench.look()
    bench.shelf.due = real  # type: ignore[method-assign]
    await bench.look()
    assert set(range(11, 50)) <= set(bench.delivered)


async def test_a_crowd_that_is_more_than_is_held_at_once_is_not_read_anew_for_each_part_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 1_000)
    monkeypatch.setattr(module, "PAGE", 1_000)
    await bench.filled()
    before = bench.shelf.reads
    bench.shelf.stored = {number: reminder(number, 1) for number in range(1, 10_001)}
    bench.timers.reload()
    bench.clock.wall += SECOND
    await until(lambda: len(bench.delivered) == 10_000, 20)
    assert bench.delivered == list(range(1, 10_001))
    assert bench.shelf.reads - before < 50, "a read for each half of what is held, not for each hundred"


def large(number: int, due: int) -> Reminder:
    return replace(reminder(number, due), payload=b"x" * 70_000)


async def test_payloads_that_wait_take_no_more_memory_than_they_may(bench: Bench) -> None:
    """Large ones, and small ones beyond the sum that is kept, are read from the store when they are due, in order."""
    await bench.filled()
    bench.timers.at_hand = AtHand(10_000)
    bench.set(*(replace(reminder(number, SECOND), payload=b"x" * 1_000) for number in range(1, 11)), large(11, SECOND))
    bench.clock.wall += 2 * SECOND
    await bench.look()
    assert bench.delivered == list(range(1, 12))
    assert bench.shelf.fetched == list(range(6, 12))


async def test_a_payload_that_cannot_be_read_is_read_again(bench: Bench) -> None:
    await bench.filled()
    bench.set(large(1, SECOND), reminder(2, SECOND))
    bench.shelf.failing = 2
    bench.clock.wall += 2 * SECOND
    await until(lambda: bench.delivered == [1, 2], 10)


async def test_a_reminder_that_is_dropped_while_it_is_read_is_not_delivered(bench: Bench) -> None:
    await bench.filled()
    gate, read = asyncio.Event(), bench.shelf.reminder

    async def slow(number: int) -> Reminder | None:
        found = await read(number)
        await gate.wait()
        return found

    bench.shelf.reminder = slow  # type: ignore[method-assign]
    bench.set(large(1, SECOND), large(2, SECOND))
    bench.clock.wall += 2 * SECOND
    await bench.look()
    bench.drop(1)
    gate.set()
    await until(lambda: bench.delivered == [2])
