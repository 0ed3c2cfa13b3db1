"""What only the file store has: the file, its schema, what damages it, and what is durable when a process dies."""

import asyncio
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog
import uvloop

from sidecar.core.attempts import Crash
from sidecar.core.identity import AppIdentity
from sidecar.core.model import Changes, Kind, Position, Row
from sidecar.core.receipts import Delivered, Lost, Received
from sidecar.store.protocol import Refusal, UnavailableError
from sidecar.store.sqlite import schema
from sidecar.store.sqlite.reads import fetch_all
from sidecar.store.sqlite.schema import OpenError, migrations
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.conftest import Injected
from tests.store.builders import (
    EVERYTHING,
    FAR_CALL,
    MANY,
    ME,
    ML,
    activity,
    call_of_ml,
    created,
    from_ml,
    instance,
    reminder,
    step,
)
from tests.store.contents import contents
from tests.store.sqlite import processes
from tests.store.sqlite.processes import record, record_is_whole

# ruff: noqa: ASYNC240 (files are looked at while nothing else runs)
ROOT = Path(__file__).parents[3]
SMALL, BIG = b"x" * 10, b"x" * 1_000_000


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Sqlite]:
    """A file store for what only it has."""
    store = await open_store(ME, tmp_path / "data", "fresh")
    yield store
    await store.close()


@pytest.fixture
async def closed(tmp_path: Path) -> Path:
    """The database of a store that has something in it and is closed."""
    store = await open_store(ME, tmp_path, "fresh")
    records = [record(number) for number in range(1, 40)]
    await store.commit([*records, Changes(set=(call_of_ml(50, payload=BIG),), received=(Received(*ML, "s", 1),))])
    await store.close()
    return store.file.path


async def ask(store: Sqlite, statement: str) -> Any:
    """The first value that a statement gives."""
    [row, *_] = await store.file.call(fetch_all, statement, ())
    return row[0]


async def assert_refused(directory: Path, *words: str) -> None:
    """The store cannot be opened, all the words say why, and the lock is free again."""
    for _ in range(2):
        with pytest.raises(OpenError) as raised:
            await (await open_store(ME, directory, "fresh")).close()
        assert not [word for word in words if word not in str(raised.value)], str(raised.value)


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        *(("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("mmap_size", 0), ("auto_vacuum", 2)),
        *(("busy_timeout", 5000), ("journal_size_limit", 64 * 1024 * 1024)),
    ],
)
async def test_a_pragma_is_in_force(file: Sqlite, pragma: str, value: Any) -> None:
    assert await ask(file, f"PRAGMA {pragma}") == value


async def test_pragmas_are_in_force_on_a_file_that_is_opened_again(closed: Path) -> None:
    store = await open_store(ME, closed.parent, "fresh")
    found = [await ask(store, f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "auto_vacuum")]
    await store.close()
    assert found == ["wal", 2, 2]


async def test_a_pragma_that_does_not_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schema._PRAGMAS, "journal_mode", "nonsense")
    await assert_refused(tmp_path, "pragma journal_mode is")


