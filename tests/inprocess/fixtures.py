"""Fixtures of the tests that run the middle of a sidecar, or whole ones, in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.inprocess.sidecars import Node, Start
from tests.inprocess.world import Hand, World


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


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts sidecars, which are stopped when the test ends; `policy` is the text of a file."""
    nodes: list[Node] = []

    async def start(app_id: str, policy: str = "", **settings: Any) -> Node:
        if policy:
            settings["policy"] = tmp_path / f"{app_id}.policy.yaml"
            settings["policy"].write_text(policy)
        node = await Node.start(app_id, tmp_path, **settings)
        nodes.append(node)
        return node

    yield start
    await asyncio.gather(*(node.stop() for node in nodes if not node.until.is_set()))
