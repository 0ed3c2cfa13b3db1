"""What a schedule may be, and the IDs of its runs."""

from datetime import UTC
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.identity import AppIdentity
from sidecar.core.schedule import definition, times
from sidecar.core.schedule.times import LATEST, SECOND
from sidecar.schema import schedule_pb2 as pb

ME = AppIdentity("default", "orders")
NOON = 1_796_040_000 * SECOND


def schedule(**fields: Any) -> pb.Schedule:
    return pb.Schedule(**{"id": "nightly", "cron": ["0 2 * * *"], "workflow": "report"} | fields)


def test_a_plain_definition_is_right() -> None:
    assert definition.wrong(ME, schedule()) is None
    assert definition.wrong(ME, schedule(cron=[], every=SECOND, jitter=5, catch_up=10 * SECOND)) is None
    assert definition.wrong(ME, schedule(app_id="ml")) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": ""}, "has no ID"),
        ({"id": "a\n"}, "control characters"),
        ({"id": "@x@y"}, "entity"),
        ({"id": "a" * 129}, "at most 128"),
        ({"workflow": ""}, "workflow name is empty"),
        ({"cron": []}, "no times"),
        ({"cron": ["* * * * *"] * 21}, "at most 20"),
        ({"every": SECOND - 1}, "interval is between"),
        ({"offset": 1}, "offset is shorter"),
        ({"every": SECOND, "offset": SECOND}, "offset is shorter"),
        ({"jitter": -1}, "jitter"),
        ({"catch_up": -1}, "catch-up"),
        ({"catch_up": 10 * SECOND - 1}, "catch-up"),
        ({"start": -1}, "start and end"),
        ({"end": 1 << 62}, "start and end"),
        ({"start": 10, "end": 9}, "ends before"),
        ({"overlap": 77}, "no overlap policy"),
        ({"app_id": "m l"}, "app ID"),
        ({"app_id": "ml", "overlap": pb.OVERLAP_SKIP}, "can only be allow"),
        ({"instance_id": "fixed"}, "no {time}"),
        ({"instance_id": "{day}-{time}"}, "{day}"),
        ({"instance_id": "x" * 250 + "{time}"}, "at most 256"),
        ({"instance_id": "@a@{time}"}, "entity"),
        ({"tags": {"k" * 300: "v"}}, "tag"),
        ({"input": {"value": "x" * (definition.LARGEST_INPUT + 1)}}, "input"),
    ],
)
def test_what_may_not_be_is_refused_with_the_reason(fields: dict[str, Any], words: str) -> None:
    assert words in (definition.wrong(ME, schedule(**fields)) or "")


def test_the_id_of_a_run_has_schedule_and_time() -> None:
    assert definition.run_id(schedule(), NOON) == "nightly-2026-11-30T12:00:00Z"
    assert definition.run_id(schedule(), NOON + 1) == "nightly-2026-11-30T12:00:00.000001Z"
    assert definition.run_id(schedule(instance_id="{workflow}/{time}"), NOON) == "report/2026-11-30T12:00:00Z"


def test_two_times_never_share_an_execution_and_one_has_always_the_same() -> None:
    ids = {definition.execution_id(ME, "default", schedule(), NOON + number) for number in range(100)}
    assert len(ids) == 100
    assert definition.execution_id(ME, "default", schedule(workflow="other"), NOON) in ids
    assert definition.execution_id(ME, "other", schedule(), NOON) not in ids
    assert definition.execution_id(ME, "default", schedule(id="daily"), NOON) not in ids


def test_another_apps_runs_overlap_unless_it_is_said_otherwise() -> None:
    assert definition.overlap_of(ME, schedule()) == pb.OVERLAP_SKIP
    assert definition.overlap_of(ME, schedule(app_id="orders")) == pb.OVERLAP_SKIP
    assert definition.overlap_of(ME, schedule(app_id="ml")) == pb.OVERLAP_ALLOW
    assert definition.overlap_of(ME, schedule(overlap=pb.OVERLAP_QUEUE_ONE)) == pb.OVERLAP_QUEUE_ONE
    assert definition.overlap_of(ME, schedule(overlap=pb.OVERLAP_QUEUE_ONE), pb.OVERLAP_ALLOW) == pb.OVERLAP_ALLOW


_NUMBERS = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 10**12), st.sampled_from([0, 1, LATEST - 1])
)
_FIELDS = st.text("0123456789*/,-#L W@adily", max_size=12)


@given(
    st.builds(
        pb.Schedule,
        id=st.text(max_size=3),
        cron=st.lists(st.one_of(_FIELDS, st.lists(_FIELDS, min_size=5, max_size=6).map(" ".join)), max_size=2),
        **dict.fromkeys(("every", "offset", "jitter", "start", "end", "catch_up"), _NUMBERS),
        workflow=st.just("w"),
        instance_id=st.sampled_from(["", "{time}", "{x}", "{{time}}", "{time"]),
    ),
    st.integers(0, 1 << 53),
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_whatever_is_given_is_refused_with_a_reason_or_has_times_that_can_be_counted(
    given_: pb.Schedule, now: int
) -> None:
    if definition.wrong(ME, given_) is not None:
        return
    try:
        found = times.of(given_, UTC)
    except ValueError:
        return
    time = found.after(now)
    for _ in range(3):
        if time is None:
            return
        assert now < time <= (given_.end or LATEST)
        assert time <= found.moment(time)
        assert definition.run_id(given_, time)
        time = found.after(time)
