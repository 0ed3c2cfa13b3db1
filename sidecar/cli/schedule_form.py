"""Schedules as people write them, in files and flags, and as programs read them. Pure.

What is written for programs can be applied again, and is then the same schedule.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sidecar.cli import when
from sidecar.config import durations
from sidecar.schema import schedule_pb2 as pb

OVERLAPS: Mapping[str, int] = MappingProxyType(
    {
        "skip": pb.OVERLAP_SKIP,
        "queue-one": pb.OVERLAP_QUEUE_ONE,
        "queue-all": pb.OVERLAP_QUEUE_ALL,
        "terminate": pb.OVERLAP_TERMINATE,
        "allow": pb.OVERLAP_ALLOW,
    }
)
_TEMPORALS = {"bufferone": "queue-one", "bufferall": "queue-all", "terminateother": "terminate", "allowall": "allow"}
_WORDS = {number: word for word, number in OVERLAPS.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def overlap(text: str) -> int:
    """Return the overlap policy of a word, also of Temporal's; "" is that of the schedule. Raises ValueError."""
    if not text:
        return pb.OVERLAP_UNSPECIFIED
    plain = text.lower().replace("-", "").replace("_", "")
    word = _TEMPORALS.get(plain, next((one for one in OVERLAPS if one.replace("-", "") == plain), ""))
    if not word:
        raise ValueError(f"{text[:80]!r} is no overlap policy: give {', '.join(OVERLAPS)}")
    return OVERLAPS[word]


def overlap_word(number: int) -> str:
    """Return the word of an overlap policy, "" for none."""
    return _WORDS.get(number, "")


def moment(text: str, now: int, direction: int = 1) -> int:
    """Return a moment: a date, in UTC unless it says otherwise, or so long from (-1: before) now. Raises ValueError."""
    return when.moment(text, now, direction, UTC)


def shown(micros: int) -> str:
    """Return a moment for programs: UTC, by RFC 3339."""
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_data(data: object, now: int) -> pb.Schedule:
    """Return the schedule that a mapping of a file says. Raises ValueError, with what is wrong."""
    if not isinstance(data, Mapping):
        raise ValueError("a schedule is a mapping of keys such as id, cron and workflow")
    schedule = pb.Schedule()
    for key, value in data.items():
        if key not in _READ:
            raise ValueError(f"{str(key)[:80]!r} is no key of a schedule: known are {', '.join(_READ)}")
        try:
            if value is not None:
                _READ[key](schedule, value, now)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{key}: {error}") from error
    return schedule


def data(schedule: pb.Schedule) -> dict[str, Any]:
    """Return the definition of a schedule for programs: what it does not say is left out."""
    found: dict[str, Any] = {"id": schedule.id, "workflow": schedule.workflow}
    if schedule.HasField("version"):
        found["version"] = schedule.version.value
    if schedule.app_id:
        found["appID"] = schedule.app_id
    if schedule.cron:
        found["cron"] = list(schedule.cron)
    for key, text in (("timeZone", schedule.time_zone), ("overlap", overlap_word(schedule.overlap))):
        found |= {key: text} if text else {}
    for key, micros in _LENGTHS.items():
        found |= {key: durations.written(value)} if (value := getattr(schedule, micros)) else {}
    for key in ("start", "end"):
        found |= {key: shown(value)} if (value := getattr(schedule, key)) else {}
    if schedule.instance_id:
        found["instanceID"] = schedule.instance_id
    if schedule.HasField("input"):
        found |= _input(schedule.input.value)
    if schedule.tags:
        found["tags"] = dict(sorted(schedule.tags.items()))
    return found


def _input(text: str) -> dict[str, Any]:
    """Return an input as the value that it is in JSON, or as text where another JSON text would come of that."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"inputText": text}
    return {"input": value} if json.dumps(value) == text and value is not None else {"inputText": text}


_LENGTHS = {"every": "every", "offset": "offset", "jitter": "jitter", "catchUp": "catch_up"}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:80]!r} is no text: put it into quotes")
    return value


def _set_text(field: str) -> Callable[[pb.Schedule, Any, int], None]:
    return lambda schedule, value, now: setattr(schedule, field, _text(value))


def _set_length(field: str) -> Callable[[pb.Schedule, Any, int], None]:
    def write(schedule: pb.Schedule, value: Any, now: int) -> None:
        setattr(schedule, field, durations.duration(_text(value)))
        if field == "catch_up" and not schedule.catch_up:
            raise ValueError("give 10s at least: so late may any time be on a machine that is busy")

    return write


def _set_moment(field: str) -> Callable[[pb.Schedule, Any, int], None]:
    def write(schedule: pb.Schedule, value: Any, now: int) -> None:
        # YAML makes dates of what looks like one.
        setattr(schedule, field, moment(value if isinstance(value, str) else value.isoformat(), now))

    return write


def _set_cron(schedule: pb.Schedule, value: Any, now: int) -> None:
    schedule.cron.extend(map(_text, [value] if isinstance(value, str) else value))


def _set_tags(schedule: pb.Schedule, value: Any, now: int) -> None:
    if not isinstance(value, Mapping):
        raise ValueError("tags are a mapping of keys to texts")
    schedule.tags.update({str(key): _text(text) for key, text in value.items()})


def _set_input(schedule: pb.Schedule, value: Any, now: int) -> None:
    schedule.input.value = json.dumps(value)


def _set_input_text(schedule: pb.Schedule, value: Any, now: int) -> None:
    schedule.input.value = _text(value)


def _set_version(schedule: pb.Schedule, value: Any, now: int) -> None:
    schedule.version.value = _text(value)


def _set_overlap(schedule: pb.Schedule, value: Any, now: int) -> None:
    schedule.overlap = pb.Overlap.ValueType(overlap(_text(value)))


_READ: Mapping[str, Callable[[pb.Schedule, Any, int], None]] = MappingProxyType(
    {
        "id": _set_text("id"),
        "workflow": _set_text("workflow"),
        "version": _set_version,
        "appID": _set_text("app_id"),
        "cron": _set_cron,
        "timeZone": _set_text("time_zone"),
        **{key: _set_length(field) for key, field in _LENGTHS.items()},
        "start": _set_moment("start"),
        "end": _set_moment("end"),
        "overlap": _set_overlap,
        "instanceID": _set_text("instance_id"),
        "input": _set_input,
        "inputText": _set_input_text,
        "tags": _set_tags,
    }
)
