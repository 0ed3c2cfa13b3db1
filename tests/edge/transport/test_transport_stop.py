"""The contract of the transport: where a server listens, and how it stops."""

import asyncio
import time

import pytest
import uvloop

from sidecar.edge.transport.ports import AddressInUse, Call, Channel, Handlers, Outflow, Refused, Server, StatusCode
from tests.edge.transport.network import SOON, Adapter, Held, Network, echo, open_stream, rest, until

GONE = (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)


async def started(network: Network, handlers: Handlers) -> tuple[Server, Channel]:
    server = network.server(handlers)
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    return server, network.channel(port)


async def test_port_0_is_a_free_port(network: Network):
    ports = [await network.serve(Handlers(unary={"/t/echo": echo})) for _ in range(2)]
    assert len(set(ports)) == 2
    for port in ports:
        assert await network.channel(port).unary("/t/echo", b"x") == b"x"


async def test_a_server_listens_on_several_addresses(network: Network):
    server = network.server(Handlers(unary={"/t/echo": echo}))
    ports = [await server.listen("127.0.0.1", 0), await server.listen("127.0.0.1", 0)]
    await server.start()
    for port in ports:
        assert await network.channel(port).unary("/t/echo", b"x") == b"x"


async def test_a_server_listens_on_ipv6(network: Network):
    calls: list[Call] = []

    async def keep(call: Call, request: bytes) -> bytes:
        calls.append(call)
        return request

    server = network.server(Handlers(unary={"/t/keep": keep}))
    port = await server.listen("::1", 0)
    await server.start()
    assert await network.channel(port, host="[::1]").unary("/t/keep", b"x") == b"x"
    assert calls[0].peer.startswith("ipv6:[::1]:")


async def test_a_taken_port_is_an_error_that_names_it(network: Network):
    """E.7: no second server binds a taken port without an error."""
    port = await network.serve(Handlers(unary={"/t/echo": echo}))
    with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}"):
        await network.serve(Handlers(), port)
    assert await network.channel(port).unary("/t/echo", b"x") == b"x"


async def test_a_server_can_follow_another_on_its_port(network: Network):
    first = network.server(Handlers(unary={"/t/echo": echo}))
    port = await first.listen("127.0.0.1", 0)
    await first.start()
    channel = network.channel(port)
    assert await channel.unary("/t/echo", b"x") == b"x"
    await first.stop(0)
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/echo", b"x")
    assert refused.value.status in GONE
    await network.serve(Handlers(unary={"/t/echo": echo}), port)
    async with asyncio.timeout(SOON):
        while True:
            try:
                assert await channel.unary("/t/echo", b"y") == b"y"
                return
            except Refused:
                await asyncio.sleep(0.05)


async def test_a_stop_lets_calls_finish_and_refuses_new_ones(network: Network):
    held = Held()
    server, channel = await started(
        network,
        Handlers(unary={"/t/held": held.unary, "/t/echo": echo}, stream={"/t/stream": held.stream}),
    )
    calling = asyncio.create_task(channel.unary("/t/held", b"x"))
    stream = await open_stream(channel, "/t/stream")
    await until(lambda: held.started == 2)
    stopping = asyncio.create_task(server.stop(30))
    await asyncio.sleep(0.1)
    with pytest.raises(Refused) as refused:
        await channel.unary("/t/echo", b"x")
    assert refused.value.status in GONE
    assert not stopping.done()
    held.outflows[0].send(b"last")
    held.release.set()
    assert await calling == b"x"
    assert await rest(stream) == [b"last"]
    await asyncio.wait_for(stopping, SOON)
    assert held.cancelled == 0


async def test_a_stop_ends_what_still_runs_after_the_grace(network: Network):
    held = Held()
    server, channel = await started(network, Handlers(unary={"/t/held": held.unary}, stream={"/t/stream": held.stream}))
    calling = asyncio.create_task(channel.unary("/t/held", b"x"))
    stream = await open_stream(channel, "/t/stream")
    await until(lambda: held.started == 2)
    begin = time.monotonic()
    await server.stop(0.3)
    assert 0.25 <= time.monotonic() - begin < 30.0, "what runs has no end of its own"
    assert held.cancelled == 2
    for waiting in (calling, stream.receive()):
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(waiting, SOON)
        assert refused.value.status in GONE


async def test_a_stop_waits_for_handlers_that_tidy_up(network: Network):
    held, tidied = Held(), []

    async def unary(call: Call, request: bytes) -> bytes:
        try:
            return await held.unary(call, request)
        finally:
            await asyncio.sleep(0.2)
            tidied.append("unary")

    async def stream(call: Call, request: bytes, outflow: Outflow) -> None:
        try:
            await held.stream(call, request, outflow)
        finally:
            await asyncio.sleep(0.2)
            tidied.append("stream")

    server, channel = await started(network, Handlers(unary={"/t/unary": unary}, stream={"/t/stream": stream}))
    calling = asyncio.create_task(channel.unary("/t/unary", b""))
    await open_stream(channel, "/t/stream")
    await until(lambda: held.started == 2)
    await server.stop(0)
    assert sorted(tidied) == ["stream", "unary"]
    with pytest.raises(Refused):
        await calling


async def test_a_server_that_was_never_started_can_be_stopped(network: Network):
    server = network.server(Handlers())
    await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(SOON):
        await server.stop(1)
        await server.stop(1)


def test_calls_and_streams_work_on_uvloop(adapter: Adapter):
    async def use() -> None:
        held = Held()
        network = Network(adapter)
        channel = await network.connect(
            Handlers(unary={"/t/echo": echo, "/t/held": held.unary}, stream={"/t/stream": held.stream})
        )
        assert await asyncio.gather(*(channel.unary("/t/echo", b"x") for _ in range(200))) == [b"x"] * 200
        stream = await open_stream(channel, "/t/stream")
        calling = asyncio.create_task(channel.unary("/t/held", b""))
        await until(lambda: held.started == 2)
        calling.cancel()
        await until(lambda: held.cancelled == 1)
        held.outflows[0].send(b"item")
        assert await stream.receive() == b"item"
        await network.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())
