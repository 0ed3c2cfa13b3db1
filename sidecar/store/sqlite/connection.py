"""One database file: its lock, its one connection, and the thread on which all calls run.

A call is one function on that thread, so that no call sees half of another one's work. After an error of the disk
nobody knows what is written: the file is closed and opened again, for as long as that takes. On a full disk a reserve
is given up, so that reads and removing go on until there is space for it again.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
from filelock import FileLock

from sidecar import system
from sidecar.store.progress import Progress, unseen
from sidecar.store.protocol import RejectedError, UnavailableError
from sidecar.store.sqlite import rows, schema
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
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_RESERVE_BYTES = 1024 * 1024
_HEADROOM_BYTES = 4 * 1024 * 1024  # that a disk which was full must have beside it: else it is so again at once
log = structlog.get_logger(__name__)


class File:
    """A file that is locked; `open` it before anything else, and `close` it, which lets go of the lock."""

    def __init__(self, path: Path, lock: FileLock, prepare: Prepare) -> None:
        self.path = path
        self.connection: sqlite3.Connection  # made, used and closed on the thread alone
        self.trouble = ""
        self.full = False  # only what removes is to be written
        self.down = False  # the connection is not to be used
        self.calls = 0  # that were made
        self._lock = lock
        self._prepare = prepare
        self._healthy = asyncio.Event()
        self._healthy.set()
        self._recovering: asyncio.Task[None] | None = None
        self._copying = asyncio.Lock()
        self._steps: Steps | None = None  # of the copy that is being made
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=path.name)

    async def open(self) -> Opened:
        """Connect, and see that the file is what it must be. Raises OpenError; the file is then closed."""
        try:
            opened = await self._connect()
        except (sqlite3.Error, *_REJECTED) as error:
            self._thread.shutdown()
            self._lock.release()
            raise OpenError(f"cannot open {self.path}: {schema.advice(error)}") from error
        self.full = not await asyncio.to_thread(_reserve, self._reserve)
        if self.full:
            self._start_recovery("there is no space on the disk of the data directory: free some")
        return opened

    async def recovered(self) -> None:
        """Wait until there is no trouble."""
        await self._healthy.wait()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the raw connection on its thread, as one hop. Raises UnavailableError, RejectedError."""
        return await self._guarded(False, function, *args)

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function that writes; when it fails, nobody knows what is written. Raises as `call`."""
        return await self._guarded(True, function, *args)

    async def _guarded(self, writes: bool, function: Callable[..., T], *args: Any) -> T:
        if self.down:
            raise UnavailableError(self.trouble)
        self.calls += 1
        try:
            result: T = await self._run(function, *args)
        except _REJECTED as error:
            raise RejectedError(f"{self.path.name}: {error}") from error
        except (sqlite3.Error, ValueError) as error:  # a value that nobody knows is found in a damaged row
            self._note(error, writes)
            raise UnavailableError(f"{self.path.name}: {schema.advice(error)}") from error
        return result

    async def copy(self, target: Path, progress: Progress = unseen) -> None:
        """Copy the file as it is at one moment; other calls go on meanwhile. Raises UnavailableError."""
        async with self._copying:
            steps = Steps()
            copying = asyncio.ensure_future(self.call(steps.copy, target, progress))
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
        return await self._on_thread(function, self.connection, *args)

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function on the thread; it runs to its end even when nobody waits for it any more."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, function, *args))

    # ------------------------------------------------------------ trouble

    def _note(self, error: Exception, writes: bool) -> None:
        """After an error of the disk, use the connection no more."""
        code = schema.primary_code(error)
        if code in _DISK or (writes and isinstance(error, sqlite3.Error) and code not in _LOCKED):
            self.down = True
            self.full = self.full or code == sqlite3.SQLITE_FULL
            self._start_recovery(f"{self.path.name}: {schema.advice(error)}")

    def _start_recovery(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("the store cannot be written to", why=trouble)
        self.trouble = trouble
        self._healthy.clear()
        if self._recovering is None:
            self._recovering = asyncio.create_task(self._recover(), name="store recovery")

    async def _recover(self) -> None:
        """Open the file again, and wait for space, until all is well."""
        pause = _SHORTEST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
            try:
                if await self._reopened():
                    break
            except Exception as error:  # whatever it is: nothing is stored until this has succeeded
                self._start_recovery(
                    f"{self.path.name}: {schema.advice(error)}" if isinstance(error, sqlite3.Error) else str(error)
                )
        self.trouble, self._recovering = "", None
        self._healthy.set()
        log.info("the store is written to again")

    async def _reopened(self) -> bool:
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
        return await self._on_thread(self._connect_on_thread)

    def _connect_on_thread(self) -> Opened:
        self._disconnect_on_thread()
        self.connection = sqlite3.connect(self.path, isolation_level=None, cached_statements=256)
        self.connection.text_factory = rows.text
        try:
            return self._prepare(self.connection)
        except BaseException:
            self._disconnect_on_thread()
            raise

    def _disconnect_on_thread(self) -> None:
        if hasattr(self, "connection"):
            with suppress(sqlite3.Error):
                self.connection.close()

    @property
    def _reserve(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reserve")

    async def close(self) -> None:
        """Close the file, end its thread and let go of the lock. A copy that is being made is finished before."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.wait([self._recovering])
        async with self._copying:
            if self._closed:
                return
            self._closed = self.down = True
            self.trouble = f"{self.path.name} is closed"
            await self._on_thread(self._disconnect_on_thread)
        self._thread.shutdown()  # it has nothing more to do
        self._lock.release()


def _reserve(path: Path, headroom: int = 0) -> bool:
    """Take space that is given up when the disk is full; return whether it was there, and so much more."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            system.allocate(descriptor, _RESERVE_BYTES + headroom)
            os.truncate(descriptor, _RESERVE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True
