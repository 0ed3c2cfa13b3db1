"""Client calls that name another app (M7, M9, M14, M16 to M18): done there, once, and answered as there."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.clock import Clock
from sidecar.core.ids import Ids
from sidecar.edge.peer import forward
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.peers.limits import Limit
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite.pages import fetch_all
from tests.inprocess.sidecars import Node, PlayedPeer, Start, hello
from tests.inprocess.world import COMPLETED, until
from tests.ports import free_port

Pair = tuple[Node, Node]
ML = pb.Router(target_app_id="ml")
FAILED = 3


@pytest.fixture
async def pair(start: Start) -> Pair:
    """Apps orders and ml; orders knows the address of ml."""
    ml = await start("ml")
    return await start("orders", peers={"ml": (ml.peer_address,)}), ml


async def get(node: Node, instance_id: str, **request: Any) -> pb.GetInstanceResponse:
    body = pb.GetInstanceRequest(instance_id=instance_id, **request)
    return pb.GetInstanceResponse.FromString(await node.call("GetInstance", body))


async def begin(node: Node, instance_id: str = "a", **request: Any) -> str:
    body = pb.CreateInstanceRequest(instance_id=instance_id, name="flow", router=ML, **request)
    return pb.CreateInstanceResponse.FromString(await node.call("StartInstance", body)).instance_id


def raised(turns: list[list[pb.HistoryEvent]]) -> list[str]:
    return [event.event_raised.name for event in turns[-1] if event.HasField("event_raised")]


def counting(events: list[pb.HistoryEvent]) -> list[pb.Action]:
    """A workflow that ends at the event "end", with the number of those before it."""
    names = raised([events])
    if "end" not in names:
        return []
    return [pb.Action(id=1, complete=pb.Complete(status=1, result=StringValue(value=str(len(names) - 1))))]


async def test_an_instance_that_is_started_at_another_app_lives_there_alone(pair: Pair) -> None:
    """M7."""
    orders, ml = pair
    assert await begin(orders, input=StringValue(value='"in"')) == "a"
    assert not (await get(orders, "a")).exists
    assert (await get(orders, "a", router=ML, get_inputs_and_outputs=True)).state.input.value == '"in"'
    assert (await get(ml, "a")).state.execution_id.value


async def test_an_instance_without_an_id_gets_one(pair: Pair) -> None:
    orders, ml = pair
    given = await begin(orders, "")
    assert given
    assert (await get(ml, given)).exists


async def test_every_command_reaches_the_instance_at_the_other_app_and_no_namesake_here(pair: Pair) -> None:
    """M6, M61."""
    orders, ml = pair
    await orders.begin("a")
    await begin(orders)
    ml.worker(counting)
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="a", router=ML))
    assert ((await get(ml, "a")).state.status, (await get(orders, "a")).state.status) == (7, 6)
    await orders.call("ResumeInstance", pb.ReasonRequest(instance_id="a", router=ML))
    for name in ("x", "y", "end"):
        await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name=name, router=ML))
    waiting = pb.GetInstanceRequest(instance_id="a", get_inputs_and_outputs=True, router=ML)
    state = pb.GetInstanceResponse.FromString(await orders.call("WaitForInstanceCompletion", waiting)).state
    assert (state.status, state.output.value) == (COMPLETED, "2")
    answer = await orders.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", router=ML))
    assert pb.PurgeInstancesResponse.FromString(answer).deleted_instance_count == 1
    assert (not (await get(ml, "a")).exists, (await get(orders, "a")).exists) == (True, True)

    await begin(orders, "b")
    await orders.call("TerminateInstance", pb.TerminateRequest(instance_id="b", router=ML))
    assert (await get(ml, "b")).state.status == 5


def failing(events: list[pb.HistoryEvent]) -> list[pb.Action]:
    """A workflow that fails."""
    return [pb.Action(id=1, complete=pb.Complete(status=FAILED))]


async def test_lists_histories_rewinds_and_restarts_reach_the_other_app_and_no_namesake_here(pair: Pair) -> None:
    orders, ml = pair
    ml.worker(failing)
    await orders.begin("a", "own")
    await ml.begin("a", "theirs")
    await ml.outcome("a")

    async def listed(node: Node, **given: Any) -> list[str]:
        answer = await node.call("QueryInstances", pb.QueryInstancesRequest(query=pb.InstanceQuery(), **given))
        return [state.name for state in pb.QueryInstancesResponse.FromString(answer).states]

    assert (await listed(orders, router=ML), await listed(orders)) == (["theirs"], ["own"])
    asked = pb.GetInstanceHistoryRequest(instance_id="a", router=ML)
    log = pb.GetInstanceHistoryResponse.FromString(await orders.call("GetInstanceHistory", asked)).events
    assert next(event.execution_started.name for event in log if event.HasField("execution_started")) == "theirs"
    executions = {(await get(ml, "a")).state.execution_id.value}
    for method, again in (("Rewind", pb.RewindInstanceRequest), ("Restart", pb.RestartInstanceRequest)):
        await orders.call(f"{method}Instance", again(instance_id="a", router=ML))
        executions.add((await ml.outcome("a")).execution_id.value)
    assert len(executions) == 3
    anew = pb.RestartInstanceRequest(instance_id="a", with_new_instance_id=True, router=ML)
    made = pb.RestartInstanceResponse.FromString(await orders.call("RestartInstance", anew)).instance_id
    assert ((await get(ml, made)).state.name, (await get(orders, made)).exists) == ("theirs", False)
    assert (await get(orders, "a")).state.name == "own"


async def test_refusals_come_back_with_their_status_and_text(pair: Pair) -> None:
    orders, ml = pair
    await ml.begin("a")
    twice = pb.CreateInstanceRequest(instance_id="a", name="flow", router=ML)
    assert await orders.refusal("StartInstance", twice) == await ml.refusal("StartInstance", twice)
    missing = pb.RaiseEventRequest(instance_id="none", name="e", router=ML)
    assert await orders.refusal("RaiseEvent", missing) == (StatusCode.NOT_FOUND, "no such instance exists")
    nameless = pb.CreateInstanceRequest(instance_id="c", router=ML)
    assert (await orders.refusal("StartInstance", nameless))[0] is StatusCode.INVALID_ARGUMENT


async def test_get_and_wait_for_an_unknown_id_answer_at_once(pair: Pair) -> None:
    """M17."""
    orders, _ = pair
    for method in ("GetInstance", "WaitForInstanceStart", "WaitForInstanceCompletion"):
        request = pb.GetInstanceRequest(instance_id="none", router=ML)
        assert not pb.GetInstanceResponse.FromString(await orders.call(method, request, 2.0)).exists


async def test_an_app_id_that_differs_from_a_known_one_in_case_alone_is_refused(pair: Pair) -> None:
    """M14."""
    orders, _ = pair
    for app in ("ML", "Orders"):
        request = pb.GetInstanceRequest(instance_id="a", router=pb.Router(target_app_id=app))
        status, text = await orders.refusal("GetInstance", request)
        assert (status, app in text) == (StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "router", [pb.Router(target_app_id="ghost"), pb.Router(target_app_id="ml", target_namespace="x")]
)
async def test_an_app_that_is_not_there_is_tried_until_shortly_before_the_deadline(
    pair: Pair, router: pb.Router
) -> None:
    """M16, M18."""
    orders, _ = pair
    began = asyncio.get_running_loop().time()
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", router=router)
    status, text = await orders.refusal("StartInstance", request, seconds=1.5)
    assert (status, f"'{router.target_app_id}'" in text) == (StatusCode.UNAVAILABLE, True)
    assert 1.0 < asyncio.get_running_loop().time() - began < 1.5


async def test_a_caller_without_a_deadline_is_told_after_a_minute(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M18."""
    assert forward.REACH_SECONDS == 60.0
    monkeypatch.setattr(forward, "REACH_SECONDS", 0.3)
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{free_port()}",)})
    with pytest.raises(Refused, match="'ml' could not be reached: app 'ml' is not connected"):
        await orders.channel.unary(
            "/TaskHubSidecarService/GetInstance", pb.GetInstanceRequest(instance_id="a", router=ML).SerializeToString()
        )


