"""The limits of a sidecar: what is out at once over all its workers, by name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.inprocess.world import Hand, World, call, end

GPUS = {"activity:gpu-*": 2, "activity:*": 5, "workflow:heavy": 1}


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path, limits=GPUS)
    world.run()
    yield world
    await world.close()


async def settled() -> None:
    await asyncio.sleep(0.03)


async def test_names_that_fit_a_pattern_share_its_limit_over_all_workers(limited: World) -> None:
    hands = [Hand("one"), Hand("two")]
    for hand in hands:
        limited.dispatch.add_worker(hand.worker)
    await limited.start("a")
    (turn,) = [item for hand in hands for item in hand.turns] or [await hands[0].turn(1)]
    names = ["gpu-a", "gpu-b", "gpu-a", "gpu-b", "mail", "mail", "mail", "mail"]
    await limited.complete(turn, *(call(number, name) for number, name in enumerate(names)))
    await settled()

    def out() -> list[str]:
        return sorted(name for hand in hands for name in hand.worker.activities.values())

    assert out() == ["gpu-a", "gpu-b", "mail", "mail", "mail"]
    for done in range(1, 9):
        taken = [item for hand in hands for item in hand.activities]
        await limited.answer(taken[done - 1])
        await settled()
        assert len([name for name in out() if name.startswith("gpu")]) <= 2
    assert out() == []


async def test_turns_of_a_name_are_limited_and_others_go_on(limited: World) -> None:
    hand = Hand()
    limited.dispatch.add_worker(hand.worker)
    for number in range(3):
        await limited.start(f"heavy {number}", name="heavy")
    await limited.start("light", name="light")
    await settled()
    assert sorted(item.instance_id for item in hand.turns) == ["heavy 0", "light"]
    await limited.complete(hand.turns[0], end())
    await settled()
    assert sorted(item.instance_id for item in hand.turns) == ["heavy 0", "heavy 1", "light"]


async def test_what_a_worker_that_is_gone_had_counts_no_more(limited: World) -> None:
    gone, other = Hand("gone"), Hand("other")
    limited.dispatch.add_worker(gone.worker)
    await limited.start("heavy", name="heavy")
    await gone.turn(1)
    limited.dispatch.add_worker(other.worker)
    limited.dispatch.remove_worker(gone.worker)
    await other.turn(1)
