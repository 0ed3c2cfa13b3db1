"""Moments as a person gives them: how long ago or ahead, or a date and time. Pure."""

import re
from datetime import datetime, tzinfo

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|s|m|h|d)")
_MICROSECONDS = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_MICROSECONDS |= {"d": 24 * _MICROSECONDS["h"]}
_LONGEST = 100 * 366 * _MICROSECONDS["d"]
_HOW = "give a time such as 90s, 1h30m or 7d, or a date such as 2026-11-30 or 2026-11-30T08:00:00Z"


def duration(text: str) -> int:
    """Return microseconds, of Go's form with days beside it: 1h30m, 1.5h, 300ms, 7d. Raises ValueError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:80]!r} is no time: give such as 90s, 1h30m or 7d")
    found = sum(float(number) * _MICROSECONDS[unit] for number, unit in parts)
    if found > _LONGEST:
        raise ValueError(f"{text[:80]!r} is longer than a hundred years")
    return round(found)


def moment(text: str, now: int, direction: int, zone: tzinfo | None = None) -> int:
    """Return a moment in microseconds: a date, or so long before (`direction` -1) or after (1) now.

    A date without an offset is in `zone`, None for that of this machine. Raises ValueError.
    """
    if _PART.match(text):
        return now + direction * duration(text)
    try:
        date = datetime.fromisoformat(text)
        aware = date if date.tzinfo else date.replace(tzinfo=zone) if zone else date.astimezone()
        return round(aware.timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text[:80]!r} is no moment: {_HOW}") from error