@pytest.mark.parametrize("how", ["listed", "by a pattern"])
async def test_an_app_that_comes_up_in_time_gets_the_call(start: Start, how: str) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    known = {"peers": {"ml": (address,)}} if how == "listed" else {"peer_pattern": address}
    orders = await start("orders", **known)
    starting = asyncio.create_task(begin(orders))
    await until(lambda: any(state.error for state in orders.sidecar.peers.states()))
    ml = await start("ml", peer_port=port)
    await starting
    assert (await get(ml, "a")).exists


async def test_an_unknown_app_fails_at_once_where_configuration_says_so(start: Start) -> None:
    orders = await start("orders", unknown_app="fail")
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", router=ML)
    assert await orders.refusal("StartInstance", request, 0.9) == (
        StatusCode.UNAVAILABLE,
        "the address of app 'ml' was not found",
    )


async def test_a_wait_whose_caller_has_gone_ends_at_the_other_app_too(pair: Pair) -> None:
    orders, ml = pair
    await begin(orders)
    request = pb.GetInstanceRequest(instance_id="a", router=ML)
    waiting = asyncio.create_task(orders.call("WaitForInstanceCompletion", request))
    served = ml.sidecar.peers._served
    await until(lambda: len(served._calls) == 1)
    waiting.cancel()
    await until(lambda: not served._calls)
    address = ("default", "a")
    await until(lambda: not ml.sidecar.engine.actor(address).watchers)


