"""Work that costs its workers: it is counted, suspected, and in the end fails or is parked; the rest goes on."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.attempts import NONE, DeliveryAttempts, DeliveryLimit
from sidecar.core.model import CallId, Kind, Outcome, Reminder
from sidecar.core.receipts import Received
from sidecar.core.work_items import TurnItem
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.inspection import Inspection
from tests.inprocess.world import (
    COMPLETED,
    DONE,
    MOST,
    RUNNING,
    STALE,
    TERMINATED,
    Hand,
    World,
    at,
    call,
    end,
    operations,
    until,
)

STALLED = 8


class Victims:
    """Workers that come one after the other, and are lost when the test says so."""

    def __init__(self, world: World, **room: int) -> None:
        self.world = world
        self.room = room
        self.number = 0
        self.hand = self._next()

    def _next(self) -> Hand:
        self.number += 1
        hand = Hand(f"victim {self.number}", **self.room)
        self.world.dispatch.add_worker(hand.worker)
        return hand

    def lose(self) -> None:
        self.world.dispatch.remove_worker(self.hand.worker)
        self.hand = self._next()


async def crashes(world: World, instance_id: str = "a") -> int:
    instance = await world.clients.instance(at(instance_id))
    return -1 if instance is None else instance.crashes.times


async def ask_for_work(world: World, *names: str) -> None:
    """A workflow that waits for these activities; its worker has left in peace."""
    hand = Hand("first", activities=0)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    calls = [call(number, name) for number, name in enumerate(names, 1)]
    await world.complete(await hand.turn(1), *calls)
    world.dispatch.remove_worker(hand.worker)


def failure_in(item: TurnItem) -> pb.FailureDetails:
    events = [pb.HistoryEvent.FromString(event) for event in item.new]
    return next(event.task_failed.failure for event in events if event.HasField("task_failed"))


# ---------------------------------------------------------------- activities


async def test_an_activity_that_costs_each_worker_fails_and_its_workflow_can_catch_that(world: World) -> None:
    await ask_for_work(world, "poison")
    victims = Victims(world, turns=0)
    for _ in range(MOST):
        await victims.hand.activity(1)
        victims.lose()
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    item = await catcher.turn(1)
    failure = failure_in(item)
    assert (failure.error_type, failure.is_non_retriable) == ("WorkerCrashed", True)
    assert failure.error_message.startswith(f"activity 'poison' was handed out {MOST} times")
    await world.complete(item, end('"caught"'))
    assert await world.status("a") == COMPLETED
    assert victims.number == MOST + 1
    assert not victims.hand.activities


async def test_a_crash_is_counted_in_the_store_and_survives_a_restart(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    await ask_for_work(world, "poison")
    victims = Victims(world, turns=0)
    for _ in range(MOST - 1):
        await victims.hand.activity(1)
        victims.lose()
    await world.quiet()
    world.dispatch.pool.open = False
    await world.close()
    world = await World.open(tmp_path)
    (stored,) = await world.store.real.activities(0, 10)
    assert (stored.crashes.times, "victim 3" in stored.crashes.error) == (MOST - 1, True)
    await world.dispatch.refill()
    victims = Victims(world, turns=0)
    await victims.hand.activity(1)
    victims.lose()
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    assert failure_in(await catcher.turn(1)).error_type == "WorkerCrashed"
    await world.close()


async def test_what_is_given_back_or_left_by_a_stop_is_not_counted(world: World) -> None:
    await ask_for_work(world, "work")
    victims = Victims(world, turns=0)
    for number in range(1, MOST + 2):
        item = await victims.hand.activity(number)
        world.answers.abandon_activity(item.token)
        world.clock.steady += 200.0
    await victims.hand.activity(MOST + 2)
    world.dispatch.pool.open = False
    victims.lose()
    await world.quiet()
    (stored,) = await world.store.real.activities(0, 10)
    assert stored.crashes == NONE


async def test_neighbours_of_an_activity_that_costs_its_workers_come_through(world: World) -> None:
    """They are out with it until they are suspected; from then on no worker has two that are."""
    names = ["work"] * 3 + ["poison"] + ["work"] * 3
    await ask_for_work(world, *names)
    victims = Victims(world, turns=0)
    answered: set[int] = set()
    for _ in range(100):
        await world.quiet()
        hand = victims.hand
        requests = [pb.ActivityRequest.FromString(item.request) for item in hand.activities]
        if not requests:
            break
        if any(request.name == "poison" for request in requests):
            victims.lose()  # before it has answered any of the others
            continue
        for item in list(hand.activities):
            assert (await world.answer(item, peer=hand.worker.peer)).outcome is DONE
            answered.add(pb.ActivityRequest.FromString(item.request).task_id)
            hand.activities.remove(item)
    assert answered == {1, 2, 3, 5, 6, 7}
    assert victims.number == MOST + 1
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    assert failure_in(await catcher.turn(1)).error_type == "WorkerCrashed"


async def test_a_late_answer_of_a_worker_that_was_lost_still_counts(world: World) -> None:
    await ask_for_work(world, "work")
    victims = Victims(world, turns=0)
    item = await victims.hand.activity(1)
    victims.lose()
    assert (await world.answer(item)).outcome is DONE
    assert (await world.answer(await victims.hand.activity(1))).outcome is STALE


async def test_an_activity_of_another_app_fails_here_and_answers_home(world: World) -> None:
    await _from_ml(world)
    victims = Victims(world, turns=0)
    for _ in range(MOST):
        await victims.hand.activity(1)
        victims.lose()
    await until(lambda: world.outbox.waiting)
    (result,) = world.outbox.waiting.values()
    failure = pb.HistoryEvent.FromString(result.payload).task_failed.failure
    assert (result.kind, result.target.app, failure.error_type) == (Kind.RESULT, "ml", "WorkerCrashed")


async def _from_ml(world: World) -> None:
    request = pb.ActivityRequest(name="poison", task_id=1, input=StringValue(value="1"))
    request.instance.instance_id = "far"
    me = world.engine.me
    source = me.workflow("", "far")._replace(app="ml")
    asked = Reminder(
        9, Kind.ACTIVITY, 0, me.activity("default", "far::1::1"), source, CallId("e", 1, 1), 0, "poison",
        request.SerializeToString(),
    )  # fmt: skip
    assert (await world.messages.deliver(asked, Received("default", "ml", "ml.1", 9))).outcome is DONE


# ---------------------------------------------------------------- turns


async def park(world: World) -> Victims:
    await world.start("a")
    victims = Victims(world)
    for number in range(1, MOST + 1):
        assert (await victims.hand.turn(1)).instance_id == "a"
        assert await crashes(world) == number - 1
        victims.lose()
        await world.quiet()
    return victims


async def test_a_turn_that_costs_each_worker_is_parked_and_says_why(world: World) -> None:
    victims = await park(world)
    assert await world.status("a") == STALLED
    other = Hand("of another version")
    world.dispatch.add_worker(other.worker)
    await world.dispatch.refill()
    await world.quiet()
    assert not victims.hand.turns
    assert not other.turns, "a new worker alone does not begin the loop anew"
    reply = await world.clients.raise_event(at("a"), "go", None)
    assert reply.outcome is Outcome.WRONG_STATE
    assert f"is stalled: Worker crashed: {MOST} deliveries" in reply.text


async def test_a_parked_workflow_stays_so_over_a_restart(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    await park(world)
    await world.close()
    world = await World.open(tmp_path)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.dispatch.refill()
    await world.quiet()
    assert not hand.turns
    assert await world.status("a") == STALLED
    await world.close()


async def test_a_parked_workflow_is_resumed_by_a_person_and_counting_begins_anew(world: World) -> None:
    victims = await park(world)
    assert (await world.clients.resume(at("a"), None)).outcome is DONE
    for _ in range(MOST - 1):
        await victims.hand.turn(1)
        victims.lose()
        await world.quiet()
    assert await world.status("a") == RUNNING, "a worker has its first turn"
    assert (await world.complete(await victims.hand.turn(1), end())).outcome is DONE
    assert await world.status("a") == COMPLETED


async def test_a_parked_workflow_can_be_terminated_and_purged(world: World) -> None:
    await park(world)
    assert (await world.clients.terminate(at("a"), None, False)).outcome is DONE
    assert await world.status("a") == TERMINATED
    assert (await world.purge(at("a"), recursive=False, force=False))[0].outcome is DONE


async def test_what_arrives_at_a_parked_workflow_waits_with_it(world: World) -> None:
    await ask_for_work(world, "work")
    victims = Victims(world, activities=0)
    await world.event("a", "go")
    for _ in range(MOST):
        await victims.hand.turn(1)
        victims.lose()
        await world.quiet()
    doer = Hand("doer", turns=0)
    world.dispatch.add_worker(doer.worker)
    await world.answer(await doer.activity(1))
    await world.quiet()
    assert not victims.hand.turns
    await world.clients.resume(at("a"), None)
    item = await victims.hand.turn(1)
    assert any(pb.HistoryEvent.FromString(event).HasField("task_completed") for event in item.new)


async def test_a_completed_turn_forgets_the_crashes(world: World) -> None:
    await world.start("a")
    victims = Victims(world)
    await victims.hand.turn(1)
    victims.lose()
    await world.quiet()
    assert await crashes(world) == 1
    await world.complete(await victims.hand.turn(1))
    assert await crashes(world) == 0
    assert await world.status("a") == RUNNING


async def test_a_turn_that_takes_too_long_is_no_crash(world: World) -> None:
    await world.start("a")
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    for number in range(1, MOST + 2):
        await hand.turn(number)
        world.clock.steady += 121.0
        world.dispatch.turns.sweep()
        await world.quiet()
    assert await crashes(world) == 0


async def test_without_losses_nothing_is_written_for_it(world: World) -> None:
    await ask_for_work(world, "work")
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await world.answer(await hand.activity(1))
    await world.complete(await hand.turn(1), end())
    idle = hand.worker
    before = len(world.store.batches)
    world.dispatch.remove_worker(idle)
    await asyncio.sleep(0.02)
    assert len(world.store.batches) == before
    assert not any(changes.crashed for batch in world.store.batches for changes in batch)


async def test_a_workflow_that_is_terminated_while_its_worker_is_lost_stays_so(world: World) -> None:
    await world.start("a")
    victims = Victims(world)
    await victims.hand.turn(1)
    ending = asyncio.create_task(world.clients.terminate(at("a"), None, False))
    victims.lose()
    assert (await ending).outcome is DONE
    await world.quiet()
    assert (await world.status("a"), await crashes(world)) == (TERMINATED, 0)


# ---------------------------------------------------------------- entities


async def test_operations_of_an_entity_that_cost_each_worker_are_parked_and_those_before_get_through(
    world: World,
) -> None:
    entity = "@counter@1"
    for name in ("good", "good", "poison", "good"):
        await world.signal(entity, name)
    ran: list[str] = []
    victims = Victims(world, max_entities=5)
    for _ in range(20):
        await world.quiet()
        if not victims.hand.batches:
            break
        item = victims.hand.batches[-1]
        if "poison" in operations(item):
            victims.lose()
            continue
        ran += operations(item)
        victims.hand.batches.remove(item)
        await world.ran(item)
    assert ran == ["good", "good"]
    instance = await world.clients.instance(at(entity))
    assert instance is not None
    assert instance.crashes.quarantined
    assert not instance.ready
    await world.signal(entity, "late")
    await world.dispatch.refill()
    await world.quiet()
    assert not victims.hand.batches


# ---------------------------------------------------------------- what a person sees and does


def inspection(world: World) -> Inspection:
    router = SimpleNamespace(queues={})
    return Inspection(world.clients, world.dispatch, router)  # type: ignore[arg-type]


async def test_the_tree_shows_the_crashes_of_a_turn_and_that_it_is_parked(world: World) -> None:
    await park(world)
    branch = await inspection(world).branch(at("a"))
    assert branch is not None
    (wait,) = branch.waits
    assert (wait.kind, wait.state, wait.crashes) == ("worker", "parked", MOST)
    assert f"the stream of victim {MOST} at ipv4:victim {MOST} ended while it had this" in wait.error


async def test_the_tree_shows_the_crashes_of_an_activity_while_it_runs(world: World) -> None:
    await ask_for_work(world, "poison")
    victims = Victims(world, turns=0)
    await victims.hand.activity(1)
    victims.lose()
    await victims.hand.activity(1)
    await world.quiet()
    branch = await inspection(world).branch(at("a"))
    assert branch is not None
    (wait,) = branch.waits
    assert (wait.kind, wait.name, wait.state, wait.crashes) == ("activity", "poison", "running", 1)
    ((call_, *_),) = await inspection(world).waiting("", 0, 10)
    assert (call_.name, call_.crashes.times) == ("poison", 1)


async def test_a_person_lets_an_activity_of_another_app_fail_here(world: World) -> None:
    await _from_ml(world)
    victims = Victims(world, turns=0)
    await victims.hand.activity(1)
    victims.lose()
    await victims.hand.activity(1)
    await world.quiet()
    ((call_, *_),) = await inspection(world).waiting("orders", 0, 10)
    assert (await inspection(world).fail(call_.id, "it crashes")).outcome is DONE
    (result,) = world.outbox.waiting.values()
    failure = pb.HistoryEvent.FromString(result.payload).task_failed.failure
    assert (failure.error_type, failure.error_message) == ("CallFailedByOperator", "it crashes")
    assert (await inspection(world).fail(call_.id, "once more")).outcome is Outcome.MISSING


async def test_a_parked_entity_is_handed_out_again_when_a_person_says_so(world: World) -> None:
    await world.signal("@counter@1", "add")
    victims = Victims(world, max_entities=5)
    for _ in range(MOST):
        await victims.hand.batch(1)
        victims.lose()
        await world.quiet()
    assert not victims.hand.batches
    assert (await inspection(world).unpark(at("@counter@1"))).outcome is DONE
    assert (await world.ran(await victims.hand.batch(1))).outcome is DONE
    assert (await inspection(world).unpark(at("@counter@1"))).outcome is Outcome.WRONG_STATE
    assert (await inspection(world).unpark(at("nobody"))).outcome is Outcome.MISSING


@pytest.mark.parametrize("how", ["given back", "nothing run"])
async def test_an_entity_whose_operations_only_ever_come_back_is_parked_and_says_so(world: World, how: str) -> None:
    """E.16: .NET gives back what it cannot answer. The signals stay, until a person has found out why."""
    hand = Hand(max_entities=5)
    world.dispatch.add_worker(hand.worker)
    await world.signal("@counter@1", "add")
    for number in range(1, DeliveryLimit(MOST).most_returns + 1):
        item = await hand.batch(number)
        if how == "given back":
            world.answers.abandon_batch(item.token)
        else:
            assert (await world.ran(item, None, 0)).outcome is STALE
        await world.quiet()
        world.clock.steady += 100
    await world.signal("@counter@1", "late")
    await world.quiet()
    assert len(hand.batches) == DeliveryLimit(MOST).most_returns
    instance = await world.clients.instance(at("@counter@1"))
    assert instance is not None
    assert instance.crashes.quarantined
    assert "gave the operations back" in pb.ExecutionStalled.FromString(instance.stall or b"").description
    assert (await inspection(world).unpark(at("@counter@1"))).outcome is DONE
    again = await hand.batch(len(hand.batches) + 1)
    assert operations(again) == ["add"]
    assert (await world.ran(again)).outcome is DONE


async def test_an_answer_begins_the_count_of_what_came_back_anew(world: World) -> None:
    hand = Hand(max_entities=5)
    world.dispatch.add_worker(hand.worker)
    most = DeliveryLimit(MOST).most_returns
    for number in range(1, 2 * most):
        if number in (1, most + 1):
            await world.signal("@counter@1", "add")
        item = await hand.batch(number)
        if number == most:
            await world.ran(item)
            continue
        world.answers.abandon_batch(item.token)
        await world.quiet()
        world.clock.steady += 100
    assert operations(await hand.batch(2 * most)) == ["add"]


def test_a_suspect_is_one_that_has_used_up_half_of_what_is_borne() -> None:
    assert [times for times in range(11) if DeliveryLimit(10).on_probation(times)] == [5, 6, 7, 8, 9, 10]
    assert [times for times in range(3) if DeliveryLimit(1).on_probation(times)] == [1, 2]
    assert not any(DeliveryLimit(None).on_probation(times) for times in range(100))
    assert not DeliveryLimit(None).is_over(DeliveryAttempts(10**6))
