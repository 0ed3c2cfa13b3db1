"""What a call to the app's ports must pass before its handler runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from sidecar.config.parsers import Secret
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.methods import ADMIN
from sidecar.edge.security import admission
from sidecar.edge.transport.ports import Closed, Metadata, Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.transport import http2
from tests.edge.transport.network import SOON, open_stream, until
from tests.inprocess.sidecars import SERVICE, Node

TOKEN = "s3cret"
RIGHT: Metadata = [("dapr-api-token", TOKEN)]
HEALTH = "/grpc.health.v1.Health/"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Node]:
    node = await Node.start("orders", tmp_path, api_token=Secret(TOKEN))
    yield node
    await node.stop()


async def refusal(channel: GrpcChannel, method: str, metadata: Metadata = ()) -> tuple[StatusCode, str]:
    """How a call of either kind is refused that has sent no request yet. Raises TimeoutError if it is not."""
    call = channel.duplex(method, metadata)
    with pytest.raises(Refused) as refused:
        async with asyncio.timeout(SOON):
            await call.receive()
    return refused.value.status, refused.value.message


async def status(channel: GrpcChannel, method: str, metadata: Metadata = ()) -> tuple[StatusCode, str]:
    """How a call of either kind with an empty request ends; OK also for a stream that goes on."""
    call = channel.duplex(method, metadata)
    try:
        async with asyncio.timeout(2.0):
            with suppress(Closed):  # it may be refused before it has sent anything
                await call.send(b"")
                await call.done_sending()
            while await call.receive() is not None:
                pass
    except Refused as refused:
        return refused.status, refused.message
    except TimeoutError:
        pass
    return StatusCode.OK, ""


def methods(node: Node) -> list[str]:
    """All that is served on the app port but its health."""
    served = node.sidecar._app_handlers()
    return [path for path in (*served.unary, *served.stream, *served.duplex) if not path.startswith(HEALTH)]


@pytest.mark.slow
async def test_every_method_needs_the_token(guarded: Node) -> None:
    paths = methods(guarded)
    assert len(paths) > 55
    for path in paths:
        for metadata in ([], [("dapr-api-token", "wrong")]):
            code, message = await refusal(guarded.channel, path, metadata)
            assert code is StatusCode.UNAUTHENTICATED, path
            assert "dapr-api-token" in message
        assert (await status(guarded.channel, path, RIGHT))[0] is not StatusCode.UNAUTHENTICATED, path


async def test_a_bearer_token_is_taken_too(guarded: Node) -> None:
    code, _ = await status(guarded.channel, SERVICE + "Hello", [("authorization", f"Bearer {TOKEN}")])
    assert code is StatusCode.OK


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_health_needs_no_token(guarded: Node, method: str) -> None:
    assert await status(guarded.channel, HEALTH + method) == (StatusCode.OK, "")


@pytest.mark.parametrize(
    "path",
    [
        SERVICE + "StartInstance",
        SERVICE + "CompleteActivityTask",
        SERVICE + "GetWorkItems",
        SERVICE + "StreamInstanceHistory",
        ADMIN + "GetTree",
        HEALTH + "Check",
        "/nobody/Knows",
    ],
)
async def test_one_without_the_token_is_answered_before_the_body_is_read(guarded: Node, path: str) -> None:
    """Of 48 MiB that he says he will send, only the beginning has come."""
    async with http2.Client.connect(guarded.ports.grpc[0]) as client:
        client.call(path.encode(), body=b"\x0a\x03odd", missing=48 << 20)
        await until(client.ended)


async def test_a_stranger_who_watches_the_health_is_answered_before_the_body_is_read(guarded: Node) -> None:
    async with http2.Client.connect(guarded.ports.grpc[0]) as client:
        client.call(f"{HEALTH}Watch".encode(), missing=48 << 20)
        await until(lambda: client.count(http2.DATA) == 1)


async def test_a_place_is_asked_for_before_the_body_is_read(tmp_path: Path) -> None:
    node = await Node.start("orders", tmp_path, max_calls=1)
    async with http2.Client.connect(node.ports.grpc[0]) as slow, http2.Client.connect(node.ports.grpc[0]) as client:
        slow.call(f"{SERVICE}StartInstance".encode(), missing=48 << 20)
        await asyncio.sleep(0.2)
        assert not slow.ended()
        client.call(f"{SERVICE}StartInstance".encode(), missing=48 << 20)
        await until(client.ended)
    await node.stop()


async def test_who_has_the_token_is_told_of_a_service_that_there_is_not(guarded: Node) -> None:
    asked = health_pb2.HealthCheckRequest(service="none").SerializeToString()
    with pytest.raises(Refused, match="unknown service"):
        await guarded.channel.unary(HEALTH + "Check", asked, RIGHT)
    answer = await guarded.channel.unary(HEALTH + "Check", asked)
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_watches_of_the_health_are_limited_and_take_no_place_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_WATCHES", 2)
    node = await Node.start("orders", tmp_path, max_calls=1, max_workers=1)
    watches = [await open_stream(node.channel, HEALTH + "Watch") for _ in range(2)]
    for watch in watches:
        assert await watch.receive()
    text = "2 watches of the health are open, as many as may be: ask with Check"
    assert await refusal(node.channel, HEALTH + "Watch") == (StatusCode.RESOURCE_EXHAUSTED, text)
    assert await node.channel.unary(HEALTH + "Check", b"")
    await node.begin("a")
    watches.pop().cancel()
    await asyncio.sleep(0.2)
    watches.append(await open_stream(node.channel, HEALTH + "Watch"))
    assert await watches[-1].receive()
    for watch in watches:
        watch.cancel()
    await node.stop()


@pytest.mark.parametrize(
    "path",
    [
        b"TaskHubSidecarService/StartInstance",
        b"//TaskHubSidecarService/StartInstance",
        b"/TaskHubSidecarService//StartInstance",
        b"/./TaskHubSidecarService/StartInstance",
        b"/x/../TaskHubSidecarService/StartInstance",
        b"/grpc.health.v1.Health/../TaskHubSidecarService/StartInstance",
        b"/grpc.health.v1.Health/Check/../../TaskHubSidecarService/StartInstance",
        b"/TaskHubSidecarService/%53tartInstance",
        b"/TaskHubSidecarService/%2e/StartInstance",
        b"/TaskHubSidecarService/StartInstance/",
        b"/TaskHubSidecarService/StartInstance?/grpc.health.v1.Health/Check",
        b"/taskhubsidecarservice/startinstance",
        b"/TaskHubSidecarService/StartInstance\xff",
        b"/TaskHubSidecarService/StartInstance",
        b"",
        b"*",
    ],
)
async def test_no_path_leads_past_the_token(guarded: Node, path: bytes) -> None:
    """Whatever the path: nothing is started, and who has the token goes on."""
    async with http2.Client.connect(guarded.ports.grpc[0]) as client:
        client.call(path, body=b"\x0a\x03odd\x12\x04flow")
        await asyncio.sleep(0.3)
    assert await guarded.sidecar.store.load("default", "odd") is None
    async with asyncio.timeout(SOON):
        while (await status(guarded.channel, SERVICE + "Hello", RIGHT))[0] is not StatusCode.OK:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_stream_that_is_refused_never_was_a_worker(guarded: Node) -> None:
    code, _ = await refusal(guarded.channel, SERVICE + "GetWorkItems")
    assert code is StatusCode.UNAUTHENTICATED
    assert not guarded.sidecar.dispatch.pool.workers
    call = guarded.channel.duplex(SERVICE + "GetWorkItems", RIGHT)
    await call.send(b"")
    await call.done_sending()
    await until(lambda: len(guarded.sidecar.dispatch.pool.workers) == 1)
    call.cancel()


# Room


async def held_wait(node: Node, instance: str) -> "asyncio.Task[bytes]":
    """A call that stays under way until the instance ends."""
    return asyncio.create_task(node.call("WaitForInstanceCompletion", pb.GetInstanceRequest(instance_id=instance)))


async def test_calls_above_the_limit_are_told_what_to_do_and_answers_of_workers_are_taken(tmp_path: Path) -> None:
    """D.4: a completion is never refused for overload."""
    node = await Node.start("orders", tmp_path, max_calls=3)
    await node.begin("held")
    waits = [await held_wait(node, "held") for _ in range(3)]
    await asyncio.sleep(0.2)
    code, text = await node.refusal("GetInstance", pb.GetInstanceRequest(instance_id="held"))
    assert code is StatusCode.RESOURCE_EXHAUSTED
    assert text == "3 calls are under way, as many as may be: try again in a moment, or raise --max-calls"
    for method in sorted(path.removeprefix(SERVICE) for path in node.sidecar.taskhub.answers()):
        assert (await node.refusal(method))[0] is not StatusCode.RESOURCE_EXHAUSTED, method
    assert await status(node.channel, HEALTH + "Check") == (StatusCode.OK, "")
    waits.pop().cancel()
    await asyncio.sleep(0.2)
    await node.call("GetInstance", pb.GetInstanceRequest(instance_id="held"))
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await node.stop()


async def test_workers_above_the_limit_are_refused_until_one_goes(tmp_path: Path) -> None:
    node = await Node.start("orders", tmp_path, max_workers=2)
    pool = node.sidecar.dispatch.pool
    calls = [await open_stream(node.channel, SERVICE + "GetWorkItems") for _ in range(2)]
    await until(lambda: len(pool.workers) == 2)
    code, text = await refusal(node.channel, SERVICE + "GetWorkItems")
    assert code is StatusCode.RESOURCE_EXHAUSTED
    assert "--max-workers" in text
    assert len(pool.workers) == 2
    calls[0].cancel()
    await until(lambda: len(pool.workers) == 1)
    calls.append(await open_stream(node.channel, SERVICE + "GetWorkItems"))
    await until(lambda: len(pool.workers) == 2)
    for call in calls:
        call.cancel()
    await node.stop()


@pytest.mark.parametrize("size", [17_000, 60_000, 70_000, 1_000_000])
async def test_metadata_that_is_too_large_is_refused_and_the_next_call_works(node: Node, size: int) -> None:
    code, _ = await refusal(node.channel, SERVICE + "Hello", [("x-large", "x" * size)])
    beyond_grpc = size > 64 * 1024  # which may end the connection before it has said why
    assert code is StatusCode.RESOURCE_EXHAUSTED or (beyond_grpc and code is StatusCode.UNAVAILABLE)
    for _ in range(3):
        code, _ = await status(node.channel, SERVICE + "Hello", [("x-large", "x" * 15_000)])
        if code is StatusCode.OK or not beyond_grpc:
            break
    assert code is StatusCode.OK


async def test_a_workflow_has_at_most_32_tags(node: Node) -> None:
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", tags={f"t{number}": "" for number in range(33)})
    code, text = await node.refusal("StartInstance", request)
    assert (code, text) == (StatusCode.INVALID_ARGUMENT, "the workflow has 33 tags; at most 32 are allowed")
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", tags={"x" * 257: ""})
    assert (await node.refusal("StartInstance", request))[0] is StatusCode.INVALID_ARGUMENT
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", tags={f"t{number}": "" for number in range(32)})
    await node.call("StartInstance", request)
