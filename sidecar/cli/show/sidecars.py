"""Peers, workers, versions, and what a check has found. Pure."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.cli.show import words
from sidecar.cli.show.tables import Cell, Column, Row, table

_LONGEST = 200
_STYLES = {"connected": "green", "connecting": "yellow", "no address": "red"}


class Level(StrEnum):
    """How bad something is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


_OF_LEVEL = {Level.OK: "green", Level.NOTE: "", Level.WARNING: "yellow", Level.ERROR: "red"}


class Finding(NamedTuple):
    """What a check has found, and what is to be done about it."""

    area: str
    level: Level
    text: str
    advice: str = ""


def peers(rows: Sequence[Mapping[str, Any]], now: int, width: int | None) -> RenderableType:
    """Return a table of the other apps that the sidecar knows, or that something waits for."""
    columns = (Column("APP ID"), Column("STATE", 9), Column("SINCE", 8), Column("WAITING", 4),
               Column("ADDRESSES", 14, True), Column("ERROR", 16, True))  # fmt: skip
    return table(
        columns,
        [
            (
                words.clean(str(row["appId"])),
                Cell(str(row["state"]), _STYLES.get(str(row["state"]), "")),
                _since(row.get("since"), now),
                f"{row['waiting']:,}",
                words.clean(", ".join(row["addresses"])),
                words.cut("; ".join([*filter(None, [row["error"]]), *(one["why"] for one in row["says"])]), _LONGEST),
            )
            for row in rows
        ],
        width,
    )


def _since(given: str | None, now: int) -> str:
    if not given:
        return ""
    moment = Timestamp()
    moment.FromJsonString(given)
    return words.span(now - words.micros(moment))


def workers(metadata: Mapping[str, Any], now: int, width: int | None) -> RenderableType:
    """Return a table of the connected workers, and below it the work that none of them takes."""
    columns = (Column("WORKER", 12, True), Column("HUB"), Column("HAS", 6), Column("WORKFLOWS", 12, True),
               Column("ACTIVITIES", 12, True), Column("ENTITIES", 9, True), Column("PROBLEM", 14, True))  # fmt: skip
    rows = metadata["workers"]
    shown: list[Row] = [
        (
            words.clean(row["peer"]),
            words.clean(row["hub"]),
            _has(row["has"]),
            *(_names(row[kind]) for kind in ("workflows", "activities", "entities")),
            Cell(words.cut(row["error"], _LONGEST), "red"),
        )
        for row in rows
    ]
    parts: list[RenderableType] = []
    if rows:
        parts.append(table(columns, shown, width))
    for row in metadata["untaken"]:
        since = _since(row["since"], now)
        parts += [
            *([Text()] if parts else []),
            Text(words.clean(waiting(row)) + (f", for {since}" if since else ""), style="yellow"),
            Text(f"→ {words.clean(row['advice'])}"),
        ]
    return Group(*parts)


def waiting(row: Mapping[str, Any]) -> str:
    """Return what waits that no worker takes, and why."""
    return f"{words.count(row['waiting'], 'item')} of {row['kind']} '{row['name']}' waiting: {row['why']}"


def _has(counts: Mapping[str, int]) -> str:
    held = [f"{number} {kind}" for kind, number in counts.items() if number]
    return ", ".join(held) or "nothing"


def _names(names: Sequence[str]) -> str:
    return "all" if list(names) == ["*"] else words.cut(", ".join(names), _LONGEST) or "none"


def findings(found: Sequence[Finding]) -> RenderableType:
    """Return what a check has found, a line each, with what to do below it."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in found:
        grid.add_row(Text(one.level, style=_OF_LEVEL[one.level]), f"{one.area}: {words.clean(one.text)}")
        if one.advice:
            grid.add_row("", Text(f"→ {words.clean(one.advice)}", style="bold"))
    return grid
