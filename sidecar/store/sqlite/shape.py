"""Whether the tables of a file are those that its schema number says. Runs on the connection's thread."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY name"
Shape = dict[str, str]  # by what it is, such as "column history.key": how it is made


def differences(connection: sqlite3.Connection, scripts: Iterable[str]) -> list[str]:
    """Return in what a database differs from one that these scripts have made, a phrase each. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for script in scripts:
            made.executescript(script)
        wanted = dict(_parts(made))
    found = dict(_parts(connection))
    missing = [f"{part} is missing" for part in wanted if part not in found]
    unknown = [f"{part} is not known" for part in found if part not in wanted]
    other = [
        f"{part} is {found[part]}, not {shape}"
        for part, shape in wanted.items()
        if part in found and found[part] != shape
    ]
    return missing + unknown + other


def _parts(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in connection.execute(_TABLES).fetchall():
        yield f"table {table}", "there"
        for _, name, kind, required, default, key, _ in connection.execute(
            "SELECT * FROM pragma_table_xinfo(?)", (table,)
        ):
            yield f"column {table}.{name}", _column(kind, required, default, key)
        indexes = "SELECT name, [unique], partial FROM pragma_index_list(?) WHERE origin = 'c'"
        for name, unique, partial in connection.execute(indexes, (table,)).fetchall():
            columns = connection.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", (name,))
            kind = "unique " * unique + "partial " * partial
            yield f"index {name}", f"{kind}on {table} ({', '.join(str(column) for (column,) in columns)})"


def _column(kind: str, required: int, default: str | None, key: int) -> str:
    parts = [kind, "NOT NULL" * required, "" if default is None else f"DEFAULT {default}", f"key {key}" if key else ""]
    return " ".join(filter(None, parts))
