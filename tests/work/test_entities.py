"""Entities in a running engine (E.10): who gets which batch, and what a crash, a late answer or a slow worker does."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sidecar.core.entity import entity
from sidecar.core.model import Changes, Lock, Outcome
from sidecar.peers.outbox import Outbox
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.entities import Query
from sidecar.services.inspection import Inspection
from sidecar.work.workers import Filter
from tests.inprocess.world import (
    DONE,
    MOST,
    STALE,
    START,
    Hand,
    World,
    at,
    call_entity,
    end,
    kinds,
    lock,
    operations,
    unlock,
    until,
)
from tests.store.builders import entity as stored

C = "@counter@a"
EVER = (0, 1 << 62)


@pytest.fixture
async def hand(world: World) -> Hand:
    hand = Hand(max_entities=100)
    world.dispatch.add_worker(hand.worker)
    return hand


def everything(prefix: str = "@", page_size: int = 100, **more: object) -> Query:
    fields: dict[str, object] = {"after": "", "changed": EVER, "states": False, "transient": False}
    return Query(prefix=prefix, page_size=page_size, **fields | more)  # type: ignore[arg-type]


# ---------------------------------------------------------------- batches


async def test_one_batch_at_a_time_and_the_next_has_what_came_meanwhile(world: World, hand: Hand) -> None:
    """E.10: one batch in flight per entity."""
    await world.signal(C, "1")
    first = await hand.batch(1)
    await asyncio.gather(world.signal(C, "2"), world.signal(C, "3"))
    await world.quiet()
    assert (operations(first), first.state, len(hand.batches)) == (["1"], None, 1)
    assert (await world.ran(first, "state 1")).outcome is DONE
    second = await hand.batch(2)
    assert (operations(second), second.state) == (["2", "3"], "state 1")
    await world.ran(second, None)
    await world.signal(C, "4")
    assert (await hand.batch(3)).state is None


async def test_entities_do_not_wait_for_each_other(world: World, hand: Hand) -> None:
    await world.signal(C, "1")
    await world.signal("@counter@b", "1")
    assert {(await hand.batch(number)).entity_id for number in (1, 2)} == {C, "@counter@b"}


async def test_operations_that_were_not_run_come_again_before_later_ones(world: World, hand: Hand) -> None:
    for name in ("0", "1", "2", "3"):
        await world.signal(C, name)
    await world.ran(await hand.batch(1))
    second = await hand.batch(2)
    assert operations(second) == ["1", "2", "3"]
    await world.signal(C, "4")
    await world.ran(second, results=1)
    assert operations(await hand.batch(3)) == ["2", "3", "4"]


async def test_an_answer_counts_once(world: World, hand: Hand) -> None:
    await world.signal(C, "1")
    item = await hand.batch(1)
    outcomes = [reply.outcome for reply in await asyncio.gather(world.ran(item), world.ran(item, "other"))]
    assert outcomes == [DONE, STALE]
    row = await world.entities.get(at(C), state=True)
    assert row is not None
    assert (row.state, row.backlog) == ("1", 0)


async def test_a_batch_of_a_worker_that_leaves_goes_to_another_and_its_answer_is_void(world: World) -> None:
    first, second = Hand("first", max_entities=1), Hand("second", max_entities=1)
    world.dispatch.add_worker(first.worker)
    await world.signal(C, "1")
    lost = await first.batch(1)
    world.dispatch.remove_worker(first.worker)
    world.dispatch.add_worker(second.worker)
    again = await second.batch(1)
    assert operations(again) == ["1"]
    assert (await world.ran(lost)).outcome is STALE
    assert (await world.ran(again)).outcome is DONE


async def test_operations_may_take_as_long_as_they_want(world: World, hand: Hand) -> None:
    """Else an operation that takes longer than some limit runs twice at once, again and again."""
    await world.signal(C, "1")
    slow = await hand.batch(1)
    world.clock.steady += 100_000
    await world.quiet()
    assert len(hand.batches) == 1
    assert (await world.ran(slow)).outcome is DONE


async def test_a_batch_that_takes_longer_than_the_operator_lets_it_comes_again_one_by_one(tmp_path: Path) -> None:
    """Else a batch that is too large for the time it may take would never end."""
    world, hand = await World.open(tmp_path, entity_timeout=120.0), Hand(max_entities=100)
    world.run()
    world.dispatch.add_worker(hand.worker)
    await world.signal(C, "0")
    block = await hand.batch(1)
    for name in ("1", "2"):
        await world.signal(C, name)
    await world.ran(block)
    slow = await hand.batch(2)
    assert operations(slow) == ["1", "2"]
    world.clock.steady += 121
    one = await hand.batch(3)
    assert operations(one) == ["1"]
    await world.ran(one)
    assert operations(await hand.batch(4)) == ["2"]
    assert (await world.ran(slow)).outcome is STALE, "what it has run is done"
    await world.close()


async def test_a_batch_that_takes_longer_counts_while_nothing_of_it_is_done(tmp_path: Path) -> None:
    world, hand = await World.open(tmp_path, entity_timeout=120.0), Hand(max_entities=100)
    world.run()
    world.dispatch.add_worker(hand.worker)
    await world.signal(C, "1")
    slow = await hand.batch(1)
    world.clock.steady += 121
    again = await hand.batch(2)
    assert (await world.ran(slow)).outcome is DONE
    assert (await world.ran(again)).outcome is STALE
    await world.signal(C, "2")
    assert operations(await hand.batch(3)) == ["2"]
    await world.close()


async def test_operations_that_always_take_too_long_are_parked_and_say_so(tmp_path: Path) -> None:
    world, hand = await World.open(tmp_path, entity_timeout=120.0), Hand(max_entities=100)
    world.run()
    world.dispatch.add_worker(hand.worker)
    await world.signal(C, "1")
    for number in range(1, 3 * MOST + 1):
        await hand.batch(number)
        world.clock.steady += 121
    await until(lambda: world.actor(C).state and world.actor(C).state.instance.crashes.quarantined)
    await world.close()


@pytest.mark.parametrize("how", ["abandoned", "nothing run"])
async def test_what_a_worker_gives_back_comes_to_it_again_after_a_pause(world: World, hand: Hand, how: str) -> None:
    await world.signal(C, "1")
    item = await hand.batch(1)
    if how == "abandoned":
        world.answers.abandon_batch(item.token)
    else:
        assert (await world.ran(item, None, 0)).outcome is STALE
    await world.quiet()
    assert len(hand.batches) == 1
    world.clock.steady += 1.1
    assert operations(await hand.batch(2)) == ["1"]
    world.answers.abandon_batch("e.nobody")
    world.answers.abandon_batch(item.token)
    await world.quiet()
    assert len(hand.batches) == 2


async def test_an_answer_whose_commit_failed_is_decided_anew(world: World, hand: Hand) -> None:
    await world.signal(C, "1")
    item = await hand.batch(1)
    world.store.failing["commit"] = 1
    assert (await world.ran(item, "kept")).outcome is Outcome.DONE
    await world.signal(C, "2")
    again = await hand.batch(2)
    assert (operations(again), again.state) == (["2"], "kept")


async def test_a_commit_whose_answer_is_lost_is_not_run_again(world: World, hand: Hand) -> None:
    await world.signal(C, "1")
    item = await hand.batch(1)
    world.store.lost = 1
    assert (await world.ran(item, "kept")).outcome is Outcome.STALE
    await world.signal(C, "2")
    again = await hand.batch(2)
    assert (operations(again), again.state) == (["2"], "kept")


async def test_an_answer_that_was_stored_unheard_does_not_answer_what_came_into_its_place(
    world: World, hand: Hand
) -> None:
    await world.signal(C, "1")
    item = await hand.batch(1)
    world.store.lost = 1
    running = asyncio.create_task(world.ran(item, "kept"))
    await until(lambda: not world.store.lost)
    await world.signal(C, "2")
    assert (await running).outcome is Outcome.STALE
    again = await hand.batch(2)
    assert (operations(again), again.state) == (["2"], "kept")


async def test_everything_is_there_after_a_crash(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    hand = Hand(max_entities=1)
    world.dispatch.add_worker(hand.worker)
    await world.signal(C, "1")
    await world.ran(await hand.batch(1), "before")
    await world.signal(C, "2")
    out = await hand.batch(2)
    await world.signal("@counter@b", "waits")
    await world.signal("@counter@c", "later", START + 5_000_000)
    await world.close()

    world = await World.open(tmp_path, world.clock)
    world.run()
    await world.dispatch.refill()
    hand = Hand(max_entities=100)
    world.dispatch.add_worker(hand.worker)
    found = {(await hand.batch(number)).entity_id: await hand.batch(number) for number in (1, 2)}
    assert {id_: (operations(item), item.state) for id_, item in found.items()} == {
        C: (["2"], "before"),
        "@counter@b": (["waits"], None),
    }
    assert (await world.ran(out)).outcome is STALE
    world.clock.wall += 5_000_001
    assert (await hand.batch(3)).entity_id == "@counter@c"
    await world.close()


# ---------------------------------------------------------------- who takes what


async def test_a_worker_gets_no_more_than_it_takes_and_none_if_it_takes_none(world: World) -> None:
    """f3 is honoured; a worker that does not say that it takes entities never gets one."""
    plain, small = Hand("plain"), Hand("small", max_entities=1)
    world.dispatch.add_worker(plain.worker)
    for key in ("a", "b"):
        await world.signal(f"@counter@{key}", "1")
    await world.quiet()
    world.dispatch.add_worker(small.worker)
    await world.ran(await small.batch(1))
    await small.batch(2)
    await world.quiet()
    assert (len(plain.batches), len(small.batches)) == (0, 2)


async def test_a_worker_gets_only_entities_that_it_names(world: World) -> None:
    hand = Hand(max_entities=100, entity_filter=Filter({"counter": frozenset()}))
    world.dispatch.add_worker(hand.worker)
    await world.signal("@other@a", "1")
    await world.signal(C, "1")
    assert (await hand.batch(1)).entity_id == C
    await world.quiet()
    assert len(hand.batches) == 1


async def test_a_state_that_a_worker_cannot_receive_waits_for_one_that_can(world: World) -> None:
    small, large = Hand("small", max_entities=1, max_bytes=1_000), Hand("large", max_entities=1)
    world.dispatch.add_worker(small.worker)
    await world.signal(C, "1")
    await world.ran(await small.batch(1), "x" * 2_000)
    await world.signal(C, "2")
    await world.quiet()
    assert len(small.batches) == 1
    world.dispatch.add_worker(large.worker)
    assert operations(await large.batch(1)) == ["2"]


async def test_a_call_of_an_entity_that_is_too_large_for_its_workers_fails_and_says_so(world: World) -> None:
    """Signals wait for a worker that can receive them: nobody would learn that they are gone."""
    small = Hand("small", max_entities=1, max_bytes=1_000)
    world.dispatch.add_worker(small.worker)
    await world.signal(C, "1")
    await world.ran(await small.batch(1), "x" * 2_000)
    await world.signal(C, "2")
    await world.start("w")
    await world.complete(await small.turn(1), call_entity(1, C))
    await world.quiet()
    world.clock.steady += 2
    turn = await small.turn(2)
    failure = pb.HistoryEvent.FromString(turn.new[1]).entity_failed.failure
    assert failure.error_type == "PayloadSizeExceeded"
    assert (C in failure.error_message, "at most 1000 bytes" in failure.error_message) == (True, True)
    assert len(small.batches) == 1
    large = Hand("large", max_entities=1)
    world.dispatch.add_worker(large.worker)
    assert operations(await large.batch(1)) == ["2"]


async def test_a_call_waits_while_a_worker_that_can_receive_it_is_busy(world: World) -> None:
    small, large = Hand("small", max_entities=1, max_bytes=1_000), Hand("large", turns=0, max_entities=1)
    world.dispatch.add_worker(small.worker)
    await world.signal(C, "1")
    await world.ran(await small.batch(1), "x" * 2_000)
    world.dispatch.add_worker(large.worker)
    await world.signal("@counter@b", "1")
    await world.signal("@counter@c", "1")
    await until(lambda: len(small.batches) + len(large.batches) == 3)
    await world.start("w")
    await world.complete(await small.turn(1), call_entity(1, C))
    await world.quiet()
    assert len(small.turns) == 1
    await world.ran(await large.batch(1))
    assert operations(await large.batch(2)) == ["get"]


async def test_a_purge_of_an_entity_ends_all_that_it_has(world: World, hand: Hand) -> None:
    await world.start("w")
    await world.complete(await hand.turn(1), call_entity(1, C), lock(2, C))
    out = await hand.batch(1)
    assert (await world.entities.purge(at(C))).outcome is DONE
    turn = await hand.turn(2)
    assert sorted(kinds(turn.new)[1:]) == ["entity_failed", "entity_lock_granted"]
    assert (await world.ran(out, "late")).outcome is STALE
    await world.complete(turn, call_entity(3, C), unlock(4, 2, C))
    again = await hand.batch(2)
    assert (operations(again), again.state) == (["get"], None)
    assert (await world.entities.purge(at("@counter@nobody"))).outcome is Outcome.MISSING


async def test_a_batch_has_only_what_its_worker_can_receive(world: World) -> None:
    hand = Hand(max_entities=1, max_bytes=1_000)
    world.dispatch.add_worker(hand.worker)
    await world.signal(C, "0")
    first = await hand.batch(1)
    for name in "abc":
        await world.signal(C, name * 400)
    await world.ran(first, "x" * 100)
    assert [name[0] for name in operations(await hand.batch(2))] == ["a", "b"]


# ---------------------------------------------------------------- workflows


async def test_a_workflow_calls_and_gets_its_answer(world: World, hand: Hand) -> None:
    await world.start("w")
    await world.complete(await hand.turn(1), call_entity(1, C, "get"))
    await world.ran(await hand.batch(1))
    turn = await hand.turn(2)
    assert kinds(turn.past.events)[-1] == "entity_called"
    assert kinds(turn.new) == ["orchestrator_started", "entity_completed"]
    assert pb.HistoryEvent.FromString(turn.new[1]).entity_completed.output.value == "get"
    await world.complete(turn, end())
    assert await world.status("w") == 1


async def test_a_person_sees_that_a_workflow_waits_for_an_entity(world: World, hand: Hand) -> None:
    await world.start("w")
    await world.complete(await hand.turn(1), call_entity(1, C), lock(2, "@counter@b"))
    await world.quiet()
    router = cast(Outbox, SimpleNamespace(queues={}))
    branch = await Inspection(world.clients, world.dispatch, router).branch(at("w"))
    assert branch is not None
    assert [(one.kind, one.name, one.state) for one in branch.waits[:1]] == [("entity", C, "queued")]


async def test_locks_of_two_entities_go_from_one_workflow_to_the_next(world: World, hand: Hand) -> None:
    both = ("@counter@a", "@counter@b")
    await world.start("v")
    await world.complete(await hand.turn(1), lock(1, *both))
    holds = await hand.turn(2)
    assert kinds(holds.new)[1:] == ["entity_lock_granted"]
    await world.start("w")
    await world.complete(await hand.turn(3), lock(1, *reversed(both)))
    await world.quiet()
    assert len(hand.turns) == 3
    await world.complete(holds, unlock(2, 1, both[0]), unlock(3, 1, both[1]), end())
    granted = await hand.turn(4)
    assert (granted.instance_id, kinds(granted.new)[1:]) == ("w", ["entity_lock_granted"])


@pytest.mark.parametrize("when", ["held", "waiting"])
async def test_a_workflow_that_is_terminated_lets_go(world: World, hand: Hand, when: str) -> None:
    await world.start("v")
    await world.complete(await hand.turn(1), lock(1, C))
    await hand.turn(2)
    await world.start("w")
    await world.complete(await hand.turn(3), lock(1, C))
    await world.quiet()
    await world.clients.terminate(at("v" if when == "held" else "w"), None, recurse=False)
    if when == "held":
        assert (await hand.turn(4)).instance_id == "w"
        return
    await world.complete(hand.turns[1], unlock(2, 1, C), end())
    await until(lambda: not world.store.real._waiting)
    await world.quiet()
    state = world.actor(C).state
    assert state is not None
    assert state.instance.lock is None


async def test_an_entity_starts_a_workflow(world: World, hand: Hand) -> None:
    await world.signal(C, "go")
    start = pb.OperationAction(start_workflow=pb.StartWorkflow(instance_id="started", name="flow"))
    await world.ran(await hand.batch(1), actions=[start])
    assert (await hand.turn(1)).instance_id == "started"


# ---------------------------------------------------------------- clients


async def test_an_entity_without_a_state_is_not_there_for_clients(world: World, hand: Hand) -> None:
    assert await world.entities.get(at(C), state=False) is None
    await world.signal(C, "1")
    assert await world.entities.get(at(C), state=False) is None
    await world.ran(await hand.batch(1))
    await world.signal("@counter@ab", "1")
    row = await world.entities.get(at(C), state=False)
    assert row is not None
    assert (row.id, row.state) == (C, None)


async def fill(world: World, count: int, state: str = "1") -> None:
    rows = [Changes(key=key, instance=stored(key, f"@n@{key:04}"), output=state) for key in range(1, count + 1)]
    assert set(await world.store.commit(rows)) == {None}


async def all_pages(world: World, query: Query) -> list[list[str]]:
    pages, after = [], ""
    while True:
        rows, following = await world.entities.query("default", Query(**{**_fields(query), "after": after}))
        pages.append([row.id for row in rows])
        if following is None:
            return pages
        assert following > after, "a page token never comes twice"
        after = following


def _fields(query: Query) -> dict[str, object]:
    return {name: getattr(query, name) for name in query.__slots__}


async def test_pages_are_as_large_as_asked_for_and_the_last_has_no_token(world: World) -> None:
    await fill(world, 7)
    assert [len(page) for page in await all_pages(world, everything(page_size=3))] == [3, 3, 1]
    assert [len(page) for page in await all_pages(world, everything(page_size=7))] == [7]
    assert [len(page) for page in await all_pages(world, everything("@n@0003"))] == [1]


async def test_a_page_of_large_states_is_cut_and_none_is_left_out(world: World) -> None:
    await fill(world, 30, "x" * 200_000)
    pages = await all_pages(world, everything(states=True))
    assert [len(page) for page in pages] == [6, 6, 6, 6, 6]
    assert [id_ for page in pages for id_ in page] == [f"@n@{key:04}" for key in range(1, 31)]


async def test_a_query_that_finds_little_among_many_lets_others_in_between(world: World) -> None:
    await fill(world, 4_500)
    pages = await all_pages(world, everything(changed=(200, 300)))
    assert pages == [[], [], []]
    assert sum(map(len, await all_pages(world, everything(changed=(100, 101), page_size=1_000)))) == 4_500


async def test_cleaning_goes_through_all_in_steps(world: World) -> None:
    rows = [Changes(key=key, instance=stored(key, f"@n@{key:04}")) for key in range(1, 251)]
    await world.store.commit(rows)
    counts, after = [], ""
    while True:
        removed, released, following = await world.entities.clean("default", after, empty=True, orphans=True)
        counts.append((removed, released))
        if following is None:
            break
        after = following
    assert counts == [(100, 0), (100, 0), (50, 0)]
    assert (await world.entities.query("default", everything(transient=True)))[0] == []


async def test_only_locks_of_executions_that_have_ended_are_released(world: World, hand: Hand) -> None:
    await world.start("v")
    await world.complete(await hand.turn(1), lock(1, C))
    await hand.turn(2)
    running = world.actor("v").state
    assert running is not None
    orphans = [Lock("nobody", "x", "s"), Lock("v", "an earlier execution", "s"), Lock("ended", "e", "s")]
    await world.start("ended")
    await world.clients.terminate(at("ended"), None, recurse=False)
    rows = [Changes(key=50 + n, instance=stored(50 + n, f"@n@{n}", lock=lock_)) for n, lock_ in enumerate(orphans)]
    await world.store.commit(rows)
    assert await world.entities.clean("default", "", empty=True, orphans=False) == (0, 0, None)
    assert await world.entities.clean("default", "", empty=True, orphans=True) == (0, 3, None)
    assert await world.entities.clean("default", "", empty=True, orphans=True) == (3, 0, None)
    state = world.actor(C).state
    assert state is not None
    assert state.instance.lock == Lock("v", running.instance.execution, "s1")


async def test_an_entity_that_was_used_meanwhile_is_not_cleaned(world: World, hand: Hand) -> None:
    await world.signal(C, "1")
    await world.ran(await hand.batch(1), None)
    [row] = await world.store.entities("default", C, "", 1, states=False)
    await world.signal(C, "2")
    reply = await world.engine.submit(at(C), lambda now, state: entity.forget(now, state, row.revision))
    assert reply.outcome is Outcome.STALE
    assert operations(await hand.batch(2)) == ["2"]
