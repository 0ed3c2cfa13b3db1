"""Workers that do not know a name: it goes to one that may, and fails as before when none is left."""

from sidecar.core.model import Reply
from sidecar.core.work_items import ActivityItem, EntityItem, TurnItem
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.world import COMPLETED, DONE, RUNNING, STALE, Hand, World, call, end
from tests.work.test_crashes import ask_for_work, failure_in

FAILED = 3


def arrive(world: World, name: str, **room: int) -> Hand:
    hand = Hand(name, **room)
    world.dispatch.add_worker(hand.worker)
    return hand


async def does_not_know(world: World, item: ActivityItem) -> Reply:
    request = pb.ActivityRequest.FromString(item.request)
    failure = pb.FailureDetails(error_type="ActivityTaskNotFound", error_message="…")
    response = pb.ActivityResponse(task_id=request.task_id, failure=failure, completion_token=item.token)
    return await world.answers.complete_activity("default", "ipv4:x", response, request.name)


async def cannot_run(world: World, item: TurnItem, unknown: str = "flow") -> Reply:
    action = pb.Action(complete=pb.Complete(status=FAILED, failure=pb.FailureDetails(error_type="unknown")))
    response = pb.OrchestratorResponse(instance_id=item.instance_id, actions=[action], completion_token=item.token)
    return await world.answers.complete_turn("default", "ipv4:x", response, unknown)


async def has_no_entity(world: World, item: EntityItem) -> Reply:
    failure = pb.OperationFailure(failure=pb.FailureDetails(error_type="EntityTaskNotFound"))
    results = [pb.OperationResult(failure=failure) for _ in item.operations]
    result = pb.EntityBatchResult(results=results, completion_token=item.token)
    return await world.answers.complete_batch("ipv4:x", result, "counter")


async def test_an_activity_goes_to_the_worker_that_knows_it(world: World) -> None:
    await ask_for_work(world, *["new"] * 20)
    old = arrive(world, "old", turns=0)
    await old.activity(20)
    new = arrive(world, "new", turns=0)
    for item in old.activities:
        assert (await does_not_know(world, item)).outcome is STALE
    await new.activity(20)
    assert len(old.activities) == 20, "it is asked no more"
    for item in new.activities:
        await world.answer(item)
    assert (await arrive(world, "turns").turn(1)).new


async def test_an_activity_that_no_worker_knows_fails_as_its_worker_says(world: World) -> None:
    await ask_for_work(world, "new")
    first, second = arrive(world, "first", turns=0), arrive(world, "second", turns=0, activities=0)
    await does_not_know(world, await first.activity(1))
    second.worker.max_activities = 1
    world.dispatch.pump()
    await does_not_know(world, await second.activity(1))
    failure = failure_in(await arrive(world, "catcher", activities=0).turn(1))
    assert failure.error_type == "ActivityTaskNotFound"


async def test_with_one_worker_alone_the_activity_fails_at_once(world: World) -> None:
    await ask_for_work(world, "new")
    alone = arrive(world, "alone", turns=0)
    await does_not_know(world, await alone.activity(1))
    assert failure_in(await arrive(world, "catcher", activities=0).turn(1)).error_type == "ActivityTaskNotFound"


async def test_when_the_worker_leaves_that_may_have_known_the_others_are_asked_again(world: World) -> None:
    await ask_for_work(world, "new")
    old = arrive(world, "old", turns=0)
    new = arrive(world, "new", turns=0)
    holder, other = (old, new) if old.activities or not new.activities else (new, old)
    await holder.activity(1)
    await does_not_know(world, holder.activities[0])
    await other.activity(1)
    world.dispatch.remove_worker(other.worker)
    await does_not_know(world, await holder.activity(2))
    assert failure_in(await arrive(world, "catcher", activities=0).turn(1)).error_type == "ActivityTaskNotFound"


async def test_what_an_earlier_delivery_does_not_know_ends_no_later_one(world: World) -> None:
    await ask_for_work(world, "new")
    old = arrive(world, "old", turns=0)
    item = await old.activity(1)
    world.dispatch.remove_worker(old.worker, farewell=True)
    new = arrive(world, "new", turns=0)
    again = await new.activity(1)
    assert (await does_not_know(world, item)).outcome is STALE
    assert (await world.answer(again)).outcome is DONE


async def test_a_workflow_goes_to_the_worker_that_knows_it(world: World) -> None:
    old = arrive(world, "old")
    await world.start("a")
    item = await old.turn(1)
    new = arrive(world, "new")
    assert (await cannot_run(world, item)).outcome is STALE
    assert (await world.complete(await new.turn(1), call(1))).outcome is DONE
    assert await world.status("a") == RUNNING


async def test_a_workflow_that_no_worker_knows_fails(world: World) -> None:
    old = arrive(world, "old")
    await world.start("a")
    assert (await cannot_run(world, await old.turn(1))).outcome is DONE
    assert await world.status("a") == FAILED


async def test_a_workflow_that_fails_for_another_name_fails(world: World) -> None:
    """As one does that lets the failure of a child through which nobody knows."""
    old = arrive(world, "old")
    await world.start("a")
    item = await old.turn(1)
    arrive(world, "new")
    assert (await cannot_run(world, item, "other")).outcome is DONE
    assert await world.status("a") == FAILED


async def test_a_worker_that_does_not_say_which_name_it_does_not_know_means_that_of_its_turn(world: World) -> None:
    old = arrive(world, "old")
    await world.start("a")
    item = await old.turn(1)
    new = arrive(world, "new")
    await cannot_run(world, item, "")
    await world.complete(await new.turn(1), end())
    assert await world.status("a") == COMPLETED


async def test_an_entity_goes_to_the_worker_that_knows_it(world: World) -> None:
    old = arrive(world, "old", max_entities=1)
    await world.signal("@counter@a", "add")
    item = await old.batch(1)
    new = arrive(world, "new", max_entities=1)
    assert (await has_no_entity(world, item)).outcome is STALE
    assert (await world.ran(await new.batch(1))).outcome is DONE
    await world.signal("@counter@b", "add")
    await new.batch(2)
    assert len(old.batches) == 1


async def test_an_entity_does_not_wait_for_a_worker_that_takes_none(world: World) -> None:
    old = arrive(world, "old", max_entities=1)
    arrive(world, "without entities")
    await world.signal("@counter@a", "add")
    assert (await has_no_entity(world, await old.batch(1))).outcome is DONE