@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_nobody_else_may_read_the_file_or_its_directory(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = await open_store(ME, tmp_path / "deep" / "data", "fresh")
        await store.commit([created(1)])
        modes = {path.name: path.stat().st_mode & 0o777 for path in store.file.path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    name = store.file.path.name
    assert {modes[name], modes[f"{name}-wal"], modes[f"{name}-shm"]} == {0o600}
    assert store.file.path.parent.stat().st_mode & 0o777 == 0o700


async def test_closing_puts_everything_into_the_one_file(closed: Path) -> None:
    beside = {f"{closed.name}.{kind}" for kind in ("lock", "reserve")}
    assert {path.name for path in closed.parent.iterdir()} <= {closed.name, *beside}


async def test_a_new_store_is_known_by_the_id_that_it_is_given(file: Sqlite) -> None:
    assert file.identity == "fresh.1"


async def test_a_store_that_is_made_anew_in_the_same_place_has_another_identity(closed: Path) -> None:
    identities = []
    for fresh in ("second", "third"):
        closed.unlink()
        store = await open_store(ME, closed.parent, fresh)
        identities.append(store.identity)
        await store.close()
    assert identities[0] != identities[1]


async def test_apps_have_files_of_their_own_in_one_directory(tmp_path: Path) -> None:
    stores = [await open_store(AppIdentity("default", app), tmp_path, app) for app in ("orders", "ml")]
    for store in stores:
        await store.commit([created(1)])
        await store.close()
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["default.ml.db", "default.orders.db"]


async def test_the_schema_is_what_the_migrations_make(file: Sqlite) -> None:
    expected = sqlite3.connect(":memory:")
    for _, statements in migrations():
        expected.executescript(statements)
    statement = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    found = await file.file.call(fetch_all, statement, ())
    assert found == expected.execute(statement).fetchall()
    assert len(found) > 10
    expected.close()


async def test_migrations_are_numbered_without_gaps_and_the_last_is_the_version(file: Sqlite) -> None:
    numbers = [number for number, _ in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert await ask(file, "PRAGMA user_version") == numbers[-1]


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        *(((3, 40, 1), True), ((3, 44, 5), True), ((3, 45, 0), True), ((3, 50, 6), True), ((3, 51, 2), True)),
        *(((3, 44, 6), False), ((3, 50, 7), False), ((3, 51, 3), False), ((3, 53, 0), False), ((4, 0, 0), False)),
    ],
)
def test_an_affected_version_of_sqlite_is_named(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], affected: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    with structlog.testing.capture_logs() as lines:
        schema.log_version()
    [line] = lines
    assert line["log_level"] == "debug", "it is nothing that everybody must see at each start"
    assert ("WAL-reset" in line.get("note", "")) is affected


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_a_store_that_is_open_is_refused_with_a_clear_message(file: Sqlite) -> None:
    with pytest.raises(OpenError, match=r"another sidecar of app 'orders' has .* open: stop it first"):
        await open_store(ME, file.file.path.parent, "fresh")
    assert await file.commit([created(1)]) == [None]


async def test_a_store_that_another_process_has_open_is_refused_until_it_is_gone(tmp_path: Path) -> None:
    holder, pipe = processes.start(processes.hold_open, tmp_path)
    assert pipe.recv() == "open"
    with pytest.raises(OpenError, match=r"another sidecar of app 'orders' has .* open: stop it first"):
        await open_store(ME, tmp_path, "fresh")
    holder.kill()
    holder.join()
    pipe.close()
    await (await open_store(ME, tmp_path, "fresh")).close()


@pytest.mark.parametrize("other", [AppIdentity("default", "ml"), AppIdentity("elsewhere", "orders")])
async def test_a_store_of_another_app_is_refused_by_name(closed: Path, other: AppIdentity) -> None:
    closed.rename(closed.with_name(f"{other.namespace}.{other.app}.db"))
    with pytest.raises(OpenError, match="belongs to app 'orders' of namespace 'default'"):
        await open_store(other, closed.parent, "fresh")


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(closed: Path) -> None:
    with sqlite3.connect(closed) as connection:
        before = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await assert_refused(closed.parent, "schema 99", "upgrade")
    with sqlite3.connect(closed) as connection:
        connection.execute(f"PRAGMA user_version = {before}")
    connection.close()
    store = await open_store(ME, closed.parent, "fresh")
    assert await record_is_whole(store, 39)
    await store.close()


OTHER_SCHEMAS = {
    "ALTER TABLE instances DROP COLUMN obeyed": "column instances.obeyed is missing",
    "ALTER TABLE instances ADD COLUMN colour TEXT": "column instances.colour is not known",
    "DROP TABLE received": "table received is missing",
    "CREATE TABLE cakes (name TEXT)": "table cakes is not known",
    "DROP INDEX reminders_foreign": "index reminders_foreign is missing",
    "DROP INDEX reminders_due; CREATE INDEX reminders_due ON reminders (due)": (
        "index reminders_due is on reminders (due), not partial on reminders (due, id)"
    ),
    "ALTER TABLE outputs DROP COLUMN output; ALTER TABLE outputs ADD COLUMN output BLOB": (
        "column outputs.output is BLOB, not TEXT NOT NULL"
    ),
    "PRAGMA user_version = 1": "column instances.obeyed is not known",
    "PRAGMA user_version = 0": "the file says that it has schema 0, and has another",
    "PRAGMA user_version = -1": "schema -1, which no version has made",
}


@pytest.mark.fault(9, "A store whose tables are not what its schema number says is refused, with the difference")
@pytest.mark.parametrize("statements", OTHER_SCHEMAS)
async def test_a_store_of_a_schema_that_no_version_has_made_is_refused_and_left_alone(
    closed: Path, statements: str
) -> None:
    with sqlite3.connect(closed) as connection:
        connection.executescript(statements)
    connection.close()
    before = closed.read_bytes()
    await assert_refused(closed.parent, OTHER_SCHEMAS[statements])
    assert closed.read_bytes() == before


async def test_statistics_of_a_store_are_no_part_of_its_schema(closed: Path) -> None:
    with sqlite3.connect(closed) as connection:
        connection.execute("ANALYZE")
    connection.close()
    await (await open_store(ME, closed.parent, "fresh")).close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "default.orders.db"
    path.write_bytes(b"Dear diary, " * 1_000)
    await assert_refused(tmp_path, str(path), "not a database")
    assert path.read_bytes() == b"Dear diary, " * 1_000


@pytest.mark.parametrize("version", [0, 1])
async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "default.orders.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(f"CREATE TABLE cakes (name TEXT); PRAGMA user_version = {version}")
    connection.close()
    await assert_refused(tmp_path, str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("cakes",)]
    connection.close()


async def test_a_file_without_the_magic_of_a_database_is_refused(closed: Path) -> None:
    change(closed, 3, b"\x00\x00")
    await assert_refused(closed.parent, str(closed), "not a database")


@pytest.mark.fault(9, "A damaged file is refused with a message that names it")
async def test_a_damaged_page_is_refused_and_a_backup_named(closed: Path) -> None:
    size = closed.stat().st_size
    for page in (1, 2, 5):
        change(closed, page * 4096, os.urandom(4096))
    await assert_refused(closed.parent, str(closed))
    assert closed.stat().st_size == size


@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
async def test_a_truncated_file_is_refused(closed: Path, part: float) -> None:
    os.truncate(closed, int(closed.stat().st_size * part))
    await assert_refused(closed.parent, str(closed))


async def test_a_bit_that_is_flipped_in_the_header_is_refused_or_does_no_harm(closed: Path) -> None:
    whole = closed.read_bytes()
    store = await open_store(ME, closed.parent, "fresh")
    expected = await contents(store)
    await store.close()
    refused = 0
    for offset in range(100):
        closed.write_bytes(whole)
        change(closed, offset, bytes([whole[offset] ^ 0xFF]))
        try:
            store = await open_store(ME, closed.parent, "fresh")
        except OpenError:
            refused += 1
            continue
        try:
            assert await contents(store) == expected, f"byte {offset}"
        finally:
            await store.close()
    assert refused > 20


async def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    await assert_refused(tmp_path / "file" / "data", "cannot use the data directory", "file/data: Not a directory")


async def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "default.orders.db").mkdir()
    before = set(threading.enumerate())
    await assert_refused(tmp_path, "default.orders.db")
    assert set(threading.enumerate()) == before, "the thread of a file that was refused has ended"


