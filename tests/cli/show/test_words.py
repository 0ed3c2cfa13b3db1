"""Texts and times as people read them."""

import pytest

from sidecar.cli.show import words

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (-5, "0 ms"),
        (340_000, "340 ms"),
        (3_400_000, "3.4 s"),
        (3 * SECOND, "3 s"),
        (59 * SECOND, "59 s"),
        (60 * SECOND, "1 min"),
        (185 * SECOND, "3 min 5 s"),
        (3_600 * SECOND, "1 h"),
        (7_260 * SECOND, "2 h 1 min"),
        (90_000 * SECOND, "1 d 1 h"),
        (86_400 * 40 * SECOND + 7_200 * SECOND, "40 d"),
    ],
)
def test_a_span_has_one_or_two_units(micros: int, text: str) -> None:
    assert words.span(micros) == text


def test_a_moment_is_seen_from_now() -> None:
    assert (words.ago(0, 90 * SECOND), words.ago(90 * SECOND, 0)) == ("1 min 30 s ago", "in 1 min 30 s")


@pytest.mark.parametrize(
    ("written", "shown"),
    [("plain é 日本", "plain é 日本"), ("\x1b[31m\r\n\x00\x9b\u202e", r"\x1b[31m\r\n\x00\x9b\u202e")],
)
def test_marks_that_steer_a_terminal_are_written_as_escapes(written: str, shown: str) -> None:
    assert words.clean(written) == shown


def test_a_long_text_is_cut() -> None:
    assert (words.cut("abcdef", 4), words.cut("abcd", 4), words.cut("\n" * 10**6, 9)) == ("abc…", "abcd", r"\n\n\n\n…")


def test_a_noun_is_counted() -> None:
    assert [words.count(number, "workflow") for number in (0, 1, 1200)] == [
        "0 workflows",
        "1 workflow",
        "1,200 workflows",
    ]
