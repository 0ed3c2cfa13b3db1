"""Tables that fit a width: columns where there is room for them, else a record for each row. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_GAP = 2


class Column(NamedTuple):
    """A column: its title, how narrow it may become, and whether text that does not fit goes on in the next line.

    Else it is cut, also to `most`, where the width is bounded.
    """

    title: str
    least: int = 8
    folds: bool = False
    most: int = 40


class Cell(NamedTuple):
    """A cell: its text, and its style."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> RenderableType:
    """Return the rows in columns, if these fit a width (None: any), else as records, one below the other."""
    found = widths(columns, rows, width)
    if found is None:
        return Group(*(part for number, row in enumerate(rows) for part in _record(columns, row, first=not number)))
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, wide in zip(columns, found, strict=True):
        if column.folds:
            grid.add_column(column.title, width=wide, overflow="fold")
        else:
            grid.add_column(column.title, width=wide, overflow="ellipsis", no_wrap=True)
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def widths(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> list[int] | None:
    """Return the width of each column, None if not even the narrowest fit.

    What is left beyond these goes first to columns whose text is cut, then to those in which it goes on, from the left.
    """
    wanted = [
        max([len(column.title), *(cell_len(_cell(row[number]).text) for row in rows)])
        for number, column in enumerate(columns)
    ]
    if width is None:
        return wanted
    wanted = [most if one.folds else min(most, one.most) for most, one in zip(wanted, columns, strict=True)]
    found = [min(most, max(one.least, len(one.title))) for most, one in zip(wanted, columns, strict=True)]
    room = width - sum(found) - _GAP * (len(columns) - 1)
    if room < 0:
        return None
    for number in sorted(range(len(columns)), key=lambda number: columns[number].folds):
        more = min(room, wanted[number] - found[number])
        found[number], room = found[number] + more, room - more
    return found


def pairs(rows: Sequence[tuple[str, Cell | str]]) -> RenderableType:
    """Return lines of a name and what it has; what is empty is left out."""
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        if _cell(value).text:
            grid.add_row(name, _text(value))
    return grid


def _record(columns: Sequence[Column], row: Row, *, first: bool) -> list[RenderableType]:
    named = [(column.title, cell) for column, cell in zip(columns, row, strict=True)]
    return [pairs(named)] if first else [Text(), pairs(named)]


def _cell(given: Cell | str) -> Cell:
    return given if isinstance(given, Cell) else Cell(given)


def _text(given: Cell | str) -> Text:
    cell = _cell(given)
    return Text(cell.text, style=cell.style)
