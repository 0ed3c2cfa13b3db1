"""The contract of the transport: streams, calls with messages both ways, and a side that is slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from sidecar.edge.transport.ports import Call, Closed, Handlers, Outflow, Refused, StatusCode
from tests.edge.transport.http2 import Client
from tests.edge.transport.network import SOON, Held, Network, echo, open_stream, rest, until

pytestmark = pytest.mark.slow

ALL_BYTES = bytes(range(256))
NUMBERS = [str(number).encode() for number in range(1_000)]
QUIET = 0.3
"""Seconds without any progress after which a sender counts as held back."""


async def count(_call: Call, _request: bytes, outflow: Outflow) -> None:
    for number in NUMBERS:
        outflow.send(number)


async def echo_all(_call: Call, requests: AsyncIterator[bytes], outflow: Outflow) -> None:
    async for request in requests:
        outflow.send(request)
    outflow.send(b"end")


class Producer:
    """A stream handler that sends messages as fast as its outflow takes them."""

    def __init__(self, message: bytes, total: int) -> None:
        self.message = message
        self.total = total
        self.sent = 0
        self.waits = 0

    async def stream(self, _call: Call, _request: bytes, outflow: Outflow) -> None:
        while self.sent < self.total:
            outflow.send(self.message)
            self.sent += 1
            if outflow.full:
                self.waits += 1
                await outflow.drained()


async def settled(progress) -> int:
    """Return the figure once it has not moved for a while."""
    async with asyncio.timeout(SOON):
        before = -1
        while before != progress():
            before = progress()
            await asyncio.sleep(QUIET)
    return before


async def test_a_stream_arrives_in_order_and_ends(network: Network):
    channel = await network.connect(Handlers(stream={"/t/count": count}))
    assert await rest(await open_stream(channel, "/t/count")) == NUMBERS


async def test_stream_messages_pass_unchanged(network: Network):
    async def reflect(_call: Call, request: bytes, outflow: Outflow) -> None:
        outflow.send(b"")
        outflow.send(request)

    channel = await network.connect(Handlers(stream={"/t/reflect": reflect}))
    assert await rest(await open_stream(channel, "/t/reflect", ALL_BYTES)) == [b"", ALL_BYTES]


async def test_a_stream_without_messages_ends_with_ok(network: Network):
    async def nothing(_call: Call, _request: bytes, _outflow: Outflow) -> None:
        return

    channel = await network.connect(Handlers(stream={"/t/nothing": nothing}))
    call = await open_stream(channel, "/t/nothing")
    assert await call.receive() is None
    assert await call.receive() is None


@pytest.mark.parametrize("half_closed", [True, False])
async def test_what_was_queued_before_the_end_reaches_a_slow_reader(network: Network, half_closed: bool):
    async def count_and_refuse(call: Call, request: bytes, outflow: Outflow) -> None:
        await count(call, request, outflow)
        raise Refused(StatusCode.ABORTED, "after all", [("x-last", "999")])

    channel = await network.connect(Handlers(stream={"/t/count": count, "/t/refuse": count_and_refuse}))
    for method in ("/t/count", "/t/refuse"):
        call = channel.duplex(method)
        await call.send(b"")
        if half_closed:
            await call.done_sending()
        await asyncio.sleep(0.1)
        assert [await call.receive() for _ in NUMBERS] == NUMBERS
        if method == "/t/count":
            assert await call.receive() is None
            continue
        with pytest.raises(Refused) as refused:
            await call.receive()
        assert (refused.value.status, refused.value.message) == (StatusCode.ABORTED, "after all")
        assert ("x-last", "999") in refused.value.trailers


async def test_a_held_stream_delivers_what_another_task_sends(network: Network):
    held = Held()
    channel = await network.connect(Handlers(stream={"/t/held": held.stream}))
    call = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    for message in NUMBERS[:100]:
        held.outflows[0].send(message)
        assert await call.receive() == message
    held.release.set()
    assert await call.receive() is None


async def test_nothing_can_be_sent_after_the_handler_has_returned(network: Network):
    held = Held()
    channel = await network.connect(Handlers(stream={"/t/held": held.stream}))
    call = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    held.release.set()
    assert await call.receive() is None
    with pytest.raises(Closed):
        held.outflows[0].send(b"late")
    with pytest.raises(Closed):
        await held.outflows[0].drained()


async def test_a_client_that_cancels_ends_the_handler_and_closes_its_outflow(network: Network):
    held = Held()
    channel = await network.connect(Handlers(stream={"/t/held": held.stream}))
    call = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    call.cancel()
    await until(lambda: held.cancelled == 1)
    with pytest.raises(Closed):
        held.outflows[0].send(b"late")
    with pytest.raises(Refused) as refused:
        await call.receive()
    assert refused.value.status is StatusCode.CANCELLED


async def test_an_outflow_is_full_above_its_high_water_mark(network: Network):
    seen: list[tuple[int, bool]] = []

    async def fill(_call: Call, request: bytes, outflow: Outflow) -> None:
        for number in range(1, 12):
            outflow.send(request)
            seen.append((number, outflow.full))
        await outflow.drained()
        seen.append((0, outflow.full))

    expected = [(number, number > 10) for number in range(1, 12)] + [(0, False)]
    handlers = Handlers(stream={"/t/fill": fill})
    by_count = await network.connect(handlers, high_water_messages=10)
    assert len(await rest(await open_stream(by_count, "/t/fill", b""))) == 11
    assert seen == expected
    seen.clear()
    by_bytes = await network.connect(handlers, high_water_bytes=10 * 256)
    assert len(await rest(await open_stream(by_bytes, "/t/fill", ALL_BYTES))) == 11
    assert seen == expected


async def test_a_paused_reader_holds_its_stream_back_and_nothing_else(network: Network):
    producer = Producer(bytes(64 * 1024), total=1_000)
    handlers = Handlers(unary={"/t/echo": echo}, stream={"/t/much": producer.stream, "/t/count": count})
    channel = await network.connect(handlers, high_water_bytes=1024 * 1024)
    paused = await open_stream(channel, "/t/much")
    assert await paused.receive() == producer.message
    sent = await settled(lambda: producer.sent)
    assert sent < producer.total
    async with asyncio.timeout(SOON):
        assert await channel.unary("/t/echo", b"x") == b"x"
        assert await rest(await open_stream(channel, "/t/count")) == NUMBERS
    assert producer.sent == sent
    assert len(await rest(paused)) == producer.total - 1
    assert producer.waits > 1


async def test_a_writer_that_waits_for_room_is_ended_when_its_client_goes(network: Network):
    producer = Producer(bytes(64 * 1024), total=1_000)
    ended = []

    async def watched(call: Call, request: bytes, outflow: Outflow) -> None:
        try:
            await producer.stream(call, request, outflow)
        except (asyncio.CancelledError, Closed) as error:
            ended.append(error)
            raise

    channel = await network.connect(Handlers(stream={"/t/much": watched}), high_water_bytes=1024 * 1024)
    call = await open_stream(channel, "/t/much")
    await settled(lambda: producer.sent)
    call.cancel()
    await until(lambda: len(ended) == 1)


async def test_a_writer_elsewhere_that_waits_for_room_learns_that_the_stream_has_ended(network: Network):
    held = Held()
    channel = await network.connect(Handlers(stream={"/t/held": held.stream}), high_water_bytes=1024)
    call = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    held.outflows[0].send(bytes(32 * 1024 * 1024))
    waiting = asyncio.create_task(held.outflows[0].drained())
    await asyncio.sleep(QUIET)
    assert not waiting.done()
    call.cancel()
    with pytest.raises(Closed):
        await asyncio.wait_for(waiting, SOON)


async def test_a_call_both_ways_keeps_the_order_and_sees_the_half_close(network: Network):
    channel = await network.connect(Handlers(duplex={"/t/echo": echo_all}))
    call = channel.duplex("/t/echo")

    async def send_all() -> None:
        for number in NUMBERS:
            await call.send(number)
        await call.done_sending()
        await call.done_sending()

    sending = asyncio.create_task(send_all())
    assert await rest(call) == [*NUMBERS, b"end"]
    await sending


async def test_a_call_both_ways_answers_message_by_message_unchanged(network: Network):
    channel = await network.connect(Handlers(duplex={"/t/echo": echo_all}))
    call = channel.duplex("/t/echo")
    for message in (b"", ALL_BYTES, b"\x00"):
        await call.send(message)
        assert await call.receive() == message


async def test_the_server_can_end_a_call_both_ways(network: Network):
    async def one(_call: Call, requests: AsyncIterator[bytes], outflow: Outflow) -> None:
        async for request in requests:
            outflow.send(request)
            return

    channel = await network.connect(Handlers(duplex={"/t/one": one}))
    call = channel.duplex("/t/one")
    await call.send(b"x")
    assert await rest(call) == [b"x"]
    with pytest.raises(Closed):
        await call.send(b"late")


async def test_the_server_can_refuse_a_call_both_ways(network: Network):
    async def refuse(_call: Call, _requests: AsyncIterator[bytes], outflow: Outflow) -> None:
        outflow.send(b"no")
        raise Refused(StatusCode.PERMISSION_DENIED, "not you")

    channel = await network.connect(Handlers(duplex={"/t/refuse": refuse}))
    call = channel.duplex("/t/refuse")
    assert await call.receive() == b"no"
    with pytest.raises(Refused) as refused:
        await call.receive()
    assert (refused.value.status, refused.value.message) == (StatusCode.PERMISSION_DENIED, "not you")
    with pytest.raises(Closed):
        await call.send(b"late")


async def test_a_cancelled_call_never_looks_half_closed_to_the_server(network: Network):
    counts = {"started": 0, "ended": 0, "cancelled": 0}

    async def read_all(_call: Call, requests: AsyncIterator[bytes], _outflow: Outflow) -> None:
        counts["started"] += 1
        try:
            async for _ in requests:
                pass
            counts["ended"] += 1
        except asyncio.CancelledError:
            counts["cancelled"] += 1
            raise

    channel = await network.connect(Handlers(duplex={"/t/read": read_all}))
    for number in range(200):
        call = channel.duplex("/t/read")
        await call.send(b"x")
        await until(lambda expected=number + 1: counts["started"] == expected)
        call.cancel()
    await until(lambda: counts["cancelled"] == 200)
    assert counts["ended"] == 0


async def test_a_cancelled_receiver_cancels_the_call(network: Network):
    held = Held()
    channel = await network.connect(Handlers(duplex={"/t/held": held.duplex}))
    call = channel.duplex("/t/held")
    receiving = asyncio.create_task(call.receive())
    await until(lambda: held.started == 1)
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    await until(lambda: held.cancelled == 1)


async def test_a_server_that_does_not_read_holds_the_sender_back(network: Network):
    held = Held()
    channel = await network.connect(Handlers(duplex={"/t/held": held.duplex}, unary={"/t/echo": echo}))
    call = channel.duplex("/t/held")
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        while sent < 1_000:
            await call.send(bytes(64 * 1024))
            sent += 1

    sending = asyncio.create_task(send_all())
    assert await settled(lambda: sent) < 1_000
    assert await channel.unary("/t/echo", b"x") == b"x"
    call.cancel()
    with pytest.raises(Closed):
        await sending


async def test_a_stream_that_its_caller_cancels_says_so(network: Network):
    held = Held()
    port = await network.serve(Handlers(stream={"/t/held": held.stream}))
    channel = network.channel(port)
    call = await open_stream(channel, "/t/held")
    await until(lambda: held.started == 1)
    assert not held.outflows[0].cancelled
    call.cancel()
    await until(lambda: held.cancelled == 1)
    assert held.outflows[0].cancelled


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_caller_that_is_killed_has_not_cancelled(network: Network, how: str):
    """The system closes the sockets of a process that is killed, and resets those that it had not read from."""
    held = Held()
    port = await network.serve(Handlers(stream={"/t/held": held.stream}))
    async with Client.connect(port) as client:
        client.call(b"/t/held")
        await until(lambda: held.started == 1)
        await (client.drop() if how == "reset" else client.end())
        await until(lambda: held.cancelled == 1)
    assert not held.outflows[0].cancelled


async def test_one_connection_of_many_is_told_from_the_others(network: Network):
    held = Held()
    port = await network.serve(Handlers(stream={"/t/held": held.stream}))
    calls = [await open_stream(network.channel(port), "/t/held") for _ in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.connect(port)) for _ in range(10)]
        for client in clients:
            client.call(b"/t/held")
        await until(lambda: held.started == 20)
        for call in calls:
            call.cancel()
        await asyncio.gather(*(client.end() for client in clients))
        await until(lambda: held.cancelled == 20)
    assert sum(outflow.cancelled for outflow in held.outflows) == 10
