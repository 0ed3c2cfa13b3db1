"""Pages of rows some of which cannot be read: the others are there, and each that is left out is said once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from sidecar.core.model import Changes, Position
from sidecar.store.sqlite.reads import fetch_all
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.store.builders import MANY, ME, reminder


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sqlite]:
    """Has reminders 1 to 6, of which 1 to 3 cannot be read."""
    store = await open_store(ME, tmp_path, "fresh")
    assert await store.commit([Changes(set=tuple(reminder(number) for number in range(1, 7)))]) == [None]
    await store.file.call(fetch_all, "UPDATE reminders SET kind = 99 WHERE id <= 3", ())
    yield store
    await store.close()


async def due(store: Sqlite) -> list[int]:
    return [one.id for one in await store.due(MANY, Position(0, 0), 2)]


async def test_a_page_of_which_nothing_can_be_read_is_not_the_last(store: Sqlite) -> None:
    assert await due(store) == [4, 5]


async def test_a_row_that_is_left_out_is_said_once_however_often_it_is_met(store: Sqlite) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await due(store)
    assert [line["number"] for line in logged if "left out" in line["event"]] == [1, 2, 3]
