"""What is counted of workflows and activities, from what was committed and from what workers did."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.schema import taskhub_pb2 as pb
from sidecar.telemetry import levels
from sidecar.telemetry.measures import Measures
from sidecar.telemetry.meters import Meters
from tests.inprocess.world import START, FakeClock, Hand, World, call, end, timer, until
from tests.telemetry.scrape import Series, parsed, value

RUNTIME = "dapr_runtime_workflow_"


class Measured(World):
    """A world that counts."""

    meters: Meters

    def shown(self) -> Series:
        return parsed(self.meters.shown())


@pytest.fixture
async def measured(tmp_path: Path) -> AsyncIterator[Measured]:
    world = await Measured.open(tmp_path, FakeClock())
    assert isinstance(world, Measured)
    world.meters = Meters("orders", "default")
    measures = Measures(world.meters, world.clock)
    world.engine.observers += (measures.committed,)
    world.dispatch.activities.observers += (measures.attempted,)
    world.dispatch.activities.queue_observers += (measures.handed_out,)
    world.meters.looks(levels.of_work(world.dispatch))
    await world.dispatch.refill()
    world.run()
    yield world
    await world.close()


@pytest.fixture
async def hand(measured: Measured) -> Hand:
    hand = Hand()
    measured.dispatch.add_worker(hand.worker)
    return hand


def failed() -> pb.Action:
    action = end(status=3)
    action.complete.failure.error_type = "ValueError"
    return action


async def test_starts_ends_and_how_long_it_took_are_counted_by_name(measured: Measured, hand: Hand) -> None:
    await measured.start("good", "flow")
    await measured.start("bad", "other flow")
    await measured.start("stopped", "flow")
    measured.clock.wall += 2_000_000
    turns = {turn.instance_id: turn for turn in [await hand.turn(number) for number in (1, 2, 3)]}
    await measured.complete(turns["good"], end())
    await measured.complete(turns["bad"], failed())
    await measured.clients.terminate(("default", "stopped"), None, False)
    shown = measured.shown()
    assert value(shown, "sidecar_workflows_started_total", workflow_name="flow") == 2
    count = RUNTIME + "execution_count"
    assert value(shown, count, workflow_name="flow", status="success") == 1
    assert value(shown, count, workflow_name="other flow", status="failed") == 1
    assert value(shown, count, workflow_name="flow", status="terminated") == 1
    assert value(shown, RUNTIME + "execution_latency_sum", workflow_name="flow", status="success") == 2_000


async def test_a_workflow_that_was_scheduled_for_later_has_not_waited_until_then(
    measured: Measured, hand: Hand
) -> None:
    await measured.start("later", scheduled_at=START + 60_000_000)
    measured.clock.wall += 61_000_000
    measured.clock.steady += 61
    await measured.complete(await hand.turn(1), end())
    assert value(measured.shown(), RUNTIME + "scheduling_latency_sum", workflow_name="flow") == 1_000


async def test_the_first_turn_alone_is_one_of_scheduling(measured: Measured, hand: Hand) -> None:
    await measured.start("w")
    await measured.complete(await hand.turn(1), timer(1, START + 1_000_000))
    measured.clock.wall += 2_000_000
    measured.clock.steady += 2
    await measured.complete(await hand.turn(2), end())
    assert value(measured.shown(), RUNTIME + "scheduling_latency_count", workflow_name="flow") == 1


async def test_each_delivery_of_an_activity_is_counted_by_how_it_ended(measured: Measured, hand: Hand) -> None:
    await measured.start("w")
    await measured.complete(await hand.turn(1), call(1, "work"), call(2, "work"))
    first, second = await hand.activity(1), await hand.activity(2)
    measured.clock.steady += 0.5
    await measured.answer(first)
    measured.answers.abandon_activity(second.token)
    other = Hand("other")
    measured.dispatch.add_worker(other.worker)
    again = await other.activity(1)
    response = pb.ActivityResponse(instance_id="w", task_id=2, completion_token=again.token)
    response.failure.error_message = "no"
    await measured.answers.complete_activity("default", "ipv4:other", response)
    shown, count = measured.shown(), RUNTIME + "activity_execution_count"
    for status in ("success", "recoverable", "failed"):
        assert value(shown, count, activity_name="work", status=status) == 1, status
    assert value(shown, RUNTIME + "activity_execution_latency_sum", activity_name="work", status="success") == 500


async def test_each_activity_that_goes_to_a_worker_is_counted_with_how_long_it_waited(
    measured: Measured, hand: Hand
) -> None:
    await measured.start("w")
    turn = await hand.turn(1)
    measured.dispatch.remove_worker(hand.worker)
    await measured.complete(turn, call(1, "work"))
    await measured.quiet()
    measured.clock.wall += 3_000_000
    other = Hand("other")
    measured.dispatch.add_worker(other.worker)
    await other.activity(1)
    shown, labels = measured.shown(), {"activity_name": "work", "status": "success"}
    assert value(shown, RUNTIME + "activity_operation_count", **labels) == 1
    assert value(shown, RUNTIME + "activity_operation_latency_sum", **labels) == 3_000


async def test_an_activity_whose_worker_is_lost_came_back_unanswered(measured: Measured, hand: Hand) -> None:
    await measured.start("w")
    await measured.complete(await hand.turn(1), call(1, "work"))
    await hand.activity(1)
    measured.dispatch.remove_worker(hand.worker)
    await until(lambda: not measured.dispatch.activities.leases)
    count = RUNTIME + "activity_execution_count"
    assert value(measured.shown(), count, activity_name="work", status="recoverable") == 1


async def test_what_waits_and_what_is_out_is_looked_at_when_asked_for(measured: Measured) -> None:
    await measured.start("w")
    await measured.quiet()
    measured.clock.wall += 7_000_000
    shown = measured.shown()
    assert value(shown, "sidecar_work_waiting", kind="workflow") == 1
    assert value(shown, "sidecar_work_untaken", kind="workflow") == 1
    assert value(shown, "sidecar_work_oldest_seconds", kind="workflow") == 7
    assert value(shown, "sidecar_work_oldest_seconds", kind="activity") == 0
    assert value(shown, "sidecar_workers") == 0
    hand = Hand()
    measured.dispatch.add_worker(hand.worker)
    await hand.turn(1)
    shown = measured.shown()
    assert value(shown, "sidecar_work_out", kind="workflow") == 1
    assert value(shown, "sidecar_work_waiting", kind="workflow") == 0
    assert value(shown, "sidecar_work_oldest_seconds", kind="workflow") == 0


async def test_an_item_that_was_given_back_waits_since_then(measured: Measured, hand: Hand) -> None:
    """Other workers are kept from it for a while: that does not make it younger."""
    await measured.start("w")
    await measured.complete(await hand.turn(1), call(1, "work"))
    item = await hand.activity(1)
    measured.clock.wall += 3_000_000
    measured.answers.abandon_activity(item.token)
    measured.clock.wall += 5_000_000
    await asyncio.sleep(0)
    assert value(measured.shown(), "sidecar_work_oldest_seconds", kind="activity") == 5
