"""What a database file must be before it is used: ours, whole, of a known schema, with the right settings; the lock.

Runs on the connection's thread, but for the lock.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import structlog
from filelock import FileLock, Timeout

from sidecar.core.identity import AppIdentity
from sidecar.store.sqlite import shape

_SHOWN = 5  # differences from a schema that are named
_OTHER_VERSION = "run the version that has made it, or put a backup back with `sidecar store restore`"
log = structlog.get_logger(__name__)

# The WAL-reset race of older versions needs two connections; this store has one, and says so all the same.
_FIXED = ((3, 51, 3), (3, 44, 6), (3, 50, 7))
_PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "mmap_size": 0, "busy_timeout": 5000}
_APPLICATION_ID = 0x53694361
_LONGEST_NAME = 129  # characters: a file name has at most 255, and those of copies have more in them
_CHECKED_BYTES = 64 * 1024 * 1024  # a larger file is not read through at the start, which takes under a second
_RESTORE = "stop the sidecar, look with `sidecar store check`, put a backup back with `sidecar store restore`"
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on the disk of the data directory",
    sqlite3.SQLITE_READONLY: "let the sidecar write to the data directory, and its disk be mounted for writing",
    sqlite3.SQLITE_CANTOPEN: "let the sidecar write to the data directory, and its disk be mounted for writing",
    sqlite3.SQLITE_IOERR: "look for errors of the disk in the log of the system",
    sqlite3.SQLITE_CORRUPT: _RESTORE,
    sqlite3.SQLITE_NOTADB: _RESTORE,
}


class OpenError(Exception):
    """The store cannot be opened; the text says why and what to do."""


class Opened(NamedTuple):
    """What a file says of itself: its ID and generation, and the first key and order number that were never used."""

    identity: str
    next_key: int
    next_order: int


def advice(error: Exception) -> str:
    """Return an error with what a person can do about it."""
    hint = _ADVICE.get(primary_code(error), "")
    return f"{error}: {hint}" if hint else str(error)


def primary_code(error: Exception) -> int:
    """Return the result code of SQLite without its details; 0 if it is not an error of SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def prove(connection: sqlite3.Connection) -> None:
    """Write something durably: a disk that cannot is found out before work depends on it. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('reopened', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
    )
    connection.execute("COMMIT")


def prepare(connection: sqlite3.Connection, me: AppIdentity, fresh: str) -> Opened:
    """Check a file, bring its schema up to date and read who it belongs to. Raises sqlite3.Error."""
    connection.isolation_level = None
    _check_ours(connection)
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    _check_known(connection, found)
    if found == 0:
        connection.execute("PRAGMA auto_vacuum = incremental")
    for name, wanted in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {wanted}")
        in_force = connection.execute(f"PRAGMA {name}").fetchone()
        if in_force is not None and in_force[0] != wanted:
            raise sqlite3.OperationalError(f"pragma {name} is {in_force[0]!r}, not {wanted!r}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size < _CHECKED_BYTES and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError(f"the file is damaged: {_ADVICE[sqlite3.SQLITE_CORRUPT]}")
    _migrate(connection, found)
    return Opened(_identity(connection, me, fresh), next_of(connection, "instances"), next_of(connection, "reminders"))


def _check_ours(connection: sqlite3.Connection) -> None:
    """Refuse a database that some other program has made; it is left as it is."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        raise sqlite3.DatabaseError("it is the database of another program")


def strangeness(connection: sqlite3.Connection) -> list[str]:
    """Return why a file cannot be a store that this version knows, at most one reason. Raises sqlite3.Error."""
    try:
        _check_ours(connection)
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        _check_known(connection, found)
    except sqlite3.DatabaseError as error:
        if primary_code(error):
            raise
        return [str(error)]
    return [] if found else ["it is empty"]


def migrations() -> list[tuple[int, str]]:
    """Return the numbered schema changes, in order."""
    folder = resources.files("sidecar.store.sqlite") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_")[0]), file.read_text()) for file in files]


