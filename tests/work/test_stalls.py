"""E.8, E.9, M88 to M91: stalled instances among workers that come and go."""

import asyncio
from pathlib import Path
from typing import Any

from sidecar.core.model import Outcome, Reply
from sidecar.core.work_items import TurnItem
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work.workers import Filter
from tests.inprocess.world import COMPLETED, DONE, RUNNING, FakeClock, Hand, World, at, call, end, kinds, raised

STALLED = 8
NOT_AVAILABLE = pb.Action(id=1, version_not_available=pb.VersionNotAvailable())


def version(*patches: str, name: str = "v1") -> dict[str, Any]:
    return {"version": pb.WorkflowVersion(patches=patches, name=name)}


async def made_with_v1(world: World, instance_id: str = "a") -> None:
    """An instance whose first turn was taken by a worker with version v1, which has gone; something waits for it."""
    hand = Hand("first")
    world.dispatch.add_worker(hand.worker)
    await world.start(instance_id)
    await world.complete(await hand.turn(1), **version("p1"))
    world.dispatch.remove_worker(hand.worker)
    await world.event(instance_id, "go")


async def refuse(world: World, item: TurnItem) -> Reply:
    return await world.complete(item, NOT_AVAILABLE)


async def stalls_of(world: World, instance_id: str = "a") -> list[str]:
    log = [pb.HistoryEvent.FromString(event) for event in await world.clients.history(at(instance_id)) or []]
    return [event.execution_stalled.description for event in log if event.HasField("execution_stalled")]


async def settled() -> None:
    await asyncio.sleep(0.03)


async def test_an_instance_that_no_worker_can_run_stalls_and_goes_on_with_one_that_can(world: World) -> None:
    """M88."""
    await made_with_v1(world)
    unfit = Hand("unfit", activities=0)
    world.dispatch.add_worker(unfit.worker)
    assert (await refuse(world, await unfit.turn(1))).outcome is DONE
    assert await world.status("a") == STALLED
    await settled()
    world.clock.steady += 1_000
    await settled()
    assert len(unfit.turns) == 1, "its code does not change while it is connected"

    fit = Hand("fit")
    world.dispatch.add_worker(fit.worker)
    item = await fit.turn(1)
    assert raised(item.new) == ["go"]
    assert kinds(item.past.events)[-1] == "execution_stalled"
    await world.complete(item, call(1), **version("p1"))
    assert await world.status("a") == RUNNING
    await world.answer(await fit.activity(1))
    await world.complete(await fit.turn(2), end(), **version("p1"))
    assert await world.status("a") == COMPLETED
    assert await stalls_of(world) == ["Version not available: v1"]


async def test_it_stalls_again_when_the_last_fit_worker_leaves(world: World) -> None:
    """Whether something waits at that moment or comes later."""
    await made_with_v1(world)
    unfit, fit = Hand("unfit"), Hand("fit")
    world.dispatch.add_worker(unfit.worker)
    await refuse(world, await unfit.turn(1))
    world.dispatch.add_worker(fit.worker)
    await world.complete(await fit.turn(1), **version("p1"))
    await world.event("a", "more")
    await fit.turn(2)
    await settled()
    assert len(unfit.turns) == 1, "it is not tried with a worker that was no use before"
    world.dispatch.remove_worker(fit.worker)
    await refuse(world, await unfit.turn(2))
    assert await world.status("a") == STALLED
    await settled()
    assert len(unfit.turns) == 2

    fit = Hand("fit again")
    world.dispatch.add_worker(fit.worker)
    await world.complete(await fit.turn(1), **version("p1"))
    world.dispatch.remove_worker(fit.worker)
    await world.event("a", "later")
    await refuse(world, await unfit.turn(3))
    assert await world.status("a") == STALLED


async def test_it_is_not_stalled_while_a_worker_is_left_to_try(world: World) -> None:
    """Or it would show as stalled each time that the wrong one of two workers got a turn."""
    await made_with_v1(world)
    unfit, busy = Hand("unfit"), Hand("busy", turns=0)
    world.dispatch.add_worker(unfit.worker)
    world.dispatch.add_worker(busy.worker)
    await refuse(world, await unfit.turn(1))
    await settled()
    assert await world.status("a") == RUNNING
    world.dispatch.remove_worker(busy.worker)
    await refuse(world, await unfit.turn(2))
    assert await world.status("a") == STALLED


