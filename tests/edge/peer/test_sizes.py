"""Sidecars that receive messages of different size: what fits goes, what does not is told, nothing waits behind it."""

import asyncio
import re
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Kind
from sidecar.edge.peer import links
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.conftest import Injected
from tests.edge.peer.test_forward import ML
from tests.edge.peer.test_two_sidecars import flow_of
from tests.inprocess.sidecars import Node, PlayedPeer, Start, hello
from tests.inprocess.world import COMPLETED, call, child, end, until
from tests.ports import free_port

pytestmark = pytest.mark.slow

KIB, MIB = 1024, 1024 * 1024


async def pair(start: Start, orders: int, ml: int) -> tuple[Node, Node]:
    """Apps orders and ml, which receive so many bytes; orders knows the address of ml."""
    callee = await start("ml", max_message_bytes=ml)
    caller = await start("orders", peers={"ml": (callee.peer_address,)}, max_message_bytes=orders)
    return caller, callee


def sized(task: int, size: int) -> pb.Action:
    """A call of ml with an input of so many bytes."""
    action = call(task, "length", "ml")
    action.schedule_task.input.value = "x" * size
    return action


def asks_for(task: int, size: int) -> pb.Action:
    """A call of ml with a result of so many bytes."""
    action = call(task, "large", "ml")
    action.schedule_task.input.value = str(size)
    return action


def length(request: pb.ActivityRequest) -> str:
    return str(len(request.input.value))


