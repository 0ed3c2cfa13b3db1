"""A history that comes near what its workers receive is said in the log and to whoever looks, before it is too late."""

import itertools
from typing import Any

import pytest
import structlog

from sidecar.core.model import Changes
from sidecar.work import large_histories
from sidecar.work.large_histories import LargeHistories
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group
from tests.inprocess.world import CONTINUED_AS_NEW, Hand, World, call, end, until

LIMIT = 6_000


async def step(world: World, hand: Hand, number: int, size: int = 500) -> None:
    """Answer the n-th turn with a call, and that with a result of so many bytes."""
    await world.complete(await hand.turn(number), call(number), peer=hand.worker.peer)
    await world.answer(await hand.activity(number), f'"{"x" * size}"', peer=hand.worker.peer)


async def grown(world: World, hand: Hand) -> int:
    """Go on until the history is said to be large; return the number of the last turn that was answered."""
    for number in itertools.count(1):
        await step(world, hand, number)
        await hand.turn(number + 1)
        if world.dispatch.turns.large.shown():
            return number
    raise AssertionError


def warnings(logged: list[Any]) -> list[str]:
    return [entry["event"].split(":")[0] for entry in logged if entry["event"].startswith("history is")]


async def test_it_is_said_once_before(world: World) -> None:
    hand = Hand(max_bytes=LIMIT)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    with structlog.testing.capture_logs() as logged:
        await grown(world, hand)
        assert warnings(logged) == ["history is about to become larger than its workers receive"]
        (shown,) = world.dispatch.turns.large.shown()
        assert (shown["instance"], shown["limit"]) == ("a", LIMIT)
        assert LIMIT * 0.75 < int(str(shown["bytes"])) <= LIMIT
    assert len(warnings(logged)) == 1


async def test_what_a_worker_that_keeps_the_past_is_told_of_in_portions_is_nothing_to_warn_of(world: World) -> None:
    hand = Hand(keeps_history=True, max_bytes=LIMIT)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    with structlog.testing.capture_logs() as logged:
        for number in range(1, 21):
            await step(world, hand, number)
        assert (await hand.turn(21)).past.size > LIMIT
    assert (warnings(logged), world.dispatch.turns.large.shown()) == ([], [])


async def test_what_another_worker_could_receive_is_nothing_to_warn_of(world: World) -> None:
    hand = Hand(max_bytes=LIMIT)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await hand.turn(1)
    world.dispatch.add_worker(Hand("large", turns=0, activities=0, max_bytes=LIMIT * 10).worker)
    for number in range(1, 11):
        await step(world, hand, number)
    assert (await hand.turn(11)).past.size > LIMIT * 0.75
    assert world.dispatch.turns.large.shown() == []


@pytest.mark.parametrize("how", ["ends", "continues as new"])
async def test_an_execution_that_is_over_is_shown_no_more(world: World, how: str) -> None:
    hand = Hand(max_bytes=LIMIT)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    last = await hand.turn(await grown(world, hand) + 1)
    await world.complete(last, end() if how == "ends" else end(status=CONTINUED_AS_NEW))
    await until(lambda: world.dispatch.turns.large.shown() == [])


def test_what_is_kept_of_them_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_histories, "MOST_KEPT", 3)
    found, worker, group = LargeHistories(Pool({})), Hand(max_bytes=100).worker, Group("flow", "")
    for number in range(5):
        found.look(("default", f"w{number}"), "e", 90, worker, group)
    assert [one["instance"] for one in found.shown()] == ["w4", "w3", "w2"]
    found.committed(("default", "w4"), Changes(purged=True))
    found.look(("default", "w3"), "e", 50, worker, group)
    assert [one["instance"] for one in found.shown()] == ["w2"]
