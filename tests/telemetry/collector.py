"""A collector of traces: keeps what is sent to it over HTTP, OTLP or Zipkin's JSON."""

import json
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from tests.ports import free_port


class Collector:
    """`spans` are those that came by OTLP, with the app that sent them; `zipkin` those that came as Zipkin's JSON."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Sent]] = []
        self.zipkin: list[dict[str, Any]] = []
        self.address = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.add_routes([web.post("/v1/traces", self._otlp), web.post("/api/v2/spans", self._zipkin)])
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.address = f"http://127.0.0.1:{port}"
        self._over_grpc = grpc.aio.server()
        export = grpc.unary_unary_rpc_method_handler(self._otlp_over_grpc)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._over_grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        self.grpc_address = f"grpc://127.0.0.1:{self._over_grpc.add_insecure_port('127.0.0.1:0')}"
        await self._over_grpc.start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            await self._over_grpc.stop(None)

    async def _otlp(self, request: web.Request) -> web.Response:
        self._take(await request.read())
        return web.Response()

    async def _otlp_over_grpc(self, request: bytes, _context: object) -> bytes:
        self._take(request)
        return b""

    def _take(self, request: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(request).resource_spans:
            (app,) = (one.value.string_value for one in group.resource.attributes if one.key == "service.name")
            self.spans += [(app, span) for scope in group.scope_spans for span in scope.spans]

    async def _zipkin(self, request: web.Request) -> web.Response:
        self.zipkin += json.loads(await request.read())
        return web.Response(status=202)

    # ------------------------------------------------------------ what came

    def one(self, name: str) -> Sent:
        (found,) = self.all(name)
        return found

    def all(self, name: str) -> list[Sent]:
        return [span for _, span in self.spans if span.name == name]

    def app_of(self, name: str) -> str:
        (found,) = (app for app, span in self.spans if span.name == name)
        return found


def attributes(span: Sent | Sent.Event) -> dict[str, Any]:
    return {one.key: one.value.int_value or one.value.string_value for one in span.attributes}
