"""Workers that leave in order: what they had goes to others at once and counts against nobody, but not for ever."""

import asyncio
from typing import Any

import pytest

from sidecar.core.attempts import NONE
from sidecar.edge.dialects import Limits
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.transport.ports import Call
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work.departures import RETURN_SECONDS
from tests.inprocess.world import COMPLETED, DONE, MOST, RUNNING, Hand, World, at, call, end, until
from tests.work.test_crashes import ask_for_work, crashes, failure_in

STALLED = 8


async def stopped(world: World, *, turns: int = 0, activities: int = 0) -> Hand:
    """A worker that has got one item and is stopped in good order."""
    hand = Hand(f"stopped {world.clock.new_id()}", turns=turns, activities=activities)
    world.dispatch.add_worker(hand.worker)
    await (hand.turn(1) if turns else hand.activity(1))
    world.dispatch.remove_worker(hand.worker, farewell=True)
    return hand


async def test_an_activity_outlives_as_many_graceful_stops_as_workers_may_crash_and_more(world: World) -> None:
    await ask_for_work(world, "work")
    for _ in range(2 * MOST):
        await stopped(world, activities=1)
    await world.quiet()
    (stored,) = await world.store.real.activities(0, 10)
    assert stored.crashes == NONE
    last = Hand("last", turns=1)
    world.dispatch.add_worker(last.worker)
    await world.answer(await last.activity(1), peer="ipv4:last")
    await world.complete(await last.turn(1), end(), peer="ipv4:last")
    assert await world.status("a") == COMPLETED


async def test_ten_activities_still_run_together_after_graceful_stops(world: World) -> None:
    await ask_for_work(world, *["work"] * 10)
    for _ in range(MOST):
        hand = Hand(f"hand {world.clock.new_id()}", turns=0)
        world.dispatch.add_worker(hand.worker)
        await hand.activity(10)
        world.dispatch.remove_worker(hand.worker, farewell=True)


async def test_a_turn_that_was_out_at_a_graceful_stop_goes_to_another_at_once_and_is_not_counted(world: World) -> None:
    await world.start("a")
    for _ in range(2 * MOST):
        await stopped(world, turns=1)
    assert await crashes(world) == 0
    hand = Hand("last")
    world.dispatch.add_worker(hand.worker)
    assert (await world.complete(await hand.turn(1), end())).outcome is DONE


async def test_an_activity_that_only_ever_comes_back_fails_at_last(world: World) -> None:
    await ask_for_work(world, "work")
    for _ in range(3 * MOST):
        await stopped(world, activities=1)
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    failure = failure_in(await catcher.turn(1))
    assert (failure.error_type, failure.is_non_retriable) == ("NeverAnswered", True)
    assert failure.error_message.startswith(f"activity 'work' was handed out {3 * MOST} times")


async def test_an_activity_that_is_only_ever_abandoned_fails_at_last(world: World) -> None:
    await ask_for_work(world, "work")
    hand = Hand("hand", turns=0)
    world.dispatch.add_worker(hand.worker)
    for number in range(1, 3 * MOST + 1):
        world.answers.abandon_activity((await hand.activity(number)).token)
        world.clock.steady += 200.0
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    assert failure_in(await catcher.turn(1)).error_type == "NeverAnswered"


async def test_a_turn_that_is_only_ever_abandoned_stalls_and_goes_on_with_the_first_answer(
    world: World, hand: Hand
) -> None:
    await world.start("a")
    for number in range(1, 3 * MOST + 1):
        assert await world.status("a") != STALLED
        world.answers.abandon_turn((await hand.turn(number)).token)
        world.clock.steady += 200.0
    await check_stalled(world)
    item = await hand.turn(3 * MOST + 1)
    assert (await world.complete(item, call(1))).outcome is DONE
    assert await world.status("a") == RUNNING


async def check_stalled(world: World) -> None:
    await world.quiet()
    assert await world.status("a") == STALLED
    instance = await world.clients.instance(at("a"))
    assert instance is not None
    assert instance.stall is not None
    why = pb.ExecutionStalled.FromString(instance.stall)
    assert why.description.startswith(f"Not answered: {3 * MOST} times")


# ---------------------------------------------------------------- streams


class Out:
    """An outflow that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.full = False
        self.cancelled = False

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def drained(self) -> None:
        return


class Process:
    """A worker's process with one connection, which may open several streams after one another."""

    def __init__(self, streams: Streams, peer: str) -> None:
        self._streams = streams
        self._call = Call("/TaskHubSidecarService/GetWorkItems", {}, None, peer, ())
        self._task: asyncio.Task[Any] | None = None
        self.out = Out()

    async def serve(self) -> None:
        """Open a stream, and wait until it has got an item."""
        self.out = Out()
        request = pb.GetWorkItemsRequest(max_orchestrations=1, max_activities=1)
        self._task = asyncio.create_task(self._streams.serve(self._call, request, self.out, asyncio.Event()))
        await until(lambda: bool(self.out.sent))

    async def end(self, *, connected: bool) -> None:
        assert self._task is not None
        self.out.cancelled = connected
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
def streams(world: World) -> Streams:
    return Streams(world.dispatch, Limits(1 << 22))


async def test_a_worker_that_ends_its_stream_on_a_living_connection_has_said_goodbye(
    world: World, streams: Streams
) -> None:
    await world.start("a")
    for number in range(2 * MOST):
        process = Process(streams, f"ipv4:127.0.0.1:{number}")
        await process.serve()
        await process.end(connected=True)
    await world.quiet()
    assert await crashes(world) == 0


async def test_a_worker_whose_connection_is_gone_has_crashed(world: World, streams: Streams) -> None:
    await world.start("a")
    process = Process(streams, "ipv4:127.0.0.1:1")
    await process.serve()
    await process.end(connected=False)
    await world.quiet()
    assert await crashes(world) == 0, "it may be back in a moment"
    world.clock.steady += RETURN_SECONDS
    world.dispatch.departures.decide()
    await world.quiet()
    assert await crashes(world) == 1


async def test_a_worker_that_comes_back_over_the_same_connection_had_not_stopped(
    world: World, streams: Streams
) -> None:
    """What it is sent may be what ends its streams, as a message that it cannot receive: it must come to an end."""
    await world.start("a")
    process = Process(streams, "ipv4:127.0.0.1:1")
    for _ in range(MOST + 1):
        await process.serve()
        await process.end(connected=True)
    await world.quiet()
    assert await world.status("a") == STALLED