def _check_known(connection: sqlite3.Connection, found: int) -> None:
    """Refuse a schema of which this version does not know how it was made, or that was made otherwise."""
    known = migrations()[-1][0]
    if found > known:
        raise sqlite3.DatabaseError(f"the file has schema {found}, this version knows {known}: upgrade the sidecar")
    if found < 0:
        raise sqlite3.DatabaseError(f"the file has schema {found}, which no version has made")
    wrong = shape.differences(connection, (script for number, script in migrations() if number <= found))
    if wrong:
        shown = "; ".join(wrong[:_SHOWN]) + f"; and {len(wrong) - _SHOWN} more" * (len(wrong) > _SHOWN)
        raise sqlite3.DatabaseError(
            f"the file says that it has schema {found}, and has another: {shown}: {_OTHER_VERSION}"
        )


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    """Run the schema changes that the file lacks, each in one transaction with the number that says so."""
    for number, script in migrations():
        if number > found:
            connection.execute("BEGIN IMMEDIATE")
            _run(connection, script)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")


@contextmanager
def seen_as_new(connection: sqlite3.Connection) -> Iterator[None]:
    """Read a store of an earlier schema as it will be when a sidecar has opened it; the file stays as it is.

    Raises sqlite3.Error.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    missing = [script for number, script in migrations() if number > found]
    connection.isolation_level = None
    if missing:
        connection.execute("BEGIN IMMEDIATE")
    try:
        for script in missing:
            _run(connection, script)
        yield
    finally:
        if missing:
            connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in _statements(script):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """Return the statements of a script, one by one."""
    statement = ""
    for part in script.split(";")[:-1]:  # behind the last one there is nothing, or a remark
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def _identity(connection: sqlite3.Connection, me: AppIdentity, fresh: str) -> str:
    """Return the store's ID and generation; a store of another app is refused."""
    connection.execute("BEGIN IMMEDIATE")
    wanted = {"app": me.app, "namespace": me.namespace, "store": fresh, "generation": "1"}
    connection.executemany("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", list(wanted.items()))
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    connection.execute("COMMIT")
    if (meta["namespace"], meta["app"]) != (me.namespace, me.app):
        raise sqlite3.DatabaseError(f"it belongs to app {meta['app']!r} of namespace {meta['namespace']!r}")
    return f"{meta['store']}.{meta['generation']}"


def next_of(connection: sqlite3.Connection, table: str) -> int:
    """Return the first number that a table never used."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return found[0] + 1 if found else 1


def log_version() -> None:
    """Log the SQLite version, and whether it has the WAL-reset bug, for whoever looks closely."""
    version, bug = version_of_sqlite()
    log.debug("sqlite", version=version, **({"note": bug} if bug else {}))


def version_of_sqlite() -> tuple[str, str]:
    """Return the version of SQLite, and what is to be known of it, "" if nothing is."""
    version = sqlite3.sqlite_version_info
    fixed = version >= _FIXED[0] or any(version[:2] == minor[:2] and version >= minor for minor in _FIXED[1:])
    bug = "has the WAL-reset bug: do not open the database with another program while the sidecar runs"
    return sqlite3.sqlite_version, "" if fixed else bug


def path_of(me: AppIdentity, directory: Path) -> Path:
    """Return where the database of an app is. Long names are cut, with a hash, so that names of copies fit too."""
    name = f"{me.namespace}.{me.app}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return directory / f"{name}.db"


def lock(path: Path, me: AppIdentity) -> FileLock:
    """Make the directory and take the lock that only one sidecar can have. Raises OpenError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = FileLock(f"{path}.lock")
        taken.acquire(timeout=0)
        path.touch(mode=0o600)
    except Timeout:
        raise OpenError(f"another sidecar of app {me.app!r} has {path} open: stop it first") from None
    except OSError as error:
        raise OpenError(f"cannot use the data directory {path.parent}: {error.strerror or error}") from error
    return taken
