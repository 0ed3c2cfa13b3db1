"""The times of schedules: cron expressions where clocks change, intervals, bounds, jitter."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.schedule import times
from sidecar.core.schedule.times import SECOND, Times
from sidecar.schema import schedule_pb2 as pb

MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
BERLIN, NEW_YORK, HOWE = (ZoneInfo(name) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe"))


def micros(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def made(*crons: str, zone: ZoneInfo | None = None, **fields: int) -> Times:
    return times.of(pb.Schedule(id="s", cron=crons, **fields), zone or UTC)  # type: ignore[arg-type]


def following(found: Times, after: str, number: int) -> list[str]:
    """The next times as UTC, without the year where it is that of `after`."""
    shown, moment = [], micros(after)
    for _ in range(number):
        time = found.after(moment)
        assert time is not None
        assert time > moment
        moment = time
        shown.append(times.shown(time)[5:16])
    return shown


def test_a_cron_expression_gives_its_times_in_order() -> None:
    assert following(made("30 2 * * MON-FRI"), "2026-11-27T02:30:00", 2) == ["11-30T02:30", "12-01T02:30"]
    assert following(made("0 0 29 2 *"), "2026-01-01", 1) == ["02-29T00:00"]
    assert times.shown(made("0 0 29 2 *").after(micros("2026-01-01")) or 0) == "2028-02-29T00:00:00Z"


def test_a_field_for_seconds_comes_first_where_there_are_six() -> None:
    found = made("*/20 * * * * *").after(micros("2026-01-01T00:00:01"))
    assert found == micros("2026-01-01T00:00:20")


@pytest.mark.parametrize(
    ("name", "expected"), [("@hourly", "11-30T13:00"), ("@daily", "12-01T00:00"), ("@monthly", "12-01T00:00")]
)
def test_names_stand_for_expressions(name: str, expected: str) -> None:
    assert following(made(name), "2026-11-30T12:34:00", 1) == [expected]


@pytest.mark.parametrize("wrong", ["", "* * * *", "61 * * * *", "0 0 30 2 *", "x y z a b", "@often", "0 " * 200])
def test_what_is_no_expression_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no cron expression"):
        made(wrong)


def test_a_time_that_the_gap_in_spring_leaves_out_comes_at_the_end_of_the_gap() -> None:
    # 2026-03-29 in Berlin: 02:00 +01:00 becomes 03:00 +02:00, which is 01:00 UTC.
    assert following(made("30 2 * * *", zone=BERLIN), "2026-03-28T12:00:00", 2) == ["03-29T01:00", "03-30T00:30"]


def test_times_that_meet_at_the_end_of_the_gap_are_one() -> None:
    assert following(made("0,30 2,3 * * *", zone=BERLIN), "2026-03-29T00:00:00", 3) == [
        "03-29T01:00",
        "03-29T01:30",
        "03-30T00:00",
    ]


def test_a_time_that_comes_twice_in_autumn_is_the_first() -> None:
    # 2026-10-25 in Berlin: 02:30 is at 00:30 UTC and at 01:30 UTC.
    assert following(made("30 2 * * *", zone=BERLIN), "2026-10-25T00:00:00", 2) == ["10-25T00:30", "10-26T01:30"]
    between = made("30 2 * * *", zone=BERLIN).after(micros("2026-10-25T01:10:00"))
    assert between == micros("2026-10-26T01:30:00"), "the second 02:30 is none"


def test_a_job_of_each_hour_follows_the_time_that_passes() -> None:
    assert following(made("15 * * * *", zone=BERLIN), "2026-10-25T00:00:00", 3) == [
        "10-25T00:15",
        "10-25T01:15",
        "10-25T02:15",
    ]
    assert following(made("15 * * * *", zone=BERLIN), "2026-03-29T00:20:00", 2) == ["03-29T01:15", "03-29T02:15"]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, HOWE])
@pytest.mark.parametrize("expression", ["*/7 * * * *", "30 1,2 * * *", "*/20 2 * * *", "0 */3 * * *", "10 30 * * * *"])
@given(day=st.integers(0, 364), minute=st.integers(0, 1_439))
@settings(max_examples=6, deadline=None)
def test_times_grow_wherever_one_begins_and_are_the_same_from_any_moment(
    zone: ZoneInfo, expression: str, day: int, minute: int
) -> None:
    """What comes next does not depend on the moment from which it is asked: no time comes twice or is left out."""
    found, begin = made(expression, zone=zone), micros("2026-01-01") + day * DAY + minute * MINUTE
    moment, seen = begin, []
    for _ in range(12):
        time = found.after(moment)
        assert time is not None
        assert time > moment
        seen.append(time)
        moment = time
    for earlier, later in pairwise([begin, *seen]):
        for asked in (earlier, (earlier + later) // 2, later - 1):
            assert found.after(asked) == later


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
@pytest.mark.parametrize("expression", ["30 2 * * *", "15 1 * * *", "0 12 * * SUN"])
def test_a_daily_job_runs_once_on_each_of_its_days(zone: ZoneInfo, expression: str) -> None:
    found, moment, days = made(expression, zone=zone), micros("2026-01-01T12:00:00"), []
    for _ in range(400):
        time = found.after(moment)
        assert time is not None
        moment = time
        days.append((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).astimezone(zone).date())
    step = timedelta(days=7 if "SUN" in expression else 1)
    assert all(later - earlier == step for earlier, later in pairwise(days))


def test_an_interval_is_aligned_to_the_epoch_and_moved_by_its_offset() -> None:
    assert following(made(every=HOUR), "2026-11-30T12:34:56", 2) == ["11-30T13:00", "11-30T14:00"]
    assert following(made(every=HOUR, offset=5 * MINUTE), "2026-11-30T13:00:00", 2) == ["11-30T13:05", "11-30T14:05"]
    on_time = micros("2026-11-30T13:00:00")
    assert made(every=HOUR).after(on_time) == on_time + HOUR
    assert made(every=HOUR).after(on_time - 1) == on_time


def test_times_of_several_rules_are_merged_and_what_meets_is_one() -> None:
    found = made("0 * * * *", "30 * * * *", every=HOUR // 2)
    assert following(found, "2026-11-30T12:00:00", 3) == ["11-30T12:30", "11-30T13:00", "11-30T13:30"]


def test_start_and_end_are_times_too_and_none_is_outside() -> None:
    first, last = micros("2026-11-30T10:00:00"), micros("2026-11-30T12:00:00")
    found = made("0 * * * *", start=first, end=last)
    assert following(found, "2020-01-01", 3) == ["11-30T10:00", "11-30T11:00", "11-30T12:00"]
    assert found.after(last) is None
    assert made("0 * * * *", end=last).after(last - HOUR) == last


def test_a_far_moment_has_no_times_and_breaks_nothing() -> None:
    assert made("* * * * *").after(times.LATEST + 1) is None
    assert made("0 0 1 1 *").after(times.LATEST - 1) is None


@given(number=st.integers(0, 10_000), jitter=st.integers(1, DAY))
@settings(max_examples=40, deadline=None)
def test_a_jitter_is_the_same_each_time_and_keeps_the_order(number: int, jitter: int) -> None:
    found, time = made(every=HOUR, jitter=jitter), 400_000 * HOUR + number * HOUR
    due = found.moment(time)
    assert time <= due < time + min(jitter, HOUR)
    assert due == made(every=HOUR, jitter=jitter).moment(time)
    assert due < found.moment(time + HOUR)


def test_a_jitter_spreads_times_and_schedules() -> None:
    found = made(every=HOUR, jitter=10 * MINUTE)
    shares = {(found.moment(number * HOUR) - number * HOUR) // MINUTE for number in range(200)}
    assert shares == set(range(10))
    other = times.of(pb.Schedule(id="other", every=HOUR, jitter=10 * MINUTE), UTC)
    assert any(found.moment(number * HOUR) != other.moment(number * HOUR) for number in range(5))
    assert made(every=HOUR).moment(HOUR) == HOUR
    longer = made(every=HOUR, jitter=DAY)
    assert all(longer.moment(number * HOUR) < (number + 1) * HOUR for number in range(100))
