"""What the simulation found and is mended, each as a test of its own; the docstring names the seed that showed it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.actors import store_outage
from sidecar.core.model import NO_CALL, ActorId, CallId, Kind, Outcome, Reminder, Reply, Row
from sidecar.core.receipts import Received
from sidecar.core.work_items import ActivityItem
from sidecar.edge.peer import link as peer
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from tests.edge.peer.test_two_sidecars import echo, flow_of
from tests.inprocess.sidecars import Node
from tests.inprocess.wires import Wire, ends
from tests.inprocess.world import (
    COMPLETED,
    DONE,
    DUPLICATE,
    ME,
    STALE,
    Hand,
    World,
    at,
    call,
    call_entity,
    end,
    kinds,
    lock,
    raised,
    until,
)
from tests.peers.test_outbox import ML, Net, PlayedLink

ELSEWHERE = ActorId("default", "ml", "workflow", "default", "w")


@pytest.fixture
async def net(world: World, hand: Hand) -> AsyncIterator[Net]:
    net = Net(world, hand)
    yield net
    await net.router.stop()


def message(number: int, kind: Kind, target: ActorId, payload: bytes) -> Reminder:
    """What app ml sends; its number is that of its own store."""
    return Reminder(number, kind, 0, target, ELSEWHERE, NO_CALL, 0, "work", payload)


def event(number: int, instance_id: str) -> Reminder:
    payload = pb.HistoryEvent(event_raised=pb.EventRaised(name="e")).SerializeToString()
    return message(number, Kind.EVENT, ME.workflow("default", instance_id), payload)


def received(number: int) -> Received:
    return Received(*ML, "store of ml", number)


async def foreign_activity(net: Net) -> tuple[PlayedLink, ActivityItem]:
    """A link to app ml, and an activity of that app which a worker has."""
    link = net.connect()
    await net.router.link_up(link)
    request = pb.ActivityRequest(name="work", task_id=1).SerializeToString()
    await net.world.messages.deliver(message(5, Kind.ACTIVITY, ME.activity("default", "x"), request), received(5))
    item = await net.hand.activity(1)
    await net.world.quiet()
    return link, item


async def test_a_message_whose_answer_never_comes_over_a_link_that_stays_up_is_sent_again_and_counts_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 30: the answer was lost, the link lived on, and nothing was sent to that app any more."""
    monkeypatch.setattr(peer, "ANSWER_SECONDS", 0.1)
    await world.start("a")
    wire = Wire()
    receiver, sender = ends(world, wire)
    running = [asyncio.create_task(link.run()) for link in (receiver, sender)]
    try:
        wire.losing = {"answers"}
        async with asyncio.timeout(5.0):
            with pytest.raises(LinkBrokenError, match="did not answer"):
                await sender.deliver([event(7, "a")], 7)
        await until(lambda: wire.sent == ["answers"])
        assert not any(task.done() for task in running), "the link stays up"

        wire.losing = set()
        monkeypatch.undo()
        assert [reply.outcome for reply in await sender.deliver([event(7, "a")], 7)] == [DUPLICATE]
        assert [reply.outcome for reply in await sender.deliver([event(8, "none")], 8)] == [Outcome.MISSING]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    assert raised((await hand.turn(1)).new) == ["e"]


async def test_a_worker_has_its_slot_back_though_the_commit_of_its_answer_failed_after_it_was_written(
    world: World, hand: Hand
) -> None:
    """Seed 52: the activity was handed out again, and after its second answer still counted as with the worker."""
    hand.worker.max_activities = 1
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    first = await hand.activity(1)
    world.store.lost = 1
    assert (await world.answer(first)).outcome is STALE
    assert not hand.worker.activities

    await world.quiet()
    assert kinds(hand.turns[-1].new)[1:] == ["task_completed"]
    assert (await world.complete(hand.turns[-1], call(2))).outcome is DONE
    second = await hand.activity(2)
    assert pb.ActivityRequest.FromString(second.request).task_id == 2
    assert (await world.answer(second)).outcome is DONE