# ---------------------------------------------------------------- a peer that tries again


def request(call_id: str, method: str, body: Message) -> peer_pb2.Frame:
    return peer_pb2.Frame(request=peer_pb2.Request(id=call_id, method=method, body=body.SerializeToString()))


async def ask(peer: PlayedPeer, frame: peer_pb2.Frame) -> peer_pb2.Response:
    await peer.send(frame)
    while (answer := await peer.receive()) is not None:
        if answer.WhichOneof("frame") == "response":
            return answer.response
    raise AssertionError("the link ended")


@pytest.mark.parametrize(("call_id", "said"), [("x" * 8, "not hexadecimal"), ("a" * 65, "65 characters")])
async def test_a_call_whose_id_is_none_is_refused_and_not_kept(start: Start, call_id: str, said: str) -> None:
    ml = await start("ml")
    peer = PlayedPeer(ml)
    assert await peer.introduce(hello("orders", store="s")) == ""
    answer = await ask(peer, request(call_id, "GetInstance", pb.GetInstanceRequest(instance_id="a")))
    assert (answer.status, said in answer.text) == (StatusCode.INVALID_ARGUMENT, True)
    assert not ml.sidecar.peers._served._calls
    await peer.close()


async def test_a_reply_of_a_status_that_there_is_not_blames_the_peer(start: Start) -> None:
    orders = await start("orders")
    peer = PlayedPeer(orders)
    assert await peer.introduce(hello("ml")) == ""
    body = pb.GetInstanceRequest(instance_id="a", router=ML)
    asked = asyncio.create_task(orders.refusal("GetInstance", body))
    while (frame := await peer.receive()) is not None and not frame.HasField("request"):
        pass
    assert frame is not None
    await peer.send(peer_pb2.Frame(response=peer_pb2.Response(id=frame.request.id, status=99)))
    assert (await asked)[0] is StatusCode.UNAVAILABLE
    await peer.close()


