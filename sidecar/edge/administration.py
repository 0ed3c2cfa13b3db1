"""The calls that run again what has ended."""

from sidecar.administration import Administration
from sidecar.edge.rpc import Methods, address_of, done, parsed
from sidecar.edge.transport import Call
from sidecar.schema import taskhub_pb2 as pb
from sidecar.service import Service


class Again:
    """Handlers."""

    def __init__(self, service: Service) -> None:
        self._administration = Administration(service)

    def methods(self) -> Methods:
        """Return the handlers by RPC."""
        return {"RewindInstance": parsed(pb.RewindInstanceRequest, self._rewind)}

    async def _rewind(self, call: Call, request: pb.RewindInstanceRequest) -> bytes:
        address = address_of(call, request.instance_id)
        return done(await self._administration.rewind(address, request.reason if request.HasField("reason") else None))