async def test_the_result_of_a_foreign_activity_goes_home_though_its_commit_failed_after_it_was_written(
    net: Net,
) -> None:
    """Seed 52: the result was in the store, and stayed there until the link came up the next time."""
    link, item = await foreign_activity(net)
    net.world.store.lost = 1
    assert (await net.world.answer(item)).outcome is STALE

    await until(lambda: link.messages)
    await until(lambda: not net.router.queue(ML).pending)
    assert [(sent.kind, sent.target) for sent in link.messages] == [(Kind.RESULT, ELSEWHERE)]
    assert not net.hand.worker.activities


async def test_an_answer_to_an_earlier_delivery_that_fails_does_not_queue_the_activity_that_a_worker_has(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 32: two answers to one delivery while the store failed, and two workers had the activity at a time."""
    monkeypatch.setattr(store_outage, "HOLD_SECONDS", 0.0)
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    first = await hand.activity(1)
    for _ in range(2):
        world.store.failing["commit"] = 1
        with pytest.raises(UnavailableError):
            await world.answer(first)
        await world.quiet()
        assert len(hand.activities) == 2, "it went back once"
        assert not len(world.dispatch.pool.activities)
    assert list(hand.worker.activities) == list(world.dispatch.activities.leases)
    assert (await world.answer(hand.activities[1])).outcome is DONE
    assert kinds((await hand.turn(2)).new)[1:] == ["task_completed"]
    assert not hand.worker.activities


@pytest.mark.slow
async def test_heartbeats_answers_and_batches_of_both_sides_never_meet_on_one_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 33: a heartbeat in the middle of a batch broke the link; under load it never held."""
    monkeypatch.setattr(peer, "HEARTBEAT_SECONDS", 0.01)
    actions = [call(task, "score", "ml") for task in range(1, 21)]
    for action in actions:
        action.schedule_task.input.value = "x" * 50_000
    async with contextlib.AsyncExitStack() as stack:
        ml = await Node.start("ml", tmp_path)
        stack.push_async_callback(ml.stop)
        orders = await Node.start("orders", tmp_path, peers={"ml": (ml.peer_address,)})
        stack.push_async_callback(orders.stop)

        def links() -> list[object]:
            return [ml.sidecar.peers.link("default", "orders"), orders.sidecar.peers.link("default", "ml")]

        await until(lambda: all(links()), 10.0)
        before = links()
        ml.worker(None, {"score": echo})
        orders.worker(flow_of(*actions))
        for number in range(10):
            await orders.begin(f"a{number}")
        ends = asyncio.gather(*(orders.outcome(f"a{number}", 60.0) for number in range(10)))
        over = asyncio.gather(ends, asyncio.sleep(1.0))
        stack.callback(over.cancel)
        await until(lambda: over.done() or links() != before, 60.0)
        assert links() == before, "no link came up anew"
        assert {state.status for state in await ends} == {COMPLETED}
        assert len(ml.workers[0].requests) == 200, "each ran once"


async def test_a_link_that_comes_up_while_the_router_reads_its_queue_leaves_nothing_unsent(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 58: the queue was never read again, and took nothing new either, as there was more in the store."""
    link = net.connect()
    await net.run("a", call(1, app="ml"))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    store, reading, go_on = net.world.store.real, asyncio.Event(), asyncio.Event()

    async def slow(*args: str | int) -> list[Reminder]:
        found = await store.outbound(*args)  # type: ignore[arg-type]
        reading.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(net.world.store, "outbound", slow, raising=False)
    await net.router.reload()
    await reading.wait()
    link.session = "with a new store of ml"
    await net.router.link_up(link)
    go_on.set()

    await until(lambda: len(link.messages) == 2)
    assert link.messages[0] == link.messages[1]
    await net.run("b", call(2, app="ml"))
    await until(lambda: [sent.call.task for sent in link.messages] == [1, 1, 2])


async def test_a_result_that_comes_twice_in_a_step_behind_a_refused_duplicate_is_not_received_without_effect(
    net: Net,
) -> None:
    """Seed 129: the second copy was marked as received, so that the first was refused as known: the result was lost."""
    world, link = net.world, net.connect()
    await net.run("a", call(1, app="ml"))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    asked = link.messages[0]
    assert (await world.messages.deliver(event(10, "a"), received(10))).outcome is Outcome.DONE
    assert (await world.complete(await net.hand.turn(2))).outcome is DONE
    world.store.batches.clear()

    payload = pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1)).SerializeToString()
    result = replace(message(11, Kind.RESULT, asked.source, payload), source=asked.target, call=asked.call, name="")
    copies = [(event(10, "a"), received(10)), (result, received(11)), (result, received(11))]
    replies = await asyncio.gather(*(world.messages.deliver(*copy) for copy in copies))

    assert [len(changes.received) for changes in world.store.batches[0]] == [1, 1], "both in one step"
    assert [reply.outcome for reply in replies] == [DUPLICATE, DONE, DUPLICATE]
    assert kinds((await net.hand.turn(3)).new)[1:] == ["task_completed"]
    stored = await world.store.real.load(*at("a"))
    assert stored is not None
    assert not stored.open
    assert (await world.complete(net.hand.turns[-1], end())).outcome is DONE
    history = await world.clients.history(at("a"))
    assert kinds(history or []).count("task_completed") == 1


@pytest.mark.parametrize("purged_first", [False, True])
async def test_an_instance_that_takes_the_id_of_an_ended_one_is_not_shown_the_past_of_the_one_before(
    world: World, hand: Hand, purged_first: bool
) -> None:
    """Seed 51: its worker was told of a past in which somebody else had done its work."""
    await world.start("a", name="old")
    await world.complete(await hand.turn(1), call(1))
    await world.answer(await hand.activity(1))
    await world.complete(await hand.turn(2), end())
    assert hand.past_seen[1], "there was something to be shown"
    if purged_first:
        await world.purge(at("a"), recursive=False, force=False)

    assert (await world.start("a", name="new")).outcome is DONE
    fresh = await hand.turn(3)
    assert hand.past_seen[2] == []
    assert kinds(fresh.new) == ["orchestrator_started", "execution_started"]
    assert (await world.complete(fresh, end())).outcome is DONE


async def test_two_reads_of_waiting_activities_at_once_do_not_trip_over_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 61: what went during one read was taken off the list of the other, and the first read then failed."""
    activities, read = world.dispatch.activities, world.store.activities
    first, second = asyncio.Event(), asyncio.Event()
    gates = [first, second]

    async def slow(after: int, limit: int) -> list[Reminder]:
        gate = gates.pop(0)
        await gate.wait()
        return await read(after, limit)

    monkeypatch.setattr(activities._store, "activities", slow)
    reads = [asyncio.create_task(activities.refill()) for _ in range(2)]
    await until(lambda: not gates)
    second.set()
    await reads[1]
    activities.discard(7)
    first.set()
    await reads[0]


async def test_a_message_that_comes_again_behind_later_ones_counts_once(world: World, hand: Hand) -> None:
    """Seed 116: its sender had let go of it, so that it was forgotten, and a late copy was a second event."""
    await world.start("a")
    await hand.turn(1)
    wire = Wire()
    receiver, sender = ends(world, wire)
    running = [asyncio.create_task(link.run()) for link in (receiver, sender)]

    async def deliver(number: int) -> Outcome:
        (reply,) = await sender.deliver([event(number, "a")], number)
        await world.quiet()
        return reply.outcome

    try:
        assert [await deliver(number) for number in (7, 8, 7)] == [DONE, DONE, DUPLICATE]
        for number in (9, 10):
            world.clock.steady += 61
            assert await deliver(number) is DONE
        forgotten = [one for batch in world.store.batches for changes in batch for one in changes.forgotten]
        assert [one.below for one in forgotten if one.store == receiver.store] == [7, 9], (
            "once a while, what had been let go of all that time"
        )
        assert {one.store for one in forgotten} == {receiver.store, receiver.session}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def cancelled_in_commit(world: World, task: asyncio.Task[Reply]) -> None:
    """Cancel a task at the moment when its commit has begun."""
    while not world.store.batches:  # noqa: ASYNC110 (no time may pass)
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_activity_whose_link_breaks_while_it_is_stored_is_handed_out(world: World, hand: Hand) -> None:
    """Seed 12: it was stored, and known when it came again, and no worker got it before the next start."""
    request = pb.ActivityRequest(name="work", task_id=1).SerializeToString()
    asked = message(5, Kind.ACTIVITY, ME.activity("default", "x"), request)
    taking = asyncio.create_task(world.messages.deliver(asked, received(5)))
    await cancelled_in_commit(world, taking)
    await world.quiet()

    assert (await world.messages.deliver(asked, received(5))).outcome is DONE
    assert (await world.answer(await hand.activity(1))).outcome is DONE
    assert len(hand.activities) == 1


async def test_the_result_of_a_foreign_activity_goes_home_though_its_worker_hangs_up_while_it_is_stored(
    net: Net,
) -> None:
    """As seed 12: it was stored, and stayed there until the link came up the next time."""
    link, item = await foreign_activity(net)
    net.world.store.batches.clear()
    await cancelled_in_commit(net.world, asyncio.create_task(net.world.answer(item)))

    await until(lambda: link.messages)
    assert [(sent.kind, sent.target) for sent in link.messages] == [(Kind.RESULT, ELSEWHERE)]


async def test_what_a_terminated_holder_of_a_lock_has_asked_for_runs_before_the_next_has_the_lock(world: World) -> None:
    """Seed 136: it was terminated with a write under way, which ran after the critical section of the next."""
    hand = Hand(max_entities=1)
    world.dispatch.add_worker(hand.worker)
    counter = "@counter@a"

    def inbox() -> list[Row]:
        state = world.actor(counter).state
        return [] if state is None else state.inbox

    await world.start("v")
    await world.complete(await hand.turn(1), lock(1, counter))
    await world.complete(await hand.turn(2), call_entity(2, counter, "set"))
    out = await hand.batch(1)
    await world.start("w")
    await world.complete(await hand.turn(3), lock(1, counter))
    await world.clients.terminate(at("v"), None, recurse=False)
    await until(lambda: any(kinds([row.event]) == ["entity_unlock_sent"] for row in inbox()))
    assert len(hand.turns) == 3, "the lock is not granted yet"

    assert (await world.ran(out, "written")).outcome is DONE
    granted = await hand.turn(4)
    assert (granted.instance_id, kinds(granted.new)[1:]) == ("w", ["entity_lock_granted"])
    await world.complete(granted, call_entity(2, counter, "get"))
    assert (await hand.batch(2)).state == "written"


def creation(number: int, instance_id: str) -> Reminder:
    """What app ml asks for a child with."""
    started = pb.HistoryEvent(execution_started=pb.ExecutionStarted(name="sub"))
    started.execution_started.instance.execution_id.value = "execution of the child"
    asked = message(number, Kind.CREATE, ME.workflow("default", instance_id), started.SerializeToString())
    return replace(asked, call=CallId("execution", 1, 1))


async def test_a_copy_of_a_call_that_came_before_the_answer_was_acknowledged_does_not_make_the_child_again(
    net: Net,
) -> None:
    """Seed 5: the copy waited behind a slow disk, while the answer left and the child was removed for its age."""
    world, played = net.world, net.connect()
    wire = Wire()
    receiver, sender = ends(world, wire)
    running = [asyncio.create_task(link.run()) for link in (receiver, sender)]
    try:
        played.open.clear()
        await world.messages.deliver(creation(5, "c"), received(5))
        await world.complete(await net.hand.turn(1), end())
        await until(lambda: [sent.kind for sent in played.messages] == [Kind.RESULT])
        await world.purge(at("c"), recursive=False, force=False)

        world.store.gate.clear()
        begun = len(world.store.batches)
        copy = asyncio.create_task(sender.deliver([event(8, "c"), creation(9, "c")], 8))
        await until(lambda: len(world.store.batches) > begun)
        played.open.set()
        await until(lambda: world.store.batches[-1][0].delivered)
        world.store.gate.set()
        assert [reply.outcome for reply in await copy] == [Outcome.MISSING, DUPLICATE]
        assert await world.status("c") == -1

        # A parent that asks after it had the answer has lost it.
        assert [reply.outcome for reply in await sender.deliver([creation(10, "c")], 10)] == [DONE]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
