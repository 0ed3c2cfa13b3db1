"""What the network says of a connection that failed comes out in plain words; other refusals stay as they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.cli import dev_ca
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.grpc_aio.words import plain
from sidecar.edge.transport.ports import Handlers, Refused, Tls
from tests.edge.transport.network import echo


def proofs(directory: Path) -> Tls:
    dev_ca.issue(directory, ["ml"], "default", "sidecar.local", 1)
    return Tls(*((directory / name).read_bytes() for name in ("ml.crt", "ml.key", "ca.crt")))


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[dict[str, int]]:
    """Ports of a server in plaintext, one with TLS, one that speaks HTTP, and one that hangs up."""
    tls = proofs(tmp_path)
    plaintext, secure = (GrpcServer(Handlers(unary={"/t/echo": echo})) for _ in range(2))
    ports = {"plain": await plaintext.listen("127.0.0.1", 0), "tls": await secure.listen("127.0.0.1", 0, lambda: tls)}

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    others = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (http, hangs_up)]
    ports |= {name: each.sockets[0].getsockname()[1] for name, each in zip(("http", "closed"), others, strict=True)}
    for server in (plaintext, secure):
        await server.start()
    yield ports
    for server in (plaintext, secure):
        await server.stop(0)
    for other in others:
        other.close()


async def said(target: str, tls: Tls | None = None, name: str = "ml.default") -> str:
    channel = GrpcChannel(target, tls=tls, name=name)
    try:
        await channel.unary("/t/echo", b"x", timeout=5.0)
    except Refused as refused:
        return refused.message
    finally:
        await channel.close()
    return ""


async def test_why_there_is_no_connection_is_said_in_plain_words(servers: dict[str, int], tmp_path: Path) -> None:
    at = {name: f"127.0.0.1:{port}" for name, port in servers.items()}
    ours, others = proofs(tmp_path), proofs(tmp_path / "others")
    assert await said(at["plain"]) == await said(at["tls"], ours) == ""
    assert await said("127.0.0.1:1") == "connection refused: nothing listens there"
    assert await said("no-such-host.invalid:5000") == "no such host"
    assert await said(at["http"]) == "it answers as an HTTP server, not as a sidecar's peer port"
    closed = "it closed the connection: not a sidecar's peer port, or one that wants TLS, or another certificate"
    assert (
        await said(at["closed"])
        == await said(at["tls"])
        == await said(at["tls"], others._replace(ca=ours.ca))
        == closed
    )
    assert await said(at["plain"], ours) == "TLS: it does not speak TLS, and this side does"
    assert await said(at["tls"], ours._replace(ca=others.ca)) == (
        "TLS: its certificate is not from the CA that is trusted here"
    )
    assert await said(at["tls"], ours, "other.default") == (
        "TLS: its certificate is not that of the app that is looked for"
    )


def test_what_is_not_known_keeps_the_words_of_the_network() -> None:
    around = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: "
    assert plain(f"{around}The moon is in the way") == "The moon is in the way"
    assert plain("no such instance exists") == "no such instance exists"
