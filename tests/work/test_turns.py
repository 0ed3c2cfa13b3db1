"""Turns and activities on their way to workers and back: nothing is lost, nothing counts twice."""

import asyncio
from collections.abc import Sequence

import pytest

from sidecar.actors.residents import Actor
from sidecar.core.model import Changes, Outcome, Row, Turn
from sidecar.core.workflow import turn as turn_rules
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Refusal
from sidecar.work.leases import Overdue
from sidecar.work.turns import TurnLease
from sidecar.work.workers import Filter
from tests.inprocess.world import (
    COMPLETED,
    CONTINUED_AS_NEW,
    DONE,
    MOST,
    STALE,
    SUSPENDED,
    TERMINATED,
    Hand,
    World,
    at,
    call,
    child,
    end,
    kinds,
    raised,
    timer,
    until,
)


async def test_a_turn_waits_until_a_worker_comes(world: World) -> None:
    await world.start("a")
    hand = Hand()
    world.dispatch.add_worker(hand.worker)
    item = await hand.turn(1)
    assert kinds(item.new) == ["orchestrator_started", "execution_started"]
    assert item.past.events == []
    await world.complete(item, end('"out"'))
    view = await world.clients.view(at("a"), payloads=True)
    assert view is not None
    assert (view.instance.status, view.input, view.output) == (COMPLETED, '"in"', '"out"')


