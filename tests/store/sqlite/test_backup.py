"""Check, backup and restore: a copy while the store serves is whole, and one moment's; what is no good is refused."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from filelock import FileLock

from sidecar.core.identity import AppIdentity
from sidecar.core.model import CallKind, Changes, Kind
from sidecar.core.names import MAX_ID_LENGTH
from sidecar.store.progress import At
from sidecar.store.protocol import CopyError
from sidecar.store.sqlite import check, restore, schema
from sidecar.store.sqlite.backup import Backups
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.store.builders import ME, call_of_ml, created, instance, open_call, reminder, workflow
from tests.store.sqlite.processes import record, record_is_whole

pytestmark = pytest.mark.slow

# ruff: noqa: ASYNC240 (files are looked at while nothing else runs; statements are the test's)
NOW = 1_800_000_000_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sqlite]:
    store = await open_store(ME, tmp_path, "fresh")
    yield store
    await store.close()


@pytest.fixture
async def closed(tmp_path: Path) -> Path:
    store = await open_store(ME, tmp_path, "fresh")
    await store.commit([record(number) for number in range(1, 30)])
    await store.close()
    return store.file.path


def run(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_backup_of_a_store_that_serves_is_whole_and_private(store: Sqlite, tmp_path: Path) -> None:
    await store.commit([record(number) for number in range(1, 100)])
    made = await Backups(store.file).backup("first.db", NOW)
    path = Path(made.path)
    assert path == tmp_path / "backups" / "first.db"
    assert path.stat().st_size == made.bytes
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert check.problems(path) == []
    assert [file.name for file in path.parent.iterdir() if file.name.endswith(".part")] == []
    restored = restore.restore(ME, tmp_path / "elsewhere", path, NOW)
    assert restored is None
    again = await open_store(ME, tmp_path / "elsewhere", "other")
    assert [await record_is_whole(again, number) for number in (1, 99)] == [True, True]
    assert again.identity == f"fresh.{NOW}", "another generation: other apps are told that work may be gone"
    assert again.identity != store.identity
    await again.close()


async def test_who_waits_for_a_backup_is_told_how_far_it_is(store: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the copy, and of its check, which another process does."""
    await store.commit([created(number, f"id-{number}") for number in range(1, 30)])
    backups, told = Backups(store.file), list[At]()
    tell = backups._tell
    monkeypatch.setattr(backups, "_tell", lambda at: (told.append(at), tell(at)))
    await backups.backup("", NOW)
    assert list(dict.fromkeys(at.what for at in told)) == [
        "pages copied",
        "the pages of the file",
        "each instance",
        "rules between the rows",
    ]
    copied = [at for at in told if at.what == "pages copied"][-1]
    assert copied.done == copied.total > 0
    assert At("each instance", 0, 29) in told
    assert backups.at is None


@pytest.mark.slow
async def test_commits_and_reads_go_on_while_a_large_store_is_copied_and_the_copy_is_of_one_moment(
    store: Sqlite, tmp_path: Path
) -> None:
    big = b"x" * 200_000
    for first in range(1, 400, 20):
        await store.commit(
            [created(key, f"id-{key}", set=(reminder(key, payload=big),)) for key in range(first, first + 20)]
        )
    slowest, number = 0.0, 1_000
    copying = asyncio.create_task(Backups(store.file).backup("large.db", NOW))
    while not copying.done():
        began = time.perf_counter()
        assert await store.commit([record(number)]) == [None]
        assert await record_is_whole(store, number)
        if store.file._steps is not None:
            slowest = max(slowest, time.perf_counter() - began)
        number += 1
        await asyncio.sleep(0)
    made = await copying
    print(f"{made.bytes} bytes copied; {number - 1_000} commits meanwhile, the slowest {slowest * 1000:.0f} ms")  # noqa: T201
    assert number > 1_010
    assert slowest < 0.5, "on a machine that has nothing else to do it is some ms"
    with contextlib.closing(sqlite3.connect(made.path)) as copy:
        seen = [key for (key,) in copy.execute("SELECT key FROM instances WHERE key >= 1000 ORDER BY key")]
        rows = [key for (key,) in copy.execute("SELECT DISTINCT key FROM history WHERE key >= 1000 ORDER BY key")]
    assert seen == rows == list(range(1_000, 1_000 + len(seen)))
    assert await record_is_whole(store, number - 1)


