"""Gives the disk back what purges have freed, and keeps the write-ahead log short, while nobody asks for anything.

Each step is some milliseconds of the connection's thread. Under load nothing of this is needed: rows that are written
take the pages that are free, and commits move the log into the file when it has a thousand pages.
"""

import asyncio
import sqlite3
from contextlib import suppress

from sidecar.store.protocol import UnavailableError
from sidecar.store.sqlite.connection import File

KEPT_PAGES = 256  # that stay free for what is written next
STEP_PAGES = 64
_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 0.01  # between two steps: what has come meanwhile goes first


class Upkeep:
    """Looks after one file."""

    def __init__(self, file: File) -> None:
        self._file = file

    async def run(self) -> None:
        """Do what is to be done whenever there is time, for ever."""
        seen, folded = -1, -1
        while True:
            idle, seen = self._file.calls == seen, self._file.calls
            if idle and seen != folded and not self._file.down:
                with suppress(UnavailableError):  # the file has said it
                    seen = await self._tidy()
                    folded = seen
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tidy(self) -> int:
        """Shrink the file until somebody asks for something, else fold the log into it; return the calls by then."""
        while await self._file.write(_shrink):
            before = self._file.calls
            await asyncio.sleep(_PAUSE_SECONDS)
            if self._file.calls != before:
                return -1  # there is more to do
        await self._file.write(_fold)
        return self._file.calls


def _shrink(connection: sqlite3.Connection) -> bool:
    """Return some free pages to the disk; whether there are more."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free <= KEPT_PAGES:
        return False
    # A script, since a statement is left after its first page.
    connection.executescript(f"PRAGMA incremental_vacuum({min(STEP_PAGES, free - KEPT_PAGES)})")
    return True


def _fold(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
