"""What an HTTP caller may not do: without the token, from another page, with bodies that no client sends."""

import asyncio
import gzip
from contextlib import suppress

import pytest

from sidecar.config.parsers import Secret
from sidecar.edge.http import client_routes
from sidecar.edge.http import surface as http
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.client_api.documented import HttpClient
from tests.edge.http.test_surface import Shown, exchange
from tests.inprocess.sidecars import Node, Start, get

MIB = 1024 * 1024
START = b"POST /v1.0/workflows/dapr/flow/start?instanceID=i HTTP/1.1\r\nHost: localhost\r\n"
CHANGES = [
    ("POST", "workflows/dapr/flow/start"),
    ("POST", "workflows/dapr/i/terminate"),
    ("POST", "workflows/dapr/i/raiseEvent/go"),
    ("PUT", "metadata/key"),
    ("POST", "shutdown"),
]
EVERYTHING = [*CHANGES, ("GET", "workflows/dapr/i"), ("POST", "workflows/dapr/i/purge")]


async def started(node: Node, instance: str = "i") -> bool:
    return (await get(node, instance)).exists


@pytest.fixture
async def guarded(start: Start) -> Node:
    node = await start("orders", api_token=Secret("right"))
    node.metadata = (("dapr-api-token", "right"),)
    return node


async def test_without_the_token_nothing_is_done(guarded: Node) -> None:
    for method, path in EVERYTHING:
        for headers in ({}, {"dapr-api-token": "wrong"}, {"Authorization": "Bearer wrong"}):
            answer = await HttpClient(guarded.ports.http, headers=headers).send(method, path)
            assert (answer.status, answer.content["errorCode"]) == (401, "ERR_UNAUTHENTICATED"), path
    assert not guarded.until.is_set()
    assert guarded.sidecar.extended.shown() == {"appNamespace": "default"}


async def test_with_the_token_a_call_is_done(guarded: Node) -> None:
    for number, headers in enumerate(({"dapr-api-token": "right"}, {"Authorization": "Bearer right"})):
        client = HttpClient(guarded.ports.http, headers=headers)
        assert (await client.start("flow", instanceID=f"i-{number}")).status == 202
        assert await started(guarded, f"i-{number}")


async def test_a_body_is_not_read_for_who_has_no_token(guarded: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.ports.http)
    writer.write(START + b"Content-Length: 1000000\r\n\r\n")  # and none of it
    assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"401"
    writer.close()


