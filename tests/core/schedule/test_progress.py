"""What becomes of the times of a schedule: started, queued, skipped or missed, each once."""

import random
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pytest

from sidecar.core.identity import AppIdentity
from sidecar.core.schedule import progress, times
from sidecar.core.schedule.progress import Plan, Step
from sidecar.core.schedule.times import SECOND
from sidecar.schema import schedule_pb2 as pb

ME = AppIdentity("default", "orders")
HOUR = 3_600 * SECOND
NOON = 1_796_040_000 * SECOND
POLICIES = [number for number in pb.Overlap.values() if number]


def plan(**fields: Any) -> Plan:
    schedule = pb.Schedule(**{"id": "s", "every": HOUR, "workflow": "flow"} | fields)
    return Plan(ME, schedule, times.of(schedule, UTC))


def run_id(hours: int) -> str:
    return f"s-{times.shown(NOON + hours * HOUR)}"


def counts(found: pb.Progress) -> tuple[int, int, int, int]:
    return found.started, found.skipped, found.missed, found.failed


def drained(of: Plan, found: pb.Progress, now: int, active: Sequence[str] = (), *, end: bool = False) -> list[Step]:
    """Steps until nothing is due; runs that are started stay active, unless each is to `end` at once."""
    steps = []
    while True:
        one = progress.step(of, found, active, now)
        found, active = one.progress, () if end else one.active
        steps.append(one)
        if (one.wake is None or one.wake > now) and not (end and one.waits):
            return steps


def test_a_time_starts_a_run_when_it_has_come_and_not_again() -> None:
    of, begun = plan(), progress.begun(NOON)
    early = progress.step(of, begun, (), NOON + HOUR - 1)
    assert (early.start, early.wake) == (None, NOON + HOUR)
    due = progress.step(of, early.progress, (), NOON + HOUR)
    assert due.start is not None
    assert (due.start.instance_id, due.start.time, due.start.cause) == (run_id(1), NOON + HOUR, pb.CAUSE_TIME)
    assert (due.wake, due.active) == (NOON + 2 * HOUR, (run_id(1),))
    assert progress.step(of, due.progress, (), NOON + HOUR).start is None


def test_a_clock_that_goes_back_brings_no_time_twice() -> None:
    of = plan()
    due = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    for now in (NOON, NOON + HOUR - 1, NOON + HOUR, NOON + 2 * HOUR - 1):
        again = progress.step(of, due.progress, (), now)
        assert (again.start, again.wake) == (None, NOON + 2 * HOUR)


def test_what_is_given_is_not_changed() -> None:
    begun = progress.begun(NOON)
    progress.step(plan(), begun, (), NOON + 5 * HOUR)
    assert begun == progress.begun(NOON)


@pytest.mark.parametrize(
    ("overlap", "started", "queued", "skipped"),
    [
        (pb.OVERLAP_UNSPECIFIED, 0, 0, 3),
        (pb.OVERLAP_SKIP, 0, 0, 3),
        (pb.OVERLAP_QUEUE_ONE, 0, 1, 2),
        (pb.OVERLAP_QUEUE_ALL, 0, 3, 0),
        (pb.OVERLAP_ALLOW, 3, 0, 0),
        (pb.OVERLAP_TERMINATE, 3, 0, 0),
    ],
)
def test_what_comes_while_a_run_is_active_follows_the_policy(
    overlap: int, started: int, queued: int, skipped: int
) -> None:
    of = plan(overlap=overlap)
    first = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    last = drained(of, first.progress, NOON + 4 * HOUR, first.active)[-1]
    found = last.progress
    assert (found.started - 1, len(found.queue), found.skipped) == (started, queued, skipped)
    assert last.waits == bool(queued)


def test_a_run_that_is_to_end_for_the_next_is_named() -> None:
    of = plan(overlap=pb.OVERLAP_TERMINATE)
    first = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    second = progress.step(of, first.progress, first.active, NOON + 2 * HOUR)
    assert (second.ends, second.start and second.start.instance_id) == ((run_id(1),), run_id(2))
    assert second.active == (run_id(1), run_id(2))
    assert progress.step(of, second.progress, (), NOON + 3 * HOUR).ends == ()


def test_the_queue_goes_on_when_the_run_has_ended_in_order_and_before_new_times() -> None:
    of = plan(overlap=pb.OVERLAP_QUEUE_ALL)
    first = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    held = progress.step(of, first.progress, first.active, NOON + 3 * HOUR)
    assert (held.start, held.waits, held.wake) == (None, True, NOON + 4 * HOUR)
    started = [one.start.instance_id for one in drained(of, held.progress, NOON + 4 * HOUR, end=True) if one.start]
    assert started == [run_id(2), run_id(3), run_id(4)]


