"""One database file: its lock, its one connection, and the thread on which all calls run.

A call is one function on that thread, so that no call sees half of another one's work.
"""

import asyncio
import select
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from filelock import FileLock

from sidecar.store.opening import Opened, OpenError
from sidecar.store.protocol import RejectedError, UnavailableError

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], Opened]

# What a value can do to a statement; anything else is the trouble of the database.
_REJECTED = (UnicodeError, OverflowError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
_PATIENCE_SECONDS = 0.02  # a call that takes longer on the thread may be starved
_ROOM_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005  # how long the connection's thread waits for the interpreter lock of a busy event loop


class File:
    """A file that is locked; `open` it before anything else, and `close` it, which lets go of the lock."""

    def __init__(self, path: Path, lock: FileLock, prepare: Prepare) -> None:
        self.path = path
        self.connection: aiosqlite.Connection
        self._lock = lock
        self._prepare = prepare
        self._starved: asyncio.TimerHandle | None = None  # set while a call is on the thread
        self._on_thread = 0

    async def open(self) -> Opened:
        """Connect, and see that the file is what it must be. Raises OpenError; the file is then closed."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        try:
            self.connection = await aiosqlite.connect(self.path, isolation_level=None, cached_statements=256)
        except sqlite3.Error as error:
            self._lock.release()
            raise OpenError(f"cannot open {self.path}: {error}") from error
        try:
            return await self.call(self._prepare)
        except (UnavailableError, RejectedError) as error:
            await self.close()
            raise OpenError(f"cannot open {self.path}: {error.__cause__}") from error

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the raw connection on its thread, as one hop. Raises UnavailableError, RejectedError."""
        self._on_thread += 1
        if self._starved is None:
            self._starved = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._make_room)
        try:
            result: T = await self._run(function, *args)
        except _REJECTED as error:
            raise RejectedError(f"{self.path.name}: {error}") from error
        except (sqlite3.Error, ValueError) as error:
            raise UnavailableError(f"{self.path.name}: {error}") from error
        finally:
            self._off_thread()
        return result

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        connection = self.connection
        result: T = await connection._execute(function, connection._conn, *args)  # type: ignore[no-untyped-call]
        return result

    def _off_thread(self) -> None:
        self._on_thread -= 1
        if self._starved is not None and not self._on_thread:
            self._starved.cancel()
            self._starved = None

    def _make_room(self) -> None:
        """Hold the event loop for a moment: one that never rests keeps the interpreter lock from the thread."""
        select.select((), (), (), _ROOM_SECONDS)
        self._starved = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._make_room)

    async def close(self) -> None:
        """Close the file and let go of the lock."""
        await self.connection.close()
        self._lock.release()
