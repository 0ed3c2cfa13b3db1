"""Copies of a store while it serves: `sidecar store backup` and `check`. The way back is `restore.py`.

A copy shows the file as it is at one moment; commits go on between its steps. It is checked in a process of its own
before anybody is told that it is there.
"""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from sidecar import system
from sidecar.store.progress import At, Progress
from sidecar.store.protocol import Copied, CopyError, UnavailableError
from sidecar.store.sqlite import check
from sidecar.store.sqlite.connection import File

FOLDER = "backups"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def name_of(path: Path, now: int) -> str:
    """Return what a copy of a store is called that nobody gave a name, at a time in microseconds."""
    return f"{path.stem}-{datetime.fromtimestamp(now / 1e6, UTC):%Y%m%dT%H%M%S}.db"


def target_of(path: Path, name: str, now: int) -> Path:
    """Return where a backup of a store goes: always beside it, whoever gives the name. Raises CopyError."""
    name = name or name_of(path, now)
    if not _NAME.fullmatch(name):
        raise CopyError(f"{name[:120]!r} is not a name of a file: letters, digits, '.', '_' and '-', no folder")
    target = path.parent / FOLDER / name
    if target.exists():
        raise CopyError(f"{target} exists: choose another name")
    return target


def make(part: Path) -> None:
    """Make an empty file that only its owner may read. Raises OSError."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))


def put(part: Path, target: Path) -> None:
    """Give a finished file its name, durably; one that has it already is not replaced. Raises OSError."""
    system.sync(part)
    os.link(part, target)
    system.sync(target.parent)


def faults(problems: list[str]) -> str:
    """Return why there is no backup of a store with such problems."""
    return f"the store has faults, so that there is no backup of it: {'; '.join(problems[:3])}"


class Backups:
    """Makes copies of a file that is open, one at a time, beside it in the folder `backups`."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._folder = file.path.parent / FOLDER
        self._busy = asyncio.Lock()
        self.at: At | None = None  # how far a copy or its check is; None: there is none

    async def backup(self, name: str, now: int) -> Copied:
        """Make a backup; "" for a name made of the time. Raises CopyError."""
        target = target_of(self._file.path, name, now)
        async with self._copy() as (part, problems):
            if problems:
                raise CopyError(faults(problems))
            size = part.stat().st_size
            put(part, target)
        return Copied(str(target), size)

    async def check(self) -> list[str]:
        """Return what is wrong with the store, as a copy of it shows. Raises CopyError."""
        async with self._copy() as (_, problems):
            return problems

    @contextlib.asynccontextmanager
    async def _copy(self) -> AsyncIterator[tuple[Path, list[str]]]:
        """A copy that goes with the block, and what is wrong with it."""
        if self._busy.locked():
            raise CopyError("another copy of the store is being made: try again when it is done")
        async with self._busy:
            part = self._folder / f".{self._file.path.name}.part"
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                make(part)
                await self._file.copy(part, self._tell)
                yield part, await checked(part, self._tell)
            except UnavailableError as error:
                raise CopyError(f"the store could not be copied: {error}") from error
            except OSError as error:
                raise CopyError(f"cannot write to {self._folder}: {error.strerror or error}") from error
            finally:
                self.at = None
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)

    def _tell(self, at: At) -> None:
        self.at = at


async def checked(path: Path, progress: Progress) -> list[str]:
    """Return what is wrong with a file, looked at by a process of its own. Raises CopyError."""
    command = [sys.executable, "-m", "sidecar.store.sqlite.check", str(path)]
    # Not by the event loop: uvloop forks, and gRPC, which is told of it, may crash in the new process before its exec.
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220, S603 (a moment; a command of ours)
    try:
        found = await asyncio.to_thread(_said, process, progress)
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode not in (0, 1) or bool(found) != bool(process.returncode):
        raise CopyError(f"the check of {path} ended with {process.returncode} before it was done")
    return found


def _said(process: "subprocess.Popen[bytes]", progress: Progress) -> list[str]:
    with process:
        assert process.stdout is not None  # noqa: S101 - a pipe
        return check.read(process.stdout, progress)
