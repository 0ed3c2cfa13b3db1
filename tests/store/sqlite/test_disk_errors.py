"""After an error of the disk the store opens its file again, says so meanwhile, and nothing acknowledged is lost.

The disk fails by replacing what runs on the connection's thread; `tests/blackbox/test_store_faults.py` has real ones.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from sidecar.core.model import Changes
from sidecar.store.protocol import FullError, UnavailableError
from sidecar.store.sqlite import connection as files
from sidecar.store.sqlite import schema, writes
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.store.builders import ME
from tests.store.sqlite.processes import record, record_is_whole

DISK = ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT", "SQLITE_READONLY", "SQLITE_CANTOPEN"]


def error_of(name: str) -> sqlite3.OperationalError:
    """An error as SQLite raises it."""
    error = sqlite3.OperationalError(f"simulated {name}")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


class Disk:
    """Lets functions on the connection's thread fail: `fails` says with what, by the function."""

    def __init__(self, file: files.File) -> None:
        self.fails: dict[Callable[..., Any], list[str]] = {}
        self._real = file._run
        file._run = self._run  # type: ignore[method-assign]

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        errors = self.fails.get(function, [])
        if errors:
            raise error_of(errors.pop(0))
        return await self._real(function, *args)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(files, "_LONGEST_PAUSE", 0.1)
    store = await open_store(ME, tmp_path, "fresh")
    yield store
    await store.close()


@pytest.fixture
def disk(store: Sqlite) -> Disk:
    return Disk(store.file)


@pytest.mark.parametrize("name", [*DISK, "SQLITE_PROTOCOL"])  # of a read the last would be no error of the disk
async def test_an_error_of_the_disk_fails_its_commit_and_the_file_is_opened_again(
    store: Sqlite, disk: Disk, name: str
) -> None:
    assert await store.commit([record(1)]) == [None]
    connection = store.file.connection
    disk.fails[writes.commit] = [name]
    with pytest.raises(UnavailableError, match=name):
        await store.commit([record(2)])
    assert name in store.trouble
    with pytest.raises(UnavailableError, match=name):
        await store.load("default", "id-1")
    with pytest.raises(UnavailableError, match=name):
        await store.commit([record(3)])
    async with asyncio.timeout(5):
        await store.recovered()
    assert store.trouble == ""
    assert store.file.connection is not connection
    assert [await record_is_whole(store, number) for number in (1, 2, 3)] == [True, None, None]
    assert await store.commit([record(4)]) == [None]


async def test_a_read_that_the_disk_fails_opens_the_file_again(store: Sqlite, disk: Disk) -> None:
    connection = store.file.connection
    await store.commit([record(1)])
    disk.fails[schema.prove] = ["SQLITE_IOERR_FSYNC"] * 3
    store.file._note(error_of("SQLITE_IOERR_READ"), writes=False)
    await store.recovered()
    assert store.file.connection is not connection
    assert not disk.fails[schema.prove], "it is well only once something could be written"
    assert await record_is_whole(store, 1)


@pytest.mark.parametrize("name", ["SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED"])
async def test_a_lock_that_another_program_holds_is_no_error_of_the_disk(store: Sqlite, disk: Disk, name: str) -> None:
    disk.fails[writes.commit] = [name]
    with pytest.raises(UnavailableError):
        await store.commit([record(1)])
    assert store.trouble == ""
    assert await store.commit([record(2)]) == [None]


async def test_each_change_of_state_is_one_line_of_the_log_however_often_it_is_tried(store: Sqlite, disk: Disk) -> None:
    disk.fails[writes.commit] = ["SQLITE_IOERR_WRITE"]
    disk.fails[schema.prove] = ["SQLITE_IOERR_WRITE"] * 5
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            with pytest.raises(UnavailableError):
                await store.commit([record(number + 1)])
        await store.recovered()
    assert [line["event"] for line in lines] == ["the store cannot be written to", "the store is written to again"]
    assert "log of the system" in lines[0]["why"]


async def test_a_full_disk_takes_no_more_but_what_removes_and_answers_reads_until_there_is_space(
    store: Sqlite, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = False
    monkeypatch.setattr(files, "_reserve", lambda path, headroom=0: space)
    await store.commit([record(1), record(2)])
    disk.fails[writes.commit] = ["SQLITE_FULL"]
    with pytest.raises(UnavailableError) as first:
        await store.commit([record(3)])
    assert not isinstance(first.value, FullError), "this one was tried: nobody knows"
    while store.file.down:  # noqa: ASYNC110 (there is no event for it)
        await asyncio.sleep(0.01)
    assert await record_is_whole(store, 1)
    with pytest.raises(FullError, match="free space"):
        await store.commit([record(3)])
    assert await store.commit([Changes(key=1, expected=1, purged=True)]) == [None]
    assert await store.load("default", "id-1") is None
    assert "free space" in store.trouble
    space = True
    await store.recovered()
    assert await store.commit([record(3)]) == [None]
    assert [await record_is_whole(store, number) for number in (2, 3)] == [True, True]


async def test_the_reserve_is_there_while_all_is_well_and_given_up_when_the_disk_is_full(
    store: Sqlite, disk: Disk
) -> None:
    reserve = store.file.path.with_name(f"{store.file.path.name}.reserve")
    assert reserve.stat().st_blocks * 512 >= files._RESERVE_BYTES
    seen = []
    real = files._reserve

    def look(path: Path, headroom: int = 0) -> bool:
        seen.append(path.exists())
        return real(path, headroom)

    files._reserve = look
    try:
        disk.fails[writes.commit] = ["SQLITE_FULL"]
        with pytest.raises(UnavailableError):
            await store.commit([record(1)])
        await store.recovered()
    finally:
        files._reserve = real
    assert seen == [False]
    assert reserve.exists()


async def test_a_store_in_trouble_is_closed_at_once(tmp_path: Path) -> None:
    store = await open_store(ME, tmp_path, "fresh")
    await store.commit([record(1)])
    disk = Disk(store.file)
    disk.fails[writes.commit] = ["SQLITE_IOERR_WRITE"]
    disk.fails[schema.prove] = ["SQLITE_IOERR_WRITE"] * 1_000
    with pytest.raises(UnavailableError):
        await store.commit([record(2)])
    await asyncio.sleep(0.3)
    async with asyncio.timeout(2):
        await store.close()
    store = await open_store(ME, tmp_path, "fresh")
    assert await record_is_whole(store, 1)
    await store.close()
