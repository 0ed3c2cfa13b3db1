"""What only the grpc.aio adapter promises."""

import asyncio

import grpc

from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.transport import Call, Handlers

from .network import SOON, Held


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
