"""Texts and times as people read them. Pure."""

from datetime import UTC, datetime
from itertools import pairwise

from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 1_000_000
_UNITS = (("d", 86_400 * _SECOND), ("h", 3_600 * _SECOND), ("min", 60 * _SECOND), ("s", _SECOND))
_LONG_DAYS = 10
_TENTHS_BELOW = 10 * _SECOND


def clean(text: str) -> str:
    """Return a text that others wrote, harmless to a terminal: what is no mark is written as an escape."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def cut(text: str, most: int) -> str:
    """Return the text as `clean` does, with so many marks at most."""
    shown = clean(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def count(number: int, noun: str) -> str:
    """Return such as "1 workflow", "1,200 workflows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(micros: int) -> str:
    """Return how long something is, in one or two units: "340 ms", "3.4 s", "12 s", "3 min 5 s", "2 d 4 h"."""
    micros = max(0, micros)
    if micros < _SECOND:
        return f"{micros // 1000} ms"
    if micros < _TENTHS_BELOW:
        return f"{micros / _SECOND:.1f}".removesuffix(".0") + " s"
    for (unit, size), (smaller, part) in pairwise(_UNITS):
        if micros >= size:
            whole, rest = micros // size, micros % size // part
            return f"{whole} {unit}" + (
                f" {rest} {smaller}" if rest and not (unit == "d" and whole >= _LONG_DAYS) else ""
            )
    return f"{micros // _SECOND} s"


def ago(moment: int, now: int) -> str:
    """Return a moment seen from now: "3 min 5 s ago", "in 2 h"."""
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def micros(moment: Timestamp) -> int:
    """Return microseconds since the epoch."""
    return moment.seconds * _SECOND + moment.nanos // 1000


def local(moment: Timestamp) -> str:
    """Return date and time by the clock of this machine."""
    return datetime.fromtimestamp(moment.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(moment: Timestamp) -> str:
    """Return date and time for programs: UTC, by RFC 3339."""
    return moment.ToJsonString()
