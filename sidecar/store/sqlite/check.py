"""Whether a database file is whole and makes sense: what `sidecar store check` says, and what every copy must pass.

`python -m sidecar.store.sqlite.check FILE` writes how far it is and what is wrong, a line of JSON each, in a process of
its own: it reads the whole file, and a sidecar that serves has better things to do. Nothing is changed but what a log
beside the file holds.
What is checked takes time that grows with the file and not with its square.
"""

import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.model import CallKind, Kind, Status
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.progress import At, Progress, unseen
from sidecar.store.sqlite import rows, schema

_SHOWN = 20  # findings of one kind
_TOLD_EVERY = 1_000  # rows
_ENDED = ", ".join(str(int(status)) for status in Status if status.terminal)
_CAUSED = ", ".join(str(int(kind)) for kind in (CallKind.ACTIVITY, CallKind.CHILD, CallKind.TIMER))
_OF_INSTANCES = ("outputs", "lineages", "history", "open_calls", "children")

# ruff: noqa: S608 (every statement is built from constants of this package)
_ANSWERS = f"SELECT execution, turn, task FROM reminders WHERE kind = {int(Kind.RESULT)}"
# What is wrong with the rows that a statement finds; the values go into the text.
_RULES = {
    **{
        f"{table} has rows of instance {{0}}, which is not there": (
            f"SELECT DISTINCT key FROM {table} WHERE key NOT IN (SELECT key FROM instances)"
        )
        for table in _OF_INSTANCES
    },
    # The answers are put into an index of their own, once: without it each call that waits would read all reminders.
    "instance {0} waits for call {1}, which nothing will answer": (
        f"SELECT instances.id, open_calls.task FROM instances CROSS JOIN open_calls USING (key) "
        f"WHERE status NOT IN ({_ENDED}) AND open_calls.kind IN ({_CAUSED}) "
        "AND NOT EXISTS (SELECT 1 FROM reminders WHERE id = open_calls.reminder) "
        "AND NOT EXISTS (SELECT 1 FROM instances AS child WHERE child.hub = open_calls.target_hub "
        f"AND child.id = open_calls.target_id AND child.status NOT IN ({_ENDED})) "
        f"AND (open_calls.execution, open_calls.turn, open_calls.task) NOT IN ({_ANSWERS})"
    ),
    "instance {0} has ended and waits for call {1}": (
        f"SELECT instances.id, open_calls.task FROM instances CROSS JOIN open_calls USING (key) "
        f"WHERE status IN ({_ENDED}) AND open_calls.kind IN ({_CAUSED})"
    ),
    "instance {0} has ended and does not say when": (
        f"SELECT id FROM instances WHERE status IN ({_ENDED}) AND completed_at IS NULL"
    ),
    "a number of table {0} will be given again": (
        "SELECT name FROM sqlite_sequence WHERE (name = 'instances' AND seq < (SELECT max(key) FROM instances)) "
        "OR (name = 'reminders' AND seq < (SELECT max(id) FROM reminders))"
    ),
    "schedule {0} has no next step: its reminder is gone": (
        "SELECT id FROM schedules WHERE reminder <> 0 AND NOT EXISTS "
        f"(SELECT 1 FROM reminders WHERE id = schedules.reminder AND kind = {int(Kind.SCHEDULE)})"
    ),
    "reminder {0} is for no schedule": (
        f"SELECT id FROM reminders WHERE kind = {int(Kind.SCHEDULE)} AND NOT EXISTS "
        "(SELECT 1 FROM schedules WHERE hub = target_hub AND id = target_id AND reminder = reminders.id)"
    ),
    "reminder {0} goes nowhere: its place is {1}": (
        f"SELECT id, place FROM reminders WHERE place NOT IN ({rows.OWN_WORKFLOW}, {rows.OWN_WORKER}, {rows.OTHER_APP})"
    ),
}


class _Table(NamedTuple):
    """How the sidecar reads the rows of a table; the first column of the statement names the row."""

    table: str
    name: str
    statement: str
    read: Callable[[Any], object]


