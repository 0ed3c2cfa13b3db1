"""What purges free goes back to the disk while the store is idle, and nobody waits for that."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core.model import Changes
from sidecar.store.sqlite import vacuum
from sidecar.store.sqlite.pages import fetch_all
from sidecar.store.sqlite.store import Sqlite, open_store
from sidecar.store.sqlite.vacuum import Upkeep
from tests.store.builders import ME, created
from tests.store.sqlite.processes import record, record_is_whole

COUNT = 1_500


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sqlite]:
    store = await open_store(ME, tmp_path, "fresh")
    keeping = asyncio.create_task(Upkeep(store.file).run())
    yield store
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await store.close()


async def fill_and_purge(store: Sqlite) -> int:
    """Store much and remove nearly all of it; returns how many bytes the file had."""
    for first in range(1, COUNT, 100):
        await store.commit([created(key, f"id-{key}", output="x" * 10_000) for key in range(first, first + 100)])
    await store.file.call(fetch_all, "PRAGMA wal_checkpoint(PASSIVE)", ())
    size = store.file.path.stat().st_size
    for first in range(1, COUNT, 100):
        await store.commit([Changes(key=key, expected=1, purged=True) for key in range(first, first + 100)])
    return size


@pytest.mark.slow
async def test_a_file_shrinks_after_a_purge_of_many_while_commits_go_on(store: Sqlite) -> None:
    size = await fill_and_purge(store)
    assert size > COUNT * 10_000
    slowest, number = 0.0, 10_000
    end = time.monotonic() + 60
    while store.file.path.stat().st_size > size / 5:
        assert time.monotonic() < end, store.file.path.stat().st_size
        began = time.perf_counter()
        assert await store.commit([record(number)]) == [None]
        slowest = max(slowest, time.perf_counter() - began)
        number += 1
        await asyncio.sleep(1.2 if number % 10 == 0 else 0.01)  # there are idle moments
    print(f"{size} to {store.file.path.stat().st_size} bytes; the slowest commit took {slowest * 1000:.0f} ms")  # noqa: T201
    assert slowest < 0.5, "on a machine that has nothing else to do it is some ms"
    assert await record_is_whole(store, 10_000)
    assert (await store.file.call(fetch_all, "PRAGMA integrity_check", ())) == [("ok",)]


@pytest.mark.slow
async def test_some_pages_stay_free_and_the_log_is_folded_in_once(store: Sqlite) -> None:
    await fill_and_purge(store)

    async def free() -> int:
        pages: int = (await store.file.call(fetch_all, "PRAGMA freelist_count", ()))[0][0]
        return pages

    async with asyncio.timeout(60):
        while await free() > vacuum.KEPT_PAGES:  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(2)
    assert await free() == vacuum.KEPT_PAGES
    await asyncio.sleep(1.5)
    calls = store.file.calls
    await asyncio.sleep(1.5)
    assert store.file.calls == calls, "once there is nothing to do, nothing is done"
    moved = (await store.file.call(fetch_all, "PRAGMA wal_checkpoint(PASSIVE)", ()))[0]
    assert moved[1] == moved[2]


@pytest.mark.slow
async def test_the_log_stays_short_under_load(store: Sqlite) -> None:
    longest = 0
    log = store.file.path.with_name(f"{store.file.path.name}-wal")
    for number in range(1, 1_500):
        await store.commit([created(number, f"id-{number}", output="x" * 20_000)])
        longest = max(longest, log.stat().st_size)
    print(f"at most {longest} bytes")  # noqa: T201
    assert longest < 8 * 1024 * 1024