def large(request: pb.ActivityRequest) -> str:
    return "y" * int(request.input.value)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The links that are made from now on."""
    made: list[str] = []
    serve = links.Peers._serve

    async def counted(self: links.Peers, link: Any, kept: Any) -> None:
        made.append(link.peer[1])
        await serve(self, link, kept)

    monkeypatch.setattr(links.Peers, "_serve", counted)
    return made


@pytest.mark.fault(24, "What is too large for the other app fails alone, with both sizes; what is behind it arrives")
async def test_a_call_that_the_other_app_cannot_receive_fails_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    caller, callee = await pair(start, 64 * MIB, MIB)
    await until(lambda: caller.sidecar.peers.connected() and callee.sidecar.peers.connected(), 10.0)
    made = opened(monkeypatch)
    callee.worker(None, {"length": length})
    caller.worker(flow_of(sized(1, 2 * MIB), sized(2, 1_000), sized(3, 20_000), sized(4, MIB - 600)))
    await caller.begin("a")
    state = await caller.outcome("a")
    assert state.status == COMPLETED
    said = sorted(state.output.value.split(",", 2)[:2])
    assert said == ["1000", "20000"]
    found = re.findall(
        r"the call has (\d+) bytes, and the sidecar of app 'ml' receives at most (\d+)", state.output.value
    )
    assert len(found) == 2
    assert all(int(size) > int(limit) > MIB - 2 * KIB for size, limit in found)
    assert made == [], "no link broke"
    injected(2, "calls too large for the other app")


@pytest.mark.parametrize(("orders", "ml"), [(64 * MIB, MIB), (MIB, 64 * MIB), (MIB, MIB)])
async def test_a_result_that_the_caller_cannot_receive_fails_its_call(start: Start, orders: int, ml: int) -> None:
    caller, callee = await pair(start, orders, ml)
    callee.worker(None, {"large": large})
    caller.worker(flow_of(asks_for(1, MIB - 200), asks_for(2, 100)))
    await caller.begin("a")
    output = (await caller.outcome("a")).output.value
    assert "y" * 100 in output
    assert re.search(r"the result has \d+ bytes, and the sidecar of app '\w+' receives at most \d+", output)


@pytest.mark.parametrize("limit", [64 * KIB, MIB])
@pytest.mark.parametrize("way", ["there", "back"])
async def test_the_smallest_limits_leave_room_for_calls_and_results(start: Start, limit: int, way: str) -> None:
    caller, callee = await pair(start, limit, limit)
    callee.worker(None, {"length": length, "large": large})
    caller.worker(flow_of(sized(1, limit // 2) if way == "there" else asks_for(1, limit // 2)))
    await caller.begin("a")
    said = (await caller.outcome("a")).output.value
    assert said == str(limit // 2) if way == "there" else len(said) == limit // 2


async def test_many_refusals_at_once_fit_into_one_answer(start: Start) -> None:
    """Answers have a text each, and together they may be larger than the smallest limit."""
    peer = PlayedPeer(await start("strict", max_message_bytes=64 * KIB))
    frame = hello("evil")
    frame.hello.receives = 64 * KIB
    assert await peer.introduce(frame) == ""
    messages = [peer_pb2.Message(id=number, kind=Kind.EVENT) for number in range(1, 1_501)]
    await peer.send(peer_pb2.Frame(batch=peer_pb2.Batch(sequence=1, messages=messages)))
    answer = await peer.receive()
    assert answer is not None
    assert answer.ByteSize() <= 64 * KIB
    assert {one.verdict for one in answer.answers.answers} == {7}
    assert answer.answers.answers[0].text.startswith("the message")
    await peer.close()


async def test_what_waits_goes_in_portions_that_fit(start: Start) -> None:
    port = free_port()
    limits = {"max_message_bytes": 2 * MIB}
    caller = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)}, **limits)
    caller.worker(flow_of(sized(1, 100_000)))
    for number in range(30):
        await caller.begin(f"w{number}")
    queue = caller.sidecar.outbox.queue(("default", "ml"))
    await until(lambda: len(queue.pending) == 30, 10.0)
    callee = await start("ml", peer_port=port, **limits)
    callee.worker(None, {"length": length})
    outcomes = await asyncio.gather(*(caller.outcome(f"w{number}") for number in range(30)))
    assert {outcome.output.value for outcome in outcomes} == {"100000"}


async def test_a_call_of_a_client_and_its_reply_fit_or_are_refused_with_both_sizes(start: Start) -> None:
    caller, callee = await pair(start, 64 * MIB, MIB)
    given = pb.CreateInstanceRequest(name="flow", router=ML, input=StringValue(value="x" * 2 * MIB))
    status, text = await caller.refusal("StartInstance", given)
    assert status is StatusCode.RESOURCE_EXHAUSTED
    assert re.search(r"the call has 2\d{6} bytes, and the sidecar of app 'ml' receives at most 10\d{5}", text)

    callee.worker(lambda events: [end("z" * (MIB - 400))])
    await callee.begin("b")
    await callee.outcome("b")
    asked = pb.GetInstanceRequest(instance_id="b", get_inputs_and_outputs=True, router=ML)
    status, text = await caller.refusal("GetInstance", asked)
    assert status is StatusCode.RESOURCE_EXHAUSTED
    assert re.search(r"the reply has 10\d{5} bytes, and the sidecar of app 'ml' receives at most 10\d{5}", text)
    asked.get_inputs_and_outputs = False
    assert await caller.call("GetInstance", asked), "the link is as it was"


async def test_a_tree_with_long_names_is_purged_in_portions_that_fit(start: Start) -> None:
    """So many children, with names that are as long as may be, are more than ml receives in one frame."""
    caller, callee = await pair(start, 64 * MIB, 64 * KIB)
    names = [f"{number}-" + "\U0001f600" * 200 for number in range(120)]
    callee.worker(lambda events: [end()])
    caller.worker(lambda events: [*(child(task, name, "ml") for task, name in enumerate(names, 1)), end()])
    await caller.begin("a")
    await caller.outcome("a")
    await asyncio.gather(*(callee.outcome(name) for name in names))
    answer = await caller.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", recursive=True))
    assert pb.PurgeInstancesResponse.FromString(answer).deleted_instance_count == len(names) + 1


async def test_a_callee_that_has_no_address_of_its_caller_keeps_the_result_for_it(start: Start) -> None:
    """It knows the caller by the link that the caller had opened, and calls to unknown apps fail at it."""
    callee = await start("ml", unknown_app="fail")
    settings = {"peers": {"ml": (callee.peer_address,)}}
    caller = await start("orders", **settings)
    caller.worker(flow_of(call(1, "slow", "ml")))
    await caller.begin("a")
    await until(lambda: len(callee.sidecar.dispatch.pool.activities), 10.0)
    await caller.stop()
    await until(lambda: not callee.sidecar.peers.connected(), 10.0)
    callee.worker(None, {"slow": lambda request: "late"})
    kept = callee.sidecar.outbox.queue(("default", "orders"))
    await until(lambda: kept.pending and kept.cause, 10.0)
    caller = await start("orders", **settings)
    caller.worker(flow_of(call(1, "slow", "ml")))
    assert (await caller.outcome("a")).output.value == "late"


async def test_an_older_peer_is_sent_what_this_sidecar_would_receive_itself(start: Start) -> None:
    node = await start("ml", max_message_bytes=MIB)
    peer = PlayedPeer(node)
    assert await peer.introduce(hello("orders")) == ""
    await until(lambda: node.sidecar.peers.link("default", "orders") is not None)
    link = node.sidecar.peers.link("default", "orders")
    assert link is not None
    assert link.limit == (MIB, "ml")
    await peer.close()


async def test_a_peer_that_would_receive_next_to_nothing_is_refused(start: Start) -> None:
    peer, frame = PlayedPeer(await start("ml")), hello("orders")
    frame.hello.receives = 1_000
    assert "at least 65536 are needed" in await peer.introduce(frame)
    await peer.close()


async def test_links_that_a_peer_opens_do_not_hasten_those_that_this_side_opens(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two sidecars whose links break at once make each other dial without a pause."""
    dials: list[str] = []
    connect = links.Peers._dial

    async def dial(self: links.Peers, app: str, address: str) -> str:
        dials.append(app)
        return await connect(self, app, address)

    monkeypatch.setattr(links.Peers, "_dial", dial)
    node = await start("ml", peers={"orders": (f"127.0.0.1:{free_port()}",)})
    await until(lambda: len(dials) >= 4, 10.0)
    before = len(dials)
    for _ in range(10):
        peer = PlayedPeer(node)
        assert await peer.introduce(hello("orders")) == ""
        await peer.close()
    assert len(dials) - before <= 2
