"""The HTTP surface of one app: health for probes, metrics, metadata for tools and SDKs that look for Dapr.

Owns the listening sockets, who may ask, and the routes of health and metadata. Knows the sidecar only as a `View`. A
browser on the machine reaches the port too, so a request from here must name a local host, which stops DNS rebinding,
and one that changes anything must not come from another page.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog
from aiohttp import web

from sidecar.config.settings import StartError
from sidecar.edge.http.answers import error, unauthenticated
from sidecar.edge.http.connection_limit import Doors
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.transport.listening import LOOPBACK, both_loopbacks

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
_HOST_HEADER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")
_BACKLOG = 128
MAX_CONNECTIONS = 256
_STOP_SECONDS = 1.0
_SHOWN_CHARACTERS = 200
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GIVE_UP_SECONDS = 5.0  # that a call is given to answer after its own time

_log = structlog.get_logger()
# aiohttp would log a traceback for each malformed request, and anyone on the machine can send those.
_silent = logging.getLogger("sidecar.http.wire")
_silent.disabled = True

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class SidecarStatus(Protocol):
    """What the surface shows of the sidecar; asked anew for each request."""

    def ready(self) -> bool:
        """Whether calls of the app are answered: started, not stopping, and able to store."""

    def trouble(self) -> str:
        """Why nothing can be stored, "" if that is not so."""

    def metadata(self) -> dict[str, object]:
        """The reply of GET /v1.0/metadata; `metadata` of this module gives its form."""

    def metrics(self) -> bytes:
        """The reply of GET /metrics, in Prometheus's text format."""


def metadata(
    *,
    app_id: str,
    namespace: str,
    version: str,
    active_actors: Mapping[str, int],
    workers: int,
    peers: Sequence[Mapping[str, object]],
    ready: bool,
) -> dict[str, object]:
    """The metadata of a sidecar under the names that Dapr gives them, its namespace, and how it goes with its peers.

    `active_actors` counts by actor type, empty while no worker is connected; `workers` is how many are.
    """
    actors = [{"type": kind, "count": count} for kind, count in active_actors.items()]
    return {
        "id": app_id,
        "namespace": namespace,
        "runtimeVersion": version,
        "actors": actors,
        "extended": {"appNamespace": namespace},
        "actorRuntime": {"runtimeStatus": "RUNNING", "activeActors": actors, "hostReady": ready},
        "workflows": {"connectedWorkers": workers},
        "peers": list(peers),
    }


