"""One database file: its lock, its one connection, and the thread on which all calls run.

A call is one function on that thread, so that no call sees half of another one's work. After an error of the disk
nobody knows what is written: the file is closed and opened again, for as long as that takes. On a full disk a reserve
is given up, so that reads and removing go on until there is space for it again.
"""

import asyncio
import os
import select
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import structlog
from filelock import FileLock

from sidecar.store.protocol import RejectedError, UnavailableError
from sidecar.store.sqlite import schema
from sidecar.store.sqlite.schema import Opened, OpenError
from sidecar.store.sqlite.steps import Steps

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], Opened]

# What a value can do to a statement; anything else is the trouble of the database.
_REJECTED = (UnicodeError, OverflowError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
# Errors of the disk; after a failed write all others count as such too, but for those of a lock that others hold.
_DISK = {
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM),
}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PATIENCE_SECONDS = 0.02  # a call that takes longer on the thread may be starved
_ROOM_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005  # how long the connection's thread waits for the interpreter lock of a busy event loop
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_RESERVE_BYTES = 1024 * 1024
_HEADROOM_BYTES = 4 * 1024 * 1024  # that a disk which was full must have beside it: else it is so again at once
log = structlog.get_logger(__name__)


class File:
    """A file that is locked; `open` it before anything else, and `close` it, which lets go of the lock."""

    def __init__(self, path: Path, lock: FileLock, prepare: Prepare) -> None:
        self.path = path
        self.connection: aiosqlite.Connection
        self.trouble = ""
        self.full = False  # only what removes is to be written
        self.down = False  # the connection is not to be used
        self.calls = 0  # that were made
        self._lock = lock
        self._prepare = prepare
        self._well = asyncio.Event()
        self._well.set()
        self._mending: asyncio.Task[None] | None = None
        self._steps: Steps | None = None  # of a copy that is being made
        self._starved: asyncio.TimerHandle | None = None  # set while a call is on the thread
        self._on_thread = 0

    async def open(self) -> Opened:
        """Connect, and see that the file is what it must be. Raises OpenError; the file is then closed."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        try:
            opened = await self._connect()
        except (sqlite3.Error, *_REJECTED) as error:
            self._lock.release()
            raise OpenError(f"cannot open {self.path}: {schema.advice(error)}") from error
        self.full = not await asyncio.to_thread(_reserve, self._reserve)
        if self.full:
            self._mend("there is no space on the disk of the data directory: free some")
        return opened

    async def recovered(self) -> None:
        """Wait until there is no trouble."""
        await self._well.wait()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the raw connection on its thread, as one hop. Raises UnavailableError, RejectedError."""
        return await self._guarded(False, function, *args)

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function that writes; when it fails, nobody knows what is written. Raises as `call`."""
        return await self._guarded(True, function, *args)

    async def _guarded(self, writes: bool, function: Callable[..., T], *args: Any) -> T:
        if self.down:
            raise UnavailableError(self.trouble)
        self._on_thread += 1
        self.calls += 1
        if self._starved is None:
            self._starved = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._make_room)
        try:
            result: T = await self._run(function, *args)
        except _REJECTED as error:
            raise RejectedError(f"{self.path.name}: {error}") from error
        except (sqlite3.Error, ValueError) as error:
            self._note(error, writes)
            raise UnavailableError(f"{self.path.name}: {schema.advice(error)}") from error
        finally:
            self._off_thread()
        return result

    async def copy(self, target: Path) -> None:
        """Copy the file as it is at one moment; other calls go on meanwhile. One at a time. Raises UnavailableError."""
        steps = Steps()
        copying = asyncio.ensure_future(self.call(steps.copy, target))
        await asyncio.sleep(0)  # it is on the thread: what comes now would wait for all of it
        self._steps = steps
        try:
            await asyncio.shield(copying)
        finally:
            await asyncio.wait([copying])
            self._steps = None
            await self._run(steps.catch_up)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._steps is not None:
            return await self._steps.run(function, *args)
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

    # ------------------------------------------------------------ trouble

    def _note(self, error: Exception, writes: bool) -> None:
        """After an error of the disk, use the connection no more."""
        code = schema.primary_code(error)
        if code in _DISK or (writes and isinstance(error, sqlite3.Error) and code not in _LOCKED):
            self.down = True
            self.full = self.full or code == sqlite3.SQLITE_FULL
            self._mend(f"{self.path.name}: {schema.advice(error)}")

    def _mend(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("the store cannot be written to", why=trouble)
        self.trouble = trouble
        self._well.clear()
        if self._mending is None:
            self._mending = asyncio.create_task(self._mend_it(), name="mend the store")

    async def _mend_it(self) -> None:
        """Open the file again, and wait for space, until all is well."""
        pause = _SHORTEST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
            try:
                if await self._mended():
                    break
            except (sqlite3.Error, UnavailableError, *_REJECTED) as error:
                self._mend(
                    f"{self.path.name}: {schema.advice(error)}" if isinstance(error, sqlite3.Error) else str(error)
                )
        self.trouble, self._mending = "", None
        self._well.set()
        log.info("the store is written to again")

    async def _mended(self) -> bool:
        if self.down:
            if self.full:
                self._reserve.unlink(missing_ok=True)
            await self._connect()
            self.down = False
        if self.full:
            self.full = not await asyncio.to_thread(_reserve, self._reserve, _HEADROOM_BYTES)
        if not self.full:
            await self.write(schema.prove)
        return not self.down and not self.full

    async def _connect(self) -> Opened:
        """Open the file anew. Raises sqlite3.Error; the file is then closed."""
        await self._disconnect()
        self.connection = await aiosqlite.connect(self.path, isolation_level=None, cached_statements=256)
        try:
            return await self._run(self._prepare)
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        if hasattr(self, "connection"):
            with suppress(sqlite3.Error, ValueError):
                await self.connection.close()

    @property
    def _reserve(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reserve")

    async def close(self) -> None:
        """Close the file and let go of the lock."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait([self._mending])
        await self._disconnect()
        self._lock.release()


def _reserve(path: Path, headroom: int = 0) -> bool:
    """Take space that is given up when the disk is full; return whether it was there, and so much more."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE_BYTES + headroom)
            os.truncate(descriptor, _RESERVE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True
