"""The contract of the transport: many calls, large messages, cancels in a storm, pings and garbage."""

import asyncio

import pytest

from sidecar.edge.transport.ports import Call, Channel, Handlers, Outflow, Refused, StatusCode
from tests.edge.transport import http2
from tests.edge.transport.network import SOON, Held, Network, echo, open_stream, rest, until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


async def reflect(_call: Call, request: bytes, outflow: Outflow) -> None:
    outflow.send(request)


async def grow(_call: Call, request: bytes) -> bytes:
    return bytes(int(request))


async def too_large(channel: Channel, method: str, request: bytes) -> None:
    with pytest.raises(Refused) as refused:
        await channel.unary(method, request)
    assert refused.value.status is StatusCode.RESOURCE_EXHAUSTED


async def eventually(channel: Channel) -> None:
    """Return when a call to "/t/echo" has succeeded."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                assert await channel.unary("/t/echo", b"x") == b"x"
                return
            except Refused:
                await asyncio.sleep(0.05)


async def test_a_storm_of_cancels_leaves_a_held_stream_alone(network: Network):
    held, victims = Held(), Held()
    handlers = Handlers(
        unary={"/t/victim": victims.unary, "/t/echo": echo},
        stream={"/t/held": held.stream, "/t/victim-stream": victims.stream},
    )
    channel = await network.connect(handlers)
    stream = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    calls = [asyncio.create_task(channel.unary("/t/victim", b"")) for _ in range(250)]
    streams = [await open_stream(channel, "/t/victim-stream") for _ in range(250)]
    await until(lambda: victims.started == 500)
    for call in (*calls, *streams):
        call.cancel()
    await until(lambda: victims.cancelled == 500)
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"
    assert await channel.unary("/t/echo", b"x") == b"x"
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_cancelled_before_they_are_under_way_leave_a_held_stream_alone(network: Network):
    held, victims = Held(), Held()
    handlers = Handlers(unary={"/t/victim": victims.unary, "/t/echo": echo}, stream={"/t/held": held.stream})
    channel = await network.connect(handlers)
    stream = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    for number in range(500):
        call = asyncio.create_task(channel.unary("/t/victim", b""))
        await asyncio.sleep(0.001 * (number % 3))
        call.cancel()
    assert await channel.unary("/t/echo", b"x") == b"x"
    await until(lambda: victims.cancelled == victims.started)
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"


async def test_messages_of_32_mib_pass_both_ways(network: Network):
    """E.7: far above gRPC's own limit of 4 MiB."""
    message = bytes(range(256)) * (32 * MIB // 256)
    channel = await network.connect(Handlers(unary={"/t/echo": echo}, stream={"/t/reflect": reflect}))
    assert await channel.unary("/t/echo", message) == message
    assert await rest(await open_stream(channel, "/t/reflect", message)) == [message]


async def test_a_message_above_the_limit_is_refused_and_the_connection_lives_on(network: Network):
    held = Held()
    handlers = Handlers(unary={"/t/echo": echo, "/t/grow": grow}, stream={"/t/held": held.stream})
    port = await network.serve(handlers, max_receive_bytes=MIB)
    channel = network.channel(port, max_receive_bytes=MIB)
    stream = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    await too_large(channel, "/t/echo", bytes(2 * MIB))
    await too_large(channel, "/t/grow", str(2 * MIB).encode())
    assert len(await channel.unary("/t/echo", bytes(MIB - 1024))) == MIB - 1024
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"


async def test_the_server_says_which_request_it_could_not_receive(network: Network):
    server = network.server(Handlers(unary={"/t/echo": echo, "/t/grow": grow}), max_receive_bytes=MIB)
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    channel = network.channel(port)
    unread: list[tuple[str, int]] = []
    server.unread = lambda call, most: unread.append((call.method, most))
    await too_large(channel, "/t/echo", bytes(2 * MIB))
    assert await channel.unary("/t/echo", b"x") == b"x"
    assert unread == [("/t/echo", MIB)]


async def test_a_call_without_a_request_is_refused(network: Network):
    channel = await network.connect(Handlers(unary={"/t/echo": echo}))
    call = channel.duplex("/t/echo")
    await call.done_sending()
    with pytest.raises(Refused) as refused:
        await call.receive()
    assert refused.value.status is StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
async def test_500_streams_and_2000_calls_at_once_all_succeed(network: Network):
    held = Held()
    channel = await network.connect(Handlers(unary={"/t/echo": echo}, stream={"/t/held": held.stream}))
    streams = [channel.duplex("/t/held") for _ in range(500)]

    async def use(stream) -> list[bytes]:
        await stream.send(b"")
        await stream.done_sending()
        return await rest(stream)

    using = [asyncio.create_task(use(stream)) for stream in streams]
    requests = [str(number).encode() for number in range(2_000)]
    replies = await asyncio.gather(*(channel.unary("/t/echo", request) for request in requests))
    assert replies == requests
    await until(lambda: held.started == 500)
    for outflow in held.outflows:
        outflow.send(b"item")
    held.release.set()
    assert await asyncio.gather(*using) == [[b"item"]] * 500


async def test_a_burst_of_calls_survives_a_loop_that_is_busy(network: Network):
    """E.7: the server's queue of calls is long enough for a fan-out that ends at once."""
    ready = asyncio.Event()

    async def slow_to_start(_call: Call, request: bytes) -> bytes:
        await ready.wait()
        return request

    channel = await network.connect(Handlers(unary={"/t/slow": slow_to_start}))
    calls = [asyncio.create_task(channel.unary("/t/slow", b"x")) for _ in range(2_000)]
    await asyncio.sleep(0)
    ready.set()
    assert await asyncio.gather(*calls) == [b"x"] * 2_000


async def test_pings_without_calls_are_answered_however_many(network: Network):
    """E.7: Dapr's clients ping every 30 s, with no call open."""
    async with http2.Client.connect(await network.serve(Handlers())) as client:
        for number in range(50):
            client.write(http2.frame(http2.PING, payload=number.to_bytes(8, "big")))
            await until(lambda expected=number + 1: client.count(http2.PING, http2.ACK) == expected)
            await asyncio.sleep(0.01)
        assert client.count(http2.GOAWAY) == 0


@pytest.mark.slow
async def test_pings_beside_a_held_stream_are_answered(network: Network):
    """E.7: and beside a silent stream."""
    held = Held()
    port = await network.serve(Handlers(stream={"/t/held": held.stream}))
    channel = network.channel(port, keepalive=0.2)
    stream = await open_stream(channel, "/t/held")
    await asyncio.sleep(2.5)
    assert (held.started, held.cancelled) == (1, 0)
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 64,
        http2.PREFACE + b"\xff" * 1_000,
        http2.PREFACE + http2.frame(http2.SETTINGS) + http2.frame(http2.DATA, 0, 1, b"no headers"),
        http2.PREFACE + http2.frame(http2.SETTINGS) + http2.frame(http2.HEADERS, 4, 1, b"\xff" * 50),
    ],
    ids=["zeros", "http-1", "bytes", "bad-frames", "data-without-call", "bad-headers"],
)
async def test_garbage_on_one_connection_does_not_hurt_another(network: Network, garbage: bytes):
    held = Held()
    port = await network.serve(Handlers(unary={"/t/echo": echo}, stream={"/t/held": held.stream}))
    channel = network.channel(port)
    stream = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(garbage)
    await asyncio.wait([asyncio.create_task(reader.read())], timeout=0.2)
    writer.transport.abort()
    assert await channel.unary("/t/echo", b"x") == b"x"
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"


