"""Tables that fit a width."""

import io

import pytest
from rich.console import Console

from sidecar.cli.show.tables import Column, table, widths

COLUMNS = (Column("NAME", 6), Column("ID", 8, True), Column("WHY", 10, True))
ROWS = [("order", "x" * 36, "because of this and that and more"), ("日本語の名前" * 3, "b", "")]


def lines(width: int | None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width or 1_000, color_system=None).print(table(COLUMNS, ROWS, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", range(28, 130))
def test_it_fits_and_nothing_is_lost_where_text_goes_on(width: int) -> None:
    found = widths(COLUMNS, ROWS, width)
    assert found is not None
    assert sum(found) + 4 <= width
    assert sum(line.count("x") for line in lines(width)) == 36


def test_it_is_as_wide_as_its_text_where_there_is_room() -> None:
    assert widths(COLUMNS, ROWS, 200) == widths(COLUMNS, ROWS, None) == [36, 36, 33]
    assert lines(None) == lines(200)


def test_it_becomes_records_where_not_even_the_narrowest_columns_fit() -> None:
    assert widths(COLUMNS, ROWS, 27) is None
    found = lines(27)
    assert found[0] == "NAME  order"
    assert [line[:4].strip() for line in found if line[:4].strip()] == ["NAME", "ID", "WHY", "NAME", "ID"]
    assert sum(line.count("x") for line in found) == 36
