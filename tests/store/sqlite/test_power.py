"""The machine fails: of what was written since the last sync, any part may be on the disk, and any may not."""

import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from sidecar.store.sqlite.schema import path_of
from sidecar.store.sqlite.store import open_store
from tests.conftest import Injected
from tests.store.builders import ME
from tests.store.sqlite.processes import record, record_is_whole

COMMITS, FAILURES = 30, 10
SECTOR = 512
Files = dict[str, bytes]


def no_checkpoints(connection: sqlite3.Connection) -> None:
    """So that between two commits there is one sync: that of the log."""
    connection.execute("PRAGMA wal_autocheckpoint = 0")


def copied(directory: Path, to: Path) -> Files:
    """The files of a store as they are, read by another process: this one must not open and close them."""
    to.mkdir(exist_ok=True)
    names = [path_of(ME, directory).name, path_of(ME, directory).name + "-wal"]
    subprocess.run(["cp", *(str(directory / name) for name in names), str(to)], check=True)
    return {name: (to / name).read_bytes() for name in names}


def torn(before: Files, after: Files, chance: random.Random) -> Files:
    """The files when the machine fails between two syncs: each sector that was written is there or not."""
    found: Files = {}
    for name, written in after.items():
        kept = before[name].ljust(chance.choice([len(before[name]), len(written)]), b"\0")
        sectors = bytearray(kept)
        for start in range(0, len(kept), SECTOR):
            if chance.random() < 0.5:
                sectors[start : start + SECTOR] = written[start : start + SECTOR]
        found[name] = bytes(sectors[: len(kept)])
    return found


@pytest.mark.slow
@pytest.mark.fault(4, "What was acknowledged is there after the machine has failed; the rest is whole or not at all")
async def test_a_machine_that_fails_loses_nothing_acknowledged(tmp_path: Path, injected: Injected) -> None:
    chance = random.Random(4)
    store = await open_store(ME, tmp_path / "data", "fresh")
    await store.file.call(no_checkpoints)
    synced = copied(tmp_path / "data", tmp_path / "copy")
    lost = 0
    for number in range(1, COMMITS + 1):
        assert await store.commit([record(number)]) == [None]
        written = copied(tmp_path / "data", tmp_path / "copy")
        for _ in range(FAILURES):
            failed = tmp_path / "failed"
            failed.mkdir()
            for name, content in torn(synced, written, chance).items():
                (failed / name).write_bytes(content)
            after = await open_store(ME, failed, "fresh")
            whole = [await record_is_whole(after, each) for each in range(1, number + 1)]
            assert whole[:-1] == [True] * (number - 1)
            assert whole[-1] in (True, None)
            lost += whole[-1] is None
            assert await after.commit([record(1_000)]) == [None]
            await after.close()
            shutil.rmtree(failed)
        synced = written
    await store.close()
    assert lost > COMMITS
    injected(COMMITS * FAILURES, "failures of the machine")
