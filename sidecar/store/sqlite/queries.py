"""Queries over the instances of the SQLite store, each a bounded piece of work. Runs on the connection's thread.

A query walks along an index: a range for each status, merged into one order. What no index knows (names, tags) is
asked of one slice of it at a time. A prefix that few IDs have is found by the IDs.
"""

import json
import sqlite3
from typing import Any

from sidecar.core.model import Instance, Status
from sidecar.store.protocol import Criteria, Cursor, EntityRow, Order, Page
from sidecar.store.sqlite import rows
from sidecar.store.sqlite.pages import LeftOut

SLICE = 2_000  # instances that one call looks at
MOST_BYTES = 4 * 1024 * 1024  # of the rows in a page: a custom status can be large
_MOMENT = {Order.CREATED: "created_at", Order.COMPLETED: "completed_at"}
_TERMINAL = frozenset(status for status in Status if status.terminal)
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

# ruff: noqa: S608 (every statement is built from constants of this package)
_WORKFLOWS = "entity = 0"
_COLUMNS = ", ".join(f"instances.{name}" for name in rows.INSTANCE)
_WITH_PREFIX = "SELECT key FROM instances WHERE hub = ? AND id >= ? AND id < ? LIMIT ?"
_ENTITIES = (
    "SELECT id, revision, updated_at, lock_owner, lock_execution, lock_section, "
    "(SELECT count(*) FROM history WHERE history.key = instances.key) AS backlog, "
    "output IS NOT NULL AS has_state, CASE WHEN ? THEN output END AS state "
    "FROM instances LEFT JOIN outputs ON outputs.key = instances.key "
    "WHERE hub = ? AND id > ? AND id >= ? AND id < ? AND entity = 1 ORDER BY id LIMIT ?"
)
HUBS = (
    "WITH RECURSIVE found (hub) AS (SELECT min(hub) FROM instances UNION ALL "
    "SELECT (SELECT min(hub) FROM instances WHERE hub > found.hub) FROM found WHERE hub IS NOT NULL) "
    "SELECT hub FROM found WHERE hub IS NOT NULL"
)

Statement = tuple[str, list[Any]]


def run(
    connection: sqlite3.Connection, criteria: Criteria, order: Order, after: Cursor, limit: int
) -> tuple[Page, list[LeftOut]]:
    """See `Store.query`; with what was left out of the page since it cannot be read."""
    size = max(limit, SLICE)
    near = _few_with_prefix(connection, criteria)
    looked_at = walk(criteria, order, after, size) if near is None else among(near, criteria, order, after)
    statement, values = matching(looked_at, criteria)
    found: list[Instance] = []
    left_out: list[LeftOut] = []
    weight = 0
    for seen, (moment, *columns) in enumerate(connection.execute(statement, [*values, limit]), start=1):
        row = rows.InstanceRow._make(columns)
        try:
            found.append(rows.to_instance(rows.checked(rows.InstanceRow, columns)))
            weight += len(row.custom_status or "") + len(row.failure or b"") + len(row.tags)
        except rows.UNREADABLE as error:
            left_out.append(LeftOut("instance", row.key, f"{row.id!r}: {error}"))
        if seen == limit or weight > MOST_BYTES:
            return Page(found, Cursor(moment, row.key)), left_out
    return Page(found, None if near is not None else _end_of(connection, looked_at, size)), left_out


def _end_of(connection: sqlite3.Connection, looked_at: "Statement", size: int) -> Cursor | None:
    """Return where the next slice begins, None if this was the last."""
    walked, values = looked_at
    end = connection.execute(f"SELECT moment, key FROM ({walked}) LIMIT 1 OFFSET ?", [*values, size - 1]).fetchone()
    return Cursor(*end) if end else None


def entities(connection: sqlite3.Connection, where: tuple[str, str, str], limit: int, states: bool) -> list[EntityRow]:
    """See `Store.entities`; `where` are hub, prefix, and the ID to begin behind."""
    hub, prefix, after = where
    values = (states, hub, after, prefix, behind(prefix), limit)
    return [rows.to_entity(rows.EntityStateRow._make(row)) for row in connection.execute(_ENTITIES, values)]


