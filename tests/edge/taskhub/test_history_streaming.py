"""History streaming: a worker that can is told to fetch a past that is too large for one message (.NET's SDKs)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.model import Changes, Row, Status
from sidecar.edge import dialects
from sidecar.edge.left_out import mark
from sidecar.edge.transport.ports import DuplexCall, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.transport.network import open_stream, rest
from tests.inprocess.sidecars import SERVICE, Node, fields, work_items
from tests.inprocess.world import COMPLETED, end, until
from tests.store.builders import instance

LIMIT = 68 * 1024  # of which a worker is sent a little less: there is room for what stands around the events
STREAMS = b"\x52\x01\x01"  # capability 1 on field 10
REQUIRES_STREAMING = b"\x30\x01"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = await Node.start("orders", tmp_path, max_message_bytes=LIMIT)
    yield node
    await node.stop()


async def received(stream: DuplexCall) -> tuple[bytes, str]:
    """The next turn, as bytes, and its token."""
    async with asyncio.timeout(3.0):
        while True:
            item = fields(await stream.receive() or b"")
            if 1 in item:
                return item[1][0], item[10][0].decode()


async def grow(node: Node, stream: DuplexCall, kilobytes: int) -> tuple[bytes, str]:
    """Let the past of an instance grow; return the turn after that, and its token."""
    await node.begin("a")
    turn, token = await received(stream)
    for _ in range(kilobytes // 10):
        event = pb.RaiseEventRequest(instance_id="a", name="e", input=StringValue(value="x" * 10_000))
        await node.call("RaiseEvent", event)
        answer = pb.OrchestratorResponse(instance_id="a", completion_token=token)
        await node.call("CompleteOrchestratorTask", answer)
        turn, token = await received(stream)
    return turn, token


async def fetched(node: Node, execution: str = "") -> list[bytes]:
    request = pb.GetInstanceHistoryRequest(instance_id="a", for_work_item_processing=True)
    if execution:
        request.execution_id.value = execution
    chunks = await rest(await open_stream(node.channel, SERVICE + "StreamInstanceHistory", request.SerializeToString()))
    return [event for chunk in chunks for event in fields(chunk).get(1, [])]


def raised(events: list[bytes]) -> int:
    return sum(pb.HistoryEvent.FromString(event).HasField("event_raised") for event in events)


async def test_a_past_that_fits_is_sent(node: Node) -> None:
    turn, _ = await grow(node, await work_items(node.channel, STREAMS), 40)
    assert raised(fields(turn)[3]) == 3
    assert not turn.endswith(REQUIRES_STREAMING)


async def test_a_past_that_does_not_fit_is_fetched_exactly_as_the_turn_stands_on_it(node: Node) -> None:
    turn, token = await grow(node, await work_items(node.channel, STREAMS), 80)
    found = fields(turn.replace(REQUIRES_STREAMING, b"", 1))
    assert REQUIRES_STREAMING in turn[:200]
    assert 3 not in found
    assert raised(found[4]) == 1
    later = pb.RaiseEventRequest(instance_id="a", name="later", input=StringValue(value="1"))
    await node.call("RaiseEvent", later)
    past = await fetched(node)
    assert raised(past) == 7, "not what is new in the turn, and not what arrived since"
    execution = fields(found[2][0])[1][0].decode()
    assert await fetched(node, execution) == past
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=[end()])
    await node.call("CompleteOrchestratorTask", answer)
    assert (await node.outcome("a", 3.0)).status == COMPLETED


async def test_the_history_of_another_execution_is_not_found(node: Node) -> None:
    await node.begin("a")
    request = pb.GetInstanceHistoryRequest(instance_id="a", for_work_item_processing=True)
    request.execution_id.value = "one before"
    stream = await open_stream(node.channel, SERVICE + "StreamInstanceHistory", request.SerializeToString())
    with pytest.raises(Exception, match=r"no execution .one before.") as refused:
        await rest(stream)
    assert refused.value.status is StatusCode.NOT_FOUND  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_a_worker_that_cannot_fetch_is_not_sent_what_it_cannot_receive(node: Node) -> None:
    stream = await work_items(node.channel)
    with pytest.raises(TimeoutError):
        await grow(node, stream, 80)
    streaming = await work_items(node.channel, STREAMS)
    turn, _ = await received(streaming)
    assert REQUIRES_STREAMING in turn[:200]


async def test_news_that_are_too_large_together_come_in_turns_of_as_many_as_fit(node: Node) -> None:
    await node.begin("a")
    for _ in range(9):
        event = pb.RaiseEventRequest(instance_id="a", name="e", input=StringValue(value="x" * 10_000))
        await node.call("RaiseEvent", event)
    stream = await work_items(node.channel, STREAMS)
    counts = []
    while sum(counts) < 9:
        turn, token = await received(stream)
        assert len(turn) <= dialects.room_in(LIMIT)
        counts.append(raised(fields(turn)[4]))
        actions = [end()] if sum(counts) == 9 else []
        answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=actions)
        await node.call("CompleteOrchestratorTask", answer)
    assert counts == [6, 3]
    assert (await node.outcome("a", 3.0)).status == COMPLETED


@pytest.mark.slow
async def test_a_turn_whose_news_alone_are_too_large_stalls(node: Node) -> None:
    """E.8: nothing helps there but a worker that receives more."""
    stream = await work_items(node.channel, STREAMS)
    await node.begin("a")
    _, token = await received(stream)
    await node.call("CompleteOrchestratorTask", pb.OrchestratorResponse(instance_id="a", completion_token=token))
    event = pb.RaiseEventRequest(instance_id="a", name="e", input=StringValue(value="x" * 66_000))
    await node.call("RaiseEvent", event)
    with pytest.raises(TimeoutError):
        await received(stream)
    request = pb.RaiseEventRequest(instance_id="a", name="e")
    status, text = await node.refusal("RaiseEvent", request)
    assert (status, "Payload size exceeded" in text) == (StatusCode.FAILED_PRECONDITION, True)


async def test_a_worker_that_reads_what_it_has_lost_finds_what_it_would_have_been_sent(node: Node) -> None:
    """Over its own connection the history has the events that its kind of worker is sent, and no others."""
    keeps = pb.GetWorkItemsRequest(dapr_capabilities=[2, 3]).SerializeToString()
    stream = await work_items(node.channel, keeps)
    await node.begin("a")
    _, token = await received(stream)
    detached = pb.Action(id=1, create_detached=pb.CreateDetached(instance_id="d", name="other"))
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=[detached])
    await node.call("CompleteOrchestratorTask", answer)
    await until(lambda: ("default", "a") not in node.sidecar.dispatch.turns.out)
    request = pb.GetInstanceHistoryRequest(instance_id="a")
    for family, count in ((dialects.DAPR, 0), (dialects.DAPR_DETACHING, 1)):
        for streams in node.sidecar.taskhub._clients._streams._by_peer.values():
            for one in streams:
                one.family = family
        found = fields(await node.call("GetInstanceHistory", request))[1]
        kinds = [pb.HistoryEvent.FromString(event).WhichOneof("kind") for event in found]
        assert kinds.count("detached_created") == count, family.name


async def test_a_client_gets_each_chunk_in_a_size_that_it_receives_and_marks_for_what_it_cannot(tmp_path: Path) -> None:
    """An export is not to end at one large result for ever; a worker, which replays, is sent what there is."""
    node = await Node.start("large", tmp_path)
    sizes = (900_000, 3_900_000, 5_000_000)
    done = [pb.ActivityResponse(task_id=1, result=StringValue(value="x" * size)) for size in sizes]
    rows = tuple(Row(1, at, events.task_result(1, one)) for at, one in enumerate(done, start=2))
    ended = instance(1, "a", status=Status.COMPLETED, completed_at=1, last_completed_turn=1)
    assert await node.sidecar.store.commit([Changes(key=1, instance=ended, append=rows)]) == [None]
    for exactly in (False, True):
        request = pb.GetInstanceHistoryRequest(instance_id="a", for_work_item_processing=exactly)
        path = SERVICE + "StreamInstanceHistory"
        chunks = await rest(await open_stream(node.channel, path, request.SerializeToString()))
        found = [pb.HistoryEvent.FromString(event) for chunk in chunks for event in fields(chunk).get(1, [])]
        shown = [event.task_completed.result.value for event in found if event.HasField("task_completed")]
        assert (max(map(len, chunks)) < 4 * 1024 * 1024) is not exactly
        wanted = ["x" * size for size in sizes]
        assert shown == (wanted if exactly else [*wanted[:2], mark(5_000_000)])
    await node.stop()