def _columns(names: Sequence[str]) -> str:
    # A payload may be large, and has no form that the store knows; a part of an empty one is no blob any more.
    part = "iif(length(payload) > 1, substr(payload, 1, 1), payload)"
    return ", ".join(part if name == "payload" else name for name in names)


_TABLES = (
    _Table(
        "instances",
        "instance",
        f"SELECT id, {_columns(rows.INSTANCE)} FROM instances",
        lambda raw: rows.to_instance(rows.checked(rows.InstanceRow, raw)),
    ),
    _Table(
        "open_calls",
        "a call of instance",
        f"SELECT instances.id, {', '.join(f'open_calls.{name}' for name in rows.CALL)} FROM open_calls JOIN instances "
        "USING (key)",
        lambda raw: rows.to_call(rows.checked(rows.CallRow, raw)),
    ),
    _Table(
        "children",
        "a child of instance",
        f"SELECT instances.id, {', '.join(f'children.{name}' for name in rows.CHILD)} FROM children JOIN instances "
        "USING (key)",
        lambda raw: rows.to_child(rows.checked(rows.ChildRow, raw)),
    ),
    _Table(
        "reminders",
        "reminder",
        f"SELECT id, {_columns(rows.REMINDER)} FROM reminders",
        lambda raw: rows.to_reminder(rows.checked(rows.ReminderRow, raw)),
    ),
    _Table(
        "schedules",
        "schedule",
        f"SELECT id, {_columns(rows.SCHEDULE)} FROM schedules",
        lambda raw: rows.checked(ScheduleRow, raw),
    ),
)


def problems(path: Path, progress: Progress = unseen) -> list[str]:
    """Return what is wrong with a file, all of it read; empty if nothing is."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.text_factory = rows.text
            progress(At("the pages of the file"))
            if found := schema.strangeness(connection) or _damage(connection):
                return found
            with schema.seen_as_new(connection):
                return [*_unreadable(connection, progress), *broken_rules(connection, progress)]
    except sqlite3.Error as error:
        return [str(error)]


def _unreadable(connection: sqlite3.Connection, progress: Progress) -> Iterator[str]:
    """Yield which rows the sidecar would leave out, or refuse, since it cannot read them."""
    for table in _TABLES:
        yield from islice(_unreadable_of(connection, table, progress), _SHOWN)


def _unreadable_of(connection: sqlite3.Connection, table: _Table, progress: Progress) -> Iterator[str]:
    what, [(total,)] = f"each {table.name}", connection.execute(f"SELECT count(*) FROM {table.table}")
    for done, (number, *raw) in enumerate(connection.execute(table.statement)):
        if not done % _TOLD_EVERY:
            progress(At(what, done, total))
        try:
            table.read(raw)
        except rows.UNREADABLE as error:
            yield f"{table.name} {number} cannot be read: {error}"


def _damage(connection: sqlite3.Connection) -> list[str]:
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
    lost = connection.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    return [line for line in found if line != "ok"] + [f"a row of {row[0]} refers to nothing" for row in lost]


def broken_rules(connection: sqlite3.Connection, progress: Progress = unseen) -> list[str]:
    """Return which rules between the rows do not hold; each must at every moment."""
    found: list[str] = []
    for done, (text, statement) in enumerate(_RULES.items()):
        progress(At("rules between the rows", done, len(_RULES)))
        found += [text.format(*row) for row in connection.execute(statement).fetchmany(_SHOWN)]
    return found


def main(path: str) -> int:
    """Write how far it is, and what is wrong with a file; return 1 if something is. `read` is the other end."""

    def write(line: object) -> None:
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()

    found = problems(Path(path), write)
    for text in found:
        write(text)
    return 1 if found else 0


def read(lines: Iterable[bytes], progress: Progress) -> list[str]:
    """Return what is wrong with a file, as a process says that checks it."""
    found: list[str] = []
    for line in map(json.loads, lines):
        if isinstance(line, str):
            found.append(line)
        else:
            progress(At(*line))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