# --- opening, with a death in the middle -----------------------------------------------------------------------------


async def opens_whole(directory: Path) -> None:
    """The store opens, has its whole schema, and works."""
    store = await open_store(ME, directory, "fresh")
    assert await ask(store, "PRAGMA user_version") == migrations()[-1][0]
    assert await ask(store, "PRAGMA auto_vacuum") == 2
    assert await store.commit([record(1)]) == [None]
    await store.close()


@pytest.mark.fault(36, "An opening that dies before any of its statements leaves a store that opens")
@pytest.mark.slow
async def test_an_opening_that_is_killed_before_any_of_its_statements_leaves_a_store_that_opens(tmp_path: Path) -> None:
    deaths = 0
    for number in itertools.count(1):
        directory = tmp_path / str(number)
        process, pipe = processes.start(processes.die_before_statement, directory, number)
        process.join()
        pipe.close()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        await opens_whole(directory)
    assert deaths > 25


@pytest.mark.slow
async def test_an_opening_that_is_killed_at_any_time_leaves_a_store_that_opens(tmp_path: Path) -> None:
    deaths = 0
    for number in range(100):
        directory = tmp_path / str(number)
        process, pipe = processes.start(processes.open_and_close, directory)
        assert pipe.recv() == "opening"
        await asyncio.sleep(random.uniform(0, 0.03))
        process.kill()
        process.join()
        pipe.close()
        deaths += process.exitcode != 0
        await opens_whole(directory)
    assert deaths > 20


