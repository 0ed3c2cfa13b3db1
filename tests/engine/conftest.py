from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .world import Hand, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    await world.dispatch.refill()
    world.run()
    yield world
    await world.close()


@pytest.fixture
async def hand(world: World) -> Hand:
    """One worker that takes everything."""
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    return hand
