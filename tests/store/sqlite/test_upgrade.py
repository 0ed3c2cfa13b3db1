"""M92: a store that an earlier version has written opens, and its workflows finish; a newer one is refused.

`fixtures/` has the store of each released schema, as `fixtures/make.py` left it in the middle of everything.
"""

import asyncio
import hashlib
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.model import Kind, Outcome, Status
from sidecar.core.receipts import Received
from sidecar.core.workflow import calls
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite import check, restore, schema
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.inprocess.world import START, FakeClock, Hand, World, end, kinds, operations
from tests.store.builders import ME
from tests.store.sqlite import processes
from tests.store.sqlite.fixtures.make import FAR, FOLDER

DAY = 86_400_000_000
NEWEST = schema.migrations()[-1][0]
RELEASED = sorted(FOLDER.glob("schema_*.db"))
# A schema that was released never changes: a store would then depend on when it was made.
FROZEN = {
    1: "474929ac6c9b386da5738eb04b500e45af76d5e8dddfe38e8ae0d706937653af",
    2: "d27ef05fec9f73b57f259c939d833910f906e48ce36bae1df53991f62674c668",
}


def database(directory: Path, fixture: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return Path(shutil.copyfile(fixture, schema.path_of(ME, directory)))


def digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def test_a_released_schema_is_as_it_was_and_its_store_is_kept() -> None:
    found = {number: digest(script) for number, script in schema.migrations()}
    assert {number: found[number] for number in FROZEN} == FROZEN
    assert [int(path.stem.split("_")[1]) for path in RELEASED][: len(FROZEN)] == sorted(FROZEN)


@pytest.mark.parametrize("fixture", RELEASED, ids=lambda path: path.stem)
def test_a_store_of_an_earlier_version_is_checked_and_put_back_as_one_of_this(fixture: Path, tmp_path: Path) -> None:
    """The check changes nothing of it, and finds what is wrong with its rows."""
    file = database(tmp_path / "data", fixture)
    before = file.read_bytes()
    assert check.problems(file) == []
    assert file.read_bytes() == before
    restore.restore(ME, tmp_path / "other", fixture, 1)
    with closing(sqlite3.connect(schema.path_of(ME, tmp_path / "other"))) as connection:
        assert connection.execute("SELECT count(*) FROM instances").fetchone()[0] > 0
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE reminders SET kind = 99")
        connection.commit()
    assert any("cannot be read" in problem for problem in check.problems(file))


@pytest.mark.fault(36, "A store of each earlier version opens, and its workflows finish")
@pytest.mark.parametrize("fixture", RELEASED, ids=lambda path: path.stem)
async def test_a_store_of_an_earlier_version_is_opened_and_its_workflows_finish(fixture: Path, tmp_path: Path) -> None:
    """M92: chain, remote call, timer, child, entity and undelivered result of a store that an older version wrote."""
    file = database(tmp_path, fixture)
    clock = FakeClock()
    clock.wall = START + DAY
    world = await World.open(tmp_path, clock)
    hand = Hand(max_entities=10)
    try:
        world.run()
        world.dispatch.add_worker(hand.worker)
        await world.dispatch.refill()
        await other_app_answers(world)
        assert pb.ActivityRequest.FromString((await hand.activity(1)).request).task_id == 2
        assert (await world.answer(hand.activities[0], '"second"')).outcome is Outcome.DONE
        await world.event("kid", "go")
        seen = await finish(world, hand)
        assert seen["chain"][-2:] == ["orchestrator_started", "task_completed"]
        assert seen["chain"].count("task_completed") == 2
        assert "task_completed" in seen["remote"]
        assert "timer_fired" in seen["sleeper"]
        assert "child_completed" in seen["parent"]
        batch = await hand.batch(1)
        assert (operations(batch), batch.state) == (["2"], "one")
        assert (await world.ran(batch, "two")).outcome is Outcome.DONE
        assert (await world.start("new")).outcome is Outcome.DONE
    finally:
        await world.close()
    assert ended_in(file) == {"chain", "remote", "sleeper", "parent", "kid"}


async def other_app_answers(world: World) -> None:
    """What waits to go to app ml is what it was, and that app answers the call."""
    sent = {reminder.kind: reminder for reminder in await world.store.outbound("default", "ml", 0, 10)}
    assert (sent[Kind.RESULT].call, sent[Kind.RESULT].target.id) == (FAR, "far")
    assert pb.HistoryEvent.FromString(sent[Kind.RESULT].payload).task_completed.result.value == '"scored"'
    done = pb.ActivityResponse(task_id=1, result=StringValue(value='"far"'))
    now = world.clock.now()
    answer = calls.answer_of(sent[Kind.ACTIVITY], events.task_result(now, done), now)
    assert (await world.messages.deliver(answer, Received("default", "ml", "store of ml", 9))).outcome is Outcome.DONE


def ended_in(file: Path) -> set[str]:
    """The workflows that have completed in a file, which is whole and of the newest schema."""
    assert check.problems(file) == []
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST,)
        statement = "SELECT id FROM instances WHERE entity = 0 AND status = ?"
        return {name for (name,) in connection.execute(statement, (int(Status.COMPLETED),))}


