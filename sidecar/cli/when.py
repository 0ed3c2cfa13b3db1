"""Moments as a person gives them: how long ago or ahead, or a date and time. Pure."""

from datetime import datetime, tzinfo

from sidecar.config.durations import PART, duration

_HOW = "give a time such as 90s, 1h30m or 7d, or a date such as 2026-11-30 or 2026-11-30T08:00:00Z"


def moment(text: str, now: int, direction: int, zone: tzinfo | None = None) -> int:
    """Return a moment in microseconds: a date, or so long before (`direction` -1) or after (1) now.

    A date without an offset is in `zone`, None for that of this machine. Raises ValueError.
    """
    if PART.match(text):
        return now + direction * duration(text)
    try:
        date = datetime.fromisoformat(text)
        aware = date if date.tzinfo else date.replace(tzinfo=zone) if zone else date.astimezone()
        return round(aware.timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text[:80]!r} is no moment: {_HOW}") from error
