"""The one write of the SQLite store: many changes in one transaction. Runs on the connection's thread."""

import sqlite3
from collections.abc import Iterable, Sequence

from sidecar.core.identity import AppIdentity
from sidecar.core.model import Changes, Instance, Reminder
from sidecar.core.schedule_row import ScheduleStep
from sidecar.store.protocol import Refusal
from sidecar.store.sqlite import rows


def _columns(names: Iterable[str]) -> tuple[str, str]:
    names = list(names)
    return ", ".join(names), ", ".join("?" * len(names))


_INSTANCE, _INSTANCE_MARKS = _columns(rows.INSTANCE)
_CALL, _CALL_MARKS = _columns(rows.CALL)
_CHILD, _CHILD_MARKS = _columns(rows.CHILD)
_REMINDER, _REMINDER_MARKS = _columns(rows.REMINDER)
_SCHEDULE, _SCHEDULE_MARKS = _columns(rows.SCHEDULE)
_SET_INSTANCE = ", ".join(f"{name} = excluded.{name}" for name in rows.INSTANCE if name not in ("key", "hub", "id"))

# ruff: noqa: S608 (every statement is built from constants of this package)
SELECT_INSTANCE = f"SELECT {_INSTANCE} FROM instances WHERE hub = ? AND id = ?"
SELECT_CALLS = f"SELECT {_CALL} FROM open_calls WHERE key = ?"
SELECT_CHILDREN = f"SELECT {_CHILD} FROM children WHERE key = ? AND ended = 0"
ALL_CHILDREN = f"SELECT {_CHILD} FROM children WHERE key = ?"
CREATIONS = (
    "SELECT target_namespace, target_app, target_hub, target_id, execution, turn, task FROM reminders "
    "WHERE owner = ? AND kind IN (4, 11) AND accepted_by = '' ORDER BY execution, turn, task"
)
SELECT_INBOX = "SELECT turn, place, event FROM history WHERE key = ? AND turn > ? ORDER BY turn, place"
_REVISION = "SELECT revision FROM instances WHERE key = ?"
_SCHEDULE_REVISION = "SELECT revision FROM schedules WHERE hub = ? AND id = ?"
_WRITE_SCHEDULE = f"INSERT OR REPLACE INTO schedules ({_SCHEDULE}) VALUES ({_SCHEDULE_MARKS})"
_REMOVE_SCHEDULE = "DELETE FROM schedules WHERE hub = ? AND id = ?"
_TAKEN = "SELECT 1 FROM instances WHERE hub = ? AND id = ? AND key <> ?"
_HAS_REMINDER = "SELECT 1 FROM reminders WHERE id = ?"
_RECEIVED = "SELECT 1 FROM received WHERE store = ? AND message = ?"
_WRITE_INSTANCE = (
    f"INSERT INTO instances ({_INSTANCE}) VALUES ({_INSTANCE_MARKS}) ON CONFLICT (key) DO UPDATE SET {_SET_INSTANCE}"
)
_WRITE_CALL = f"INSERT OR REPLACE INTO open_calls ({_CALL}) VALUES ({_CALL_MARKS})"
_WRITE_CHILD = f"INSERT OR REPLACE INTO children (key, ended, {_CHILD}) VALUES (?, 0, {_CHILD_MARKS})"
_FORGET_CHILDREN = "DELETE FROM children WHERE key = ? AND ended = 1 AND turn < ?"
_END_CHILD = "UPDATE children SET ended = 1 WHERE key = ? AND execution = ? AND turn = ? AND task = ?"
_APPEND = "INSERT INTO history (key, turn, place, event) VALUES (?, ?, ?, ?)"
_TRUNCATE = "DELETE FROM history WHERE key = ? AND (turn, place) >= (?, ?)"
_REMOVE = "DELETE FROM history WHERE key = ? AND turn = ? AND place = ?"
_WRITE_REMINDER = f"INSERT INTO reminders ({_REMINDER}) VALUES ({_REMINDER_MARKS})"
_ANSWERED = (
    "SELECT 1 FROM reminders WHERE place = 2 AND kind = 5 AND target_namespace = ? AND target_app = ? "
    "AND execution = ? AND turn = ? AND task = ?"
)
_TAKEN_IN = (
    "SELECT 1 FROM reminders WHERE place = 1 AND owner = 0 AND source_namespace = ? AND source_app = ? "
    "AND execution = ? AND turn = ? AND task = ?"
)
_DROP = "DELETE FROM reminders WHERE id = ?"
_RELEASE = (
    "DELETE FROM reminders WHERE id = ? AND accepted_by <> ''",
    "UPDATE reminders SET held = 0 WHERE id = ?",
)
_DELIVERED = (
    "DELETE FROM reminders WHERE id = ? AND held = 0",
    "UPDATE reminders SET accepted_by = ? WHERE id = ?",
)
_CRASH = "UPDATE reminders SET deliveries = deliveries + 1, last_error = ? WHERE id = ?"
_FORGET = "DELETE FROM received WHERE store = ? AND message >= ? AND message < ?"
_FORGET_STORES = "DELETE FROM received WHERE namespace = ? AND app = ? AND store NOT IN (?, ?)"
_RESEND = (
    "UPDATE reminders SET accepted_by = '' WHERE place = 2 AND target_namespace = ? AND target_app = ? "
    "AND accepted_by NOT IN ('', ?)"
)
_OF_KEY = tuple(
    f"DELETE FROM {table} WHERE key = ?" for table in ("outputs", "lineages", "history", "open_calls", "children")
)