@pytest.mark.parametrize("name", ["../out.db", "/tmp/out.db", ".hidden", "a/b.db", "a\nb", "x" * 201, "ä.db"])
async def test_a_backup_goes_nowhere_but_into_its_folder(store: Sqlite, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.parent.rglob("*.db"))
    with pytest.raises(CopyError, match="not a name of a file"):
        await Backups(store.file).backup(name, NOW)
    assert set(tmp_path.parent.rglob("*.db")) == before


async def test_a_backup_replaces_nothing_and_only_one_is_made_at_a_time(store: Sqlite) -> None:
    copies = Backups(store.file)
    made, refused = await asyncio.gather(copies.backup("a.db", NOW), copies.backup("b.db", NOW), return_exceptions=True)
    assert not isinstance(made, BaseException)
    assert "another copy" in str(refused)
    before = Path(made.path).stat()
    with pytest.raises(CopyError, match="exists: choose another name"):
        await copies.backup("a.db", NOW)
    assert Path(made.path).stat() == before
    assert Path((await copies.backup("", NOW)).path).name == "default.orders-20270115T080000.db"


async def test_a_check_while_the_store_serves_finds_what_is_wrong_and_there_is_no_backup_of_that(store: Sqlite) -> None:
    copies = Backups(store.file)
    await store.commit([record(1)])
    assert await copies.check() == []
    await store.file.call(lambda connection: connection.execute("UPDATE open_calls SET reminder = 0"))
    waits = created(2, "waits", opened=(open_call(0, reminder=77),))
    await store.commit([waits])
    assert await copies.check() == ["instance waits waits for call 0, which nothing will answer"]
    with pytest.raises(CopyError, match="the store has faults"):
        await copies.backup("a.db", NOW)
    assert not list((store.file.path.parent / "backups").iterdir())


BROKEN = {
    "DELETE FROM instances WHERE key = 3": "outputs has rows of instance 3, which is not there",
    "UPDATE instances SET status = 1 WHERE key = 3": "instance id-3 has ended and does not say when",
    "UPDATE sqlite_sequence SET seq = 2 WHERE name = 'reminders'": "a number of table reminders will be given again",
    "INSERT INTO open_calls SELECT 3, 1, 1, 'e', 1, 'n', 'default', 'orders', 'activity', '', 'x', 99, '', ''": (
        "instance id-3 waits for call 1, which nothing will answer"
    ),
    "PRAGMA user_version = 99": "the file has schema 99",
    "DROP TABLE lineages": "table lineages is missing",
    "PRAGMA application_id = 7": "it is the database of another program",
}


@pytest.mark.parametrize("statement", BROKEN)
async def test_a_rule_that_does_not_hold_is_named_and_such_a_backup_is_not_restored(
    closed: Path, statement: str, tmp_path: Path
) -> None:
    assert restore.check(closed) == []
    run(closed, statement)
    assert any(BROKEN[statement] in line for line in restore.check(closed)), restore.check(closed)
    with pytest.raises(CopyError, match="not a whole store"):
        restore.restore(ME, tmp_path / "other", closed, NOW)
    assert not schema.path_of(ME, tmp_path / "other").exists()


async def test_calls_that_have_a_cause_are_in_order(store: Sqlite) -> None:
    far, timer = call_of_ml(1), reminder(2, Kind.TIMER)
    kid = created(2, "kid")
    calls = (open_call(1, reminder=1), open_call(2, CallKind.TIMER, reminder=2))
    child = open_call(3, CallKind.CHILD, reminder=99, target=ME.workflow("default", "kid"))
    await store.commit([created(1, opened=(*calls, child), set=(far, timer)), kid])
    assert await Backups(store.file).check() == []
    await store.commit([Changes(key=2, expected=1, purged=True)])
    assert len(await Backups(store.file).check()) == 1