async def test_a_fit_worker_among_others_is_found_at_once(world: World) -> None:
    hands = [Hand(f"w{number}") for number in range(4)]
    await made_with_v1(world)
    for hand in hands:
        world.dispatch.add_worker(hand.worker)
    for _ in range(3):
        await settled()
        (hand,) = [one for one in hands if one.worker.turns]
        await refuse(world, hand.turns[-1])
    await settled()
    (hand,) = [one for one in hands if one.worker.turns]
    assert (await world.complete(hand.turns[-1], end(), **version("p1"))).outcome is DONE
    assert sorted(len(one.turns) for one in hands) == [1, 1, 1, 1]


async def test_commands_are_refused_while_it_is_stalled_and_taken_afterwards(world: World) -> None:
    """M89."""
    await made_with_v1(world)
    unfit = Hand("unfit")
    world.dispatch.add_worker(unfit.worker)
    await refuse(world, await unfit.turn(1))
    expected = Reply(Outcome.WRONG_STATE, "workflow 'a' is stalled: Version not available: v1")
    service = world.clients
    assert await service.raise_event(at("a"), "late", None) == expected
    assert await service.suspend(at("a"), None) == expected
    assert await service.resume(at("a"), None) == expected
    assert await service.terminate(at("a"), None, False) == expected
    assert (await world.purge(at("a"), recursive=False, force=False))[0] == expected
    assert await world.status("a") == STALLED

    fit = Hand("fit")
    world.dispatch.add_worker(fit.worker)
    await world.complete(await fit.turn(1), **version("p1"))
    assert (await service.raise_event(at("a"), "late", None)).outcome is DONE


async def test_purge_by_force_removes_a_stalled_instance(world: World) -> None:
    await made_with_v1(world)
    unfit = Hand("unfit")
    world.dispatch.add_worker(unfit.worker)
    await refuse(world, await unfit.turn(1))
    assert (await world.purge(at("a"), recursive=False, force=True)) == (Reply(DONE), 1)
    await world.start("a")
    assert kinds((await unfit.turn(2)).new) == ["orchestrator_started", "execution_started"]


async def test_it_is_not_lost_when_all_workers_leave_or_the_sidecar_restarts(tmp_path: Path) -> None:
    """M90; and the same worker after a restart makes no second event."""
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    world.run()
    await made_with_v1(world)
    for again in range(2):
        unfit = Hand(f"unfit {again}")
        world.dispatch.add_worker(unfit.worker)
        await refuse(world, await unfit.turn(1))
        world.dispatch.remove_worker(unfit.worker)
        assert await world.status("a") == STALLED
    await world.close()

    world = await World.open(tmp_path, clock)
    await world.dispatch.refill()
    world.run()
    assert await world.status("a") == STALLED
    unfit = Hand("unfit")
    world.dispatch.add_worker(unfit.worker)
    world.store.batches.clear()
    await refuse(world, await unfit.turn(1))
    assert world.store.batches == [], "it is stalled for the same reason: there is nothing to write"
    fit = Hand("fit")
    world.dispatch.add_worker(fit.worker)
    await world.complete(await fit.turn(1), end(), **version("p1"))
    assert await world.status("a") == COMPLETED
    assert await stalls_of(world) == ["Version not available: v1"]
    await world.close()


async def test_other_instances_go_on(world: World) -> None:
    await made_with_v1(world)
    hand = Hand("unfit", turns=1)
    world.dispatch.add_worker(hand.worker)
    await refuse(world, await hand.turn(1))
    await world.start("b")
    assert (await world.complete(await hand.turn(2), end())).outcome is DONE


async def test_the_rest_of_the_past_that_a_worker_keeps_is_right_after_a_stall(world: World) -> None:
    """The event of the stall is part of what it keeps."""
    hand = Hand("keeper", keeps_history=True)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), **version("p1"))
    await world.event("a", "go")
    await world.complete(await hand.turn(2), **version("other"))
    assert await world.status("a") == STALLED
    hand.worker.max_turns = 0
    fit = Hand("fit", keeps_history=True)
    world.dispatch.add_worker(fit.worker)
    for number in range(1, 4):
        item = await fit.turn(number)
        assert item.known == (0 if number == 1 else len(fit.past_seen[number - 2]))
        await world.complete(item, **version("p1"))
        await world.event("a", "more")
    stored = await world.clients.history(at("a"))
    assert stored == world.dispatch.turns.pasts.get(at("a")).events  # type: ignore[union-attr]