async def test_the_turn_of_a_lost_worker_goes_to_another_under_a_new_token(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    world.dispatch.remove_worker(hand.worker)

    second = await other.turn(1)

    assert second.token != first.token
    assert second.new[1:] == first.new[1:]
    assert (await world.complete(second, end())).outcome is DONE
    assert (await world.complete(first, end('"late"'))).outcome is STALE
    instance = await world.clients.view(at("a"), True)
    assert instance is not None
    assert instance.output == '"done"'


@pytest.mark.parametrize("token", ["", "t.nonsense.default", "t.nonsense.hub", "a.1", "x", "t.", "..."])
async def test_an_answer_with_a_foreign_token_changes_nothing(world: World, hand: Hand, token: str) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.batches.clear()
    response = pb.OrchestratorResponse(instance_id="a", actions=[end()], completion_token=token)
    reply = await world.answers.complete_turn("default", "ipv4:stranger", response)
    assert reply.outcome is STALE
    assert world.store.batches == []
    assert (await world.complete(item, end())).outcome is DONE


async def test_without_a_token_the_connection_that_has_the_turn_is_believed(world: World, hand: Hand) -> None:
    await world.start("a")
    await hand.turn(1)
    response = pb.OrchestratorResponse(instance_id="a", actions=[end()])
    assert (await world.answers.complete_turn("default", "ipv4:worker", response)).outcome is DONE
    assert await world.status("a") == COMPLETED
    assert (await world.answers.complete_turn("default", "ipv4:worker", response)).outcome is STALE


async def test_two_identical_completions_in_the_same_moment_have_one_effect(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    replies = await asyncio.gather(world.complete(item, call(1)), world.complete(item, call(1)))
    assert sorted(reply.outcome.value for reply in replies) == ["done", "stale"]
    await world.quiet()
    assert len(hand.activities) == 1


async def test_two_identical_activity_results_in_the_same_moment_have_one_effect(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    item = await hand.activity(1)
    outcomes = {reply.outcome for reply in await asyncio.gather(world.answer(item), world.answer(item))}
    assert DONE in outcomes
    second = await hand.turn(2)
    assert kinds(second.new) == ["orchestrator_started", "task_completed"]
    await world.quiet()
    assert len(hand.turns) == 2
    assert not hand.worker.activities, "the slot is free again"


async def test_a_suspended_instance_takes_no_answer_for_the_turn_that_was_out(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    await world.clients.suspend(at("a"), None)
    assert (await world.complete(item, end())).outcome is STALE
    assert await world.status("a") == SUSPENDED
    await world.quiet()
    assert len(hand.turns) == 1

    await world.clients.resume(at("a"), None)
    again = await hand.turn(2)
    assert kinds(again.new)[1:] == ["execution_started", "execution_suspended", "execution_resumed"]
    assert (await world.complete(again, end())).outcome is DONE


async def test_a_terminate_lets_the_first_turn_be_answered_that_a_worker_has(world: World, hand: Hand) -> None:
    """E.15: right after a start it does not overtake it, so what that turn has called is there to be ended too."""
    await world.start("a")
    item = await hand.turn(1)
    ending = asyncio.ensure_future(world.clients.terminate(at("a"), None, True))
    await world.quiet()
    assert not ending.done()
    assert (await world.complete(item, child(1, "kid"))).outcome is DONE
    assert (await ending).outcome is DONE
    assert await world.status("a") == TERMINATED
    await world.quiet()
    assert await world.status("kid") == TERMINATED


@pytest.mark.parametrize("worker", ["none", "slow", "gone"])
async def test_a_terminate_needs_no_worker(world: World, hand: Hand, worker: str) -> None:
    if worker == "none":
        world.dispatch.remove_worker(hand.worker)
    await world.start("a")
    if worker != "none":
        await hand.turn(1)
    ending = asyncio.ensure_future(world.clients.terminate(at("a"), None, False))
    if worker == "gone":
        await world.quiet()
        world.dispatch.remove_worker(hand.worker, farewell=True)
    assert (await ending).outcome is DONE
    assert await world.status("a") == TERMINATED


async def test_a_terminated_instance_takes_no_answer_for_the_turn_that_was_out(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1))
    await world.event("a", "go")
    item = await hand.turn(2)
    await world.clients.terminate(at("a"), '"why"', False)
    assert (await world.complete(item, end())).outcome is STALE
    assert await world.status("a") == TERMINATED
    assert not hand.worker.turns


@pytest.mark.parametrize("last", ["goes on", "ends"])
async def test_an_answer_in_the_same_moment_as_a_terminate_does_not_undo_it(
    world: World, hand: Hand, last: str
) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1))
    await world.event("a", "go")
    item = await hand.turn(2)
    actions = [end()] if last == "ends" else [call(1)]
    replies = await asyncio.gather(world.clients.terminate(at("a"), None, False), world.complete(item, *actions))
    assert await world.status("a") == TERMINATED
    assert [reply.outcome for reply in replies] == [DONE, STALE]
    await world.quiet()
    assert hand.activities == []


async def test_an_answer_in_the_same_moment_as_a_suspend_does_not_undo_it(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    replies = await asyncio.gather(world.clients.suspend(at("a"), None), world.complete(item, call(1)))
    assert await world.status("a") == SUSPENDED
    assert [reply.outcome for reply in replies] == [DONE, STALE]


async def test_an_answer_for_an_execution_that_is_replaced_in_the_same_moment_is_stale(
    world: World, hand: Hand
) -> None:
    await world.start("a", name="old")
    item = await hand.turn(1)
    replies = await asyncio.gather(
        world.start("a", name="new", replaceable=frozenset({0, 6})), world.complete(item, end())
    )
    assert [reply.outcome for reply in replies] == [DONE, STALE]
    fresh = await hand.turn(2)
    assert pb.HistoryEvent.FromString(fresh.new[1]).execution_started.name == "new"
    assert (await world.complete(fresh, end())).outcome is DONE


def refusing_once(world: World, refusal: Refusal) -> None:
    """The store refuses the next batch with the answer of a worker in it, as when what it assumed has moved."""

    def refuse(batch: Sequence[Changes]) -> list[Refusal | None] | None:
        if not any(one.instance is not None and one.instance.last_completed_turn for one in batch):
            return None
        world.store.refuse = lambda batch: None
        return [refusal for _ in batch]

    world.store.refuse = refuse


async def test_an_answer_that_meets_a_conflict_is_decided_anew(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    refusing_once(world, Refusal.CONFLICT)
    assert (await world.complete(item, call(0))).outcome is DONE
    await world.answer(await hand.activity(1))
    again = await hand.turn(2)
    assert kinds(again.new) == ["orchestrator_started", "task_completed"], "the first turn is not replayed"
    assert [kinds(past) for past in hand.past_seen] == [
        [],
        ["orchestrator_started", "execution_started", "task_scheduled"],
    ]


async def test_an_answer_that_meets_a_conflict_does_not_swallow_what_arrived_meanwhile(
    world: World, hand: Hand
) -> None:
    await world.start("a")
    item = await hand.turn(1)
    await world.event("a", "early")
    refusing_once(world, Refusal.CONFLICT)
    completing = asyncio.create_task(world.complete(item))
    event = world.event("a", "late")
    assert (await completing).outcome is DONE
    await event
    assert raised((await hand.turn(2)).new) == ["early", "late"]


async def test_what_is_committed_together_with_an_answer_is_not_taken_for_seen(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.gate.clear()
    first = world.event("a", "first")
    await asyncio.sleep(0.01)
    completing = asyncio.create_task(world.complete(item, timer(0, world.clock.wall + 10**9)))
    await asyncio.sleep(0.01)
    late = world.event("a", "late")
    await asyncio.sleep(0.01)
    world.store.gate.set()
    assert [(await done).outcome for done in (first, completing, late)] == [DONE] * 3
    assert len(world.store.batches[-1]) == 2
    assert raised((await hand.turn(2)).new) == ["first", "late"]
    assert kinds(hand.past_seen[1]) == ["orchestrator_started", "execution_started", "timer_created"]


async def test_an_answer_whose_commit_failed_is_decided_anew(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.failing["commit"] = 1
    assert (await world.complete(item, end())).outcome is DONE
    await world.quiet()
    assert (await world.status("a"), len(hand.turns)) == (COMPLETED, 1)


async def test_nobody_else_gets_a_turn_whose_answer_waits_for_the_store(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.gate.clear()
    completing = asyncio.create_task(world.complete(item, call(0)))
    await until(lambda: not world.dispatch.turns.out)
    world.dispatch.remove_worker(hand.worker)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    await world.dispatch.refill()
    await asyncio.sleep(0.02)
    assert not other.turns
    assert not other.worker.turns, "it has its slot back"
    world.store.gate.set()
    assert (await completing).outcome is DONE
    await world.answer(await other.activity(1), peer="ipv4:other")
    await other.turn(1)
    assert kinds(other.past_seen[0]) == ["orchestrator_started", "execution_started", "task_scheduled"]


async def test_an_answer_counts_though_its_worker_is_gone_before_it_is_stored(world: World, hand: Hand) -> None:
    await world.start("a")
    item = await hand.turn(1)
    world.store.gate.clear()
    completing = asyncio.create_task(world.complete(item, end()))
    await until(lambda: not world.dispatch.turns.out)
    completing.cancel()
    world.dispatch.remove_worker(hand.worker)
    world.store.gate.set()
    await world.quiet()
    assert await world.status("a") == COMPLETED
    assert world.actor("a").lease is None


async def test_a_turn_that_takes_too_long_is_handed_out_again(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    world.clock.steady += 119.0
    await asyncio.sleep(0.02)
    assert len(hand.turns) == 1
    world.clock.steady += 2.0
    second = await hand.turn(2)
    assert (await world.complete(second, end())).outcome is DONE
    assert (await world.complete(first, end())).outcome is STALE


async def test_a_turn_that_is_answered_late_counts_while_nothing_contradicts_it(world: World, hand: Hand) -> None:
    """Else a turn that takes longer than the time-out would be handed out for ever."""
    await world.start("a")
    first = await hand.turn(1)
    world.clock.steady += 121.0
    second = await hand.turn(2)
    await world.event("a", "meanwhile")
    assert (await world.complete(first, call(1))).outcome is DONE
    third = await hand.turn(3)
    assert raised(third.new) == ["meanwhile"]
    assert (await world.complete(second, call(7))).outcome is STALE, "the other delivery of it counts no more"
    await world.complete(third, end())
    assert await world.status("a") == COMPLETED
    assert len(hand.activities) == 1


async def test_a_late_answer_counts_though_its_instance_has_left_memory(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    world.clock.steady += 121.0
    await hand.turn(2)
    world.engine.drop(world.actor("a"))
    assert (await world.complete(first, call(1))).outcome is DONE
    await hand.activity(1)


@pytest.mark.parametrize("what", ["terminated", "suspended", "answered"])
async def test_a_late_answer_that_something_contradicts_changes_nothing(world: World, hand: Hand, what: str) -> None:
    await world.start("a")
    first = await hand.turn(1)
    world.clock.steady += 121.0
    second = await hand.turn(2)
    if what == "terminated":
        await world.clients.terminate(at("a"), None, False)
    elif what == "suspended":
        await world.clients.suspend(at("a"), None)
    else:
        await world.complete(second, call(1))
    before = await world.status("a")
    assert (await world.complete(first, end())).outcome is STALE
    assert await world.status("a") == before


async def two_that_have_a_turn(world: World) -> tuple[Hand, Hand]:
    """One that takes too long with it, and one that has it since; they take one turn at a time."""
    slow, other = Hand("slow", turns=1), Hand("other", turns=1)
    world.dispatch.add_worker(slow.worker)
    await world.start("a")
    await slow.turn(1)
    slow.worker.max_turns = 0
    world.dispatch.add_worker(other.worker)
    world.clock.steady += 121.0
    await other.turn(1)
    return slow, other


async def test_a_late_answer_frees_the_worker_that_has_the_turn_by_now(world: World) -> None:
    slow, other = await two_that_have_a_turn(world)
    assert (await world.complete(slow.turns[0], end())).outcome is DONE
    await world.start("b")
    assert (await world.complete(await other.turn(2), end())).outcome is DONE


async def test_a_late_answer_counts_not_while_another_is_being_stored(world: World) -> None:
    slow, other = await two_that_have_a_turn(world)
    turns = world.dispatch.turns
    lease = turns.lease_of(world.actor("a"))
    assert lease is not None
    turns.claim(lease)
    assert await turns.taken_up(slow.turns[0].token) is None
    turns.settle(lease)
    assert (await world.complete(await other.turn(2), end())).outcome is DONE


async def test_a_turn_that_always_takes_too_long_stalls_until_it_is_answered(world: World, hand: Hand) -> None:
    await world.start("a")
    for number in range(1, 3 * MOST + 1):
        first = await hand.turn(number)
        world.clock.steady += 121.0
    last = await hand.turn(3 * MOST + 1)
    await world.quiet()
    instance = await world.clients.instance(at("a"))
    assert instance is not None
    assert instance.stall is not None
    assert f"{3 * MOST} times" in pb.ExecutionStalled.FromString(instance.stall).description
    assert (await world.complete(first, end())).outcome is DONE
    assert (await world.status("a"), (await world.complete(last, end())).outcome) == (COMPLETED, STALE)


async def test_what_arrives_while_a_turn_is_out_belongs_to_the_next(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    await world.event("a", "meanwhile")
    await world.quiet()
    assert len(hand.turns) == 1
    await world.complete(first)
    second = await hand.turn(2)
    assert raised(first.new) == []
    assert raised(second.past.events) == []
    assert raised(second.new) == ["meanwhile"]


async def test_a_lost_turn_comes_again_with_what_arrived_meanwhile(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    await world.event("a", "one")
    world.answers.abandon_turn(first.token)
    world.clock.steady += 1.1
    second = await hand.turn(2)
    await world.event("a", "two")
    await world.complete(second, call(1))
    third = await hand.turn(3)
    assert raised(second.new) == ["one"]
    assert raised(third.new) == ["two"]
    assert hand.past_seen[2][: len(second.new)] == second.new


async def test_what_a_worker_has_seen_is_the_beginning_of_what_it_is_sent_later(world: World, hand: Hand) -> None:
    """With the instance dropped from memory at every second turn, and arrivals between hand-out and answer."""
    await world.start("a")
    seen: list[bytes] = []
    for number in range(1, 12):
        await world.quiet()
        item, past = hand.turns[-1], hand.past_seen[-1]
        assert past[: len(seen)] == seen
        assert item.new, "there is something to do in each turn"
        seen = past + item.new
        if number % 3 == 0:
            await world.event("a", f"during {number}")
        done = await world.complete(item, call(number), timer(100 + number, world.clock.wall + 10**9))
        assert done.outcome is DONE
        await world.answer(await hand.activity(number))
        if number % 2:
            await world.quiet()
            world.engine.drop(world.actor("a"))
            world.engine.wake(world.actor("a"))


async def test_a_dropped_instance_is_sent_as_it_was_before(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1), call(2))
    await world.answer(await hand.activity(1))
    item = await hand.turn(2)
    past, new = hand.past_seen[1], list(item.new)
    world.engine.drop(world.actor("a"))
    world.engine.wake(world.actor("a"))
    again = await hand.turn(3)
    assert hand.past_seen[2] == past
    assert again.new[1:] == new[1:]


async def test_a_thousand_results_that_arrive_together_are_few_turns(world: World, hand: Hand) -> None:
    hand.worker.max_activities = 1_000
    await world.start("a")
    await world.complete(await hand.turn(1), *(call(task) for task in range(1_000)))
    await hand.activity(1_000)
    answers = asyncio.gather(*(world.answer(item) for item in hand.activities))
    number = 2
    results = 0
    while results < 1_000:
        item = await hand.turn(number)
        results += kinds(item.new).count("task_completed")
        await world.complete(item, *([end()] if results == 1_000 else []))
        number += 1
    await answers
    assert await world.status("a") == COMPLETED
    assert number - 2 <= 12


async def test_continue_as_new_begins_with_an_empty_past_and_keeps_waiting_events(world: World, hand: Hand) -> None:
    await world.start("a")
    first = await hand.turn(1)
    await world.event("a", "kept")
    await world.complete(first, end('"again"', CONTINUED_AS_NEW))
    second = await hand.turn(2)
    assert hand.past_seen[1] == []
    assert kinds(second.new) == ["orchestrator_started", "execution_started", "event_raised"]
    assert second.execution != first.execution
    assert (await world.complete(first, end())).outcome is STALE


async def test_an_activity_goes_back_to_the_queue_when_its_worker_is_gone(world: World, hand: Hand) -> None:
    await world.start("a")
    await world.complete(await hand.turn(1), call(1))
    lost = await hand.activity(1)
    other = Hand("other")
    world.dispatch.add_worker(other.worker)
    world.dispatch.remove_worker(hand.worker)
    again = await other.activity(1)
    assert again.request == lost.request
    assert (await world.answer(lost)).outcome is DONE, "the first answer counts, whoever gives it"
    assert (await world.answer(again)).outcome is STALE
    assert kinds((await other.turn(1)).new) == ["orchestrator_started", "task_completed"]
    assert not other.worker.activities


async def test_the_answer_to_an_activity_whose_workflow_has_gone_is_taken_quietly(world: World, hand: Hand) -> None:
    """SDKs try again on, or log, anything but OK."""
    await world.start("a")
    await world.complete(await hand.turn(1), call(1), end())
    item = await hand.activity(1)
    await world.purge(at("a"), recursive=False, force=False)
    reply = await world.answer(item)
    assert reply.outcome in (DONE, STALE, Outcome.DUPLICATE)
    assert not hand.worker.activities


async def test_terminate_takes_back_activities_that_wait(world: World, hand: Hand) -> None:
    hand.worker.max_activities = 1
    await world.start("a")
    await world.complete(await hand.turn(1), call(1), call(2))
    await hand.activity(1)
    await world.clients.terminate(at("a"), None, False)
    await world.quiet()
    assert len(hand.activities) == 1
    assert not hand.worker.activities
    assert len(world.dispatch.pool.activities) == 0


async def test_a_large_turn_goes_to_the_worker_that_can_receive_it(world: World) -> None:
    small, large = Hand("small", max_bytes=1_000, turns=200), Hand("large", turns=100)
    world.dispatch.add_worker(small.worker)
    world.dispatch.add_worker(large.worker)
    await world.start("a", data="x" * 5_000)
    world.engine.drop(world.actor("a"))
    world.engine.wake(world.actor("a"))
    assert kinds((await large.turn(1)).new) == ["orchestrator_started", "execution_started"]


async def test_a_large_turn_does_not_stand_in_the_way_of_the_next_instance_of_its_id(world: World) -> None:
    small = Hand("small", max_bytes=1_000)
    await world.start("a", data="x" * 5_000)
    world.dispatch.add_worker(small.worker)
    await until(lambda: any(group.size > 1_000 for group in world.dispatch.pool.turns.groups()))
    await world.purge(at("a"), recursive=False, force=True)
    await world.start("a")
    assert raised((await small.turn(1)).new) == []


async def test_an_activity_with_a_version_reaches_the_worker_of_that_version(world: World, hand: Hand) -> None:
    hand.worker.activity_filter = Filter({"work": frozenset({"2.0"})})
    await world.start("a")
    await world.complete(await hand.turn(1), call(1, "work", version="2.0"))
    await hand.activity(1)


def test_what_is_kept_for_late_answers_is_bounded_in_bytes() -> None:
    overdue: Overdue[TurnLease] = Overdue()
    worker = Hand().worker
    for number in range(100):
        row = Row(1, 2, b"x" * 1_000_000)
        turn = Turn(1, "e", 1, f"t.{number}", b"", 0, (row,))
        overdue.keep(TurnLease(Actor(at("a")), worker, turn=turn))
    kept = [number for number in range(100) if overdue.get(f"t.{number}.default") is not None]
    assert kept == list(range(67, 100))
    for number in kept:
        overdue.pop(f"t.{number}.default")
    assert overdue._bytes == 0


async def test_an_instance_that_continues_as_new_for_ever_keeps_no_more_rows_than_a_number(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each execution has a child and sends a message."""
    monkeypatch.setattr(turn_rules, "_KEPT_TURNS", 10)
    send = pb.Action(id=2, send_event=pb.SendEvent(instance=pb.WorkflowInstance(instance_id="nobody"), name="e"))
    await world.start("a")
    taken = 0
    number = 0
    while number < 60:
        await until(lambda taken=taken: len(hand.turns) > taken)
        item = hand.turns[taken]
        taken += 1
        if item.instance_id != "a":
            await world.complete(item, end())
        elif "execution_started" in kinds(item.new):
            number += 1
            await world.complete(item, child(1, f"kid{number}"), send)
        else:
            await world.complete(item, end('"again"', CONTINUED_AS_NEW))
    await world.quiet()
    stored = await world.store.real.load("default", "a")
    assert stored is not None
    assert len(await world.store.real.children(stored.instance.key)) <= 11
    assert len(stored.open) <= 2