@pytest.mark.parametrize("path", [b"", b"/", b"//", b"nothing", b"/t/echo?x=1", b"/t/%00", b"*"])
async def test_an_odd_path_does_not_hurt_others(network: Network, path: bytes):
    port = await network.serve(Handlers(unary={"/t/echo": echo}))
    channel = network.channel(port)
    async with http2.Client.connect(port) as client:
        client.call(path)
        await asyncio.sleep(0.05)
        assert await channel.unary("/t/echo", b"x") == b"x"
        again = network.channel(port)
        assert await again.unary("/t/echo", b"y") == b"y"


async def test_a_path_that_is_no_text_ends_no_running_call_and_soon_new_ones_work(network: Network):
    held = Held()
    port = await network.serve(Handlers(unary={"/t/echo": echo}, stream={"/t/held": held.stream}))
    stream = await open_stream(network.channel(port), "/t/held")
    await until(lambda: held.started == 1)
    for _ in range(2):
        async with http2.Client.connect(port) as client:
            client.call(b"/t/\xff\xfe")
            await asyncio.sleep(0.05)
        await eventually(network.channel(port))
    held.outflows[0].send(b"still here")
    assert await stream.receive() == b"still here"
    assert held.cancelled == 0


@pytest.mark.parametrize(
    "header",
    [
        (b"x-app", b"\xff\xfe"),
        (b"x-app-bin", b"!not base 64!"),
        (b"x-\xff", b"x"),
        (b"grpc-timeout", b"soon"),
        (b"grpc-encoding", b"nonsense"),
        (b"user-agent", b"\xff"),
        (b":authority", b"\xff"),
    ],
    ids=str,
)
async def test_an_odd_header_does_not_hurt_others(network: Network, header: tuple[bytes, bytes]):
    port = await network.serve(Handlers(unary={"/t/echo": echo}))
    channel = network.channel(port)
    async with http2.Client.connect(port) as client:
        client.call(b"/t/echo", header=header)
        await asyncio.sleep(0.05)
        assert await channel.unary("/t/echo", b"x") == b"x"
        again = network.channel(port)
        assert await again.unary("/t/echo", b"y") == b"y"


async def test_a_client_that_disappears_ends_its_handlers(network: Network):
    held = Held()
    port = await network.serve(Handlers(unary={"/t/unary": held.unary}, stream={"/t/stream": held.stream}))
    for number, path in enumerate((b"/t/unary", b"/t/stream"), start=1):
        async with http2.Client.connect(port) as client:
            client.call(path)
            await until(lambda expected=number: held.started == expected)
            assert held.cancelled == number - 1
        await until(lambda expected=number: held.cancelled == expected)
