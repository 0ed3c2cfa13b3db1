"""Traces of Microsoft's SDKs: what a worker gives with a turn it gets back with the next, and a timer has a span."""

from pathlib import Path

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sidecar.edge import dialects
from sidecar.edge.transport.ports import DuplexCall
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, fields, work_items
from tests.inprocess.world import CONTINUED_AS_NEW, end, timer

MICROSOFT = bytes.fromhex("086410645a00")  # sized, and filters without a name
FIRST, SECOND = (
    bytes.fromhex(f"0a120a10303066303637616130626139303262{last}12060880e2cfaa06") for last in ("37", "38")
)


async def turn(stream: DuplexCall) -> tuple[list[bytes], list[pb.HistoryEvent], str]:
    """The trace of the next turn, its new events, and its token."""
    while True:
        item = fields(await stream.receive() or b"")
        if 1 in item:
            request = fields(item[1][0])
            return request.get(8, []), [pb.HistoryEvent.FromString(one) for one in request[4]], item[10][0].decode()


async def answer(node: Node, token: str, *actions: pb.Action, trace: bytes = b"", **more: object) -> None:
    response = pb.OrchestratorResponse(instance_id="w", actions=actions, completion_token=token, slot_6=trace, **more)
    await node.call("CompleteOrchestratorTask", response)


async def raise_event(node: Node) -> None:
    await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id="w", name="e"))


async def test_a_turn_has_the_trace_that_the_worker_gave_with_the_one_before_also_after_a_restart(
    tmp_path: Path,
) -> None:
    node = await Node.start("orders", tmp_path)
    stream = await work_items(node.channel, MICROSOFT)
    await node.begin("w")
    trace, _, token = await turn(stream)
    assert trace == []
    await answer(node, token, trace=FIRST)
    await raise_event(node)
    trace, _, token = await turn(stream)
    assert trace == [FIRST]
    await answer(node, token, trace=b"")
    await node.stop()
    node = await Node.start("orders", tmp_path)
    stream = await work_items(node.channel, MICROSOFT)
    await raise_event(node)
    trace, _, token = await turn(stream)
    assert trace == [FIRST], "an answer without a trace changes nothing"
    await answer(node, token, end(status=CONTINUED_AS_NEW), trace=SECOND)
    trace, _, token = await turn(stream)
    assert trace == [], "a new execution has a span of its own"
    await answer(node, token, end())
    await node.stop()


async def test_the_trace_of_an_answer_in_parts_is_that_of_the_first_part(node: Node) -> None:
    stream = await work_items(node.channel, MICROSOFT)
    await node.begin("w")
    _, _, token = await turn(stream)
    await answer(node, token, trace=FIRST, is_partial=True, chunk_index=Int32Value(value=0))
    await answer(node, token, is_partial=False, chunk_index=Int32Value(value=1))
    await raise_event(node)
    assert (await turn(stream))[0] == [FIRST]


async def test_a_worker_that_is_not_of_the_family_gets_no_trace(node: Node) -> None:
    stream = await work_items(node.channel, MICROSOFT)
    await node.begin("w")
    _, _, token = await turn(stream)
    await answer(node, token, trace=FIRST)
    stream.cancel()
    other = await work_items(node.channel, bytes.fromhex("22020302"))
    await raise_event(node)
    assert (await turn(other))[0] == []


async def test_a_trace_that_is_no_trace_is_not_kept(node: Node) -> None:
    stream = await work_items(node.channel, MICROSOFT)
    await node.begin("w")
    _, _, token = await turn(stream)
    long = StringValue(value="x" * 2_000).SerializeToString()
    large = dialects.wire.frame(1, long) + FIRST[-8:]
    await answer(node, token, trace=large)
    await raise_event(node)
    assert (await turn(stream))[0] == []


async def test_the_end_of_a_timer_has_the_time_at_which_it_was_set(node: Node) -> None:
    """The span of a timer begins there, and ends when the worker hears of the end."""
    stream = await work_items(node.channel, MICROSOFT)
    await node.begin("w")
    _, new, token = await turn(stream)
    await answer(node, token, timer(1, node.sidecar.engine.clock.now() + 300_000))
    _, new, _ = await turn(stream)
    [fired] = [event for event in new if event.HasField("timer_fired")]
    lasted = new[0].timestamp.ToMicroseconds() - fired.timestamp.ToMicroseconds()
    assert 250_000 < lasted < 5_000_000
    assert not fired.timer_fired.HasField("created")
    assert fired.timer_fired.fire_at.ToMicroseconds() - fired.timestamp.ToMicroseconds() <= 300_000