Outcomes = list[Refusal | None]


def commit(connection: sqlite3.Connection, me: AppIdentity, batches: Sequence[Sequence[Changes]]) -> list[Outcomes]:
    """Write batches in one transaction; return, per changes, the reason for which it was left out.

    An error of the database leaves none of the batch, as far as the database can tell.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_batch(connection, me, batch) for batch in batches]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _batch(connection: sqlite3.Connection, me: AppIdentity, batch: Sequence[Changes]) -> Outcomes:
    """Write changes one after the other; behind a change of an instance that is left out, the rest is left out."""
    outcomes: Outcomes = []
    broken = False
    for changes in batch:
        refusal = Refusal.CONFLICT if broken else _one(connection, me, changes)
        broken = broken or (refusal is not None and bool(changes.key))
        outcomes.append(refusal)
    return outcomes


def _one(connection: sqlite3.Connection, me: AppIdentity, changes: Changes) -> Refusal | None:
    refusal = _check(connection, me, changes)
    if refusal is None:
        if changes.replaces:
            _purge(connection, changes.replaces)
        if changes.purged:
            _purge(connection, changes.key)
        if changes.instance is not None:
            _write_instance(connection, changes, changes.instance)
        _write_reminders(connection, me, changes)
        _write_links(connection, changes)
        if changes.schedule is not None:
            _write_schedule(connection, changes.schedule)
        if changes.generation:
            connection.execute("UPDATE meta SET value = ? WHERE name = 'generation'", (changes.generation,))
    return refusal


def _check(connection: sqlite3.Connection, me: AppIdentity, changes: Changes) -> Refusal | None:
    """Return why the changes are refused, before anything of them is written."""
    if _known(connection, me, changes):
        return Refusal.DUPLICATE
    for reminder in changes.required:
        if connection.execute(_HAS_REMINDER, (reminder,)).fetchone() is None:
            return Refusal.GONE
    if changes.schedule is not None and _has_moved(connection, changes.schedule):
        return Refusal.GONE
    for key, expected in ((changes.key, changes.expected), (changes.replaces, changes.replaced_at)):
        found = connection.execute(_REVISION, (key,)).fetchone() if key else None
        if key and (found[0] if found else 0) != expected:
            return Refusal.CONFLICT
    instance = changes.instance
    if instance is not None and not changes.expected:
        taken = connection.execute(_TAKEN, (instance.hub, instance.id, changes.replaces)).fetchone()
        if taken:
            return Refusal.CONFLICT
    return None


def _has_moved(connection: sqlite3.Connection, step: ScheduleStep) -> bool:
    found = connection.execute(_SCHEDULE_REVISION, (step.hub, step.id)).fetchone()
    return bool((found[0] if found else 0) != step.expected)


def _write_schedule(connection: sqlite3.Connection, step: ScheduleStep) -> None:
    if step.row is None:
        connection.execute(_REMOVE_SCHEDULE, (step.hub, step.id))
    else:
        connection.execute(_WRITE_SCHEDULE, step.row)


def _known(connection: sqlite3.Connection, me: AppIdentity, changes: Changes) -> bool:
    """Whether what the changes take in has had its effect before."""
    keys = [(message.store, message.id) for message in changes.received]
    calls = [(*app, *call) for *app, call in changes.unanswered]
    return (
        any(connection.execute(_RECEIVED, key).fetchone() for key in keys)
        or any(connection.execute(_ANSWERED, call).fetchone() for call in calls)
        or any(_taken_in(connection, me, reminder) for reminder in changes.set)
    )


def _taken_in(connection: sqlite3.Connection, me: AppIdentity, reminder: Reminder) -> bool:
    """Whether an activity of another app is here already, or its result still waits to go home."""
    if reminder.owner or rows.destination(me, reminder) != rows.OWN_WORKER:
        return False
    call = (*reminder.source[:2], *reminder.call)
    return any(connection.execute(statement, call).fetchone() for statement in (_ANSWERED, _TAKEN_IN))


def _purge(connection: sqlite3.Connection, key: int) -> None:
    for statement in _OF_KEY:
        connection.execute(statement, (key,))
    connection.execute("DELETE FROM instances WHERE key = ?", (key,))


def _write_instance(connection: sqlite3.Connection, changes: Changes, instance: Instance) -> None:
    key = changes.key
    connection.execute(_WRITE_INSTANCE, rows.from_instance(instance))
    if changes.close_all:
        connection.execute("DELETE FROM open_calls WHERE key = ?", (key,))
    if changes.closed:
        connection.executemany("DELETE FROM open_calls WHERE key = ? AND task = ?", [(key, t) for t in changes.closed])
    if changes.opened:
        connection.executemany(_WRITE_CALL, [rows.from_call(key, call) for call in changes.opened])
    if changes.ended:
        ended = [(key, *call) for call in changes.ended]
        connection.executemany(_END_CHILD, ended)
    if changes.forgets_before:
        connection.execute(_FORGET_CHILDREN, (key, changes.forgets_before))
    if changes.children:
        connection.executemany(_WRITE_CHILD, [(key, *rows.from_child(child)) for child in changes.children])
    _write_log(connection, changes)
    if changes.reopened or changes.no_output:
        connection.execute("DELETE FROM outputs WHERE key = ?", (key,))
    if changes.output is not None:
        connection.execute("INSERT OR REPLACE INTO outputs (key, output) VALUES (?, ?)", (key, changes.output))


def _write_log(connection: sqlite3.Connection, changes: Changes) -> None:
    key = changes.key
    if changes.truncate is not None:
        connection.execute(_TRUNCATE, (key, *changes.truncate))
    if changes.removed:
        connection.executemany(_REMOVE, [(key, *position) for position in changes.removed])
    if changes.lineage:
        connection.execute("INSERT OR REPLACE INTO lineages (key, history) VALUES (?, ?)", (key, changes.lineage))
    if changes.append:
        connection.executemany(_APPEND, [(key, *row) for row in changes.append])


def _write_reminders(connection: sqlite3.Connection, me: AppIdentity, changes: Changes) -> None:
    if changes.dropped:
        connection.executemany(_DROP, [(reminder,) for reminder in changes.dropped])
    if changes.released:
        for statement in _RELEASE:
            connection.executemany(statement, [(reminder,) for reminder in changes.released])
    if changes.crashed:
        connection.executemany(_CRASH, [(crash.error, crash.reminder) for crash in changes.crashed])
    if changes.set:
        connection.executemany(_WRITE_REMINDER, [rows.from_reminder(me, reminder) for reminder in changes.set])


def _write_links(connection: sqlite3.Connection, changes: Changes) -> None:
    for message in changes.received:
        connection.execute(
            "INSERT INTO received (store, message, namespace, app) VALUES (?, ?, ?, ?)",
            (message.store, message.id, message.namespace, message.app),
        )
    for delivered in changes.delivered:
        connection.execute(_DELIVERED[0], (delivered.reminder,))
        connection.execute(_DELIVERED[1], (delivered.session, delivered.reminder))
    for forgotten in changes.forgotten:
        connection.execute(_FORGET, (forgotten.store, forgotten.first, forgotten.below))
    for lost in changes.lost:
        connection.execute(_FORGET_STORES, lost)
        connection.execute(_RESEND, (lost.namespace, lost.app, lost.session))
