"""The times of a schedule: cron expressions, an interval, bounds, jitter. Pure: the time zone is handed in.

Cron expressions mean what they mean to Debian's cron where the clocks change. A job with a fixed hour and minute whose
time is left out in spring runs at the first moment after the gap, and one whose time comes twice in autumn runs the
first time alone. A job with `*` in hours or minutes, or with a field for seconds, follows the time that passes.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from sidecar.schema import schedule_pb2 as pb

SECOND = 1_000_000
LATEST = 220_000_000_000 * SECOND  # in the year 8941: what counts further must not leave the calendar
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Times:
    """The times of one schedule, in microseconds since the epoch; `crons` are expressions of five or six fields."""

    crons: tuple[str, ...]
    zone: tzinfo
    every: int
    offset: int
    jitter: int
    first: int
    last: int
    seed: str

    def after(self, moment: int) -> int | None:
        """Return the first time behind a moment, None if there is none."""
        moment = max(moment, self.first - 1)
        found = [_cron_after(one, self.zone, moment) for one in self.crons] if moment < LATEST else []
        if self.every:
            found.append(moment - (moment - self.offset) % self.every + self.every)
        times = [time for time in found if time is not None and time <= self.last]
        return min(times, default=None)

    def moment(self, time: int) -> int:
        """Return when a time is to be dealt with: put off by its jitter, and never to behind the time that follows."""
        if not self.jitter:
            return time
        following = self.after(time)
        room = self.jitter if following is None else min(self.jitter, following - time)
        digest = hashlib.sha256(f"{self.seed}\n{time}".encode()).digest()
        return time + int.from_bytes(digest[:8]) % room


def of(schedule: pb.Schedule, zone: tzinfo) -> Times:
    """Return the times of a schedule whose cron expressions are meant in a zone. Raises ValueError, with the reason."""
    return Times(
        crons=tuple(map(_expression, schedule.cron)),
        zone=zone,
        every=schedule.every,
        offset=schedule.offset,
        jitter=schedule.jitter,
        first=schedule.start,
        last=schedule.end or LATEST,
        seed=schedule.id,
    )


def shown(time: int) -> str:
    """Return a time as IDs have it: 2026-11-30T02:00:00Z, with a fraction if it has one."""
    return (_EPOCH + time * _MICRO).isoformat().replace("+00:00", "Z")


def _expression(text: str) -> str:
    expression = _NAMES.get(text.strip().lower(), text)
    try:
        if len(text) > _LONGEST:
            raise CronSimError("Too long")
        CronSim(expression, _EPOCH)
    except CronSimError as error:
        reason = str(error).replace("Bad", "bad").replace("Wrong", "wrong").replace("Too", "too")
        hint = "give minute, hour, day of month, month, day of week, such as '30 2 * * MON-FRI', or @daily"
        raise ValueError(f"{text[:80]!r} is no cron expression ({reason}): {hint}") from error
    return expression


def _cron_after(expression: str, zone: tzinfo, moment: int) -> int | None:
    # Where a time comes twice the library may give one that is over: it looks at what the clock shows.
    for found in CronSim(expression, (_EPOCH + moment * _MICRO).astimezone(zone)):
        time = (found - _EPOCH) // _MICRO
        if time > moment:
            return time
    return None
