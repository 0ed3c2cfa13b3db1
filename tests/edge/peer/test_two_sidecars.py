"""Two whole sidecars in one process, linked over loopback: work crosses and comes back, strangers are kept out."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.model import Kind
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.peer import link as peer
from sidecar.edge.peer import links
from sidecar.edge.transport.ports import Call, Handlers, Outflow
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, Start, hello
from tests.inprocess.world import COMPLETED, call, child, end, until
from tests.ports import free_port

pytestmark = pytest.mark.slow

INVALID = 7


@pytest.fixture
async def stranger(start: Start) -> AsyncIterator[tuple[Node, PlayedPeer]]:
    """A sidecar of app ml, and a link to it that has not said anything yet."""
    node = await start("ml")
    peer_ = PlayedPeer(node)
    yield node, peer_
    await peer_.close()


def flow_of(*first: pb.Action) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that asks for these actions, and ends with the results or failures once all are there."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        found = []
        for event in events:
            kind = event.WhichOneof("kind")
            if kind in ("task_completed", "child_completed"):
                found.append(getattr(event, kind).result.value)
            elif kind in ("task_failed", "child_failed"):
                found.append(getattr(event, kind).failure.error_message)
        if len(found) == len(first):
            return [end(",".join(sorted(found)))]
        return (
            []
            if any(event.HasField("task_scheduled") or event.HasField("child_created") for event in events)
            else [*first]
        )

    return flow


def echo(request: pb.ActivityRequest) -> str:
    return f"{request.name} for {request.instance.app_id}"


def fail(_request: pb.ActivityRequest) -> str:
    raise ValueError("no luck")


async def test_remote_activities_and_children_come_back_though_the_target_has_no_address_of_home(
    start: Start,
) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(lambda events: [end("child of ml")], {"score": echo, "fail": fail})
    orders.worker(
        flow_of(call(1, "score", "ml"), child(2, "kid", "ml"), call(3, "fail", "ml"), call(4, "home")), {"home": echo}
    )
    await orders.begin("a")
    state = await orders.outcome("a")
    assert state.status == COMPLETED
    assert state.output.value == "child of ml,home for orders,no luck,score for orders"
    kid = await ml.outcome("kid")
    assert (kid.parent_instance_id.value, kid.parent_app_id.value) == ("a", "orders")
    await until(lambda: not orders.sidecar.outbox.queue(("default", "ml")).pending)
    assert await orders.sidecar.store.destinations() == [], "nothing is awaited any more"


async def test_home_reaches_an_app_without_an_address_over_the_link_that_it_opened(start: Start) -> None:
    orders = await start("orders")
    orders.worker(flow_of(call(1, "score", "ml")))
    await orders.begin("a")
    await until(lambda: orders.sidecar.outbox.queue(("default", "ml")).cause)
    ml = await start("ml", peers={"orders": (orders.peer_address,)})
    ml.worker(None, {"score": echo})
    assert (await orders.outcome("a")).output.value == "score for orders"


async def test_apps_that_know_each_other_work_in_both_directions(start: Start) -> None:
    ports = {"orders": free_port(), "ml": free_port()}
    nodes = {}
    for mine, other in (("orders", "ml"), ("ml", "orders")):
        peers = {other: (f"127.0.0.1:{ports[other]}",)}
        nodes[mine] = await start(mine, peer_port=ports[mine], peers=peers)
        nodes[mine].worker(flow_of(*(call(task, "score", other) for task in range(20))), {"score": echo})
    for number in range(5):
        for mine, node in nodes.items():
            await node.begin(f"{mine} {number}")
    for number in range(5):
        for mine, node in nodes.items():
            state = await node.outcome(f"{mine} {number}")
            assert state.output.value.split(",") == [f"score for {mine}"] * 20
    assert [len(node.workers[0].requests) for node in nodes.values()] == [100, 100], "each ran once"


async def test_an_activity_waits_for_a_sidecar_that_is_down(start: Start) -> None:
    port = free_port()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    orders.worker(flow_of(call(1, "score", "ml")))
    await orders.begin("a")
    await until(lambda: orders.sidecar.outbox.queue(("default", "ml")).cause)
    ml = await start("ml", peer_port=port)
    ml.worker(None, {"score": echo})
    assert (await orders.outcome("a")).output.value == "score for orders"


async def test_a_target_that_lost_its_disk_gets_the_call_again(start: Start, tmp_path: Path) -> None:
    """M30"""
    port = free_port()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    ml = await start("ml", peer_port=port)
    orders.worker(flow_of(call(1, "score", "ml")))
    await orders.begin("a")
    queue = orders.sidecar.outbox.queue(("default", "ml"))
    await until(lambda: len(ml.sidecar.dispatch.pool.activities) and not queue.pending)
    await ml.stop()
    shutil.rmtree(tmp_path / "ml")

    ml = await start("ml", peer_port=port)
    ml.worker(None, {"score": echo})
    assert (await orders.outcome("a", 6.0)).output.value == "score for orders"


async def test_another_app_at_the_address_gets_no_work(start: Start) -> None:
    pay = await start("pay")
    pay.worker(None, {"score": echo})
    orders = await start("orders", peers={"ml": (pay.peer_address,)})
    orders.worker(flow_of(call(1, "score", "ml")))
    await orders.begin("a")
    await until(lambda: orders.sidecar.outbox.queue(("default", "ml")).cause)
    await asyncio.sleep(0.3)
    assert orders.sidecar.peers.connected() == []
    assert pay.workers[0].requests == []


WRONG_HELLOS: tuple[tuple[peer_pb2.Frame | bytes, str], ...] = (
    (hello(namespace="elsewhere"), "namespace"),
    (hello(app_id="ml"), "'ml'"),
    (hello(app_id="ML"), "'ML'"),
    (hello(app_id="bad id!"), "is invalid"),
    (hello(app_id=""), "is invalid"),
    (hello(store=""), "protocol"),
    (hello(store="x" * 101), "101 characters"),
    (peer_pb2.Frame(hello=peer_pb2.Hello(namespace="default", app_id="evil", store_id="s")), "protocol"),
    (peer_pb2.Frame(ping=True), "hello"),
    (peer_pb2.Frame(), "hello"),
    (b"\xff\xff\xff garbage", ""),
)


@pytest.mark.fault(23, "A peer with a wrong hello is refused and told why")
async def test_a_peer_with_a_wrong_hello_is_refused_and_told_why(start: Start) -> None:
    node = await start("ml")
    for frame, reason in WRONG_HELLOS:
        link = PlayedPeer(node)
        said = await link.introduce(frame)
        assert said, frame
        assert reason in said
        assert await link.receive() is None
        assert node.sidecar.peers.connected() == []
        await link.close()


async def test_a_peer_that_says_nothing_is_let_go(
    stranger: tuple[Node, PlayedPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "HANDSHAKE_SECONDS", 0.1)
    assert await stranger[1].receive() is None


def message(number: int = 1, kind: int = Kind.ACTIVITY, **fields: Any) -> peer_pb2.Message:
    """A message that is in order but for what the test changes."""
    given: dict[str, Any] = {
        "target": peer_pb2.Actor(namespace="default", app_id="ml", kind="activity", id="x"),
        "source": peer_pb2.Actor(namespace="default", app_id="evil", kind="workflow", hub="default", id="w"),
        "call": peer_pb2.Call(execution_id="e", turn=1, task_id=number % 1_000),
        "name": "score",
        "payload": pb.ActivityRequest(name="score", task_id=1).SerializeToString(),
    }
    return peer_pb2.Message(id=number, kind=kind, **given | fields)


WRONG_MESSAGES = (
    message(target=peer_pb2.Actor(namespace="default", app_id="pay", kind="activity", id="x")),
    message(target=peer_pb2.Actor(namespace="elsewhere", app_id="ml", kind="activity", id="x")),
    message(kind=Kind.START),
    message(kind=Kind.TIMER),
    message(kind=0),
    message(kind=77),
    message(payload=b"\xff\xff\xff"),
    message(kind=Kind.CREATE, payload=b"\xff\xff\xff"),
    message(kind=Kind.CREATE, payload=b""),
    message(kind=Kind.EVENT, target=peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id="")),
    message(kind=Kind.EVENT, target=peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id="\n")),
)


async def test_a_message_that_a_peer_may_not_send_is_refused_for_good_and_the_others_are_taken(
    stranger: tuple[Node, PlayedPeer],
) -> None:
    """M81"""
    node, link = stranger
    assert await link.introduce(hello()) == ""
    for number, wrong in enumerate(WRONG_MESSAGES):
        wrong.id = 3 * number + 2
        answers = await link.ask(message(wrong.id - 1), wrong, message(wrong.id + 1))
        assert [answer.verdict for answer in answers] == [0, INVALID, 0], wrong
        assert [answer.id for answer in answers] == [wrong.id - 1, wrong.id, wrong.id + 1]
        assert len(await node.sidecar.store.activities(0, 100)) == 2 * (number + 1)


@pytest.mark.parametrize("kind", [Kind.ACTIVITY, Kind.EVENT])
async def test_numbers_that_no_store_can_hold_harm_nobody_else(stranger: tuple[Node, PlayedPeer], kind: Kind) -> None:
    node, link = stranger
    assert await link.introduce(hello()) == ""
    await node.begin("w")
    target = peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id="w")
    event = pb.HistoryEvent(event_raised=pb.EventRaised(name="e")).SerializeToString()
    odd = message(2**64 - 1, kind, **({"target": target, "payload": event} if kind is Kind.EVENT else {}))
    first, last = await link.ask(odd, message(6), floor=2**64 - 1)
    assert first.id == 2**64 - 1
    assert last.verdict == 0
    await node.begin("another")
    (answer,) = await link.ask(message(7))
    assert answer.verdict == 0


async def test_the_source_of_a_message_is_the_app_of_the_link(stranger: tuple[Node, PlayedPeer]) -> None:
    """M9, M81"""
    node, link = stranger
    assert await link.introduce(hello(app_id="evil")) == ""
    forged = peer_pb2.Actor(namespace="bank-ns", app_id="bank", kind="workflow", hub="default", id="w")
    await link.ask(message(1, source=forged))
    (stored,) = await node.sidecar.store.activities(0, 10)
    assert (stored.source.namespace, stored.source.app) == ("default", "evil")


async def test_a_result_of_another_app_than_the_one_that_was_asked_changes_nothing(start: Start) -> None:
    """M9, M81"""
    orders = await start("orders")
    worker = orders.worker(flow_of(call(1, "score", "pay")))
    await orders.begin("a")
    await until(lambda: worker.turns)
    await until(lambda: orders.sidecar.outbox.queue(("default", "pay")).pending)
    (sent,) = orders.sidecar.outbox.queue(("default", "pay")).pending.values()
    link = PlayedPeer(orders)
    assert await link.introduce(hello(app_id="evil")) == ""
    result = message(
        1,
        Kind.RESULT,
        target=peer_pb2.Actor(namespace="default", app_id="orders", kind="workflow", hub="default", id="a"),
        source=peer_pb2.Actor(namespace="default", app_id="pay", kind="activity", id=sent.target.id),
        call=peer_pb2.Call(execution_id=sent.call.execution, turn=sent.call.turn, task_id=sent.call.task),
        payload=pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1)).SerializeToString(),
    )
    await link.ask(result)
    await link.close()
    await asyncio.sleep(0.1)
    assert len(worker.turns) == 1


async def test_a_message_that_is_sent_twice_counts_once(stranger: tuple[Node, PlayedPeer]) -> None:
    """M44"""
    node, link = stranger
    worker = node.worker(lambda events: [], {"score": echo})
    assert await link.introduce(hello()) == ""
    await node.begin("w")
    target = peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id="w")
    event = pb.HistoryEvent(event_raised=pb.EventRaised(name="e")).SerializeToString()
    for _ in range(3):
        answers = await link.ask(message(1), message(2, Kind.EVENT, target=target, payload=event))
        assert {answer.verdict for answer in answers} <= {0, 1}
    await until(lambda: worker.requests and worker.turns)
    await asyncio.sleep(0.1)
    assert len(worker.requests) == 1
    raised = [event for event in worker.turns[-1] if event.HasField("event_raised")]
    assert len(raised) == 1


async def test_a_link_that_falls_silent_is_given_up(
    stranger: tuple[Node, PlayedPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(peer, "SILENCE_SECONDS", 0.2)
    node, link = stranger
    assert await link.introduce(hello()) == ""
    await until(lambda: node.sidecar.peers.connected() == ["evil"])
    for _ in range(6):
        await asyncio.sleep(0.1)
        await link.send(peer_pb2.Frame(pong=True))
    assert node.sidecar.peers.connected() == ["evil"], "it is alive"
    await until(lambda: node.sidecar.peers.connected() == [])


async def test_a_peer_that_answers_nothing_is_dialled_again_and_gets_the_work(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open: the other end said hello and then nothing more."""
    monkeypatch.setattr(peer, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(peer, "SILENCE_SECONDS", 0.3)
    dials: list[list[bytes]] = []

    async def mute(_call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        seen: list[bytes] = []
        dials.append(seen)
        out.send(hello(app_id="ml").SerializeToString())
        async for request in requests:
            seen.append(request)

    server = GrpcServer(Handlers(duplex={peer.METHOD: mute}))
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    orders.worker(flow_of(call(1, "score", "ml")))
    await orders.begin("a")
    await until(lambda: len(dials) >= 2 and len(dials[1]) >= 2, 10.0)
    await server.stop(0.0)
    ml = await start("ml", peer_port=port)
    ml.worker(None, {"score": echo})
    assert (await orders.outcome("a")).output.value == "score for orders"


@pytest.mark.fault(10, "Of two sidecars with one app ID, as over a copied store, the later one counts; peers say so")
async def test_of_two_sidecars_for_one_app_the_one_that_was_started_later_counts(start: Start) -> None:
    node = await start("orders")
    first, second, again = PlayedPeer(node), PlayedPeer(node), PlayedPeer(node)
    try:
        assert await first.introduce(hello("ml", store="a store", process="one")) == ""
        assert await second.introduce(hello("ml", store="a store", process="two")) == ""
        await first.send(peer_pb2.Frame(ping=True))
        while await first.receive() is not None:
            pass  # the first one's link ends
        refused = await again.introduce(hello("ml", store="a store", process="one"))
        assert "app 'ml' has another sidecar, which was started later" in refused
        await second.close()
        await until(lambda: "ml" not in node.sidecar.peers.connected())
        back = PlayedPeer(node)
        assert await back.introduce(hello("ml", store="a store", process="one")) == "", "it is the only one now"
        await back.close()
    finally:
        for peer in (first, again):
            await peer.close()
