"""What a schedule may be: the checks of its definition, and the IDs of its runs. Pure."""

import hashlib
import re
from collections.abc import Iterator

from sidecar.core.identity import AppIdentity
from sidecar.core.names import invalid_app_id, invalid_chosen_id, invalid_name, invalid_tags
from sidecar.core.schedule import times
from sidecar.core.schedule.times import LATEST, SECOND, Times
from sidecar.schema import schedule_pb2 as pb

DAY = 86_400 * SECOND
DEFAULT_CATCH_UP = DAY  # a nightly run that is missed while a machine is off runs in the morning
SHORTEST_CATCH_UP = 10 * SECOND  # so late may any time be on a machine that is busy
DEFAULT_ID = "{schedule}-{time}"
MOST_CRONS = 20
LARGEST_INPUT = 256 * 1024  # bytes: a schedule is written anew with each of its times
_LONGEST_ID = 128  # the time behind it in the ID of a run has 27 characters at most
_LONGEST_SPAN = 100 * 366 * DAY
_PART = re.compile(r"\{(\w*)\}")
_PARTS = ("schedule", "time", "workflow")
_LONGEST_TIME = 8_000_000_000 * SECOND + 1


def is_elsewhere(me: AppIdentity, schedule: pb.Schedule) -> bool:
    """Whether another app runs the workflow."""
    return schedule.app_id not in ("", me.app)


def overlap_of(me: AppIdentity, schedule: pb.Schedule, given: int = pb.OVERLAP_UNSPECIFIED) -> int:
    """Return what happens to a time while a run is active, as it is given for one time, or by the schedule."""
    usual = pb.OVERLAP_ALLOW if is_elsewhere(me, schedule) else pb.OVERLAP_SKIP
    return given or schedule.overlap or usual


def wrong(me: AppIdentity, schedule: pb.Schedule) -> str | None:
    """Say what is wrong with a definition, or return None; `times.of` says it of the cron expressions."""
    return next(_faults(me, schedule), None)


def wrong_times(found: Times, now: int) -> str | None:
    """Say that a schedule has no time to come, or return None."""
    return None if found.after(now) is not None else "it has no time to come: look at its cron expressions and its end"


def _faults(me: AppIdentity, schedule: pb.Schedule) -> Iterator[str]:
    yield from filter(None, (_wrong_id(schedule), invalid_name("workflow", schedule.workflow)))
    yield from filter(None, (invalid_tags(schedule.tags), _wrong_template(schedule)))
    if len(schedule.input.value.encode()) > LARGEST_INPUT:
        yield f"the input has more than {LARGEST_INPUT // 1024} KiB: give the workflow a reference to it"
    if schedule.app_id and (invalid := invalid_app_id(schedule.app_id)):
        yield invalid
    if schedule.overlap not in pb.Overlap.values():
        yield f"{schedule.overlap} is no overlap policy"
    if wrong := wrong_overlap(me, schedule, schedule.overlap):
        yield wrong
    yield from _wrong_times(schedule)


def wrong_overlap(me: AppIdentity, schedule: pb.Schedule, given: int) -> str | None:
    """Say why an overlap policy is not possible, or return None."""
    if is_elsewhere(me, schedule) and overlap_of(me, schedule, given) != pb.OVERLAP_ALLOW:
        return f"whether a run of app '{schedule.app_id}' is active is not known here: its overlap can only be allow"
    return None


def _wrong_id(schedule: pb.Schedule) -> str | None:
    if not schedule.id:
        return "the schedule has no ID"
    if len(schedule.id) > _LONGEST_ID:
        return f"the ID of the schedule has {len(schedule.id)} characters; at most {_LONGEST_ID} are allowed"
    wrong = invalid_chosen_id(schedule.id)
    return wrong and wrong.replace("the instance ID", "the ID of the schedule")


def _wrong_template(schedule: pb.Schedule) -> str | None:
    template = schedule.instance_id or DEFAULT_ID
    unknown = [part for part in _PART.findall(template) if part not in _PARTS]
    if unknown:
        known = ", ".join(f"{{{part}}}" for part in _PARTS)
        return f"the template of instance IDs has {{{unknown[0]}}}: known are {known}"
    if "{time}" not in template:
        return "the template of instance IDs has no {time}: without it all runs would have the same"
    return invalid_chosen_id(run_id(schedule, _LONGEST_TIME))


def _wrong_times(schedule: pb.Schedule) -> Iterator[str]:
    if not schedule.cron and not schedule.every:
        yield "the schedule has no times: give a cron expression or an interval"
    if len(schedule.cron) > MOST_CRONS:
        yield f"the schedule has {len(schedule.cron)} cron expressions; at most {MOST_CRONS} are allowed"
    if schedule.every and not SECOND <= schedule.every <= _LONGEST_SPAN:
        yield "an interval is between a second and a hundred years"
    if not 0 <= schedule.offset < max(1, schedule.every):
        yield "an offset is shorter than its interval, and not below zero"
    if not 0 <= schedule.jitter <= DAY:
        yield "a jitter is between zero and a day"
    if schedule.catch_up and not SHORTEST_CATCH_UP <= schedule.catch_up <= _LONGEST_SPAN:
        yield "a catch-up window is between 10 seconds and a hundred years"
    if not (0 <= schedule.start < LATEST and 0 <= schedule.end < LATEST):
        yield "start and end are between 1970 and 8900"
    if schedule.end and schedule.end < schedule.start:
        yield "the schedule ends before it starts"


def run_id(schedule: pb.Schedule, time: int) -> str:
    """Return the ID of the run for a time: another time of the schedule never has the same."""
    values = {"schedule": schedule.id, "workflow": schedule.workflow, "time": times.shown(time)}
    return _PART.sub(lambda found: values.get(found[1], found[0]), schedule.instance_id or DEFAULT_ID)


def execution_id(me: AppIdentity, hub: str, schedule: pb.Schedule, time: int) -> str:
    """Return the execution ID of the run for a time: always the same, so that a start that is repeated is known."""
    text = "\n".join(("schedule", me.namespace, me.app, hub, schedule.id, str(time)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
