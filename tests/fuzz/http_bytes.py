"""The HTTP surface without a socket: bytes go into its protocol as they would come from a connection."""

import asyncio
import re
from functools import cache
from http import HTTPStatus
from typing import Any

from aiohttp import web

from sidecar.edge.client_api.runtime import Extended, Runtime
from sidecar.edge.client_api.workflows import Workflows
from sidecar.edge.http import surface as http
from sidecar.edge.http.client_routes import ClientRoutes
from sidecar.edge.security.admission import Admission
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.transport.ports import Call, UnaryHandler, merged

GET = b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost:3500\r\n\r\n"
REQUESTS = (
    GET,
    b"GET /v1.0/metadata HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nX-A: b\r\nConnection: close\r\n\r\n",
    b"POST /v1.0/metadata HTTP/1.1\r\nHost: [::1]:3500\r\nContent-Length: 4\r\n\r\nabcd" + GET,
    b"PUT /readyz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    b"GET /livez?a=%ff&b=/../ HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n",
    b"POST /v1.0/workflows/dapr/flow/start?instanceID=i&appID=ml HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    b"POST /v1.0-beta1/workflows/dapr/i/raiseEvent/go?appID= HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    b"GET /v1.0-alpha1/workflows/dapr/%69 HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n",
    b"POST /v1.0/workflows/dapr/i/purge HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"PUT /v1.0/metadata/cliPID HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42",
    b"POST /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
)
WORDS = (
    *(
        b"Host: a\r\n",
        b"Host",
        b"localhost",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\x00",
        b"%00",
        b"%ff",
        b"//",
        b"/..",
        b"?",
        b"#",
    ),
    *(b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Content-Encoding: deflate\r\n",
        b"Expect: x\r\n",
        b"HTTP/9.9",
        b"HTTP/1.1",
        b"\xff\xfe",
        b"x" * 9000,
        b"FFFFFFFF\r\n",
    ),
    *(b"workflows/", b"dapr/", b"/terminate", b"/start", b"%ED%A0%80", b"instanceID=", b"appID=", b"Origin: null\r\n"),
    *(
        b"Range: bytes=0-\r\n",
        b"Cookie: a=b;;=\r\n",
        b"Content-Type: multipart/form-data; boundary=\r\n",
        b"CONNECT ",
        b"*",
    ),
)
_MOST_BYTES = 64 * 1024
FOR_CALLERS = (501, 505)  # statuses of 500 and more that are the caller's mistake
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


def is_wrong(status: int, data: bytes) -> bool:
    """Whether a status must not answer these bytes. That another app which they name is not there is said with 503."""
    names_app = b"appid=" in data.lower()
    return status >= 500 and status not in FOR_CALLERS and not (status == HTTPStatus.SERVICE_UNAVAILABLE and names_app)


def statuses(answer: bytes) -> list[int]:
    """The statuses in all answers of a connection."""
    return [int(status) for status in _STATUS.findall(answer)]


class _View:
    def ready(self) -> bool:
        return True

    def metadata(self) -> dict[str, object]:
        return {"id": "orders"}


class _Hub(dict[str, UnaryHandler]):
    """The service that calls become those of: it does nothing, and says so."""

    def __missing__(self, path: str) -> UnaryHandler:
        async def serve(call: Call, body: bytes) -> bytes:
            return b""

        return serve


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


@cache
def _surface() -> tuple[asyncio.AbstractEventLoop, Any]:
    loop = asyncio.new_event_loop()
    loop.errors = []  # type: ignore[attr-defined]
    loop.set_exception_handler(lambda _, context: loop.errors.append(context))  # type: ignore[attr-defined]
    tokens = ApiTokens(None, None)
    admission = Admission(tokens, most_bytes=_MOST_BYTES, most_calls=9, most_workers=9)
    runtime = Runtime(Extended({}), dict, lambda: None)
    handlers = merged(Workflows(_Hub()).handlers(), runtime.handlers())
    calls = ClientRoutes(admission.guarded(handlers, answers=(), workers=()), _MOST_BYTES).routes()
    surface = http.HttpSurface(_View(), tokens, calls=calls)
    application = web.Application(middlewares=[surface._guard, http._json_errors])
    application.add_routes(surface._routes())
    runner = web.AppRunner(application, access_log=None, logger=http._silent, auto_decompress=False)
    loop.run_until_complete(runner.setup())
    runner.server.request_handler = http._without_expectations(runner.server.request_handler)
    return loop, runner.server


def connection(data: bytes) -> None:
    """All that one connection sends, in two pieces."""
    loop, server = _surface()
    transport = _Transport()
    loop.run_until_complete(_serve(server, transport, data))
    found = statuses(bytes(transport.written))
    if any(is_wrong(status, data) for status in found):
        raise AssertionError(f"statuses {found}: {bytes(transport.written)[:400]!r}")
    errors = loop.errors  # type: ignore[attr-defined]
    if errors:
        context = errors.pop()
        errors.clear()
        raise AssertionError(f"nobody handled: {context.get('message')}") from context.get("exception")


async def _serve(server: Any, transport: _Transport, data: bytes) -> None:
    protocol = server()
    protocol.connection_made(transport)
    cut = len(data) // 2
    for piece in (data[:cut], data[cut:]):
        if not transport.closed:
            protocol.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    for _ in range(4):
        await asyncio.sleep(0)