async def test_another_machine_has_nothing_without_a_token(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_is_local", lambda request: False)
    answer = await HttpClient(node.ports.http).start("flow", instanceID="i")
    assert (answer.status, answer.content["errorCode"]) == (401, "ERR_UNAUTHENTICATED")
    assert not await started(node)


async def test_a_page_of_another_origin_changes_nothing(node: Node) -> None:
    for origin in ("http://evil.example", "http://localhost:1", "null", ""):
        for method, path in CHANGES:
            answer = await HttpClient(node.ports.http, headers={"Origin": origin}).send(method, path)
            assert (answer.status, answer.content["errorCode"]) == (403, "ERR_ORIGIN_FORBIDDEN"), (origin, path)
    assert not node.until.is_set()


async def test_a_page_of_the_sidecar_may(node: Node) -> None:
    client = HttpClient(node.ports.http, headers={"Origin": f"http://localhost:{node.ports.http}"})
    assert (await client.start("flow", instanceID="i")).status == 202


async def test_a_name_that_leads_here_from_elsewhere_is_refused(node: Node) -> None:
    """As DNS rebinding has it."""
    reply = await exchange(node.ports.http, START.replace(b"localhost", b"evil.example") + b"\r\n")
    assert (reply.status, reply.json()["errorCode"]) == (403, "ERR_HOST_FORBIDDEN")


async def answered(node: Node, *pieces: bytes) -> int:
    """The status that comes back for a request that is sent in pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.ports.http)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.05)
    status = (await asyncio.wait_for(reader.readline(), 5)).split()[1]
    writer.close()
    return int(status)


async def test_a_body_that_is_none_is_the_callers_mistake(node: Node) -> None:
    for framed in (
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        b"Content-Length: -4\r\n\r\nabcd",
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        b"Content-Length: 2\r\n\r\n\xff\xfe",
        b"Content-Length: 3\r\n\r\n\xed\xa0\x80",
    ):
        assert await answered(node, START + framed) == 400, framed
    assert not await started(node)


async def test_a_body_that_does_not_end_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_routes, "BODY_SECONDS", 0.3)
    for chunks in (b"zz\r\nabcd\r\n0\r\n\r\n", b"4\r\nabcdefgh\r\n0\r\n\r\n", b"4\r\nab"):
        assert await answered(node, START + b"Transfer-Encoding: chunked\r\n\r\n", chunks) == 400, chunks
    assert not await started(node)


async def test_a_body_that_breaks_off_starts_nothing(node: Node) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", node.ports.http)
    writer.write(START + b"Content-Length: 8\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.1)
    assert not await started(node)


async def test_a_body_is_raw_whatever_its_headers_say_it_is(node: Node) -> None:
    client = HttpClient(node.ports.http, headers={"Content-Type": "multipart/form-data; boundary="})
    body = '{"a": [1.0, 1e400], "b": "\\u0000"} \x00 ünd'.encode()
    assert (await client.start("flow", body, instanceID="i")).status == 202
    assert (await get(node, "i")).state.input.value.encode() == body


async def test_what_is_packed_is_not_unpacked(node: Node) -> None:
    client = HttpClient(node.ports.http, headers={"Content-Encoding": "gzip"})
    answer = await client.start("flow", gzip.compress(b"x" * 10 * MIB))
    assert (answer.status, answer.content["errorCode"]) == (400, "ERR_MALFORMED_REQUEST")


async def test_a_body_that_is_too_large_is_refused(start: Start) -> None:
    node = await start("orders", max_message_bytes=MIB)
    for path in ("flow/start", "i/terminate", "i/raiseEvent/go"):
        answer = await HttpClient(node.ports.http).send("POST", f"workflows/dapr/{path}", b"x" * MIB)
        assert answer.status == 413, path
        assert "--max-message-bytes" in answer.content["message"]


async def test_a_body_without_an_end_is_refused_when_it_is_too_large(start: Start) -> None:
    node = await start("orders", max_message_bytes=MIB)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.ports.http)
    writer.write(START + b"Transfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        for _ in range(17):
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()
    assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"413"
    writer.close()


async def test_a_payload_of_some_mib_arrives_whole(node: Node) -> None:
    body = b'"' + b"x" * 8 * MIB + b'"'
    assert (await HttpClient(node.ports.http).start("flow", body, instanceID="i")).status == 202
    shown = (await HttpClient(node.ports.http).get("i")).content
    assert shown["properties"]["dapr.workflow.input"].encode() == body


async def test_the_limits_of_calls_and_memory_hold_for_http_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start("orders", max_calls=1)
    waiting = asyncio.create_task(node.call("WaitForInstanceCompletion", pb.GetInstanceRequest(instance_id="i")))
    await asyncio.sleep(0.2)
    client = HttpClient(node.ports.http)
    full = await client.start("flow")
    assert (full.status, full.content["errorCode"]) == (429, "ERR_START_WORKFLOW")
    assert "--max-calls" in full.content["message"]
    waiting.cancel()
    await asyncio.sleep(0.2)
    monkeypatch.setattr(node.sidecar.memory, "refuses", lambda size: True)
    short = await client.start("flow")
    assert (short.status, "memory" in short.content["message"]) == (429, True)
    assert (await client.get("nobody")).status == 404


async def test_a_sidecar_that_stops_says_so(node: Node) -> None:
    node.sidecar.taskhub.stopping.set()
    answer = await HttpClient(node.ports.http).start("flow")
    assert (answer.status, answer.content["errorCode"]) == (503, "ERR_START_WORKFLOW")


async def test_calls_leave_connections_to_those_who_ask_about_health(node: Node) -> None:
    surface = http.HttpSurface(
        Shown(), ApiTokens(None, None), calls=node.sidecar.http._calls, call_seconds=60, max_connections=4
    )
    port = await surface.start("127.0.0.1", 0)
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    for _, writer in held:
        writer.write(START + b"Content-Length: 9\r\n\r\n")
    await asyncio.sleep(0.2)
    answer = await HttpClient(port).start("flow")
    assert (answer.status, answer.content["errorCode"]) == (503, "ERR_TOO_MANY_CALLS")
    assert (await HttpClient(port).send("GET", "healthz")).status == 204
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.2)
    assert (await HttpClient(port).start("flow")).status == 202
    await surface.stop()
