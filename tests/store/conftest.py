"""The fixture `store`: every store there is, one after the other. What holds for all of them is in test_contract.py."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.store.protocol import Store
from sidecar.store.sqlite.store import open_store
from tests.simulation.memory_store import MemoryStore
from tests.store.builders import ME, Reopen


class Kind(ABC):
    """A kind of store, and the one of this kind that a test has open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store: Store

    async def open(self) -> Store:
        """Open the store, for the first time or again with what is in it."""
        self.store = await self._open()
        return self.store

    @abstractmethod
    async def _open(self) -> Store: ...


class Memory(Kind):
    async def _open(self) -> Store:
        data = self.store.data if hasattr(self, "store") and isinstance(self.store, MemoryStore) else None
        return MemoryStore(ME, data=data)


class File(Kind):
    async def _open(self) -> Store:
        return await open_store(ME, self.directory, "fresh")


@pytest.fixture(params=[Memory, File], ids=["memory", "sqlite"])
def _kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    kind: Kind = request.param(tmp_path)
    return kind


@pytest.fixture
async def store(_kind: Kind) -> AsyncIterator[Store]:
    """A new, empty store of each kind."""
    yield await _kind.open()
    await _kind.store.close()


@pytest.fixture
def reopen(_kind: Kind, store: Store) -> Reopen:
    """Close the store and return it opened again."""

    async def closed_and_opened() -> Store:
        await _kind.store.close()
        return await _kind.open()

    return closed_and_opened
