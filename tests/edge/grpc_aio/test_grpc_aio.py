"""What only the grpc.aio adapter promises."""

import asyncio
import contextlib

import grpc
import pytest

from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from tests.edge.transport import http2
from tests.edge.transport.network import SOON, Held, echo


async def test_a_held_stream_has_its_headers_before_its_first_message():
    held = Held()
    server = GrpcServer(Handlers(stream={"/t/held": held.stream}))
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream("/t/held")(b"")
        await asyncio.wait_for(call.initial_metadata(), SOON)
        call.cancel()
    await server.stop(0)


async def test_the_user_agent_of_a_caller_is_in_its_metadata():
    agents = []

    async def keep(call: Call, request: bytes) -> bytes:
        agents.append(call.metadata["user-agent"])
        return request

    server = GrpcServer(Handlers(unary={"/t/keep": keep}))
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    channel = GrpcChannel(f"127.0.0.1:{port}")
    await channel.unary("/t/keep", b"")
    await channel.close()
    await server.stop(0)
    assert agents[0].startswith("grpc-python-asyncio/")


async def lasts(port: int, data: bytes, drip: bytes = b"") -> float:
    """Seconds until a connection that sends this, and then a byte now and then, is closed."""
    begin = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)

    async def dripping() -> None:
        while drip:
            writer.write(drip)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(dripping())
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(-1), 10)
    task.cancel()
    writer.close()
    return asyncio.get_running_loop().time() - begin


HALF_A_CALL = http2.PREFACE + http2.frame(http2.SETTINGS) + http2.frame(http2.SETTINGS, http2.ACK)
HALF_A_CALL += (1000).to_bytes(3, "big") + bytes([http2.HEADERS, 4]) + (1).to_bytes(4, "big")


@pytest.mark.slow
@pytest.mark.fault(27, "A connection that makes no call ends, also one that sends its headers byte by byte")
@pytest.mark.parametrize(
    ("data", "drip"),
    [(b"", b""), (http2.PREFACE[:5], b""), (http2.PREFACE, b""), (HALF_A_CALL, b""), (HALF_A_CALL, b"\x00")],
    ids=["silent", "half a preface", "a preface", "half of the headers", "headers byte by byte"],
)
async def test_a_connection_that_makes_no_call_is_dropped_and_others_are_served_fast(data: bytes, drip: bytes):
    server = GrpcServer(Handlers(unary={"/t/echo": echo}), handshake=1.0, idle=2.0)
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    channel = GrpcChannel(f"127.0.0.1:{port}")
    slow = [asyncio.create_task(lasts(port, data, drip)) for _ in range(20)]
    slowest = 0.0
    while not all(task.done() for task in slow):
        begin = asyncio.get_running_loop().time()
        assert await channel.unary("/t/echo", b"x") == b"x"
        slowest = max(slowest, asyncio.get_running_loop().time() - begin)
        await asyncio.sleep(0.02)
    assert max(task.result() for task in slow) < 6.0
    assert slowest < 0.5
    await channel.close()
    await server.stop(0)


async def test_connections_above_the_limit_are_closed_and_those_that_are_here_go_on():
    server = GrpcServer(Handlers(unary={"/t/echo": echo}), max_connections=3)
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    channels = [GrpcChannel(f"127.0.0.1:{port}") for _ in range(3)]
    for channel in channels:
        assert await channel.unary("/t/echo", b"x") == b"x"
    another = GrpcChannel(f"127.0.0.1:{port}")
    with pytest.raises(Refused) as refused:
        await another.unary("/t/echo", b"x")
    assert refused.value.status is StatusCode.UNAVAILABLE
    for channel in channels:
        assert await channel.unary("/t/echo", b"x") == b"x"
    await channels.pop().close()
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(Refused):
                assert await another.unary("/t/echo", b"x") == b"x"
                break
            await asyncio.sleep(0.1)
    for channel in (another, *channels):
        await channel.close()
    await server.stop(0)
