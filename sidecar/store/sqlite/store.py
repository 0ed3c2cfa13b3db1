"""The store in one SQLite file: write-ahead log, synchronous=FULL, group commit, one connection.

A commit is one function on the connection's thread, for all changes that were waiting when it began; a read fetches
its page in one call. So no read sees half a transaction, and the races that need a second connection cannot happen.
"""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import structlog

from sidecar.core.identity import AppIdentity
from sidecar.core.model import Changes
from sidecar.store.protocol import FullError, Refusal, Timed, UnavailableError
from sidecar.store.sqlite import schema, writes
from sidecar.store.sqlite.connection import File
from sidecar.store.sqlite.pages import fetch_all
from sidecar.store.sqlite.reads import SqliteReads

_Waiting = tuple[Sequence[Changes], asyncio.Future[list[Refusal | None]]]
log = structlog.get_logger(__name__)


class Sqlite(SqliteReads):
    """A `Store` in one file. Use `open_store` to get one."""

    def __init__(self, me: AppIdentity, file: File, opened: schema.Opened, timed: Timed = nullcontext) -> None:
        super().__init__(file)
        self.me = me
        self._timed = timed
        self.identity, self.next_key, self.next_order = opened
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return self.file.trouble

    async def recovered(self) -> None:
        """See `Store.recovered`."""
        await self.file.recovered()

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`."""
        if self.file.full and not all(map(_only_removes, batch)):
            raise FullError(self.trouble)
        done: asyncio.Future[list[Refusal | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="store commit")
        return await asyncio.shield(done)

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                batches, self._waiting = self._waiting, []
                await self._commit_together(batches)
        finally:
            self._committing = None

    async def _commit_together(self, batches: list[_Waiting]) -> None:
        try:
            with self._timed(sum(len(batch) for batch, _ in batches)):
                outcomes = await self.file.write(writes.commit, self.me, [batch for batch, _ in batches])
        except UnavailableError as error:
            if not self.trouble:  # else the file has said it
                log.error("commit failed", changes=sum(len(batch) for batch, _ in batches), error=str(error))
            for _, done in batches:
                done.set_exception(UnavailableError(str(error)))
            return
        except Exception as error:
            await self._commit_apart(batches, error)
            return
        for (_, done), found in zip(batches, outcomes, strict=True):
            done.set_result(found)

    async def _commit_apart(self, batches: list[_Waiting], error: Exception) -> None:
        """Write batches one by one: something in one of them cannot be stored, and only that one shall fail."""
        if len(batches) == 1:
            log.error("changes cannot be stored", error=str(error))
            batches[0][1].set_exception(error)
            return
        for batch in batches:
            await self._commit_together([batch])

    async def close(self) -> None:
        """See `Store.close`."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        try:
            await self.file.call(fetch_all, "PRAGMA wal_checkpoint(TRUNCATE)", ())
        except UnavailableError as error:
            log.warning("last checkpoint failed: nothing is lost by that", error=str(error))
        await self.file.close()


def _only_removes(changes: Changes) -> bool:
    kept = changes.schedule is not None and changes.schedule.row is not None
    return changes.purged or not (changes.instance or changes.set or changes.received or kept)


async def open_store(me: AppIdentity, directory: Path, fresh: str, timed: Timed = nullcontext) -> Sqlite:
    """Open, or make, the database of an app: `<namespace>.<app>.db` in the directory.

    `fresh` becomes the identity of a store that is made anew. `timed` measures commits.

    Raises:
        OpenError: the directory cannot be used, another sidecar has the database, or it cannot be read.
    """
    path = schema.path_of(me, directory)
    file = File(path, schema.lock(path, me), lambda connection: schema.prepare(connection, me, fresh))
    return Sqlite(me, file, await file.open(), timed)
