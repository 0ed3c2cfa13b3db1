"""Settings that say how much or how long: counts, sizes and durations, one for all or by status or name."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from sidecar.config.parsers import items, quoted

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SIZES = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATIONS = {"": 1.0, "MS": 0.001, "S": 1.0, "M": 60.0, "H": 3600.0, "D": 86400.0}
_MIN_MEMORY_BYTES = 128 * 2**20
_MIN_MESSAGE_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_SECONDS = 366 * 86400.0
_LONGEST_RETENTION = 100 * 366 * 86400.0
_ENDS = ("completed", "failed", "terminated", "canceled", "any")
_LIMITED = {"workflows": "workflow:*", "activities": "activity:*"}


def count(raw: object) -> int:
    """A number from 1."""
    digits = str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", digits):
        raise ValueError(f"{quoted(raw)} is not a number from 1")
    return int(digits)


def count_or_none(raw: object) -> int | None:
    """A whole number from 1; the word none means any number."""
    if raw == "none":
        return None
    if isinstance(raw, bool) or not re.fullmatch(r"[1-9][0-9]{0,8}", str(raw)):
        raise ValueError(f"{quoted(raw)} is not a count: give a whole number from 1, or none")
    return int(str(raw))


def size(raw: object) -> int:
    """The size of a message in bytes, also with a unit: 64MiB."""
    found = _amount(raw, _SIZES)
    if found is None or not _MIN_MESSAGE_BYTES <= found <= _MAX_MESSAGE_BYTES:
        hint = "give bytes or such as 64MiB, from 64KiB to under 2GiB"
        raise ValueError(f"{quoted(raw)} is not a message size: {hint}")
    return int(found)


def memory(raw: object) -> int:
    """An amount of memory in bytes, also with a unit: 512MiB."""
    found = _amount(raw, _SIZES)
    if found is None or not _MIN_MEMORY_BYTES <= found < 2**60:
        raise ValueError(f"{quoted(raw)} is no amount of memory: give bytes or such as 512MiB, from 128MiB")
    return int(found)


def seconds(raw: object) -> float:
    """A duration over zero in seconds, also with a unit: 500ms, 90s, 2m, 1h, 7d."""
    return _duration(raw, _MAX_SECONDS, "366 days")


def seconds_or_none(raw: object) -> float | None:
    """As `seconds`; the word none means no limit."""
    return None if raw == "none" else seconds(raw)


def _duration(raw: object, most: float, most_in_words: str) -> float:
    found = _amount(raw, _DURATIONS)
    if found is None or not 0 < found <= most:
        hint = f"give seconds over 0 or such as 500ms, 90s, 2m, 1h, 7d, at most {most_in_words}"
        raise ValueError(f"{quoted(raw)} is not a duration: {hint}")
    return found


def _amount(raw: object, units: Mapping[str, float]) -> float | None:
    """A number with one of `units` (or none) behind it, in base units; None if it is not that."""
    match = _AMOUNT.fullmatch(str(raw)) if isinstance(raw, int | float | str) else None
    if match is None or isinstance(raw, bool) or match[2].upper() not in units:
        return None
    return float(match[1]) * units[match[2].upper()]


def retention(raw: object) -> Mapping[str, float]:
    """Status → seconds, read-only, from `{status: duration}` or from items `status=duration`."""
    found: dict[str, float] = {}
    for status, duration in _pairs(raw):
        if status not in _ENDS:
            raise ValueError(f"{quoted(status)} is not an end of a workflow: use {', '.join(_ENDS)}")
        if status in found:
            raise ValueError(f"{status} is given twice: keep one of them")
        try:
            found[status] = _duration(duration, _LONGEST_RETENTION, "100 years")
        except ValueError as error:
            raise ValueError(f"{status}: {error}") from None
    return MappingProxyType(found)


def _pairs(raw: object) -> Iterable[tuple[object, object]]:
    if isinstance(raw, Mapping):
        yield from raw.items()
        return
    for item in items(raw):
        name, equals, value = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals:
            raise ValueError(f"{quoted(item)} is not of the form status=time, such as completed=7d")
        yield name.strip(), value.strip()


def limits(raw: object) -> Mapping[str, int]:
    """How many items may be out at once, by `<kind>:<pattern of names>`, read-only.

    From `{workflows: 100, activity: {gpu-*: 1}}`, or from the flag's form: items `workflows=100` and
    `activity:gpu-*=1`, in a list or separated by commas.
    """
    found: dict[str, int] = {}
    for key, most in _limit_pairs(raw):
        kind, _, pattern = (_LIMITED.get(key) or key).partition(":")
        if f"{kind}:*" not in _LIMITED.values() or not pattern:
            hint = "write workflows, activities, workflow:NAME or activity:NAME"
            raise ValueError(f"{quoted(key)} cannot be limited: {hint}, such as activity:gpu-*=1")
        try:
            found[f"{kind}:{pattern}"] = count(most)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return MappingProxyType(found)


def _limit_pairs(raw: object) -> Iterable[tuple[str, object]]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            names = value if isinstance(value, Mapping) else {None: value}
            yield from ((str(key) if name is None else f"{key}:{name}", count) for name, count in names.items())
        return
    for item in items(raw):
        key, _, count = str(item).rpartition("=")
        if not key:
            raise ValueError(f"{quoted(item)} names no limit: write such as activities=50 or activity:gpu-*=1")
        yield key.strip(), count.strip()
