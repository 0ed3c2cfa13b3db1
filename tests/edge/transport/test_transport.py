"""The contract of the transport: single calls, their metadata, status, deadline and cancellation."""

import asyncio

import pytest
import structlog

from sidecar.edge.transport.ports import NO_NAMES, Call, Handlers, Outflow, Refused, StatusCode
from tests.edge.transport.network import SOON, Held, Network, echo, open_stream, rest, until

ALL_BYTES = bytes(range(256))


class Recorder:
    """Echoes, and keeps the calls it got."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def unary(self, call: Call, request: bytes) -> bytes:
        self.calls.append(call)
        return request


class Refuser:
    """Ends every call with one refusal."""

    def __init__(self, refusal: Refused) -> None:
        self.refusal = refusal

    async def unary(self, _call: Call, _request: bytes) -> bytes:
        raise self.refusal

    async def stream(self, _call: Call, _request: bytes, _outflow: Outflow) -> None:
        raise self.refusal

    def handlers(self) -> Handlers:
        return Handlers(unary={"/t/unary": self.unary}, stream={"/t/stream": self.stream})


async def refused_stream(channel, method: str) -> Refused:
    call = await open_stream(channel, method)
    with pytest.raises(Refused) as refused:
        await rest(call)
    return refused.value


async def test_a_call_gets_its_reply(network: Network):
    async def double(_call: Call, request: bytes) -> bytes:
        return request + request

    channel = await network.connect(Handlers(unary={"/t/double": double, "/t/echo": echo}))
    assert await channel.unary("/t/double", b"ab") == b"abab"
    assert await channel.unary("/t/echo", b"ab") == b"ab"


@pytest.mark.parametrize("message", [b"", b"\x00", ALL_BYTES])
async def test_bytes_pass_unchanged(network: Network, message: bytes):
    channel = await network.connect(Handlers(unary={"/t/echo": echo}))
    assert await channel.unary("/t/echo", message) == message


async def test_a_call_says_who_called_what(network: Network):
    recorder = Recorder()
    channel = await network.connect(Handlers(unary={"/t/a": recorder.unary}))
    await channel.unary("/t/a", b"", metadata=[("x-app", "orders"), ("x-key-bin", ALL_BYTES)])
    (call,) = recorder.calls
    assert call.method == "/t/a"
    assert call.metadata["x-app"] == "orders"
    assert call.metadata["x-key-bin"] == ALL_BYTES
    assert call.peer.startswith("ipv4:127.0.0.1:")
    assert call.identity == NO_NAMES


async def test_of_a_metadata_key_sent_twice_the_last_value_counts(network: Network):
    recorder = Recorder()
    channel = await network.connect(Handlers(unary={"/t/a": recorder.unary}))
    await channel.unary("/t/a", b"", metadata=[("x-app", "first"), ("x-app", "second")])
    assert recorder.calls[0].metadata["x-app"] == "second"


async def test_a_stream_call_has_metadata_too(network: Network):
    async def tell(call: Call, _request: bytes, outflow: Outflow) -> None:
        outflow.send(repr(call.metadata.get("x-app")).encode())

    channel = await network.connect(Handlers(stream={"/t/tell": tell}))
    call = channel.duplex("/t/tell", metadata=[("x-app", "orders")])
    await call.send(b"")
    await call.done_sending()
    assert await rest(call) == [b"'orders'"]


async def test_a_refusal_arrives_with_its_message_and_trailers(network: Network):
    message = "no workflow größe, 工作流 🙂\n100 %25"
    trailers = (("x-detail-bin", ALL_BYTES), ("x-retry", "3"))
    refuser = Refuser(Refused(StatusCode.NOT_FOUND, message, trailers))
    channel = await network.connect(refuser.handlers())
    with pytest.raises(Refused) as unary:
        await channel.unary("/t/unary", b"")
    for refused in (unary.value, await refused_stream(channel, "/t/stream")):
        assert (refused.status, refused.message) == (StatusCode.NOT_FOUND, message)
        assert set(refused.trailers) >= set(trailers)


async def test_every_status_arrives_as_itself(network: Network):
    refuser = Refuser(Refused(StatusCode.UNKNOWN, ""))
    channel = await network.connect(refuser.handlers())
    for status in StatusCode:
        if status is StatusCode.OK:
            continue
        refuser.refusal = Refused(status, status.name)
        with pytest.raises(Refused) as unary:
            await channel.unary("/t/unary", b"")
        streamed = await refused_stream(channel, "/t/stream")
        assert (unary.value.status, unary.value.message) == (status, status.name)
        assert (streamed.status, streamed.message) == (status, status.name)


async def test_a_message_too_long_for_headers_is_cut_and_not_lost(network: Network):
    channel = await network.connect(Refuser(Refused(StatusCode.NOT_FOUND, "é" * 50_000)).handlers())
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/unary", b"")
    assert refused.value.status is StatusCode.NOT_FOUND
    assert refused.value.message == "é" * 1_000


async def test_a_message_that_is_no_valid_text_is_not_lost(network: Network):
    channel = await network.connect(Refuser(Refused(StatusCode.NOT_FOUND, "bad \ud800 name")).handlers())
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/unary", b"")
    assert (refused.value.status, refused.value.message) == (StatusCode.NOT_FOUND, "bad ? name")


async def test_a_refusal_cannot_be_ok():
    with pytest.raises(ValueError, match="other than OK"):
        Refused(StatusCode.OK, "")


async def test_the_handler_sees_the_deadline(network: Network):
    recorder = Recorder()
    channel = await network.connect(Handlers(unary={"/t/a": recorder.unary}))
    await channel.unary("/t/a", b"", timeout=30.0)
    await channel.unary("/t/a", b"")
    with_deadline, without = (call.deadline for call in recorder.calls)
    assert with_deadline == pytest.approx(30.0, abs=2.0)
    assert without is None


async def test_a_deadline_that_passes_ends_the_call_and_its_handler(network: Network):
    held = Held()
    channel = await network.connect(Handlers(unary={"/t/held": held.unary}))
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/held", b"", timeout=0.2)
    assert refused.value.status is StatusCode.DEADLINE_EXCEEDED
    await until(lambda: held.cancelled == 1)


async def test_a_caller_that_cancels_cancels_the_handler(network: Network):
    held = Held()
    channel = await network.connect(Handlers(unary={"/t/held": held.unary}))
    calling = asyncio.create_task(channel.unary("/t/held", b""))
    await until(lambda: held.started == 1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await until(lambda: held.cancelled == 1)


async def test_a_handler_that_fails_while_it_is_cancelled_is_logged_and_harms_nobody(network: Network):
    held = Held()

    async def fails_late(call: Call, request: bytes) -> bytes:
        try:
            return await held.unary(call, request)
        except asyncio.CancelledError:
            raise RuntimeError("while tidying up") from None

    channel = await network.connect(Handlers(unary={"/t/late": fails_late, "/t/echo": echo}))
    with structlog.testing.capture_logs() as logs:
        calling = asyncio.create_task(channel.unary("/t/late", b""))
        await until(lambda: held.started == 1)
        calling.cancel()
        await until(lambda: bool(logs))
    assert await channel.unary("/t/echo", b"x") == b"x"
    assert [entry["event"] for entry in logs] == ["handler_failed"]


async def test_a_handler_that_fails_ends_its_call_with_internal_and_no_details(network: Network):
    async def unary(_call: Call, _request: bytes) -> bytes:
        raise KeyError("secret")

    async def stream(_call: Call, _request: bytes, outflow: Outflow) -> None:
        outflow.send(b"first")
        raise KeyError("secret")

    channel = await network.connect(Handlers(unary={"/t/unary": unary, "/t/echo": echo}, stream={"/t/stream": stream}))
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(Refused) as unary_refused:
            await channel.unary("/t/unary", b"")
        call = await open_stream(channel, "/t/stream")
        assert await call.receive() == b"first"
        with pytest.raises(Refused) as stream_refused:
            await call.receive()
    for refused in (unary_refused.value, stream_refused.value):
        assert (refused.status, refused.message) == (StatusCode.INTERNAL, "internal error")
        assert "secret" not in repr(refused.trailers)
    assert [entry["method"] for entry in logs] == ["/t/unary", "/t/stream"]
    assert all(isinstance(entry["exc_info"], KeyError) for entry in logs)
    assert await channel.unary("/t/echo", b"x") == b"x"


async def test_a_handler_that_waits_for_something_cancelled_fails_and_does_not_hang(network: Network):
    async def unary(_call: Call, _request: bytes) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    async def stream(call: Call, request: bytes, outflow: Outflow) -> None:
        outflow.send(await unary(call, request))

    channel = await network.connect(Handlers(unary={"/t/unary": unary}, stream={"/t/stream": stream}))
    async with asyncio.timeout(SOON):
        with pytest.raises(Refused) as refused:
            await channel.unary("/t/unary", b"")
        assert refused.value.status is StatusCode.INTERNAL
        assert (await refused_stream(channel, "/t/stream")).status is StatusCode.INTERNAL


async def test_an_unknown_method_is_unimplemented_and_named(network: Network):
    channel = await network.connect(Handlers(unary={"/t/echo": echo}))
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/Echo", b"")
    streamed = channel.duplex("/other/echo")
    with pytest.raises(Refused) as stream_refused:
        await streamed.receive()
    assert (refused.value.status, stream_refused.value.status) == (StatusCode.UNIMPLEMENTED,) * 2
    assert "/t/Echo" in refused.value.message
    assert "/other/echo" in stream_refused.value.message
    assert await channel.unary("/t/echo", b"x") == b"x"


async def test_nobody_there_is_unavailable(network: Network):
    server = network.server(Handlers())
    port = await server.listen("127.0.0.1", 0)
    await server.stop(0)
    channel = network.channel(port)
    async with asyncio.timeout(SOON):
        with pytest.raises(Refused) as refused:
            await channel.unary("/t/echo", b"")
        with pytest.raises(Refused) as stream_refused:
            await channel.duplex("/t/echo").receive()
    assert (refused.value.status, stream_refused.value.status) == (StatusCode.UNAVAILABLE,) * 2


async def test_a_closed_channel_refuses_calls_old_and_new(network: Network):
    held = Held()
    handlers = Handlers(unary={"/t/held": held.unary}, stream={"/t/stream": held.stream})
    channel = await network.connect(handlers)
    calling = asyncio.create_task(channel.unary("/t/held", b""))
    receiving = asyncio.create_task((await open_stream(channel, "/t/stream")).receive())
    await until(lambda: held.started == 2)
    await channel.close()
    for waiting in (calling, receiving):
        with pytest.raises(Refused) as refused:
            await waiting
        assert refused.value.status is StatusCode.CANCELLED
    with pytest.raises(Refused):
        await channel.unary("/t/held", b"")
    with pytest.raises(Refused):
        channel.duplex("/t/stream")
    await until(lambda: held.cancelled == 2)
