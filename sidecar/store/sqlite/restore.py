"""Work on the store of a sidecar that does not run: its check and backup, and putting a backup in its place."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from sidecar import system
from sidecar.core.identity import AppIdentity
from sidecar.store.progress import At, Progress, unseen
from sidecar.store.protocol import Copied, CopyError
from sidecar.store.sqlite import backup as backups
from sidecar.store.sqlite import check as checks
from sidecar.store.sqlite import schema, steps


class RunningError(Exception):
    """A sidecar has the store open: it must do this itself."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep sidecars from a store. Raises RunningError, CopyError."""
    if not path.parent.is_dir():
        raise CopyError(f"there is no directory {path.parent}: name the data directory with --data-dir")
    try:
        with FileLock(f"{path}.lock", timeout=0):
            yield
    except Timeout:
        raise RunningError from None


def check(path: Path, progress: Progress = unseen) -> list[str]:
    """Return what is wrong with a store. Raises CopyError, RunningError."""
    with held(path):
        return checks.problems(_existing(path), progress)


def backup(path: Path, name: str, now: int, progress: Progress = unseen) -> Copied:
    """Make a backup of a store. Raises CopyError, RunningError."""
    with held(path):
        if found := checks.problems(_existing(path), progress):
            raise CopyError(backups.faults(found))
        target = backups.target_of(path, name, now)
        with (
            _written(target) as part,
            contextlib.closing(sqlite3.connect(path)) as store,
            contextlib.closing(sqlite3.connect(part)) as into,
        ):
            steps.copy(store, into, progress)
        return Copied(str(target), target.stat().st_size)


def restore(me: AppIdentity, directory: Path, source: Path, now: int, progress: Progress = unseen) -> Path | None:
    """Put a backup in the place of a store, under a new generation; return where the old one is kept, if there was one.

    Raises:
        CopyError: the backup is no good, or another app's, or there is no space; nothing was changed.
        RunningError: a sidecar has the store open.
    """
    path = schema.path_of(me, directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(path):
        part = path.with_name(f"{path.name}.restoring")
        try:
            _take(source, part, progress)
            _make_ours(me, source, part, now)
            kept = _put_aside(path, now) if path.exists() else None
            os.replace(part, path)
            system.sync(directory)
        except OSError as error:
            raise CopyError(f"cannot write to {directory}: {error.strerror or error}") from error
        finally:
            for file in (part, *beside(part)):
                file.unlink(missing_ok=True)
    return kept


def beside(path: Path) -> list[Path]:
    """Return the files that belong to a database."""
    return [path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm")]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise CopyError(f"there is no store {path}: name the app with --app-id, its directory with --data-dir")
    return path


@contextlib.contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A file to write to that becomes the target at the end of the block."""
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        backups.make(part)
        yield part
        backups.put(part, target)
    except (OSError, sqlite3.Error) as error:
        raise CopyError(f"cannot write {target}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _take(source: Path, part: Path, progress: Progress) -> None:
    """Copy a backup to where it will be used, and look at the copy."""
    if beside(source)[0].exists() and beside(source)[0].stat().st_size:
        raise CopyError(f"{source} has a write-ahead log beside it: it is in use, or was copied by other means")
    try:
        progress(At("the copy"))
        part.unlink(missing_ok=True)
        backups.make(part)
        shutil.copyfile(source, part)
    except OSError as error:
        raise CopyError(f"cannot copy {source}: {error.strerror or error}") from error
    if found := checks.problems(part, progress):
        raise CopyError(f"{source} is not a whole store: {'; '.join(found[:3])}")


def _make_ours(me: AppIdentity, source: Path, part: Path, now: int) -> None:
    """Give a backup a generation that was never there: other sidecars then know that work may be gone."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if (meta["namespace"], meta["app"]) != (me.namespace, me.app):
            text = f"{source} belongs to app {meta['app']!r} of namespace {meta['namespace']!r}"
            raise CopyError(f"{text}: give --app-id and --namespace as there")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'generation'", (str(now),))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    system.sync(part)


def _put_aside(path: Path, now: int) -> Path:
    """Keep the old store under another name, with all that its log holds, while it stays where it is."""
    kept = path.with_name(f"{backups.name_of(path, now)}.replaced")
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file, name in zip(beside(path), beside(kept), strict=True):
        if file.exists():
            os.replace(file, name)
    os.link(path, kept)
    return kept
