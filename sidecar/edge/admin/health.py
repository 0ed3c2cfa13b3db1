"""The standard gRPC health service, in raw bytes."""

import asyncio
from collections.abc import Callable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as pb

from sidecar.edge.transport.ports import Call, Handlers, Outflow, Refused, StatusCode

SERVICES = ("", "TaskHubSidecarService")
_LOOK_SECONDS = 0.5


class Health:
    """Answers whether the sidecar serves; `ready` says so at each moment."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    def handlers(self) -> Handlers:
        """Return the methods of the service."""
        return Handlers(
            unary={"/grpc.health.v1.Health/Check": self.check},
            stream={"/grpc.health.v1.Health/Watch": self.watch},
        )

    def _status(self, service: str) -> int:
        if service not in SERVICES:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        return int(pb.HealthCheckResponse.SERVING if self._ready() else pb.HealthCheckResponse.NOT_SERVING)

    async def check(self, call: Call, request: bytes) -> bytes:
        """Answer once."""
        status = self._status(_service(request))
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            raise Refused(StatusCode.NOT_FOUND, "unknown service")
        return bytes(pb.HealthCheckResponse(status=status).SerializeToString())

    async def watch(self, call: Call, request: bytes, out: Outflow) -> None:
        """Answer now and at each change."""
        service, last = _service(request), None
        while True:
            status = self._status(service)
            if status != last:
                out.send(pb.HealthCheckResponse(status=status).SerializeToString())
                last = status
            await asyncio.sleep(_LOOK_SECONDS)


def _service(request: bytes) -> str:
    try:
        return str(pb.HealthCheckRequest.FromString(request).service)
    except DecodeError as error:
        raise Refused(StatusCode.INVALID_ARGUMENT, "not a health request") from error
