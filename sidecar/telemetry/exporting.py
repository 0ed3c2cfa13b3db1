"""Hands spans to collectors, OTLP over HTTP or gRPC and Zipkin v2, by OpenTelemetry: in batches, on threads of its own.

What a collector does not take is dropped after a while: nothing waits for it. Only this module knows OpenTelemetry,
which comes with an extra of the package.
"""

import asyncio
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OtlpOverHttp
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sidecar.core import traces
from sidecar.telemetry.spans import Finished

_SECONDS = 5.0  # that a collector has to take a batch, and that the end of the sidecar waits for the last one
_SCOPE = InstrumentationScope("durabletask")
_KINDS = {"client": SpanKind.CLIENT, "server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
log = structlog.get_logger(__name__)


class Exporting:
    """Sends spans to the collectors at these URLs ("": none)."""

    def __init__(self, resource: Mapping[str, str], otlp: str, zipkin: str) -> None:
        self._resource = Resource(dict(resource))
        exporters: list[SpanExporter] = [_otlp(otlp)] if otlp else []
        exporters += [_Zipkin(zipkin)] if zipkin else []
        self._processors = [BatchSpanProcessor(exporter) for exporter in exporters]

    def send(self, span: Finished) -> None:
        """Take a span, to be sent with others; dropped where too many wait."""
        made = _readable(span, self._resource)
        for processor in self._processors:
            processor.on_end(made)

    async def stop(self) -> None:
        """Send what waits, as far as collectors take it soon."""
        stopping = [asyncio.to_thread(processor.shutdown) for processor in self._processors]
        try:
            await asyncio.wait_for(asyncio.gather(*stopping), _SECONDS)
        except TimeoutError:
            log.warning("the last spans were not taken in time: they are lost")


def _otlp(url: str) -> SpanExporter:
    scheme, _, address = url.partition("://")
    if scheme in ("grpc", "grpcs"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - few need it
            OTLPSpanExporter as OtlpOverGrpc,
        )

        return OtlpOverGrpc(address, insecure=scheme == "grpc", timeout=_SECONDS)
    return OtlpOverHttp(url, timeout=_SECONDS)


def _context(at: traces.Span, span_id: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(int(at.trace, 16), int(span_id, 16), is_remote, TraceFlags(int(at.flags, 16)))


def _readable(span: Finished, resource: Resource) -> ReadableSpan:
    """Return a span as exporters take it: made whole, since its ID and its times are given, which no tracer allows."""
    follows = () if span.follows is None else (Link(_context(span.follows, span.follows.id, is_remote=True)),)
    return ReadableSpan(
        span.name,
        context=_context(span.at, span.at.id, is_remote=False),
        parent=_context(span.at, span.at.parent, is_remote=True) if span.at.parent else None,
        resource=resource,
        attributes=dict(span.attributes),
        links=follows,
        events=[Event(one.name, dict(one.attributes), one.at * 1_000) for one in span.moments],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.began * 1_000,
        end_time=span.ended * 1_000,
        instrumentation_scope=_SCOPE,
    )


class _Zipkin(SpanExporter):
    """Zipkin's API, version 2, in JSON."""

    def __init__(self, url: str) -> None:
        self._url = url

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = json.dumps([_zipkin(span) for span in spans]).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 (checked)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310 (an HTTP URL of the settings)
                return SpanExportResult.SUCCESS
        except OSError as error:
            log.warning("a collector of traces takes nothing", url=self._url, error=str(error))
            return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


def _zipkin(span: ReadableSpan) -> dict[str, Any]:
    context, parent, began = span.context, span.parent, span.start_time or 0
    assert context is not None  # noqa: S101 - `_readable` gives one
    tags = {key: str(value) for key, value in (span.attributes or {}).items()}
    error = span.status.description if span.status.status_code is StatusCode.ERROR else None
    return {
        "traceId": f"{context.trace_id:032x}",
        "id": f"{context.span_id:016x}",
        **({"parentId": f"{parent.span_id:016x}"} if parent is not None else {}),
        "name": span.name,
        **({} if span.kind is SpanKind.INTERNAL else {"kind": span.kind.name}),
        "annotations": [{"timestamp": one.timestamp // 1_000, "value": one.name} for one in span.events],
        "timestamp": began // 1_000,
        "duration": max(1, ((span.end_time or began) - began) // 1_000),
        "localEndpoint": {"serviceName": str(span.resource.attributes["service.name"])},
        "tags": tags | ({"error": error} if error else {}),
    }