# --- group commit ----------------------------------------------------------------------------------------------------


class Statements:
    """The statements that a store ran."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @property
    def transactions(self) -> tuple[int, int, int]:
        """How many were begun, committed and rolled back."""
        return tuple(self.seen.count(word) for word in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"))  # type: ignore[return-value]


@pytest.fixture
async def statements(file: Sqlite) -> Statements:
    found = Statements()
    await file.file.call(lambda connection: connection.set_trace_callback(found.seen.append))
    return found


async def test_commits_of_one_moment_share_one_transaction(file: Sqlite, statements: Statements) -> None:
    answers = await asyncio.gather(*(file.commit([record(number)]) for number in range(1, 51)))
    assert answers == [[None]] * 50
    assert statements.transactions == (1, 1, 0)


async def test_commits_that_come_while_one_is_written_share_the_next(file: Sqlite, statements: Statements) -> None:
    first = asyncio.create_task(file.commit([record(1)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not file._waiting
    others = [asyncio.create_task(file.commit([record(number)])) for number in range(2, 40)]
    assert await asyncio.gather(first, *others) == [[None]] * 39
    assert statements.transactions == (2, 2, 0)


async def test_one_that_is_refused_shares_the_transaction_and_harms_no_other(
    file: Sqlite, statements: Statements
) -> None:
    stale = step(instance(99, revision=7))
    batches = [[record(1)], [record(2), stale], [record(3)]]
    answers = await asyncio.gather(*(file.commit(batch) for batch in batches))
    assert answers == [[None], [None, Refusal.CONFLICT], [None]]
    assert statements.transactions == (1, 1, 0)
    assert [await record_is_whole(file, number) for number in (1, 2, 3)] == [True, True, True]


async def test_a_writer_gives_up_without_harm_to_the_others_of_its_transaction(file: Sqlite) -> None:
    commits = [asyncio.create_task(file.commit([record(number)])) for number in range(1, 21)]
    await asyncio.sleep(0)
    for commit in commits[::2]:
        commit.cancel()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 10
    assert outcomes[1::2] == [[None]] * 10
    assert [await record_is_whole(file, number) for number in range(1, 21)] == [True] * 20


TOO_BIG = replace(record(900), set=(reminder(2**63),))
TAKEN_ROW = created(901, "id-901", append=(Row(1, 1, b"x"), Row(1, 1, b"y")))
NO_ACTOR = replace(record(903), set=(reminder(903, target=None),))
NO_TEXT = created(902, "\ud800")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(TOO_BIG, id="a number beyond 64 bits"),
        pytest.param(TAKEN_ROW, id="an event where one is"),
        pytest.param(NO_TEXT, id="half a character"),
        pytest.param(NO_ACTOR, id="a mistake of the core"),
    ],
)
async def test_changes_that_cannot_be_stored_fail_alone(file: Sqlite, bad: Changes) -> None:
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(
            file.commit([record(1)]), file.commit([record(2), bad]), file.commit([record(3)]), return_exceptions=True
        )
    assert isinstance(outcomes[1], Exception)
    assert [outcomes[0], outcomes[2]] == [[None], [None]]
    assert [await record_is_whole(file, number) for number in (1, 2, 3)] == [True, None, True]
    assert await file.load("default", "id-901") is None
    assert await file.commit([record(4)]) == [None]


@pytest.mark.slow
def test_a_writer_gets_its_turn_beside_calls_that_keep_the_event_loop_busy(tmp_path: Path) -> None:
    """On the loop that the sidecar runs on: there each change of threads may wait for the interpreter's lock."""

    async def work(_request: bytes, _context: Any) -> bytes:
        pause = time.perf_counter() + 0.0003
        while time.perf_counter() < pause:
            pass
        return b""

    async def write_beside_calls(seconds: float) -> tuple[int, int]:
        server = grpc.aio.server()
        server.add_registered_method_handlers("load", {"Work": grpc.unary_unary_rpc_method_handler(work)})
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        store = await open_store(ME, tmp_path, "fresh")
        process, pipe = processes.start(processes.keep_busy, port, seconds)
        assert await asyncio.to_thread(pipe.recv) == "calling"
        until = time.perf_counter() + seconds
        done = 0
        while time.perf_counter() < until:
            done += 1
            await store.commit([record(done)])
        calls = await asyncio.to_thread(pipe.recv)
        process.join()
        pipe.close()
        await server.stop(None)
        await store.close()
        return done, calls

    # Bounds for starving, not for speed: with 64 calls in flight a commit waits for some tens of milliseconds.
    commits, calls = uvloop.run(write_beside_calls(seconds=2))
    assert commits > 5 * 2
    assert calls > 100 * 2, "the loop was busy"


