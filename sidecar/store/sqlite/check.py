"""Whether a database file is whole and makes sense: what `sidecar store check` says, and what every copy must pass.

`python -m sidecar.store.sqlite.check FILE` prints what is wrong, a line each, in a process of its own: it reads the
whole file, and a sidecar that serves has better things to do. Nothing is changed but what a log beside the file holds.
"""

import contextlib
import sqlite3
import sys
from pathlib import Path

from sidecar.core.model import CallKind, Kind, Rewind, Status
from sidecar.store.sqlite import schema

_SHOWN = 20  # findings of one kind
_ENDED = ", ".join(str(int(status)) for status in Status if status.terminal)
_CAUSED = ", ".join(str(int(kind)) for kind in (CallKind.ACTIVITY, CallKind.CHILD, CallKind.TIMER))
_OF_INSTANCES = ("outputs", "lineages", "history", "open_calls", "children")

# ruff: noqa: S608 (every statement is built from constants of this package)
# What is wrong with the rows that a statement finds; the values go into the text.
_RULES = {
    **{
        f"{table} has rows of instance {{0}}, which is not there": (
            f"SELECT DISTINCT key FROM {table} WHERE key NOT IN (SELECT key FROM instances)"
        )
        for table in _OF_INSTANCES
    },
    "instance {0} waits for call {1}, which nothing will answer": (
        f"SELECT instances.id, open_calls.task FROM instances CROSS JOIN open_calls USING (key) "
        f"WHERE status NOT IN ({_ENDED}) AND open_calls.kind IN ({_CAUSED}) AND rewind <> {int(Rewind.ASKED)} "
        "AND NOT EXISTS (SELECT 1 FROM reminders WHERE id = open_calls.reminder) "
        f"AND NOT EXISTS (SELECT 1 FROM reminders WHERE kind = {int(Kind.RESULT)} "
        "AND execution = open_calls.execution AND turn = open_calls.turn AND task = open_calls.task) "
        "AND NOT EXISTS (SELECT 1 FROM instances AS child WHERE child.hub = open_calls.target_hub "
        f"AND child.id = open_calls.target_id AND child.status NOT IN ({_ENDED}))"
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
}


def problems(path: Path) -> list[str]:
    """Return what is wrong with a file, all of it read; empty if nothing is."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            return schema.strangeness(connection) or _damage(connection) or broken_rules(connection)
    except sqlite3.Error as error:
        return [str(error)]


def _damage(connection: sqlite3.Connection) -> list[str]:
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
    lost = connection.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    return [line for line in found if line != "ok"] + [f"a row of {row[0]} refers to nothing" for row in lost]


def broken_rules(connection: sqlite3.Connection) -> list[str]:
    """Return which rules between the rows do not hold; each must at every moment."""
    return [
        text.format(*row)
        for text, statement in _RULES.items()
        for row in connection.execute(statement).fetchmany(_SHOWN)
    ]


def main(path: str) -> int:
    """Print what is wrong with a file; return 1 if something is."""
    found = problems(Path(path))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
