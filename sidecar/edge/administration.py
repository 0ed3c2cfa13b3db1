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
        return {
            "RewindInstance": parsed(pb.RewindInstanceRequest, self._rewind),
            "RestartInstance": parsed(pb.RestartInstanceRequest, self._restart),
        }

    async def _rewind(self, call: Call, request: pb.RewindInstanceRequest) -> bytes:
        address = address_of(call, request.instance_id)
        return done(await self._administration.rewind(address, request.reason if request.HasField("reason") else None))

    async def _restart(self, call: Call, request: pb.RestartInstanceRequest) -> bytes:
        address = address_of(self._me, call, request.instance_id)
        reply, instance_id = await self._administration.restart(address, request.with_new_instance_id)
        done(reply)
        return pb.RestartInstanceResponse(instance_id=instance_id).SerializeToString()