def test_a_queue_is_bounded() -> None:
    of = plan(overlap=pb.OVERLAP_QUEUE_ALL, every=SECOND)
    first = progress.step(of, progress.begun(NOON), (), NOON + SECOND)
    last = drained(of, first.progress, NOON + (progress.MOST_QUEUED + 11) * SECOND, first.active)[-1]
    assert (len(last.progress.queue), last.progress.skipped) == (progress.MOST_QUEUED, 10)


def test_what_was_missed_for_longer_than_the_window_is_counted_and_the_rest_is_made_good() -> None:
    of = plan(overlap=pb.OVERLAP_ALLOW, catch_up=3 * HOUR)
    last = drained(of, progress.begun(NOON), NOON + 10 * HOUR)[-1]
    assert counts(last.progress) == (4, 0, 6, 0)
    assert [run.instance_id for run in last.progress.recent] == [run_id(hours) for hours in (7, 8, 9, 10)]


def test_without_a_window_of_its_own_a_schedule_has_a_day() -> None:
    of = plan(overlap=pb.OVERLAP_ALLOW)
    last = drained(of, progress.begun(NOON), NOON + 30 * HOUR)[-1]
    assert counts(last.progress) == (25, 0, 5, 0)


def test_a_long_absence_is_taken_in_portions() -> None:
    of = plan(every=SECOND, catch_up=SECOND)
    steps = drained(of, progress.begun(NOON), NOON + 5_000 * SECOND)
    assert len(steps) == 5_000 // progress.MOST_AT_ONCE + 1
    assert counts(steps[-1].progress) == (1, 1, 4_998, 0)


