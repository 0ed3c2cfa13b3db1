import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.config.parsers import Secret
from sidecar.config.settings import StartError
from sidecar.edge.http import surface as http
from sidecar.edge.security.api_tokens import ApiTokens


class Shown:
    """A view whose answers a test sets."""

    def __init__(self) -> None:
        self.is_ready = True
        self.says = ""
        self.workers = 0
        self.failure: Exception | None = None

    def trouble(self) -> str:
        return self.says

    def ready(self) -> bool:
        if self.failure:
            raise self.failure
        return self.is_ready

    def metadata(self) -> dict[str, object]:
        actors = {"dapr.internal.default.orders.workflow": 3} if self.workers else {}
        return http.metadata(
            app_id="orders",
            namespace="default",
            version="1.2.3",
            active_actors=actors,
            workers=self.workers,
            peers=[{"appId": "ml"}],
            ready=self.is_ready,
        )

    def metrics(self) -> bytes:
        return b"up 1\n"


class Reply:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}

    def json(self) -> dict[str, Any]:
        assert self.headers["content-type"].startswith("application/json")
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content


async def ask(
    port: int,
    path: str,
    *,
    host: str | None = "localhost",
    at: str = "127.0.0.1",
    method: str = "GET",
    protocol: str = "1.1",
    headers: str = "",
) -> Reply:
    reader, writer = await asyncio.open_connection(at, port)
    named = "" if host is None else f"Host: {host}\r\n"
    writer.write(f"{method} {path} HTTP/{protocol}\r\n{named}{headers}Connection: close\r\n\r\n".encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return Reply(raw)


def surface_of(view: Shown, token: str = "", **options: bool) -> http.HttpSurface:
    return http.HttpSurface(view, ApiTokens(Secret(token) if token else None, None), **options)


async def exchange(port: int, request: bytes) -> Reply:
    """The last answer to bytes that are sent as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return Reply(raw[raw.rindex(b"HTTP/1.1 ") :])


@pytest.fixture
def view() -> Shown:
    return Shown()


@pytest.fixture
async def port(view: Shown) -> AsyncIterator[int]:
    surface = surface_of(view)
    yield await surface.start("127.0.0.1", 0)
    await surface.stop()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HEALTH = {
    "/v1.0/healthz": "ERR_HEALTH_NOT_READY",
    "/v1.0/healthz/outbound": "ERR_OUTBOUND_HEALTH_NOT_READY",
    "/healthz": "ERR_HEALTH_NOT_READY",
    "/readyz": "ERR_HEALTH_NOT_READY",
}


@pytest.mark.parametrize("path", HEALTH)
async def test_a_ready_sidecar_answers_204_without_a_body(port: int, path: str) -> None:
    reply = await ask(port, path)
    assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize(("path", "code"), HEALTH.items())
async def test_a_sidecar_that_is_not_ready_answers_500_with_a_reason(
    port: int, view: Shown, path: str, code: str
) -> None:
    view.is_ready = False
    reply = await ask(port, path)
    assert reply.status == 500
    assert reply.json() == {
        "errorCode": code,
        "message": "the sidecar is not ready: it is starting or stopping",
    }


async def test_a_sidecar_that_cannot_store_says_why(port: int, view: Shown) -> None:
    view.is_ready, view.says = False, "the disk is full: free space"
    assert (await ask(port, "/v1.0/healthz")).json()["message"] == (
        "the sidecar is not ready: the disk is full: free space"
    )


async def test_a_process_that_lives_says_so_even_when_it_is_not_ready(port: int, view: Shown) -> None:
    view.is_ready = False
    assert (await ask(port, "/livez")).status == 204


async def test_a_head_request_is_answered_like_a_get(port: int) -> None:
    assert (await ask(port, "/v1.0/healthz", method="HEAD")).status == 204


async def test_metadata_has_the_names_that_dapr_gives_them(port: int, view: Shown) -> None:
    view.workers = 2
    reply = await ask(port, "/v1.0/metadata")
    actors = [{"type": "dapr.internal.default.orders.workflow", "count": 3}]
    assert reply.status == 200
    assert reply.json() == {
        "id": "orders",
        "namespace": "default",
        "runtimeVersion": "1.2.3",
        "actors": actors,
        "extended": {"appNamespace": "default"},
        "actorRuntime": {"runtimeStatus": "RUNNING", "activeActors": actors, "hostReady": True},
        "workflows": {"connectedWorkers": 2},
        "peers": [{"appId": "ml"}],
    }


async def test_metadata_is_asked_anew_for_each_request(port: int, view: Shown) -> None:
    before = (await ask(port, "/v1.0/metadata")).json()
    view.workers = 1
    after = (await ask(port, "/v1.0/metadata")).json()
    assert (before["workflows"], before["actorRuntime"]["activeActors"]) == ({"connectedWorkers": 0}, [])
    assert after["workflows"] == {"connectedWorkers": 1}
    assert len(after["actorRuntime"]["activeActors"]) == 1


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost:3500", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:3500"]
)
async def test_a_request_for_a_local_host_is_served(port: int, host: str) -> None:
    assert (await ask(port, "/livez", host=host)).status == 204


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:3500",
        "10.0.0.1",
        "[::1]evil.example",
        "localhost:evil",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/v1.0/metadata", "/livez", "/nothing"])
async def test_a_request_for_another_host_is_refused(port: int, host: str, path: str) -> None:
    reply = await ask(port, path, host=host)
    assert reply.status == 403
    assert reply.json() == {
        "errorCode": "ERR_HOST_FORBIDDEN",
        "message": "the Host header must be localhost, 127.0.0.1 or [::1]",
    }


async def test_who_comes_from_another_machine_may_use_its_name(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_is_local", lambda _request: False)
    assert (await ask(port, "/livez", host="orders-sidecar:3500")).status == 204


@pytest.fixture
async def closed_port(view: Shown) -> AsyncIterator[int]:
    """The port of a surface that asks for a token."""
    surface = surface_of(view, "t0ken")
    yield await surface.start("127.0.0.1", 0)
    await surface.stop()


@pytest.mark.parametrize("header", ["dapr-api-token: t0ken", "Authorization: Bearer t0ken", "DAPR-API-TOKEN: t0ken"])
async def test_metadata_is_shown_to_who_has_the_token(closed_port: int, header: str) -> None:
    assert (await ask(closed_port, "/v1.0/metadata", headers=f"{header}\r\n")).status == 200


@pytest.mark.parametrize(
    "header", ["", "dapr-api-token: t0kem\r\n", "Authorization: Basic t0ken\r\n", "dapr-api-token: \xff\r\n"]
)
async def test_metadata_is_not_shown_without_the_token(closed_port: int, header: str) -> None:
    reply = await ask(closed_port, "/v1.0/metadata", headers=header)
    assert (reply.status, reply.json()["errorCode"]) == (401, "ERR_UNAUTHENTICATED")
    assert "dapr-api-token" in reply.json()["message"]
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", [*HEALTH, "/livez"])
async def test_health_needs_no_token(closed_port: int, path: str) -> None:
    assert (await ask(closed_port, path)).status == 204


async def test_without_a_token_another_machine_is_told_of_health_alone(
    port: int, view: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_is_local", lambda _request: False)
    reply = await ask(port, "/v1.0/metadata")
    assert (reply.status, reply.json()["errorCode"]) == (401, "ERR_UNAUTHENTICATED")
    assert (await ask(port, "/v1.0/healthz")).status == 204
    surface = surface_of(view, open_to_all=True)
    opened = await surface.start("127.0.0.1", 0)
    try:
        assert (await ask(opened, "/v1.0/metadata")).status == 200
    finally:
        await surface.stop()


async def test_a_request_that_names_no_host_is_refused(port: int) -> None:
    assert (await ask(port, "/livez", host=None, protocol="1.0")).status == 403
    assert (await ask(port, "/livez", host=None, protocol="1.1")).status == 400


async def test_malformed_requests_leave_nothing_in_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    reply = await ask(port, "/livez", host="a b\x00")
    assert reply.status == 400
    assert caplog.records == []


async def test_a_second_host_header_does_not_pass_the_guard(port: int) -> None:
    reply = await ask(port, "/v1.0/metadata", host="localhost\r\nHost: evil.example")
    assert reply.status in (400, 403)


async def test_the_host_that_it_listens_on_is_served(view: Shown) -> None:
    surface = surface_of(view)
    port = await surface.start("127.0.0.2", 0)
    try:
        assert (await ask(port, "/livez", host="127.0.0.2:80", at="127.0.0.2")).status == 204
        with pytest.raises(ConnectionRefusedError):
            await ask(port, "/livez", at="127.0.0.1")
    finally:
        await surface.stop()


@pytest.mark.parametrize("path", ["/", "/v1.0/healthz/", "/v1.0/../livez", "//livez", "/livez%2f", "/v1.0/metadata/x"])
async def test_an_unknown_path_is_answered_404_in_json(port: int, path: str) -> None:
    reply = await ask(port, path)
    assert reply.status == 404
    assert reply.json()["errorCode"] == "ERR_NOT_FOUND"


async def test_a_long_path_is_cut_in_the_answer(port: int) -> None:
    reply = await ask(port, "/" + "x" * 5000)
    assert reply.json()["message"] == "there is nothing at /" + "x" * 199


async def test_another_method_is_answered_405_with_what_is_allowed(port: int) -> None:
    reply = await ask(port, "/v1.0/metadata", method="POST")
    assert reply.status == 405
    assert reply.json() == {"errorCode": "ERR_METHOD_NOT_ALLOWED", "message": "POST is not allowed"}
    assert "GET" in reply.headers["allow"]


async def test_a_failure_inside_is_not_told_to_the_caller(port: int, view: Shown) -> None:
    view.failure = RuntimeError("canary")
    reply = await ask(port, "/v1.0/healthz")
    assert (reply.status, reply.json()["errorCode"]) == (500, "ERR_INTERNAL")
    assert b"canary" not in reply.body


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_both_loopback_addresses_get_the_same_port(port: int) -> None:
    assert (await ask(port, "/livez", at="::1")).status == 204
    assert (await ask(port, "/livez", at="127.0.0.1")).status == 204


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_machine_without_ipv6_is_served_on_ipv4(
    view: Shown, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: Any) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(code, "no IPv6 here")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    surface = surface_of(view)
    port = await surface.start("127.0.0.1", 0)
    try:
        assert (await ask(port, "/livez")).status == 204
        with pytest.raises(OSError, match=r"."):
            await ask(port, "/livez", at="::1")
    finally:
        await surface.stop()


@pytest.mark.parametrize("taken", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif("not has_ipv6()"))])
async def test_a_taken_port_is_named_and_nothing_is_left_open(view: Shown, taken: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    other = "127.0.0.1" if ":" in taken else "::1"
    with socket.create_server((taken, 0), family=family) as blocker:
        port = blocker.getsockname()[1]
        with pytest.raises(StartError, match=rf"^port {port} on .* is taken: .*--http-port$"):
            await surface_of(view).start("127.0.0.1", port)
        with pytest.raises(OSError, match=r"."):
            await ask(port, "/livez", at=other)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_a_free_port_is_looked_for_again_when_it_is_taken_on_ipv6(
    view: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server
    refused: list[int] = []

    def taken_once(address: tuple[str, int], **options: Any) -> socket.socket:
        if options.get("family") == socket.AF_INET6 and not refused:
            refused.append(address[1])
            raise OSError(errno.EADDRINUSE, "taken")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", taken_once)
    surface = surface_of(view)
    port = await surface.start("127.0.0.1", 0)
    try:
        assert refused
        assert (await ask(port, "/livez", at="::1")).status == 204
    finally:
        await surface.stop()


async def test_an_address_that_is_not_this_machines_is_refused_in_one_line(view: Shown) -> None:
    with pytest.raises(StartError, match=r"^cannot listen on 192\.0\.2\.1, port 5 \(--http-port\): \w[^\n]*$"):
        await surface_of(view).start("192.0.2.1", 5)


async def test_a_stopped_surface_gives_its_port_back_at_once(view: Shown) -> None:
    surface = surface_of(view)
    port = await surface.start("127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(surface.stop(), 5)
    again = surface_of(view)
    assert await again.start("127.0.0.1", port) == port
    await again.stop()
    writer.close()


async def test_stopping_what_never_started_does_nothing(view: Shown) -> None:
    await surface_of(view).stop()


@pytest.mark.parametrize("expected", [b"\x80", b"a miracle", b"100-continue"])
@pytest.mark.parametrize("path", [b"/livez", b"/nowhere"])
async def test_what_a_client_expects_is_refused_and_never_an_error_of_ours(
    port: int, path: bytes, expected: bytes
) -> None:
    head = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: %s\r\n\r\n" % (path, expected)
    answer = {b"/livez": 204, b"/nowhere": 404}[path] if expected == b"100-continue" else 417
    assert (await exchange(port, head)).status == answer
