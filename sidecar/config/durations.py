"""Durations in Go's form, which Dapr's tools and files use, with days beside it: 1h30m, 1.5h, 300ms, 7d. Pure."""

import re

PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|s|m|h|d)")
_MICROSECONDS = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_MICROSECONDS |= {"d": 24 * _MICROSECONDS["h"]}
_LONGEST = 100 * 366 * _MICROSECONDS["d"]


def duration(text: str) -> int:
    """Return microseconds. Raises ValueError."""
    parts = PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:80]!r} is no time: give such as 90s, 1h30m or 7d")
    found = sum(float(number) * _MICROSECONDS[unit] for number, unit in parts)
    if found > _LONGEST:
        raise ValueError(f"{text[:80]!r} is longer than a hundred years")
    return round(found)


def written(micros: int) -> str:
    """Return microseconds as `duration` reads them: 36h, 1h30m; 90 seconds are 1m30s."""
    parts = []
    for unit in ("h", "m", "s", "ms", "us"):
        whole, micros = divmod(micros, _MICROSECONDS[unit])
        parts += [f"{whole}{unit}"] if whole else []
    return "".join(parts) or "0s"
