"""What other processes do to a store in tests: open, hold and write to it, keep it waiting, die at a chosen moment.

They come from a fork server, so that one costs some milliseconds. `python -m tests.store.sqlite.processes DIRECTORY` is
`commit_some`, to be run under a tool that injects errors.
"""

import asyncio
import multiprocessing
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc.aio

from sidecar.core.model import Changes, Row
from sidecar.store.protocol import UnavailableError
from sidecar.store.sqlite import schema
from sidecar.store.sqlite.schema import OpenError
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.store.builders import EVERYTHING, ME, created, reminder

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.store.sqlite.processes"])
WRITERS = 4


def start(function: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Run a function of this module in a process; it gets the end of a pipe behind its arguments."""
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=function, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def received(pipe: Connection) -> list[Any]:
    """All that a process has sent, when it is dead. A message that it was sending when it died is left out."""
    messages = []
    try:
        while pipe.poll():
            messages.append(pipe.recv())
    except (EOFError, OSError):
        pass
    pipe.close()
    return messages


def record(number: int) -> Changes:
    """Changes that touch several tables: the instance, three events and a reminder, all with the same number."""
    rows = tuple(Row(1, index, b"%d" % number) for index in (1, 2, 3))
    return created(number, f"id-{number}", append=rows, output=str(number), set=(reminder(number, owner=number),))


async def record_is_whole(store: Sqlite, number: int) -> bool | None:
    """Whether all of a record is there; None if nothing of it is."""
    parts = [
        await store.load("default", f"id-{number}") is not None,
        await store.events(number, EVERYTHING, 1) == [b"%d" % number] * 3,
        await store.payloads(number) == (b"%d" % number, str(number)),
        await store.reminder(number) is not None,
    ]
    return None if not any(parts) else all(parts)


# --- what the processes do -------------------------------------------------------------------------------------------


def hold_open(directory: Path, pipe: Connection) -> None:
    """Open the store and keep it until told to go on."""

    async def hold() -> None:
        store = await open_store(ME, directory, "fresh")
        pipe.send("open")
        pipe.recv()
        await store.close()

    asyncio.run(hold())


def die_before_statement(directory: Path, number: int, pipe: Connection) -> None:
    """Open a store; this process is killed when it is about to run its statement of this number."""
    real, seen = sqlite3.connect, iter(range(1, number))

    def count(_: str) -> None:
        if next(seen, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    open_and_close(directory, pipe)


def die_before_statement_of(directory: Path, number: int, script: str, pipe: Connection) -> None:
    """The same, with one schema after the newest, of this script."""
    later = [*schema.migrations(), (schema.migrations()[-1][0] + 1, script)]
    schema.migrations = lambda: later
    die_before_statement(directory, number, pipe)


def open_and_close(directory: Path, pipe: Connection) -> None:
    async def both() -> None:
        pipe.send("opening")
        await (await open_store(ME, directory, "fresh")).close()

    asyncio.run(both())


def commit_for_ever(directory: Path, pipe: Connection) -> None:
    """Commit records, some at a time, and send the number of each that was acknowledged."""

    async def write(store: Sqlite, number: int) -> None:
        while True:
            if await store.commit([record(number)]) == [None]:
                pipe.send(number)
            number += WRITERS

    async def write_all() -> None:
        store = await open_store(ME, directory, "fresh")
        await asyncio.gather(*(write(store, store.next_key + offset) for offset in range(WRITERS)))

    asyncio.run(write_all())


def commit_under_a_limit(directory: Path, pipe: Connection) -> None:
    """Commit records before, while and after no file may grow; send what became of each, round by round."""

    async def rounds() -> None:
        store = await open_store(ME, directory, "fresh")
        size = (store.file.path.with_name(f"{store.file.path.name}-wal")).stat().st_size
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        for number, limit in ((1, most), (11, size), (21, most)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            if limit == most:
                await store.recovered()
            pipe.send(await _commit_together(store, number))
        await store.close()

    asyncio.run(rounds())


async def _commit_together(store: Sqlite, first: int) -> dict[int, str]:
    numbers = range(first, first + 3)
    commits = (store.commit([record(number)]) for number in numbers)
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    return {
        number: "acknowledged" if outcome == [None] else type(outcome).__name__
        for number, outcome in zip(numbers, outcomes, strict=True)
    }


async def commit_some(directory: Path) -> None:
    """Print what became of a few records."""
    try:
        store = await open_store(ME, directory, "fresh")
    except OpenError as error:
        print(f"refused: {error}")  # noqa: T201
        return
    for first in range(store.next_key, store.next_key + 50, 10):
        await store.recovered()
        for number, outcome in (await _commit_together(store, first)).items():
            print(number, outcome, flush=True)  # noqa: T201
    try:
        await store.close()
    except UnavailableError:
        print("close failed")  # noqa: T201


def keep_busy(port: int, seconds: float, pipe: Connection) -> None:
    """Keep 64 calls in flight to a server of this machine; say when it begins, and how many were answered."""

    async def call_until(call: Any, end: float) -> int:
        answered = 0
        while time.perf_counter() < end:
            await call(b"")
            answered += 1
        return answered

    async def run() -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/load/Work")
            await call(b"")
            pipe.send("calling")
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(call_until(call, end) for _ in range(64))))

    pipe.send(asyncio.run(run()))


if __name__ == "__main__":
    asyncio.run(commit_some(Path(sys.argv[1])))
