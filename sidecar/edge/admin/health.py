"""The standard gRPC health service, in raw bytes.

Anybody may ask it, so the request of a stranger is not read: it could be as large as any. He is told how it goes with
the sidecar, whatever service he asks about: there is one status.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as pb

from sidecar.edge.transport.ports import Call, Handlers, Outflow, Refused, StatusCode

SERVICES = ("", "TaskHubSidecarService")
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
_LOOK_SECONDS = 0.5


class Health:
    """Answers whether the sidecar serves; `ready` says so at each moment, `trusts` whose requests are read."""

    def __init__(self, ready: Callable[[], bool], trusts: Callable[[Call], bool]) -> None:
        self._ready = ready
        self._trusts = trusts

    def handlers(self) -> Handlers:
        """Return the methods of the service."""
        return Handlers(duplex={CHECK: self.check, WATCH: self.watch})

    def _status(self, service: str) -> int:
        if service not in SERVICES:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        return int(pb.HealthCheckResponse.SERVING if self._ready() else pb.HealthCheckResponse.NOT_SERVING)

    async def check(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        """Answer once."""
        status = self._status(await self._service(call, requests))
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            raise Refused(StatusCode.NOT_FOUND, "unknown service")
        out.send(pb.HealthCheckResponse(status=status).SerializeToString())

    async def watch(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        """Answer now and at each change."""
        service, last = await self._service(call, requests), None
        while True:
            status = self._status(service)
            if status != last:
                out.send(pb.HealthCheckResponse(status=status).SerializeToString())
                last = status
            await asyncio.sleep(_LOOK_SECONDS)

    async def _service(self, call: Call, requests: AsyncIterator[bytes]) -> str:
        """Return the service that is asked about."""
        if not self._trusts(call):
            return ""
        try:
            return str(pb.HealthCheckRequest.FromString(await anext(requests, b"")).service)
        except DecodeError as error:
            raise Refused(StatusCode.INVALID_ARGUMENT, "not a health request") from error
