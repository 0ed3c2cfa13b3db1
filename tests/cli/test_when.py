"""Moments as a person gives them."""

from datetime import UTC

import pytest

from sidecar.cli import when
from sidecar.config import durations

NOW = 1_700_000_000_000_000
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("300ms", 300_000),
        ("0s", 0),
        ("90s", 90 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("2h45m", 9_900 * SECOND),
        ("7d", 604_800 * SECOND),
        ("1d12h", 129_600 * SECOND),
    ],
)
def test_a_time_may_be_in_go_s_form_with_days_beside_it(text: str, micros: int) -> None:
    assert durations.duration(text) == micros
    assert when.moment(text, NOW, -1) == NOW - micros
    assert when.moment(text, NOW, 1) == NOW + micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14T22:13:20", NOW),
        ("2023-11-14", NOW - 80_000 * SECOND),
    ],
)
def test_a_moment_may_be_a_date(text: str, micros: int) -> None:
    assert when.moment(text, 0, 1, UTC) == micros


@pytest.mark.parametrize("text", ["", "soon", "5", "5 m", "-5m", "5m!", "2023-13-01", "9999999d"])
def test_what_is_neither_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"no moment: give a time such as 90s|no time: give such as|hundred years"):
        when.moment(text, NOW, 1)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0s"), (90 * SECOND, "1m30s"), (129_600 * SECOND, "36h"), (1, "1us"), (61_000_500, "1m1s500us")],
)
def test_a_time_is_written_as_it_is_read(micros: int, text: str) -> None:
    assert durations.written(micros) == text
    assert durations.duration(text) == micros