async def finish(world: World, hand: Hand) -> dict[str, list[str]]:
    """End each workflow with its next turn; return the kinds of all events of each."""
    seen: dict[str, list[str]] = {}
    async with asyncio.timeout(20):
        for number in range(1, 6):
            item = await hand.turn(number)
            seen[item.instance_id] = kinds([*item.past.events, *item.new])
            assert (await world.complete(item, end())).outcome is Outcome.DONE
    return seen


NEXT = (
    "ALTER TABLE received ADD COLUMN note TEXT; CREATE INDEX received_notes ON received (note); "
    "UPDATE meta SET value = value;"
)


@pytest.fixture
def next_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema after the newest."""
    later = [*schema.migrations(), (NEWEST + 1, f"-- What; comes next.\n{NEXT}\n-- And no more.\n")]
    monkeypatch.setattr(schema, "migrations", lambda: later)


async def version(store: Sqlite) -> Any:
    return (await store.file.call(lambda connection: connection.execute("PRAGMA user_version").fetchone()))[0]


@pytest.mark.parametrize("fixture", RELEASED, ids=lambda path: path.stem)
async def test_the_next_schema_is_reached_from_each_before_and_not_left_again(
    fixture: Path, tmp_path: Path, next_schema: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M92: and what has been opened by a newer version is refused by an older one, with what to do, and left alone."""
    file = database(tmp_path, fixture)
    store = await open_store(ME, tmp_path, "fresh")
    assert await version(store) == NEWEST + 1
    await store.close()
    monkeypatch.undo()
    before = file.read_bytes()
    with pytest.raises(schema.OpenError, match=f"schema {NEWEST + 1}, this version knows {NEWEST}: upgrade"):
        await open_store(ME, tmp_path, "fresh")
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.fault(36, "A migration that dies before any of its statements is done by the next start")
@pytest.mark.parametrize("fixture", RELEASED, ids=lambda path: path.stem)
async def test_a_migration_that_is_killed_before_any_of_its_statements_is_done_by_the_next_start(
    fixture: Path, tmp_path: Path
) -> None:
    """Fault 36: each statement of the opening, from each released schema to one after the newest."""
    deaths = 0
    for number in range(1, 200):
        directory = tmp_path / str(number)
        file = database(directory, fixture)
        process, pipe = processes.start(processes.die_before_statement_of, directory, number, NEXT)
        process.join()
        pipe.close()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        with closing(sqlite3.connect(file)) as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            notes = [row[1] for row in connection.execute("PRAGMA table_info(received)")]
            assert ("note" in notes) == (found > NEWEST), "a schema is there whole, with its number, or not at all"
        process, pipe = processes.start(processes.die_before_statement_of, directory, 10_000, NEXT)
        process.join()
        pipe.close()
        assert process.exitcode == 0
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST + 1,)
            assert connection.execute("SELECT count(*) FROM instances").fetchone() == (6,)
    print(f"{deaths} deaths in the opening of {fixture.stem}")  # noqa: T201
    assert deaths > 20


def test_a_script_is_cut_into_its_statements() -> None:
    script = "-- a; b\nCREATE TABLE a (x TEXT DEFAULT ';');\n\nINSERT INTO a VALUES ('; --');\n-- the end\n"
    cut = list(schema._statements(script))
    assert [one.splitlines()[-1] for one in cut] == [
        "CREATE TABLE a (x TEXT DEFAULT ';');",
        "INSERT INTO a VALUES ('; --');",
    ]