class HttpSurface:
    """Serves a view from `start` to `stop`; start it once."""

    def __init__(
        self,
        view: SidecarStatus,
        tokens: ApiTokens,
        *,
        calls: Sequence[web.RouteDef] = (),
        call_seconds: float = 0.0,
        open_to_all: bool = False,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Without a token only who is on this machine may ask more than health, unless it is open to all.

        `calls` may take `call_seconds`, and no more than half of the connections.
        """
        self._calls = calls
        self._call_seconds = call_seconds + _GIVE_UP_SECONDS
        self._free_calls = max(1, max_connections // 2)
        self._doors = Doors(max_connections)
        self._view = view
        self._tokens = tokens
        self._open_to_all = open_to_all
        self._hosts = _LOCAL_HOSTS
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []

    async def start(self, host: str, port: int, flag: str = "--http-port") -> int:
        """Listens and returns the port, a free one for port 0. On localhost that is on 127.0.0.1 and ::1.

        Raises StartError, naming the port and the flag that it was given by, when it cannot listen there.
        """
        self._hosts = _LOCAL_HOSTS | {host.lower()}
        try:
            listening = _listen(host, port)
        except OSError as error:
            raise StartError(_refusal(host, port, error, flag)) from error
        bound: int = listening[0].getsockname()[1]
        application = web.Application(middlewares=[self._guard, _json_errors])
        application.add_routes(self._routes())
        self._runner = web.AppRunner(
            application, access_log=None, logger=_silent, shutdown_timeout=_STOP_SECONDS, auto_decompress=False
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - there is one after the set-up
        server.request_handler = _without_expectations(server.request_handler)
        for each in listening:
            self._servers.append(await self._doors.serve(server, each))
        return bound

    async def stop(self) -> None:
        """Closes the port and what is still connected, within about a second. Does nothing if not started."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1.0/healthz", self._ready),
            web.get("/v1.0/healthz/outbound", self._outbound_ready),
            web.get("/v1.0/metadata", self._guarded(self._metadata)),
            web.get("/metrics", self._guarded(self._metrics)),
            web.get("/healthz", self._ready),
            web.get("/readyz", self._ready),
            web.get("/livez", self._live),
            *(web.route(one.method, one.path, self._guarded(self._called(one.handler))) for one in self._calls),
        ]

    async def _ready(self, _request: web.Request) -> web.StreamResponse:
        return self._health("ERR_HEALTH_NOT_READY")

    async def _outbound_ready(self, _request: web.Request) -> web.StreamResponse:
        return self._health("ERR_OUTBOUND_HEALTH_NOT_READY")

    def _health(self, code: str) -> web.StreamResponse:
        if self._view.ready():
            return web.Response(status=204)
        reason = self._view.trouble() or "it is starting or stopping"
        return error(500, code, f"the sidecar is not ready: {reason}")

    async def _live(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def _metadata(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self._view.metadata())

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._view.metrics(), headers={"Content-Type": _METRICS_TYPE})

    def _guarded(self, handler: _Handler) -> _Handler:
        """Return a handler that asks for the token; all that is not about health has one."""

        async def serve(request: web.Request) -> web.StreamResponse:
            wrong = self._refusal(request)
            return unauthenticated(wrong) if wrong else await handler(request)

        return serve

    def _called(self, handler: _Handler) -> _Handler:
        """Return a handler of what may take long; it leaves connections to those who ask about health."""

        async def serve(request: web.Request) -> web.StreamResponse:
            if not self._free_calls:
                return error(503, "ERR_TOO_MANY_CALLS", "as many calls are under way as may be: try again in a moment")
            self._free_calls -= 1
            self._doors.allow(request.transport, self._call_seconds)
            try:
                return await handler(request)
            finally:
                self._free_calls += 1

        return serve

    def _refusal(self, request: web.Request) -> str | None:
        """Say why a request that is not about health is refused, or return None."""
        if self._tokens.asked_for or self._open_to_all or _is_local(request):
            return self._tokens.refusal(request.headers)
        return "another machine gets an answer only when the sidecar has an API token: give it --api-token-file"

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        named = request.headers.getall("Host", [])
        if _is_local(request) and not (len(named) == 1 and _host_of(named[0]) in self._hosts):
            response: web.StreamResponse = error(
                403, "ERR_HOST_FORBIDDEN", "the Host header must be localhost, 127.0.0.1 or [::1]"
            )
        elif request.method not in _READS and _is_of_another_page(request):
            response = error(403, "ERR_ORIGIN_FORBIDDEN", "a page that is not this server's may change nothing here")
        else:
            response = await handler(request)
        response.force_close()  # so that a connection has one request, and its time is that of the request
        return response


def _without_expectations(handle: _Answer) -> _Answer:
    """Refuse the header `Expect` before aiohttp sees it: one that is not UTF-8 would end with 500."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            return error(417, "ERR_EXPECTATION", "nothing can be expected of this server but 100-continue")
        return await handle(request)

    return serve


@web.middleware
async def _json_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        shown = request.path[:_SHOWN_CHARACTERS]
        return error(404, "ERR_NOT_FOUND", f"there is nothing at {shown}")
    except web.HTTPMethodNotAllowed as refused:
        response = error(405, "ERR_METHOD_NOT_ALLOWED", f"{request.method[:_SHOWN_CHARACTERS]} is not allowed")
        response.headers["Allow"] = refused.headers["Allow"]
        return response
    except Exception:
        _log.exception("http_request_failed", path=request.path)
        return error(500, "ERR_INTERNAL", "the sidecar failed to answer; its log has the reason")


def _is_local(request: web.Request) -> bool:
    """Whether a request comes from this machine, by loopback."""
    try:
        address = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_of_another_page(request: web.Request) -> bool:
    """Whether a browser sends it for a page of another origin; who is no browser names none."""
    own = {f"{scheme}://{request.host}".lower() for scheme in ("http", "https")}
    return any(origin.lower() not in own for origin in request.headers.getall("Origin", []))


def _host_of(header: str) -> str:
    """The host in a Host header, lower case and without port and brackets; empty if malformed."""
    match = _HOST_HEADER.fullmatch(header)
    return (match[1] or match[2]).lower() if match else ""


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket on the host, and one on ::1 with the same port if the host is 127.0.0.1. Raises OSError."""
    while True:
        first = _bound(host, port)
        if not both_loopbacks(host):
            return [first]
        try:
            return [first, _bound(LOOPBACK[1], first.getsockname()[1])]
        except OSError as error:
            if error.errno in _NO_IPV6:
                _log.info("ipv6_unavailable", surface="http")
                return [first]
            first.close()
            # A port that was free on one address may be taken on the other; another free one will do.
            if port or error.errno != errno.EADDRINUSE:
                raise


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def _refusal(host: str, port: int, error: OSError, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop what listens there, or choose another with {flag}"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot listen on {host}, port {port} ({flag}): {reason.lower()}"
