from collections.abc import AsyncIterator

import pytest

from .network import ADAPTERS, Adapter, Network


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    chosen: Adapter = request.param
    return chosen


@pytest.fixture
async def network(adapter: Adapter) -> AsyncIterator[Network]:
    network = Network(adapter)
    yield network
    await network.close()
