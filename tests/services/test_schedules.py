"""Schedules over a real store and a clock that the test moves."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.errors import MalformedError
from sidecar.core.model import Kind, Outcome, Position, Status
from sidecar.core.schedule import times
from sidecar.core.schedule.times import SECOND
from sidecar.schema import schedule_pb2
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.schedule_steps import Found
from sidecar.store.protocol import BEGINNING, Criteria, Order, UnavailableError
from sidecar.store.sqlite import check
from tests.inprocess.world import START, FakeClock, Hand, World, at, end, until

MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
LONG = 30.0  # seconds of real time for what takes some commits
SKIP, ONE, ALL, TERMINATE, ALLOW = (
    schedule_pb2.OVERLAP_SKIP,
    schedule_pb2.OVERLAP_QUEUE_ONE,
    schedule_pb2.OVERLAP_QUEUE_ALL,
    schedule_pb2.OVERLAP_TERMINATE,
    schedule_pb2.OVERLAP_ALLOW,
)
Restart = Callable[[World], Awaitable[World]]


def schedule(**fields: Any) -> schedule_pb2.Schedule:
    return schedule_pb2.Schedule(**{"id": "s", "every": MINUTE, "workflow": "flow"} | fields)


async def put(world: World, **fields: Any) -> None:
    assert (await world.services.schedules.put("default", schedule(**fields))).outcome is Outcome.DONE


async def found(world: World, schedule_id: str = "s") -> Found:
    one = await world.services.schedules.get(at(schedule_id))
    assert one is not None
    return one


async def counted(world: World) -> tuple[int, int, int, int]:
    progress = (await found(world)).progress
    return progress.started, progress.skipped, progress.missed, progress.failed


async def instances(world: World) -> list[str]:
    page = await world.store.query(Criteria("default"), Order.CREATED, BEGINNING, 5_000)
    return [one.id for one in page.found]


def run_id(minutes: int, schedule_id: str = "s") -> str:
    first = START - START % MINUTE
    return f"{schedule_id}-{times.shown(first + minutes * MINUTE)}"


async def move(world: World, micros: int) -> None:
    """Move the wall clock, and return when all that is due then has been done."""
    world.clock.wall += micros
    for _ in range(1_000):
        world.dispatch.timers._changed.set()
        await world.quiet()
        left = await world.store.due(world.clock.wall, Position(-1, 0), 10)
        if not [one for one in left if one.kind is Kind.SCHEDULE]:
            return
    raise AssertionError("what is due is not done")


async def answered(world: World, hand: Hand, number: int) -> str:
    """End the run that has the turn of this number."""
    item = await hand.turn(number)
    assert (await world.complete(item, end())).outcome is Outcome.DONE
    return item.instance_id


async def test_a_time_starts_the_workflow_with_all_that_it_was_given(world: World) -> None:
    await put(world, version=StringValue(value="2"), input=StringValue(value='{"a": 1}'), tags={"team": "blue"})
    await move(world, MINUTE)
    view = await world.clients.view(at(run_id(1)), payloads=True)
    assert view is not None
    tags = pb.ExecutionStarted.FromString(view.instance.tags).tags
    assert (view.instance.name, view.instance.version, view.input, dict(tags)) == (
        *("flow", "2", '{"a": 1}'),
        {"team": "blue"},
    )
    assert await counted(world) == (1, 0, 0, 0)
    assert (await found(world)).upcoming[0] == START - START % MINUTE + 2 * MINUTE


async def test_a_run_and_the_step_of_its_schedule_are_one_commit(world: World) -> None:
    await put(world)
    world.store.batches.clear()
    await move(world, MINUTE)
    steps = [one for batch in world.store.batches for one in batch if one.schedule is not None]
    assert len(steps) == 1
    assert steps[0].instance is not None
    assert steps[0].instance.id == run_id(1)


@pytest.mark.slow
@pytest.mark.fault(44, "A thousand times over restarts and jumps of the clock start a thousand runs")
async def test_a_thousand_times_start_a_thousand_runs_over_restarts_and_jumps_of_the_clock(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    await put(world, overlap=ALLOW)
    clock = world.clock
    for portion in range(20):
        world.run()
        for minutes in (1, 4, 30, -7, 15, 7):
            await move(world, minutes * MINUTE)
        await world.close()
        world = await World.open(tmp_path, clock)
        await world.services.schedules.steps.start()
        assert await counted(world) == ((portion + 1) * 50, 0, 0, 0)
    ids = await instances(world)
    await world.close()
    assert sorted(ids) == sorted(run_id(minutes) for minutes in range(1, 1_001))


@pytest.fixture
async def restart(tmp_path: Path) -> Restart:
    async def again(world: World) -> World:
        for task in world._side:
            task.cancel()
        await asyncio.gather(*world._side, return_exceptions=True)
        await world.close()
        other = await World.open(tmp_path, world.clock)
        await other.dispatch.refill()
        await other.services.schedules.steps.start()
        other.run()
        return other

    return again


@pytest.mark.fault(44, "Ten times that come while it is down are dealt with as the overlap policy says")
@pytest.mark.parametrize(
    ("overlap", "counts", "queued"),
    [(SKIP, (1, 9, 0, 0), 0), (ONE, (1, 8, 0, 0), 1), (ALL, (1, 0, 0, 0), 9), (ALLOW, (10, 0, 0, 0), 0)],
)
async def test_ten_times_that_come_while_it_is_down_follow_the_policy(
    tmp_path: Path, overlap: int, counts: tuple[int, int, int, int], queued: int
) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    await put(world, overlap=overlap)
    await world.close()
    clock.wall += 10 * MINUTE
    world = await World.open(tmp_path, clock)
    world.run()
    try:
        await move(world, 0)
        assert await counted(world) == counts
        assert len((await found(world)).progress.queue) == queued
    finally:
        await world.close()


@pytest.mark.fault(44, "A clock that is set forward and back brings no time twice; what is too late is counted")
async def test_what_is_too_late_after_a_jump_is_missed_and_not_run_when_the_clock_comes_back(world: World) -> None:
    await put(world, overlap=ALLOW, catch_up=5 * MINUTE)
    await move(world, 100 * MINUTE)
    assert await counted(world) == (5, 0, 95, 0)
    await move(world, -99 * MINUTE)
    await move(world, 99 * MINUTE)
    assert await counted(world) == (5, 0, 95, 0)
    await move(world, MINUTE)
    assert await counted(world) == (6, 0, 95, 0)


async def test_the_queue_goes_on_as_soon_as_a_run_has_ended(world: World, hand: Hand) -> None:
    await put(world, overlap=ALL)
    for _ in range(3):
        await move(world, MINUTE)
    assert await answered(world, hand, 1) == run_id(1)
    assert await answered(world, hand, 2) == run_id(2)
    await hand.turn(3)
    assert await counted(world) == (3, 0, 0, 0)
    assert not (await found(world)).progress.queue


@pytest.mark.parametrize("how", ["purge", "terminate"])
async def test_the_queue_goes_on_however_a_run_goes(world: World, how: str) -> None:
    await put(world, overlap=ONE)
    await move(world, MINUTE)
    await move(world, MINUTE)
    if how == "purge":
        await world.purge(at(run_id(1)), recursive=True, force=True)
    else:
        await world.clients.terminate(at(run_id(1)), None, recurse=True)
    await until(lambda: world.engine.residents.find(at(run_id(2))) is not None, LONG)
    await world.quiet()
    assert await world.status(run_id(2)) == Status.PENDING


async def test_a_queue_goes_on_after_a_restart_with_a_run_that_ended_meanwhile(
    world: World, tmp_path: Path, restart: Restart
) -> None:
    await put(world, overlap=ONE)
    await move(world, MINUTE)
    await move(world, MINUTE)
    await world.clients.terminate(at(run_id(1)), None, recurse=True)
    other = await restart(world)
    hand = Hand()
    try:
        other.dispatch.add_worker(hand.worker)
        assert (await hand.turn(1)).instance_id == run_id(2)
    finally:
        await other.close()


async def test_the_run_that_is_active_is_ended_with_its_children_in_the_commit_that_starts_the_next(
    world: World,
) -> None:
    await put(world, overlap=TERMINATE)
    await move(world, MINUTE)
    world.store.batches.clear()
    await move(world, MINUTE)
    await world.quiet()
    steps = [one for batch in world.store.batches for one in batch if one.schedule is not None]
    assert {one.kind for one in steps[0].set} == {Kind.TERMINATE, Kind.SCHEDULE}
    assert [await world.status(run_id(minutes)) for minutes in (1, 2)] == [Status.TERMINATED, Status.PENDING]


async def test_a_pause_holds_times_back_and_their_end_does_not_bring_them(world: World) -> None:
    await put(world)
    assert (await world.services.schedules.pause(at("s"), "holidays")).outcome is Outcome.DONE
    await move(world, 5 * MINUTE)
    assert (await found(world)).progress.reason == "holidays"
    assert await instances(world) == []
    await world.services.schedules.resume(at("s"))
    await move(world, MINUTE)
    assert await instances(world) == [run_id(6)]


async def test_a_trigger_starts_a_run_now_or_says_that_it_does_not(world: World) -> None:
    await put(world)
    first = await world.services.schedules.trigger(at("s"), 0)
    assert await world.status(first.instance_id) == Status.PENDING
    skipped = await world.services.schedules.trigger(at("s"), 0)
    assert (skipped.instance_id, "skipped" in skipped.error) == ("", True)
    waits = await world.services.schedules.trigger(at("s"), ONE)
    assert (waits.instance_id, "starts when that has ended" in waits.error) == ("", True)
    assert (await world.services.schedules.trigger(at("s"), ALLOW)).instance_id != ""
    assert await counted(world) == (2, 1, 0, 0)


async def test_a_backfill_runs_the_times_of_a_range_and_once_only(world: World) -> None:
    await put(world, overlap=ALLOW)
    for _ in range(2):
        reply = await world.services.schedules.backfill(at("s"), START - 3 * MINUTE, START, ALLOW)
        assert reply.outcome is Outcome.DONE
        await move(world, 0)
    assert sorted(await instances(world)) == [run_id(-2), run_id(-1), run_id(0)]
    assert await counted(world) == (3, 3, 0, 0)


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [(START, START - 1, "before its end"), (START + 1, START + 2, "no times"), (0, START, "more than 2,000")],
)
async def test_a_range_that_makes_no_sense_is_refused(world: World, first: int, last: int, words: str) -> None:
    await put(world)
    with pytest.raises(MalformedError, match=words):
        await world.services.schedules.backfill(at("s"), first, last, 0)


async def test_an_id_that_somebody_else_has_taken_is_a_failure_that_holds_up_nothing(world: World) -> None:
    await put(world)
    await world.start(run_id(1))
    await move(world, MINUTE)
    assert await counted(world) == (0, 0, 0, 1)
    assert "already exists" in (await found(world)).progress.recent[0].error
    await move(world, MINUTE)
    assert await counted(world) == (1, 0, 0, 1)


async def test_an_ended_workflow_of_somebody_else_that_has_the_id_is_not_replaced(world: World) -> None:
    await put(world)
    await world.start(run_id(1), data='"theirs"')
    await world.clients.terminate(at(run_id(1)), None, recurse=True)
    await move(world, MINUTE)
    view = await world.clients.view(at(run_id(1)), payloads=True)
    assert view is not None
    assert view.input == '"theirs"'
    assert await counted(world) == (0, 0, 0, 1)


async def test_a_run_whose_id_is_used_again_by_others_does_not_hold_up_the_schedule(world: World) -> None:
    await put(world)
    await move(world, MINUTE)
    await world.purge(at(run_id(1)), recursive=True, force=True)
    await world.start(run_id(1))
    await move(world, MINUTE)
    assert await counted(world) == (2, 0, 0, 0)


async def test_a_schedule_that_is_deleted_starts_nothing_and_its_runs_go_on(world: World) -> None:
    await put(world)
    await move(world, MINUTE)
    assert (await world.services.schedules.delete(at("s"))).outcome is Outcome.DONE
    await move(world, 5 * MINUTE)
    assert await instances(world) == [run_id(1)]
    assert (await world.services.schedules.delete(at("s"))).outcome is Outcome.MISSING


async def test_what_is_asked_of_a_schedule_that_is_not_there_is_answered_so(world: World) -> None:
    service = world.services.schedules
    assert await service.get(at("none")) is None
    for reply in (
        await service.pause(at("none"), ""),
        await service.resume(at("none")),
        await service.backfill(at("none"), START, START, 0),
        (await service.trigger(at("none"), 0)).reply,
    ):
        assert reply.outcome is Outcome.MISSING


async def test_another_definition_counts_from_now_and_the_same_changes_nothing(world: World) -> None:
    await put(world)
    await put(world, every=HOUR)
    await move(world, 5 * MINUTE)
    assert await instances(world) == []
    world.store.batches.clear()
    await put(world, every=HOUR)
    assert world.store.batches == []
    await put(world, every=MINUTE, workflow="other")
    await move(world, MINUTE)
    assert await counted(world) == (1, 0, 0, 0)


async def test_definitions_are_compared_and_checked_before_any_is_written(world: World) -> None:
    await put(world)
    service = world.services.schedules
    wanted = [schedule(), schedule(id="new")]
    assert [(one.id, one.word) for one in await service.differences("default", wanted, prune=True)] == [
        ("s", "unchanged"),
        ("new", "created"),
    ]
    only = [schedule(id="new"), schedule(id="s", every=HOUR)]
    assert [one.word for one in await service.differences("default", only, prune=False)] == ["created", "updated"]
    gone = await service.differences("default", [schedule(id="new")], prune=True)
    assert [(one.id, one.word) for one in gone] == [("new", "created"), ("s", "deleted")]
    for wrong, words in (
        (schedule(cron=["x"]), "schedule 's': 'x' is no cron"),
        (schedule(time_zone="Mars/Base"), "no time zone"),
        (schedule(end=START - 1), "no time to come"),
        (schedule(workflow=""), "schedule 's': the workflow name is empty"),
    ):
        with pytest.raises(MalformedError, match=words):
            await service.differences("default", [wrong], prune=False)
    with pytest.raises(MalformedError, match="given twice"):
        await service.differences("default", [schedule(), schedule()], prune=False)


async def test_a_run_of_another_app_is_sent_there_as_a_detached_start_in_the_same_commit(world: World) -> None:
    await put(world, app_id="ml", input=StringValue(value="1"))
    world.store.batches.clear()
    await move(world, MINUTE)
    (sent,) = world.outbox.waiting.values()
    assert (sent.kind, sent.target.app, sent.target.id, sent.name) == (Kind.DETACHED, "ml", run_id(1), "flow")
    started = pb.HistoryEvent.FromString(sent.payload).execution_started
    assert (started.name, started.input.value, started.instance.instance_id) == ("flow", "1", run_id(1))
    steps = [one for batch in world.store.batches for one in batch if one.schedule is not None]
    assert [sent.id in [one.id for one in step.set] for step in steps] == [True]
    assert await counted(world) == (1, 0, 0, 0)


@pytest.mark.fault(44, "A store that is restored fires the times since then again, and none that it has fired")
async def test_a_store_that_is_put_back_deals_once_more_with_what_it_has_forgotten_alone(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path / "now", clock)
    world.run()
    await put(world, overlap=ALLOW)
    await move(world, 3 * MINUTE)
    await world.close()
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    world = await World.open(tmp_path / "now", clock)
    world.run()
    await move(world, 4 * MINUTE)
    later = sorted(await instances(world))
    await world.close()
    world = await World.open(tmp_path / "then", clock)
    world.run()
    try:
        await move(world, 0)
        assert sorted(await instances(world)) == later == sorted(run_id(minutes) for minutes in range(1, 8))
        assert await counted(world) == (7, 0, 0, 0)
    finally:
        await world.close()


async def test_a_time_is_sent_to_another_app_under_the_same_execution_by_a_store_that_was_restored(
    world: World, tmp_path: Path
) -> None:
    """A start that comes again is known by its execution: the other app runs it once."""
    await put(world, app_id="ml")
    before = await world.store.schedule("default", "s")
    await move(world, MINUTE)
    await world.services.schedules.delete(at("s"))
    await put(world, app_id="ml")
    assert before is not None
    await move(world, -MINUTE)
    await world.services.schedules.delete(at("s"))
    await put(world, app_id="ml")
    await move(world, MINUTE)
    sent = [pb.HistoryEvent.FromString(one.payload).execution_started for one in world.outbox.waiting.values()]
    assert len(sent) == 2
    assert len({one.instance.execution_id.value for one in sent}) == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_a_commit_that_fails_is_taken_again_and_no_time_comes_twice(world: World, lost: bool) -> None:
    await put(world, overlap=ALLOW)
    if lost:
        world.store.lost = 1
    else:
        world.store.failing["commit"] = 1
    await move(world, MINUTE)
    await until(lambda: not world.dispatch._recovering, LONG)
    await move(world, MINUTE)
    assert await instances(world) == [run_id(1), run_id(2)]
    assert await counted(world) == (2, 0, 0, 0)


async def test_a_client_is_told_that_the_outcome_is_unknown(world: World) -> None:
    await put(world)
    world.store.failing["commit"] = 1
    with pytest.raises(UnavailableError):
        await world.services.schedules.trigger(at("s"), 0)


async def test_steps_that_are_asked_for_at_one_moment_are_taken_one_after_the_other(world: World) -> None:
    await put(world, overlap=ALLOW)
    service = world.services.schedules
    taken = await asyncio.gather(*(service.trigger(at("s"), ALLOW) for _ in range(20)))
    assert len({one.instance_id for one in taken}) == 20
    assert await counted(world) == (20, 0, 0, 0)


async def test_what_becomes_of_times_is_counted(world: World) -> None:
    told: list[tuple[str, str, int]] = []
    world.services.schedules.steps.told = lambda *one: told.append(one)
    await put(world, catch_up=2 * MINUTE)
    await move(world, 10 * MINUTE)
    assert told == [("s", "started", 1), ("s", "missed", 8), ("s", "skipped", 1)]


async def test_the_store_is_sound_with_schedules_in_it(world: World) -> None:
    await put(world)
    await put(world, id="over", end=START + MINUTE, every=MINUTE)
    await put(world, id="paused")
    await put(world, id="gone")
    await world.services.schedules.pause(at("paused"), "")
    await world.services.schedules.delete(at("gone"))
    await move(world, 2 * MINUTE)
    path = world.store.real.file.path
    await world.close()
    assert check.problems(path) == []
