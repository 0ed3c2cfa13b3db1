from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge.transport.network import ADAPTERS, Adapter, Network
from tests.inprocess.sidecars import Node


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    chosen: Adapter = request.param
    return chosen


@pytest.fixture
async def network(adapter: Adapter) -> AsyncIterator[Network]:
    network = Network(adapter)
    yield network
    await network.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = await Node.start("orders", tmp_path)
    yield node
    await node.stop()