def matching(looked_at: Statement, criteria: Criteria) -> Statement:
    """Return the statement that takes, in order, what fits out of a slice; its last value is how many at most.

    The join cannot be turned round, and a slice with a limit keeps its order: so nothing is sorted.
    """
    conditions, values = _rest(criteria)
    where = " AND ".join(["instances.key = slice.key", *conditions])
    slice_, before = looked_at
    text = f"SELECT slice.moment, {_COLUMNS} FROM ({slice_}) AS slice CROSS JOIN instances WHERE {where} LIMIT ?"
    return text, [*before, *values]


def walk(criteria: Criteria, order: Order, after: Cursor, size: int) -> Statement:
    """Return the statement that walks along the index: one range for each status, merged."""
    moment = _MOMENT[order]
    range_, ends = _range(moment, criteria, after)
    one = f"SELECT {moment} AS moment, key FROM instances WHERE hub = ? AND entity = ? AND status = ? AND {range_}"
    kinds = (False, True) if criteria.entities else (False,)
    ranges = [(criteria.hub, kind, status, *ends) for kind in kinds for status in _statuses(criteria, order)]
    values = [value for one_range in ranges for value in one_range]
    return f"{' UNION ALL '.join([one] * len(ranges))} ORDER BY moment, key LIMIT ?", [*values, size]


def among(keys: str, criteria: Criteria, order: Order, after: Cursor) -> Statement:
    """Return the statement that puts a few instances, given by their keys as JSON, in order."""
    moment = _MOMENT[order]
    range_, ends = _range(moment, criteria, after)
    text = (
        f"SELECT {moment} AS moment, key FROM instances WHERE key IN (SELECT value FROM json_each(?)) "
        f"AND status IN (SELECT value FROM json_each(?)) AND {range_} ORDER BY moment, key LIMIT ?"
    )
    return text, [keys, json.dumps(_statuses(criteria, order)), *ends, SLICE]


def _range(moment: str, criteria: Criteria, after: Cursor) -> Statement:
    start = after if criteria.since is None else max(after, Cursor(criteria.since, 0))
    text = f"{moment} IS NOT NULL AND ({moment}, key) > (?, ?)"  # the first half is what a partial index asks for
    if criteria.before is None:
        return text, [*start]
    return f"{text} AND {moment} < ?", [*start, criteria.before]


def _statuses(criteria: Criteria, order: Order) -> list[int]:
    """Return the statuses to look for; one that no instance has if there are none."""
    wanted = criteria.statuses & _TERMINAL if order is Order.COMPLETED else criteria.statuses
    return sorted(map(int, wanted)) or [-1]


def _rest(criteria: Criteria) -> tuple[list[str], list[Any]]:
    """Return the conditions that no index answers."""
    conditions = [] if criteria.entities else [_WORKFLOWS]
    values: list[Any] = []
    if criteria.name is not None:
        conditions.append("name = ?")
        values.append(criteria.name)
    if criteria.prefix:
        conditions.append("id >= ? AND id < ?")
        values += [criteria.prefix, behind(criteria.prefix)]
    conditions += ["instr(tags, ?) > 0"] * len(criteria.tags)
    return conditions, [*values, *criteria.tags]


def _few_with_prefix(connection: sqlite3.Connection, criteria: Criteria) -> str | None:
    """Return the keys of the instances whose IDs have the prefix, as JSON, unless there are too many."""
    if not criteria.prefix:
        return None
    values = (criteria.hub, criteria.prefix, behind(criteria.prefix), SLICE + 1)
    found = [key for (key,) in connection.execute(_WITH_PREFIX, values)]
    return json.dumps(found) if len(found) <= SLICE else None


def behind(prefix: str) -> str | bytes:
    """Return what comes, in the order of the store, behind every text that begins with the prefix."""
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        return b""  # any blob comes behind any text
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