# --- the thread ------------------------------------------------------------------------------------------------------


async def test_a_caller_that_gives_up_neither_stops_nor_loses_what_it_gave_to_the_thread(file: Sqlite) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        begun.set()
        go.wait()

    def insert(connection: sqlite3.Connection, key: int) -> None:
        connection.execute("INSERT INTO outputs (key, output) VALUES (?, 'x')", (key,))

    running = asyncio.create_task(file.file.write(hold))
    await asyncio.to_thread(begun.wait)
    waiting = [asyncio.create_task(file.file.write(insert, key)) for key in (1, 2)]
    await asyncio.sleep(0)
    for task in (running, waiting[0]):
        task.cancel()
    ended = await asyncio.gather(running, waiting[0], return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2
    go.set()
    await waiting[1]
    assert await ask(file, "SELECT group_concat(key) FROM outputs") == "1,2"


async def test_all_calls_run_on_the_one_thread_of_the_file_which_ends_with_it(tmp_path: Path) -> None:
    store = await open_store(ME, tmp_path, "fresh")
    threads = {await store.file.call(lambda connection: threading.current_thread()) for _ in range(3)}
    assert len(threads) == 1
    assert threads.isdisjoint({threading.main_thread()})
    await store.close()
    assert not any(thread.is_alive() for thread in threads)


async def test_a_file_that_is_closed_answers_that_and_may_be_closed_again(file: Sqlite) -> None:
    await file.commit([record(1)])
    await file.file.close()
    await file.file.close()
    for call in (file.load("default", "id-1"), file.commit([record(2)])):
        with pytest.raises(UnavailableError, match="is closed"):
            await call


# --- errors of the disk ----------------------------------------------------------------------------------------------


async def test_a_full_disk_fails_all_of_a_transaction_leaves_nothing_of_it_and_ends(file: Sqlite) -> None:
    await file.commit([record(1)])
    before = await contents(file)
    await ask(file, f"PRAGMA max_page_count = {await ask(file, 'PRAGMA page_count')}")
    big = Changes(set=(reminder(500, payload=BIG),))
    batches = [[record(2)], [record(3), big], [record(4)], [Changes(dropped=(1,))]]
    outcomes = await asyncio.gather(*(file.commit(batch) for batch in batches), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 4
    assert "full" in str(outcomes[0])
    await file.recovered()
    assert await contents(file) == before
    assert await file.commit([Changes(dropped=(1,))]) == [None]
    answers = await asyncio.gather(*(file.commit(batch) for batch in batches))
    assert answers == [[None], [None, None], [None], [None]]


@pytest.mark.fault(5, "A commit that finds no room fails as a whole, and later ones work again")
async def test_a_file_that_cannot_grow_fails_what_was_committed_meanwhile(tmp_path: Path) -> None:
    process, pipe = processes.start(processes.commit_under_a_limit, tmp_path)
    process.join(30)
    assert process.exitcode == 0
    before, during, after = processes.received(pipe)
    assert set(before.values()) == set(after.values()) == {"acknowledged"}
    assert set(during.values()) == {"UnavailableError"}
    store = await open_store(ME, tmp_path, "fresh")
    assert [await record_is_whole(store, number) for number in (*before, *after)] == [True] * 6
    assert [await record_is_whole(store, number) for number in during] == [None] * 3
    await store.close()


@pytest.mark.fault(6, "The n-th fsync fails: nothing of its commit is acknowledged, the file stays whole")
@pytest.mark.fault(
    1, "Killed at the n-th write: what was acknowledged is there, a transaction is there whole or not at all"
)
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.hard
@pytest.mark.parametrize("fault", ["fdatasync:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:signal=SIGKILL"])
async def test_a_failing_system_call_loses_nothing_acknowledged(tmp_path: Path, fault: str, injected: Injected) -> None:
    """The n-th call fails, for each n: what was acknowledged is there, a transaction is there whole or not at all."""
    failed = 0
    for number in (*range(1, 16), *range(18, 40, 4)):
        directory = tmp_path / str(number)
        tool = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}:when={number}"]
        command = [*tool, sys.executable, "-m", "tests.store.sqlite.processes", str(directory)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: ASYNC221
        assert ended.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), ended.stderr
        outcomes = dict(re.findall(r"^(\d+) (\w+)$", ended.stdout, re.MULTILINE))
        assert set(outcomes.values()) <= {"acknowledged", "UnavailableError"}
        failed += len(outcomes) < 15 or "UnavailableError" in outcomes.values() or "failed" in ended.stdout
        store = await open_store(ME, directory, "fresh")
        for first in range(1, 50, 10):
            whole = {await record_is_whole(store, record) for record in range(first, first + 3)}
            assert whole == {True} if outcomes.get(str(first)) == "acknowledged" else whole in ({True}, {None})
        assert await store.commit([record(999)]) == [None]
        await store.close()
    assert failed >= 5
    injected(failed, fault.replace(":", " "))


async def test_closing_finishes_what_is_written_one_by_one(file: Sqlite) -> None:
    batches = [[TOO_BIG], *([record(number)] for number in range(1, 30))]
    commits = [asyncio.create_task(file.commit(batch)) for batch in batches]
    await asyncio.sleep(0)
    await file.close()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(outcomes[0], Exception)
    assert outcomes[1:] == [[None]] * 29


# --- death -----------------------------------------------------------------------------------------------------------


async def kill_and_reopen(directory: Path, times: int) -> int:
    """Kill a process that commits, again and again; return how many commits it acknowledged. None of them is lost."""
    acknowledged: set[int] = set()
    for _ in range(times):
        process, pipe = processes.start(processes.commit_for_ever, directory)
        acknowledged.add(pipe.recv())
        await asyncio.sleep(random.uniform(0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        acknowledged.update(processes.received(pipe))
        store = await open_store(ME, directory, "fresh")
        found = await contents(store)
        await store.close()
        assert acknowledged <= set(found["instances"])
        expected = {
            number: {Position(1, index): b"%d" % number for index in (1, 2, 3)} for number in found["instances"]
        }
        assert found["log"] == expected
        assert found["outputs"] == {number: str(number) for number in expected}
        assert set(found["reminders"]) == set(expected)
    return len(acknowledged)


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    assert await kill_and_reopen(tmp_path, 3) > 10


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_after_twenty_kills(tmp_path: Path) -> None:
    assert await kill_and_reopen(tmp_path, 20) > 100


async def test_a_store_that_was_not_closed_gives_no_number_a_second_time(tmp_path: Path) -> None:
    process, pipe = processes.start(processes.commit_for_ever, tmp_path)
    acknowledged = {pipe.recv() for _ in range(20)}
    process.kill()
    process.join()
    acknowledged.update(processes.received(pipe))
    store = await open_store(ME, tmp_path, "fresh")
    numbers = (store.next_key, store.next_order)
    await store.close()
    assert min(numbers) > max(acknowledged)


# --- what reads and writes cost --------------------------------------------------------------------------------------

READS: dict[str, Callable[[Sqlite], Coroutine[Any, Any, Any]]] = {
    "load": lambda store: store.load("default", "id-1"),
    "events": lambda store: store.events(1, EVERYTHING, MANY),
    "payloads": lambda store: store.payloads(1),
    "children": lambda store: store.children(1),
    "creations": lambda store: store.creations(1),
    "ready": lambda store: store.ready(0, 10),
    "entities": lambda store: store.entities("default", "@a@", "", 10, states=True),
    "due": lambda store: store.due(50, Position(0, 0), 10),
    "activities": lambda store: store.activities(0, 10),
    "outbound": lambda store: store.outbound(*ML, 0, 10),
    # "destinations" is asked once, at the start, and reads the index of what is on its way.
    "reminder": lambda store: store.reminder(1),
    "foreign_activity": lambda store: store.foreign_activity(*ML, FAR_CALL),
}
WRITES: dict[str, list[Changes]] = {
    "create": [created(1, set=(from_ml(1), call_of_ml(2)))],
    "step": [created(1), step(instance(1), truncate=Position(2, 0), closed=(1,), close_all=True, ended=(FAR_CALL,))],
    "batch": [created(1), step(instance(1), removed=(Position(1, 1),), no_output=True)],
    "replace": [created(1), created(2, replaces=1, replaced_at=1)],
    "purge": [created(1), Changes(key=1, expected=1, purged=True)],
    "messages": [Changes(set=(call_of_ml(1),), delivered=(Delivered(1, "s"),), released=(1,), dropped=(1,))],
    "crash": [Changes(set=(from_ml(1),), crashed=(Crash(1, "lost"),))],
    "lost": [Changes(received=(Received(*ML, "s", 1),), lost=(Lost(*ML, "t", "t"),))],
}


async def scans(store: Sqlite, statements: Statements) -> list[str]:
    """The statements that walk through a table or a whole index, with what they walk through."""
    await store.file.call(lambda connection: connection.set_trace_callback(None))
    plain = [one for one in statements.seen if one.split()[0] in ("SELECT", "UPDATE", "DELETE")]
    assert plain
    plans = {one: await store.file.call(fetch_all, f"EXPLAIN QUERY PLAN {one}", ()) for one in plain}
    return [f"{row[3]}: {statement}" for statement, plan in plans.items() for row in plan if "SCAN" in row[3]]


@pytest.mark.parametrize("read", READS)
async def test_a_read_finds_what_it_wants_by_an_index(file: Sqlite, statements: Statements, read: str) -> None:
    await READS[read](file)
    assert await scans(file, statements) == []


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_finds_what_it_changes_by_an_index(file: Sqlite, statements: Statements, write: str) -> None:
    assert await file.commit(WRITES[write]) == [None] * len(WRITES[write])
    assert await scans(file, statements) == []


def sleeping(number: int) -> Changes:
    """An instance that sleeps: a timer far away, and a call that another app has accepted."""
    timer = reminder(2 * number, Kind.TIMER, owner=number, due=10**9)
    call = call_of_ml(2 * number + 1, owner=number)
    return replace(record(number), set=(timer, call), delivered=(Delivered(call.id, "s"),))


def active(number: int) -> Changes:
    """An instance with something in each of the lists that are read page by page."""
    work = reminder(number + 1, Kind.ACTIVITY, target=activity())
    row = instance(number, f"id-{number}", ready=True)
    return created(number, instance=row, set=(reminder(number, due=10), work, call_of_ml(number + 2)))


async def test_reading_what_is_active_costs_the_same_beside_thousands_that_sleep(file: Sqlite) -> None:
    lists = {name: READS[name] for name in ("ready", "due", "activities", "outbound")}

    async def costs() -> dict[str, tuple[int, int]]:
        found = {}
        for name, read in lists.items():
            steps = 0

            def count() -> None:
                nonlocal steps
                steps += 1

            await file.file.call(lambda connection: connection.set_progress_handler(count, 1))
            found[name] = (len(await read(file)), steps)
            await file.file.call(lambda connection: connection.set_progress_handler(None, 0))
        return found

    await file.commit([active(10_001)])
    few = await costs()
    assert {length for length, _ in few.values()} == {1}
    await file.commit([sleeping(number) for number in range(1, 3_000)])
    many = await costs()
    assert {name: (length, steps) for name, (length, steps) in many.items() if steps > few[name][1] + 20} == {}
    assert {length for length, _ in many.values()} == {1}