async def test_damage_is_found(closed: Path) -> None:
    with closed.open("r+b") as file:
        for page in range(2, closed.stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    assert restore.check(closed) != []
    with pytest.raises(CopyError):
        restore.backup(closed, "", NOW)


async def test_a_store_that_is_open_is_left_to_the_sidecar(store: Sqlite, tmp_path: Path) -> None:
    for work in (
        lambda: restore.check(store.file.path),
        lambda: restore.backup(store.file.path, "", NOW),
        lambda: restore.restore(ME, tmp_path, store.file.path, NOW),
    ):
        with pytest.raises(restore.RunningError):
            work()


async def test_the_longest_names_make_files_that_can_be_copied_and_restored(tmp_path: Path) -> None:
    """A file name has 255 bytes at most, and those of copies are longer than that of the store."""
    longest = AppIdentity("n" * MAX_ID_LENGTH, "a" * MAX_ID_LENGTH)
    alike = AppIdentity("n" * MAX_ID_LENGTH, "a" * (MAX_ID_LENGTH - 1) + "b")
    path = schema.path_of(longest, tmp_path)
    assert path != schema.path_of(alike, tmp_path)
    assert schema.path_of(AppIdentity("n" * 64, "a" * 64), tmp_path).name == f"{'n' * 64}.{'a' * 64}.db"
    for _ in range(2):
        store = await open_store(longest, tmp_path, "fresh")
        await store.close()
        made = restore.backup(path, "", NOW)
        assert restore.restore(longest, tmp_path, Path(made.path), NOW) is not None
        Path(made.path).unlink()
        for kept in tmp_path.glob("*.replaced"):
            kept.unlink()


async def test_the_old_store_is_kept_with_all_that_was_in_it(closed: Path, tmp_path: Path) -> None:
    made = restore.backup(closed, "old.db", NOW)
    store = await open_store(ME, tmp_path, "fresh")
    await store.commit([record(50)])
    await store.file.close()  # without the last checkpoint, so that it is in the log alone
    kept = restore.restore(ME, tmp_path, Path(made.path), NOW)
    assert kept is not None
    assert check.problems(kept) == []
    store = await open_store(ME, tmp_path, "fresh")
    assert [await record_is_whole(store, number) for number in (1, 50)] == [True, None]
    first = store.identity
    await store.close()
    os.replace(kept, closed)
    store = await open_store(ME, tmp_path, "fresh")
    assert await record_is_whole(store, 50)
    assert store.identity == "fresh.1" != first
    await store.close()
    assert restore.restore(ME, tmp_path, Path(made.path), NOW + 10**6) is not None
    store = await open_store(ME, tmp_path, "fresh")
    assert store.identity not in (first, "fresh.1"), "each restore is a generation of its own"
    await store.close()


@pytest.mark.parametrize("other", [AppIdentity("default", "ml"), AppIdentity("elsewhere", "orders")])
async def test_a_backup_of_another_app_is_refused_by_name(closed: Path, tmp_path: Path, other: AppIdentity) -> None:
    with pytest.raises(CopyError, match="belongs to app 'orders' of namespace 'default'"):
        restore.restore(other, tmp_path / "other", closed, NOW)
    assert list((tmp_path / "other").glob("*.db*")) == [
        schema.path_of(other, tmp_path / "other").with_suffix(".db.lock")
    ]


@pytest.mark.parametrize("content", [b"", b"Dear diary, " * 1000])
def test_what_is_no_store_is_not_restored(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "backup.db"
    source.write_bytes(content)
    with pytest.raises(CopyError, match="not a whole store"):
        restore.restore(ME, tmp_path / "data", source, NOW)
    with pytest.raises(CopyError, match="No such file"):
        restore.restore(ME, tmp_path / "data", tmp_path / "nothing", NOW)


async def test_a_file_that_is_in_use_is_not_restored(store: Sqlite, tmp_path: Path) -> None:
    await store.commit([record(1)])
    with pytest.raises(CopyError, match="write-ahead log beside it"):
        restore.restore(ME, tmp_path / "other", store.file.path, NOW)


def test_the_lock_is_free_afterwards(tmp_path: Path) -> None:
    with pytest.raises(CopyError, match="there is no store"):
        restore.check(schema.path_of(ME, tmp_path))
    with pytest.raises(CopyError, match="there is no directory"):
        restore.check(schema.path_of(ME, tmp_path / "nowhere"))
    FileLock(f"{schema.path_of(ME, tmp_path)}.lock").acquire(timeout=0)


async def test_a_call_that_waits_for_the_next_step_gets_its_error(store: Sqlite, tmp_path: Path) -> None:
    async def many() -> list[BaseException | list[None]]:
        bad = record(5)
        return await asyncio.gather(
            store.commit([record(1)]), store.commit([bad, bad]), store.load("default", "id-1"), return_exceptions=True
        )

    await store.commit([created(9, "nine", instance=instance(9, "nine"))])
    _, outcomes = await asyncio.gather(Backups(store.file).backup("a.db", NOW), many())
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


# Each enum that is stored, with a number that it does not have.
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("UPDATE instances SET status = 99 WHERE key = 1", "instance id-1 cannot be read: 99"),
        ("UPDATE instances SET rewind = 99 WHERE key = 1", "instance id-1 cannot be read: 99"),
        ("UPDATE open_calls SET kind = 99 WHERE key = 30", "a call of instance waiting cannot be read: 99"),
        ("UPDATE reminders SET kind = 99", "reminder 9 cannot be read: 99"),
        ("UPDATE reminders SET place = 9", "reminder 9 goes nowhere: its place is 9"),
        ("UPDATE instances SET covered = 'x' WHERE key = 1", "cannot be read: column covered"),
        ("UPDATE reminders SET target_id = CAST(x'ff' AS TEXT)", "cannot be read: column target_id"),
    ],
)
async def test_every_enum_of_the_store_is_read_and_checked(tmp_path: Path, spoil: str, words: str) -> None:
    store = await open_store(ME, tmp_path, "fresh")
    await store.commit([record(number) for number in range(1, 3)])
    waiting = created(30, "waiting", opened=(open_call(1, CallKind.TIMER, reminder=9),), set=(reminder(9, Kind.TIMER),))
    await store.commit([waiting])
    await store.close()
    assert check.problems(store.file.path) == []
    run(store.file.path, spoil)
    assert any(words in line for line in check.problems(store.file.path)), check.problems(store.file.path)


async def test_the_check_of_a_busy_store_takes_no_time_that_grows_with_its_square(tmp_path: Path) -> None:
    parents, sent = 200, 20_000
    store = await open_store(ME, tmp_path, "fresh")
    for number in range(1, parents + 1):
        child = open_call(1, CallKind.CHILD, reminder=0, target=workflow(f"child-{number}"))
        await store.commit([created(number, f"id-{number}", opened=(child,))])
        await store.commit([created(parents + number, f"child-{number}")])
    await store.commit([Changes(set=tuple(reminder(number) for number in range(1, sent + 1)))])
    await store.close()
    looked_at: list[At] = []
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1_000
        return 0

    with contextlib.closing(sqlite3.connect(store.file.path)) as connection:
        connection.set_progress_handler(step, 1_000)
        assert check.broken_rules(connection, looked_at.append) == []
    print(f"{steps} steps of the database")  # noqa: T201
    assert steps < 50 * (parents + sent), "each parent that reads all reminders would be 20 times as many"
    assert looked_at[:2] == [At("rules between the rows", 0, 12), At("rules between the rows", 1, 12)]