# ---------------------------------------------------------------- sizes


async def large(world: World, instance_id: str = "a") -> None:
    await world.start(instance_id, data="x" * 5_000)


async def test_a_turn_that_is_too_large_for_every_worker_says_so_and_goes_on_with_a_larger_one(world: World) -> None:
    """E.8, M91."""
    small = Hand("small", max_bytes=1_000)
    await large(world)
    world.dispatch.add_worker(small.worker)
    await settled()
    assert await world.status("a") == STALLED
    reply = await world.clients.raise_event(at("a"), "more", None)
    assert reply.outcome is Outcome.WRONG_STATE
    assert "bytes" in reply.text
    assert "at most 1000" in reply.text
    await world.start("b")
    assert (await world.complete(await small.turn(1), end())).outcome is DONE, "others are not affected"

    larger = Hand("larger", max_bytes=10_000)
    world.dispatch.add_worker(larger.worker)
    await world.complete(await larger.turn(1), end())
    assert await world.status("a") == COMPLETED
    assert len(await stalls_of(world)) == 1


async def test_a_turn_for_which_a_large_worker_is_busy_waits_and_is_not_stalled(world: World) -> None:
    small, busy = Hand("small", max_bytes=1_000), Hand("busy", max_bytes=10_000, turns=0)
    await large(world)
    world.dispatch.add_worker(busy.worker)
    world.dispatch.add_worker(small.worker)
    await settled()
    assert await world.status("a") == 6
    busy.worker.max_turns = 1
    world.dispatch.pump()
    await busy.turn(1)


async def test_a_large_worker_that_does_not_take_the_name_does_not_count(world: World) -> None:
    small = Hand("small", max_bytes=1_000)
    other = Hand("other", max_bytes=10_000, turn_filter=Filter({"another": frozenset()}))
    await large(world)
    world.dispatch.add_worker(small.worker)
    world.dispatch.add_worker(other.worker)
    await settled()
    assert await world.status("a") == STALLED


async def test_a_turn_that_was_too_large_is_tried_anew_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    world.run()
    await large(world)
    world.dispatch.add_worker(Hand("small", max_bytes=1_000).worker)
    await settled()
    assert await world.status("a") == STALLED
    await world.close()
    world = await World.open(tmp_path, clock)
    await world.dispatch.refill()
    world.run()
    hand = Hand(max_bytes=20_000)
    world.dispatch.add_worker(hand.worker)
    await world.complete(await hand.turn(1), end())
    assert await world.status("a") == COMPLETED
    await world.close()


async def test_an_activity_that_is_too_large_for_every_worker_fails_with_an_error_that_can_be_caught(
    world: World,
) -> None:
    """E.8: no worker would ever run it, and the workflow can do something about it."""
    flows = Hand("flows", activity_filter=Filter({}))
    small = Hand("small", max_bytes=1_000, turn_filter=Filter({}))
    for hand in (flows, small):
        world.dispatch.add_worker(hand.worker)
    await world.start("a")
    action = call(1)
    action.schedule_task.input.value = "x" * 5_000
    await world.complete(await flows.turn(1), action, call(2))
    assert await small.activity(1)
    failed = [pb.HistoryEvent.FromString(event) for event in (await flows.turn(2)).new][1].task_failed
    assert failed.task_scheduled_id == 1
    assert failed.failure.error_type == "PayloadSizeExceeded"
    assert failed.failure.is_non_retriable
    assert "at most 1000" in failed.failure.error_message
    assert small.worker.activities, "the other one runs"


async def test_a_large_activity_waits_for_a_large_worker_that_is_busy(world: World) -> None:
    flows = Hand("flows", activity_filter=Filter({}))
    small = Hand("small", max_bytes=1_000, turn_filter=Filter({}))
    busy = Hand("busy", activities=0, turn_filter=Filter({}))
    for hand in (flows, small, busy):
        world.dispatch.add_worker(hand.worker)
    await world.start("a")
    action = call(1)
    action.schedule_task.input.value = "x" * 5_000
    await world.complete(await flows.turn(1), action)
    await settled()
    assert len(flows.turns) == 1
    busy.worker.max_activities = 1
    world.dispatch.pump()
    await busy.activity(1)
