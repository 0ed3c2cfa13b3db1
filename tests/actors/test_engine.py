"""The loop of an actor: decisions that wait together, refusals and failures, over the real store."""

import asyncio
from dataclasses import replace

import pytest

from sidecar.actors.residents import IDLE_ACTORS
from sidecar.core.identity import Context
from sidecar.core.model import Changes, Decision, Outcome, Position, State
from sidecar.store.protocol import Refusal, UnavailableError
from tests.inprocess.world import DONE, RUNNING, SUSPENDED, Hand, World, at, call, end, kinds, raised, until


async def _events(world: World, instance_id: str) -> list[bytes]:
    """All that is stored, what waits for a turn too."""
    instance = await world.clients.instance(at(instance_id))
    assert instance is not None
    return list(await world.store.real.events(instance.key, Position(0, -1), 1 << 60))


async def test_commands_for_one_instance_that_wait_together_are_one_commit(world: World) -> None:
    await world.start("a")
    await world.quiet()
    world.store.batches.clear()

    await asyncio.gather(*(world.event("a", f"e{number}") for number in range(50)))

    assert [len(batch) for batch in world.store.batches] == [50]
    assert raised(await _events(world, "a")) == [f"e{number}" for number in range(50)]


async def test_commands_that_come_while_a_commit_is_under_way_share_the_next(world: World) -> None:
    await world.start("a")
    world.store.batches.clear()
    world.store.gate.clear()
    first = world.event("a", "first")
    await until(lambda: world.store.batches)
    others = [world.event("a", f"e{number}") for number in range(10)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in (first, *others)), "answered before it was stored"

    world.store.gate.set()
    await asyncio.gather(first, *others)

    assert [len(batch) for batch in world.store.batches] == [1, 10]


async def test_a_decision_that_raises_harms_only_itself(world: World) -> None:
    await world.start("a")

    def broken(_at: Context, _state: State | None) -> Decision:
        raise ZeroDivisionError("a mistake")

    outcomes = await asyncio.gather(
        world.event("a", "before"),
        world.engine.submit(at("a"), broken),
        world.event("a", "after"),
        return_exceptions=True,
    )

    assert isinstance(outcomes[1], ZeroDivisionError)
    assert [outcomes[0].outcome, outcomes[2].outcome] == [DONE, DONE]
    assert raised(await _events(world, "a")) == ["before", "after"]


async def _moved_by_another(world: World, instance_id: str, steps: int) -> None:
    """Write to an instance behind the engine's back, as a second writer would."""
    state = world.actor(instance_id).state
    assert state is not None
    old = state.instance
    moved = replace(old, revision=old.revision + steps, custom_status="moved")
    assert await world.store.real.commit([Changes(key=old.key, expected=old.revision, instance=moved)]) == [None]


async def test_a_refused_commit_drops_the_actor_and_is_decided_again(world: World) -> None:
    """M48"""
    await world.start("a")
    await world.event("a", "known")
    await _moved_by_another(world, "a", steps=10)

    replies = await asyncio.gather(world.event("a", "one"), world.event("a", "two"))

    assert [reply.outcome for reply in replies] == [DONE, DONE]
    assert raised(await _events(world, "a")) == ["known", "one", "two"]
    found = await world.clients.instance(at("a"))
    assert found is not None
    assert found.custom_status == "moved"


async def test_what_builds_on_a_refused_change_is_refused_with_it(world: World) -> None:
    """Whatever revision the other writer has left: the second command was decided over a state that never was."""
    await world.start("a")
    await _moved_by_another(world, "a", steps=1)

    await asyncio.gather(world.event("a", "one"), world.event("a", "two"))

    assert raised(await _events(world, "a")) == ["one", "two"]
    found = await world.clients.instance(at("a"))
    assert found is not None
    assert found.custom_status == "moved"


async def test_a_commit_that_is_refused_for_ever_fails_its_caller_and_nobody_else(world: World) -> None:
    await world.start("a")
    await world.start("b")
    key = world.actor("a").state.instance.key  # type: ignore[union-attr]
    world.store.refuse = lambda batch: [Refusal.CONFLICT] * len(batch) if batch[0].key == key else None

    with pytest.raises(UnavailableError):
        await world.event("a", "never")
    assert (await world.event("b", "other")).outcome is DONE

    world.store.refuse = lambda batch: None
    assert (await world.event("a", "later")).outcome is DONE
    assert raised(await _events(world, "a")) == ["later"]


