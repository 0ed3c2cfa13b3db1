"""Reads pages of rows: one that cannot be read is left out, and the page has as many others as were asked for."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from sidecar.store.protocol import PAGE_BYTES
from sidecar.store.sqlite.rows import UNREADABLE, Values

_MOST_NOTED = 10_000
T = TypeVar("T")
log = structlog.get_logger(__name__)


class LeftOut(NamedTuple):
    """A row that cannot be read: what it is of, its number there, and why."""

    kind: str
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """A statement whose last values are where a page begins and how long it is, and how its rows are read.

    The first column is the number of the row; `place` is where a page goes on behind it.
    """

    statement: str
    kind: str
    read: Callable[[Values], T]
    place: Callable[[Values], Values] = lambda raw: raw[:1]
    payload: int | None = None  # the column that may be large


def read(
    connection: sqlite3.Connection, source: Source[T], values: Values, after: Values, limit: int
) -> tuple[list[T], list[LeftOut]]:
    """Return `limit` rows from behind a place, and what was left out on the way.

    There are fewer when their payloads come to more than `PAGE_BYTES`, or when there are no more; none only then.
    """
    found: list[T] = []
    left_out: list[LeftOut] = []
    while True:
        raw = _fetch(connection, source, (*values, *after, limit - len(found)))
        more, lost = readable(source, raw)
        found += more
        left_out += lost
        if not lost or len(found) >= limit:
            return found, left_out
        after = source.place(raw[-1])


def _fetch(connection: sqlite3.Connection, source: Source[T], values: Values) -> list[Any]:
    """Return what a statement gives, up to the first row with which the payloads are more than a page may have."""
    if source.payload is None:
        return connection.execute(source.statement, values).fetchall()
    found, weight = [], 0
    for row in connection.execute(source.statement, values):
        found.append(row)
        weight += len(row[source.payload]) if isinstance(row[source.payload], bytes) else 0
        if weight > PAGE_BYTES:
            break
    return found


def readable(source: Source[T], raw: Iterable[Any]) -> tuple[list[T], list[LeftOut]]:
    """Return the rows that can be read, and what is left out."""
    found: list[T] = []
    left_out: list[LeftOut] = []
    for row in raw:
        try:
            found.append(source.read(row))
        except UNREADABLE as error:
            left_out.append(LeftOut(source.kind, row[0], str(error)))
    return found, left_out


def fetch_all(connection: sqlite3.Connection, statement: str, values: Values) -> list[Any]:
    """Return all that a statement gives. Runs on the connection's thread."""
    return connection.execute(statement, values).fetchall()


class Damage:
    """Logs each row that was left out, once."""

    def __init__(self) -> None:
        self._noted: set[tuple[str, int]] = set()

    def note(self, left_out: Iterable[LeftOut]) -> None:
        """Take note of rows that were left out."""
        for kind, number, why in left_out:
            if (kind, number) not in self._noted and len(self._noted) < _MOST_NOTED:
                self._noted.add((kind, number))
                text = "a stored row cannot be read and is left out: run `sidecar store check`, restore a backup"
                log.error(text, of=kind, number=number, error=why)
