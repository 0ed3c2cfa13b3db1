"""Connections that break are no crashes, ends of processes are; and neither lets work run many times at once."""

import pytest

from sidecar.core.attempts import NONE
from sidecar.work import departures
from sidecar.work.departures import RETURN_SECONDS, SHORTEST_PAUSE
from tests.inprocess.world import COMPLETED, DONE, MOST, STALE, Hand, World, at, call, end, until
from tests.work.test_crashes import ask_for_work, crashes, failure_in


class Machine:
    """Workers of one process, which connect one after the other."""

    def __init__(self, world: World, alive: bool | None, **room: int) -> None:
        self.world, self.alive, self.room = world, alive, room
        self.count = 0
        self.hand = self.connect()

    def connect(self) -> Hand:
        self.count += 1
        hand = Hand(f"{id(self)}.{self.count}", origin="here", **self.room)
        hand.worker.process = lambda: self.alive
        self.world.dispatch.add_worker(hand.worker)
        self.hand = hand
        return hand

    async def cut(self) -> None:
        self.world.dispatch.departures.lose(self.hand.worker)
        await self.world.quiet()

    async def passes(self, seconds: float) -> None:
        self.world.clock.steady += seconds
        self.world.dispatch.departures.decide()
        self.world.dispatch.turns.sweep()
        await self.world.quiet()


async def counted(world: World) -> int:
    (stored,) = await world.store.real.activities(0, 10)
    return stored.crashes.times


@pytest.mark.parametrize("alive", [True, None], ids=["seen", "unseen"])
async def test_an_activity_of_a_minute_outlives_a_connection_that_is_cut_every_four_seconds(
    world: World, alive: bool | None
) -> None:
    await ask_for_work(world, "slow")
    machine = Machine(world, alive, turns=0)
    first = await machine.hand.activity(1)
    deliveries = 1
    for _ in range(12):
        await machine.passes(4.0)
        await machine.cut()
        await machine.passes(1.0)
        hand = machine.connect()
        await world.quiet()
        deliveries += len(hand.activities)
    assert await counted(world) == 0
    assert deliveries <= 3, "ten ran at once when each cut counted"
    assert (await world.answer(first)).outcome is DONE


async def test_a_worker_that_stands_still_keeps_what_it_has(world: World) -> None:
    await ask_for_work(world, "slow")
    machine = Machine(world, True, turns=0)
    item = await machine.hand.activity(1)
    await machine.cut()
    other = Hand("other", turns=0)
    world.dispatch.add_worker(other.worker)
    await machine.passes(SHORTEST_PAUSE - 1)
    assert (other.activities, await counted(world)) == ([], 0)
    assert (await world.answer(item)).outcome is DONE


async def test_what_an_answer_was_lost_for_is_handed_out_again(world: World) -> None:
    await ask_for_work(world, "slow")
    machine = Machine(world, True, turns=0)
    await machine.hand.activity(1)
    await machine.cut()
    hand = machine.connect()
    await machine.passes(SHORTEST_PAUSE)
    assert (await world.answer(await hand.activity(1))).outcome is DONE


async def test_an_activity_that_ends_its_process_still_fails(world: World) -> None:
    await ask_for_work(world, "poison")
    machine = Machine(world, False, turns=0)
    for number in range(MOST):
        await machine.hand.activity(1)
        assert await counted(world) == number
        await machine.cut()
        machine.connect()
        await world.quiet()
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    failure = failure_in(await catcher.turn(1))
    assert failure.error_type == "WorkerCrashed"


async def test_one_that_ends_a_process_which_cannot_be_seen_and_is_started_at_once_still_fails(world: World) -> None:
    await ask_for_work(world, "poison")
    machine = Machine(world, None, turns=0)
    lost = 0
    while machine.hand.activities or lost == 0:
        await machine.hand.activity(1)
        await machine.cut()
        machine.connect()
        lost += 1
        for _ in range(10):
            await machine.passes(SHORTEST_PAUSE)
    catcher = Hand("catcher", activities=0)
    world.dispatch.add_worker(catcher.worker)
    assert failure_in(await catcher.turn(1)).error_type == "WorkerCrashed"
    assert lost <= MOST + 3


async def test_a_worker_that_cannot_be_seen_and_does_not_come_back_has_crashed(world: World) -> None:
    await world.start("a")
    machine = Machine(world, None)
    await machine.hand.turn(1)
    await machine.cut()
    await machine.passes(RETURN_SECONDS - 1)
    assert await crashes(world) == 0
    await machine.passes(2)
    assert await crashes(world) == 1


async def test_a_turn_is_answered_over_the_next_connection(world: World) -> None:
    await world.start("a")
    machine = Machine(world, True)
    item = await machine.hand.turn(1)
    await machine.cut()
    machine.connect()
    await machine.passes(SHORTEST_PAUSE)
    again = await machine.hand.turn(1)
    assert (await world.complete(item, call(1))).outcome is DONE
    assert (await world.complete(again, end())).outcome is STALE
    await world.answer(await machine.hand.activity(1))
    await world.complete(await machine.hand.turn(2), end())
    assert await world.status("a") == COMPLETED


async def test_a_worker_that_is_back_has_not_crashed_though_a_stranger_has_come_since(world: World) -> None:
    await world.start("a")
    machine = Machine(world, None)
    await machine.hand.turn(1)
    await machine.cut()
    machine.connect()
    world.dispatch.add_worker(Hand("stranger", turns=0, origin="elsewhere").worker)
    await machine.passes(RETURN_SECONDS + 1)
    assert await crashes(world) == 0


async def test_what_a_worker_was_only_to_get_goes_to_another_at_once(world: World) -> None:
    """The instance was between two commits when it was given the turn, and so was not asked for it yet."""
    await world.start("a")
    world.store.gate.clear()
    raising = world.event("a", "e")
    await until(lambda: world.actor("a").running)
    machine = Machine(world, True)
    await until(lambda: world.actor("a").lease)
    world.dispatch.departures.lose(machine.hand.worker)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    world.store.gate.set()
    await raising
    assert (await world.complete(await other.turn(1), end())).outcome is DONE
    assert machine.hand.turns == []
    instance = await world.clients.instance(at("a"))
    assert instance is not None
    assert instance.crashes == NONE


async def test_of_all_that_are_away_is_looked_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the machine's sockets may be long."""
    looks: list[int] = []

    def living(processes: list[object]) -> list[bool | None]:
        looks.append(len(processes))
        return [True] * len(processes)

    monkeypatch.setattr(world.dispatch.departures, "_living", living)
    await ask_for_work(world, *(f"slow{number}" for number in range(50)))
    machines = [Machine(world, True, turns=0, activities=1) for _ in range(50)]
    await until(lambda: all(machine.hand.activities for machine in machines))
    for machine in machines:
        world.dispatch.departures.lose(machine.hand.worker)
    await world.quiet()
    assert set(looks) == {50}
    assert world.clock.slept.count(departures._DYING_SECONDS) == 1, "nor one after the other when they are lost"