async def test_a_failed_commit_fails_its_callers_and_all_recovers(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    await hand.activity(1)
    world.store.failing["commit"] = 1

    outcomes = await asyncio.gather(world.event("a", "x"), world.event("a", "y"), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [UnavailableError, UnavailableError]
    assert (await world.event("a", "z")).outcome is DONE
    item = await hand.turn(2)
    assert raised(item.new) == ["z"]
    assert (await world.complete(item)).outcome is DONE
    assert (await world.answer(hand.activities[0])).outcome is DONE
    assert kinds((await hand.turn(3)).new) == ["orchestrator_started", "task_completed"]


async def test_a_commit_of_unknown_outcome_is_looked_up_in_the_store(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.lost = 1

    assert (await world.complete(item, call(1))).outcome is Outcome.STALE, "it is there, as the second look shows"

    await hand.activity(1)
    assert (await world.complete(item, call(1))).outcome is Outcome.STALE
    assert (await world.answer(hand.activities[0])).outcome is DONE
    item = await hand.turn(2)
    assert kinds(item.new) == ["orchestrator_started", "task_completed"]
    assert kinds(item.past.events).count("task_scheduled") == 1


async def test_a_start_of_unknown_outcome_runs_once(world: World, hand: Hand) -> None:
    world.store.lost = 1
    with pytest.raises(UnavailableError):
        await world.start("a")
    assert (await world.start("a")).outcome is Outcome.EXISTS
    await world.complete(await hand.turn(1), end())
    await world.quiet()
    assert len(hand.turns) == 1


async def test_a_failed_read_fails_its_caller_and_the_next_one_is_served(world: World) -> None:
    world.store.failing["load"] = 1
    with pytest.raises(UnavailableError):
        await world.clients.instance(at("a"))
    assert await world.clients.instance(at("a")) is None


@pytest.mark.parametrize("read", ["load", "events"])
async def test_a_turn_whose_reads_fail_is_handed_out_later(world: World, read: str) -> None:
    """The worker's slot was given, but the store could not be read: the turn must not be forgotten."""
    await world.start("a")
    await world.quiet()
    world.engine.drop(world.actor("a"))
    world.store.failing[read] = 1
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    await until(lambda: not world.store.failing[read])

    assert raised((await hand.turn(1)).new) == []


async def test_a_store_that_fails_in_an_unknown_way_leaves_no_caller_waiting(world: World) -> None:
    await world.start("a")

    def explode(_batch: object) -> None:
        raise OverflowError("int too large to convert")

    world.store.refuse = explode
    waiting = world.event("a", "x")
    done, _ = await asyncio.wait([waiting], timeout=1.0)
    world.store.refuse = lambda batch: None

    assert done, "the caller waits for ever"
    assert waiting.exception() is not None
    assert (await world.event("a", "y")).outcome is DONE


async def test_idle_instances_leave_memory_and_busy_ones_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert IDLE_ACTORS > 100
    monkeypatch.setattr("sidecar.actors.residents.IDLE_ACTORS", 10)
    hand = Hand(turns=3)
    world.dispatch.add_worker(hand.worker)
    for number in range(3):
        await world.start(f"busy{number}")
    await hand.turn(3)
    for number in range(100):
        await world.start(f"idle{number}")
    await world.quiet()
    await world.start("last")

    assert len(world.engine.residents._actors) <= 20
    for item in hand.turns[:3]:
        assert (await world.complete(item)).outcome is DONE
    assert await world.status("idle0") == RUNNING


async def test_a_watcher_hears_of_each_change_and_of_a_failure(world: World) -> None:
    await world.start("a")
    watched = world.engine.watch(at("a"))
    await world.event("a", "x")
    assert watched.done()

    watched = world.engine.watch(at("a"))
    world.store.failing["commit"] = 1
    with pytest.raises(UnavailableError):
        await world.event("a", "y")
    assert watched.done(), "what it waited for may have happened in the commit whose outcome is unknown"


async def test_a_caller_that_gives_up_does_not_take_the_others_with_it(world: World) -> None:
    await world.start("a")
    world.store.gate.clear()
    gone, stays = world.event("a", "gone"), world.event("a", "stays")
    await until(lambda: len(world.store.batches) > 1)
    gone.cancel()
    world.store.gate.set()
    assert (await stays).outcome is DONE
    assert raised(await _events(world, "a")) == ["gone", "stays"]


async def test_suspend_and_resume_show_at_once(world: World) -> None:
    await world.start("a")
    await world.clients.suspend(at("a"), "lunch")
    assert await world.status("a") == SUSPENDED
    await world.clients.resume(at("a"), None)
    assert await world.status("a") != SUSPENDED
    assert await world.status("a") != RUNNING, "no worker has begun it"


async def test_deciding_the_same_reminder_twice_counts_once(world: World) -> None:
    """M38: the timers were read again while a delivery was under way."""
    later = world.clock.wall + 60_000_000
    await world.start("a", scheduled_at=later)
    (reminder,) = await world.store.real.due(later, Position(0, 0), 10)
    world.reminders.deliver(reminder)
    world.reminders.deliver(reminder)
    await world.quiet()
    world.reminders.deliver(reminder)
    await world.quiet()
    assert kinds(await _events(world, "a")) == ["execution_started"]