@pytest.mark.parametrize("between", ["nothing", "a new link", "a restart"])
async def test_a_call_that_comes_again_has_its_effect_once(start: Start, tmp_path: Path, between: str) -> None:
    """M44"""
    ml = await start("ml")
    await ml.begin("a")
    peer = PlayedPeer(ml)
    assert await peer.introduce(hello("orders", store="s")) == ""
    event = request("ab" * 16, "RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e", router=ML))
    assert (await ask(peer, event)).status == 0
    if between != "nothing":
        await peer.close()
        if between == "a restart":
            await ml.stop()
            ml = await start("ml")
        peer = PlayedPeer(ml)
        await peer.introduce(hello("orders", store="s"))
    assert (await ask(peer, event)).status == 0
    other = request("cd" * 16, "RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="end", router=ML))
    assert (await ask(peer, other)).status == 0
    ml.worker(counting)
    assert (await ml.outcome("a")).output.value == "1"
    await peer.close()


AGAIN: dict[str, Message] = {
    "RewindInstance": pb.RewindInstanceRequest(instance_id="a"),
    "RestartInstance": pb.RestartInstanceRequest(instance_id="a"),
    "RestartInstance, under a new ID": pb.RestartInstanceRequest(
        instance_id="a", with_new_instance_id=True, new_instance_id="b"
    ),
}


@pytest.mark.parametrize("what", AGAIN)
async def test_what_runs_again_does_so_once_though_the_call_comes_twice(start: Start, what: str) -> None:
    """Also if the sidecar was started anew in between, and the reply is no longer kept."""
    ml = await start("ml")
    worker = ml.worker(failing)
    await ml.begin("a")
    await ml.outcome("a")
    await worker.stop()
    again = request("ab" * 16, what.partition(",")[0], AGAIN[what])
    peer = PlayedPeer(ml)
    assert await peer.introduce(hello("orders", store="s")) == ""
    first = await ask(peer, again)
    assert (first.status, first.text) == (0, "")
    await peer.close()
    await ml.stop()
    ml = await start("ml")
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders", store="s"))
    before = [(await get(ml, one)).state.execution_id.value for one in "ab"]
    second = await ask(peer, again)
    assert (second.status, second.body) == (0, first.body)
    assert [(await get(ml, one)).state.execution_id.value for one in "ab"] == before
    await peer.close()


async def test_marks_of_calls_go_when_the_sender_has_its_answer(start: Start) -> None:
    ml = await start("ml")
    await ml.begin("a")
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders", store="s"))
    call_id = "ef" * 16
    event = request(call_id, "RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e", router=ML))
    await ask(peer, event)

    async def dedup_keys() -> int:
        return (await ml.sidecar.store.file.call(fetch_all, "SELECT count(*) FROM received", ()))[0][0]

    assert await dedup_keys() == 1
    await peer.send(peer_pb2.Frame(released=call_id))
    async with asyncio.timeout(5.0):
        while await dedup_keys():  # noqa: ASYNC110 (the store has no event for it)
            await asyncio.sleep(0.02)
    await peer.close()


@pytest.mark.parametrize(
    ("call_id", "method", "expected"),
    [
        ("ab" * 16, "CompleteOrchestratorTask", StatusCode.UNIMPLEMENTED),
        ("ab" * 16, "GetWorkItems", StatusCode.UNIMPLEMENTED),
        ("ab" * 16, "", StatusCode.UNIMPLEMENTED),
        ("no hex", "GetInstance", StatusCode.INVALID_ARGUMENT),
        ("", "GetInstance", StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_peer_may_not_call_what_no_client_can_address(
    start: Start, call_id: str, method: str, expected: StatusCode
) -> None:
    ml = await start("ml")
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders"))
    answer = await ask(peer, request(call_id, method, pb.GetInstanceRequest(instance_id="a")))
    assert StatusCode(answer.status) is expected
    await peer.close()


async def test_a_call_makes_one_hop_at_most(start: Start) -> None:
    """A call that came over a link and names a third app is served where it arrived."""
    ship = await start("ship")
    ml = await start("ml", peers={"ship": (ship.peer_address,)})
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders"))
    router = pb.Router(target_app_id="ship")
    wish = pb.CreateInstanceRequest(instance_id="a", name="flow", router=router)
    await ask(peer, request("ab" * 16, "StartInstance", wish))
    assert not (await get(ship, "a")).exists
    await peer.close()


async def test_a_link_that_has_broken_and_is_not_taken_down_yet_does_not_hold_everything_up() -> None:
    """It is found again at once, and taken down only when others get their turn."""
    found = []

    class BrokenLinks:
        limit = Limit(1 << 20, "ml")

        async def linked(self, peer: Any) -> Any:
            return self

        def known(self, namespace: str, app: str) -> bool:
            return True

        def why(self, namespace: str, app: str) -> Any:
            raise AssertionError("there is a link")

        async def call(self, frame: peer_pb2.Request) -> peer_pb2.Response:
            if not found:
                raise LinkBrokenError("broken")
            return peer_pb2.Response(id=frame.id, body=b"done")

        def release(self, call_id: str) -> None:
            pass

    asyncio.get_running_loop().call_later(0.01, found.append, True)
    engine: Any = SimpleNamespace(clock=Clock(), ids=Ids(1, 1, Clock().new_id))
    links: Any = BrokenLinks()
    assert await forward.Forwarder(engine, links, False).ask(("default", "ml"), "GetTree", b"", 5.0) == b"done"
