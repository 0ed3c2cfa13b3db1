"""What becomes of a store: it is kept as a backup or a snapshot, put back, or lost, whole or in part.

All that comes here says what is certain to be in the store afterwards: what was acknowledged before a *moment*.
"""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from sidecar.core.model import Status
from tests.blackbox.harness import ROOT, Sidecar

NEVER = 0.0
_COMMAND_SECONDS = 60.0
_NOT_COPIED = shutil.ignore_patterns("backups", "*.lock", "*-shm")


class Kept(NamedTuple):
    """A copy of a store: what was acknowledged before the moment (wall clock) is in it."""

    path: Path
    moment: float


def file_of(sidecar: Sidecar) -> Path:
    return sidecar.data / f"default.{sidecar.app}.db"


def back_up(sidecar: Sidecar, folder: Path) -> Kept:
    """Let a sidecar that serves make a backup of its store."""
    moment = time.time()
    name = f"{moment:.3f}.db"
    _command(sidecar, "backup", "--name", name, "--grpc-port", str(sidecar.port))
    made, path = sidecar.data / "backups" / name, folder / f"{sidecar.app}-{name}"
    shutil.move(made, path)
    return Kept(path, moment)


def snapshot(sidecar: Sidecar, folder: Path) -> Kept:
    """Copy the files of one moment, as a snapshot of the volume does."""
    moment = time.time()
    path = folder / f"{sidecar.app}-{moment:.3f}"
    sidecar.signal(signal.SIGSTOP)
    try:
        shutil.copytree(sidecar.data, path, ignore=_NOT_COPIED)
    finally:
        sidecar.signal(signal.SIGCONT)
    return Kept(path, moment)


def restore(sidecar: Sidecar, kept: Kept) -> None:
    """Put a backup in the place of the store of a sidecar that is down."""
    _command(sidecar, "restore", str(kept.path))
    for replaced in sidecar.data.glob("*.replaced*"):
        replaced.unlink()


def roll_back(sidecar: Sidecar, kept: Kept) -> None:
    """Put the files of a snapshot back without a word to anybody."""
    shutil.rmtree(sidecar.data)
    shutil.copytree(kept.path, sidecar.data)


def wipe(sidecar: Sidecar) -> None:
    shutil.rmtree(sidecar.data)


def lose_log(sidecar: Sidecar) -> float | None:
    """Delete the write-ahead log of a sidecar that was killed; return the moment of the file that is left.

    A log that the file cannot do without, since it was being folded into it, stays: then nothing was lost (None).
    """
    file = file_of(sidecar)
    log, aside = file.with_name(f"{file.name}-wal"), file.with_name("log-aside")
    if not log.exists() or not log.stat().st_size:
        return None
    log.rename(aside)
    file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
    whole = _run(sidecar, "check").returncode == 0
    moment = _last_change(file) if whole else None
    if moment is None:
        aside.rename(log)
    else:
        aside.unlink()
    return moment


def left_behind(sidecar: Sidecar) -> list[str]:
    """What is still under way in the store of a sidecar that has ended."""
    with _reading(file_of(sidecar)) as connection:
        (reminders,) = connection.execute("SELECT count(*) FROM reminders").fetchone()
        states = connection.execute("SELECT id, status FROM instances WHERE entity = 0").fetchall()
    found = [f"{id} of {sidecar.app} is {Status(n).name}" for id, n in states if not Status(n).terminal]
    return found + ([f"{sidecar.app} has {reminders} reminders left"] if reminders else [])


def _last_change(file: Path) -> float:
    """When an instance was last changed: what was acknowledged before that is in an earlier commit, or in this one."""
    with _reading(file) as connection:
        (last,) = connection.execute("SELECT max(updated_at) FROM instances").fetchone()
    return NEVER if last is None else last / 1e6


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        yield connection


def _command(sidecar: Sidecar, *words: str) -> None:
    done = _run(sidecar, *words)
    assert done.returncode == 0, f"store {words[0]} of {sidecar.app}: {done.stdout}{done.stderr}"


def _run(sidecar: Sidecar, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sidecar", "store", *words, "--app-id", sidecar.app, "--data-dir", str(sidecar.data)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
