"""A copy of a database in steps, with other calls on the same connection between them."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sidecar.store.progress import At, Progress

T = TypeVar("T")
_Call = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
PAGES = 128  # a step; some milliseconds of the connection's thread


class Steps:
    """One copy, and the calls that wait for its next step. What the connection writes meanwhile gets into the copy."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call] = SimpleQueue()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the connection between two steps."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((done, function, args))
        return await done

    def copy(self, connection: sqlite3.Connection, target: Path, progress: Progress) -> None:
        """Copy the database into a file. Runs on the connection's thread."""

        def step(at: At) -> None:
            progress(at)
            self.catch_up(connection)

        with contextlib.closing(sqlite3.connect(target)) as into:
            copy(connection, into, step)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Run the calls that wait. Runs on the connection's thread."""
        while True:
            try:
                done, function, args = self._calls.get_nowait()
            except Empty:
                return
            try:
                result = function(connection, *args)
            except BaseException as error:
                self._loop.call_soon_threadsafe(_settle, done, error, None)
            else:
                self._loop.call_soon_threadsafe(_settle, done, None, result)


def copy(store: sqlite3.Connection, into: sqlite3.Connection, progress: Progress) -> None:
    """Copy a database, telling after each step how many of its pages are copied."""

    def step(_status: int, remaining: int, total: int) -> None:
        progress(At("pages copied", total - remaining, total))

    store.backup(into, pages=PAGES, progress=step)


def _settle(done: "asyncio.Future[Any]", error: BaseException | None, result: Any) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
