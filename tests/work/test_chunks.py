"""E.5, isPartial and chunkIndex: an answer in several parts counts once it is whole, and only while its turn is out."""

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sidecar.core.work_items import TurnItem
from sidecar.core.workflow import chunks
from tests.inprocess.world import COMPLETED, DONE, STALE, Hand, World, at, call, end, kinds, raised


def part(number: int, *, last: bool = False) -> dict[str, Any]:
    return {"is_partial": not last, "chunk_index": Int32Value(value=number)}


async def scheduled(world: World) -> int:
    log = await world.clients.history(at("a"))
    return kinds(log or []).count("task_scheduled")


@pytest.fixture
async def item(world: World, hand: Hand) -> TurnItem:
    await world.start("a")
    return await hand.turn(1)


async def test_the_actions_of_all_parts_are_carried_out_with_the_last(world: World, hand: Hand, item: TurnItem) -> None:
    world.store.batches.clear()
    await world.complete(item, call(1), call(2), **part(0))
    await world.complete(item, call(3), **part(1))
    assert world.store.batches == [], "nothing is committed before the answer is whole"
    assert (await world.complete(item, call(4), **part(2, last=True))).outcome is DONE
    assert len(world.store.batches) == 1, "and then all of it at once"
    await hand.activity(4)
    assert kinds(item.past.events).count("task_scheduled") == 4


async def test_a_part_that_comes_twice_counts_once(world: World, item: TurnItem) -> None:
    """The answer to a part may be lost; SDKs then send it again."""
    for number in (0, 0, 1, 0, 1):
        await world.complete(item, call(number + 1), **part(number))
    await world.complete(item, call(3), **part(2, last=True))
    assert (await world.complete(item, call(3), **part(2, last=True))).outcome is STALE
    assert await scheduled(world) == 3


async def test_the_count_of_events_is_that_of_the_first_part(world: World, hand: Hand, item: TurnItem) -> None:
    """The parts behind the first say 0, which is not meant."""
    await world.complete(item)
    for name in ("one", "two"):
        await world.event("a", name)
    second = await hand.turn(2)
    assert raised(second.new) == ["one"]
    none = Int32Value(value=0)
    await world.complete(second, call(1), **part(0))
    reply = await world.complete(second, call(2), num_events_processed=none, **part(1, last=True))
    assert reply.outcome is DONE
    third = await hand.turn(3)
    assert raised(third.new) == ["two"]


async def test_a_turn_of_whose_answer_a_part_is_missing_comes_again(world: World, hand: Hand, item: TurnItem) -> None:
    await world.complete(item, call(1), **part(0))
    assert (await world.complete(item, call(3), **part(2, last=True))).outcome is STALE
    assert await scheduled(world) == 0
    world.clock.steady += 1.1
    again = await hand.turn(2)
    assert (await world.complete(again, end())).outcome is DONE


async def test_a_last_part_alone_is_no_answer(world: World, hand: Hand, item: TurnItem) -> None:
    assert (await world.complete(item, end(), **part(1, last=True))).outcome is STALE
    assert await world.status("a") != COMPLETED


@pytest.mark.parametrize("how", ["the stream ends", "the turn times out", "the workflow is suspended"])
async def test_parts_go_with_their_turn(world: World, hand: Hand, item: TurnItem, how: str) -> None:
    await world.complete(item, call(1), **part(0))
    if how == "the stream ends":
        world.dispatch.remove_worker(hand.worker)
    elif how == "the turn times out":
        world.clock.steady += 121
        await asyncio.sleep(0.02)
    else:
        await world.clients.suspend(at("a"), None)
    await world.complete(item, call(2), **part(1))
    assert (await world.complete(item, call(3), **part(2, last=True))).outcome is STALE
    assert await scheduled(world) == 0
    assert world.dispatch.turns.chunks.bytes == 0


async def test_an_answer_that_is_too_large_fails_the_workflow_and_says_why(
    world: World, hand: Hand, item: TurnItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MOST_BYTES", 10_000)
    big = call(1)
    big.schedule_task.input.CopyFrom(StringValue(value="x" * 6_000))
    await world.complete(item, big, **part(0))
    await world.complete(item, big, **part(1))
    view = await world.clients.view(at("a"), payloads=True)
    assert view is not None
    assert view.instance.status == 3
    assert b"AnswerTooLarge" in (view.instance.failure or b"")
    assert world.dispatch.turns.chunks.bytes == 0


async def test_too_many_parts_at_once_give_the_turn_back(
    world: World, hand: Hand, item: TurnItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many workers send parts and never the last: what is held has a bound."""
    monkeypatch.setattr("sidecar.work.answer_chunks.ALL_PARTS_BYTES", 100)
    for number in range(5):
        await world.complete(item, call(number, name="x" * 60), **part(number))
    assert world.dispatch.turns.chunks.bytes == 0
    assert not hand.worker.turns


async def test_parts_of_a_stranger_are_no_answer(world: World, item: TurnItem) -> None:
    for number in range(3):
        item_of_another = TurnItem("a", "", item.past, [], "t.nonsense.default")
        await world.complete(item_of_another, call(number), **part(number, last=number == 2))
    assert world.dispatch.turns.chunks.bytes == 0
    assert (await world.complete(item, end())).outcome is DONE