def test_a_jitter_puts_a_time_off_and_counts_for_the_window() -> None:
    of = plan(jitter=HOUR // 2, catch_up=SECOND)
    time = NOON + HOUR
    due = of.times.moment(time)
    assert due > time
    assert progress.step(of, progress.begun(NOON), (), due - 1).start is None
    late = progress.step(of, progress.begun(NOON), (), due + SECOND)
    assert late.start is not None
    assert late.start.time == time
    assert counts(progress.step(of, progress.begun(NOON), (), due + SECOND + 1).progress) == (0, 0, 1, 0)


def test_times_of_a_pause_are_none() -> None:
    of = plan()
    paused = progress.step(of, progress.paused(progress.begun(NOON), "holidays"), (), NOON + 3 * HOUR)
    assert (paused.start, paused.wake, paused.progress.reason) == (None, None, "holidays")
    resumed = progress.step(of, progress.resumed(paused.progress, NOON + 3 * HOUR + 1), (), NOON + 3 * HOUR + 1)
    assert (resumed.start, resumed.wake, resumed.progress.reason) == (None, NOON + 4 * HOUR, "")
    assert counts(resumed.progress) == (0, 0, 0, 0)


def test_to_resume_what_is_not_paused_changes_nothing() -> None:
    begun = progress.begun(NOON)
    assert progress.resumed(begun, NOON + 5 * HOUR) == begun


def test_what_waits_goes_on_only_after_a_pause() -> None:
    of = plan(overlap=pb.OVERLAP_QUEUE_ONE)
    first = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    held = progress.step(of, first.progress, first.active, NOON + 2 * HOUR)
    paused = progress.step(of, progress.paused(held.progress, ""), (), NOON + 2 * HOUR)
    assert (paused.start, paused.wake, paused.waits) == (None, None, False)
    resumed = progress.step(of, progress.resumed(paused.progress, NOON + 2 * HOUR), (), NOON + 2 * HOUR)
    assert resumed.start is not None
    assert resumed.start.instance_id == run_id(2)


def test_a_trigger_starts_a_run_also_in_a_pause_and_each_has_a_time_of_its_own() -> None:
    of, found = plan(), progress.paused(progress.begun(NOON), "")
    seen = set()
    for now in (NOON, NOON, NOON - 1):
        one = progress.step(of, found, (), now, triggered=pb.OVERLAP_UNSPECIFIED)
        assert one.start is not None
        assert one.start.cause == pb.CAUSE_TRIGGER
        seen.add(one.start.instance_id)
        found = one.progress
    assert len(seen) == 3


def test_a_trigger_obeys_the_policy_that_it_is_given() -> None:
    of = plan()
    first = progress.step(of, progress.begun(NOON), (), NOON + HOUR)
    skipped = progress.step(of, first.progress, first.active, NOON + HOUR, triggered=pb.OVERLAP_UNSPECIFIED)
    assert (skipped.start, skipped.progress.skipped) == (None, 1)
    allowed = progress.step(of, first.progress, first.active, NOON + HOUR, triggered=pb.OVERLAP_ALLOW)
    assert allowed.start is not None


@pytest.mark.parametrize(("overlap", "started", "skipped"), [(pb.OVERLAP_ALLOW, 5, 0), (pb.OVERLAP_SKIP, 1, 4)])
def test_a_backfill_deals_with_each_time_of_its_range_both_ends_among_them(
    overlap: int, started: int, skipped: int
) -> None:
    of = plan()
    begun = progress.backfilled(progress.begun(NOON), NOON - 10 * HOUR, NOON - 6 * HOUR, overlap)
    last = drained(of, begun, NOON)[-1]
    assert counts(last.progress) == (started, skipped, 0, 0)
    assert not last.progress.backfills
    assert last.progress.upto == NOON
    assert last.progress.recent[0].instance_id == run_id(-10)


def test_a_backfill_that_queues_takes_one_time_after_the_other_and_holds_up_no_other() -> None:
    of = plan(overlap=pb.OVERLAP_ALLOW)
    begun = progress.backfilled(progress.begun(NOON), NOON - 3 * HOUR, NOON - HOUR, pb.OVERLAP_QUEUE_ALL)
    first = progress.step(of, begun, (), NOON)
    assert first.start is not None
    assert first.start.instance_id == run_id(-3)
    assert (first.waits, first.wake) == (True, NOON + HOUR)
    held = progress.step(of, first.progress, first.active, NOON + HOUR)
    assert held.start is not None
    assert held.start.instance_id == run_id(1)
    after = drained(of, held.progress, NOON + HOUR, end=True)
    assert [one.start.instance_id for one in after if one.start] == [run_id(-2), run_id(-1)]


def test_another_definition_begins_now_if_its_times_are_others() -> None:
    begun = progress.begun(NOON)
    assert progress.redefined(begun, NOON + HOUR, moved=True).upto == NOON + HOUR
    assert progress.redefined(begun, NOON + HOUR, moved=False).upto == NOON
    assert progress.redefined(begun, NOON - HOUR, moved=True).upto == NOON


def test_a_run_that_could_not_be_started_holds_up_nothing() -> None:
    of = plan(overlap=pb.OVERLAP_QUEUE_ALL)
    found = progress.begun(NOON)
    found.queue.add(time=NOON - HOUR)
    found.queue.add(time=NOON)
    one = progress.step(of, found, (), NOON)
    failed = one.not_started("an active workflow has the ID")
    assert (failed.start, failed.active, failed.wake) == (None, (), NOON)
    assert counts(failed.progress) == (0, 0, 0, 1)
    assert failed.progress.recent[-1].error == "an active workflow has the ID"
    assert counts(one.not_started("").progress) == (0, 1, 0, 0)


def test_only_the_last_runs_are_kept_and_of_these_rather_the_active_ones() -> None:
    of = plan(overlap=pb.OVERLAP_ALLOW)
    found, active = progress.begun(NOON), ()
    for hours in range(1, 31):
        one = progress.step(of, found, active, NOON + hours * HOUR)
        found, active = one.progress, (run_id(1),)
    assert len(found.recent) == progress.MOST_RECENT
    assert [run.instance_id for run in found.recent[:2]] == [run_id(1), run_id(12)]
    assert [run.instance_id for run in found.recent if not run.ended] == [run_id(1), run_id(30)]


def test_runs_of_another_app_count_as_ended() -> None:
    of = plan(app_id="ml")
    last = drained(of, progress.begun(NOON), NOON + 3 * HOUR)[-1]
    assert (counts(last.progress), last.active) == ((3, 0, 0, 0), ())


@pytest.mark.parametrize("seed", range(40))
def test_every_time_is_started_skipped_or_missed_exactly_once_whatever_the_clock_does(seed: int) -> None:
    dice = random.Random(seed)
    of = plan(
        every=dice.choice([7, 60, 600]) * SECOND,
        overlap=dice.choice(POLICIES),
        jitter=dice.choice([0, 0, 5 * SECOND]),
        catch_up=dice.choice([0, 90 * SECOND]),
    )
    found, now, active = progress.begun(NOON), NOON, ()
    started: list[int] = []
    for _ in range(300):
        now += round(dice.choice([1, 10, 100, 1_000, -400]) * dice.random() * SECOND)
        active = tuple(one for one in active if dice.random() < 0.7)
        one = progress.step(of, found, active, now)
        started += [one.start.time] if one.start else []
        found, active = one.progress, one.active
    due = len(range(_first(of), found.upto + 1, of.schedule.every))
    assert len(started) == len(set(started))
    assert found.started + found.skipped + found.missed + len(found.queue) == due
    assert started


def _first(of: Plan) -> int:
    first = of.times.after(NOON)
    assert first is not None
    return first
