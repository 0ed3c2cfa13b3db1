"""Everything that a file holds, in the form of `MemoryStore.snapshot`."""

import sqlite3
from collections import defaultdict
from typing import Any

from sidecar.core.model import Position
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.sqlite import rows
from sidecar.store.sqlite.store import Sqlite


async def contents(store: Sqlite) -> dict[str, Any]:
    return await store.file.call(_contents)


def _contents(connection: sqlite3.Connection) -> dict[str, Any]:
    def all_of(table: str, columns: tuple[str, ...]) -> list[Any]:
        return connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()  # noqa: S608 (constants)

    found: dict[str, Any] = {"log": defaultdict(dict), "calls": defaultdict(dict), "children": defaultdict(dict)}
    found["instances"] = {
        row[0]: rows.to_instance(rows.InstanceRow._make(row)) for row in all_of("instances", rows.INSTANCE)
    }
    found["outputs"] = dict(all_of("outputs", ("key", "output")))
    found["lineages"] = dict(all_of("lineages", ("key", "history")))
    for key, turn, index, event in all_of("history", ("key", "turn", "place", "event")):
        found["log"][key][Position(turn, index)] = event
    for row in all_of("open_calls", rows.CALL):
        found["calls"][row[0]][row[1]] = rows.to_call(rows.CallRow._make(row))
    for row in all_of("children", ("key", "namespace", "app", "hub", "id", "execution", "turn", "task", "ended")):
        child = rows.to_child(rows.ChildRow._make(row[1:8]))
        found["children"][row[0]][child.call] = (child, bool(row[8]))
    reminders = all_of("reminders", (*rows.REMINDER, "accepted_by"))
    found["reminders"] = {row[0]: rows.to_reminder(rows.ReminderRow._make(row[:-1])) for row in reminders}
    found["accepted"] = {row[0]: row[-1] for row in reminders if row[-1]}
    received = all_of("received", ("store", "message", "namespace", "app"))
    found["received"] = {(row[0], row[1]): (row[2], row[3]) for row in received}
    found["schedules"] = {row[:2]: ScheduleRow(*row) for row in all_of("schedules", ScheduleRow._fields)}
    last = dict(all_of("sqlite_sequence", ("name", "seq")))
    return found | {"last_key": last.get("instances", 0), "last_order": last.get("reminders", 0)}
