"""The calls that run again what has ended."""

from sidecar.core.workflow.rerun import RerunRequest
from sidecar.edge.dialects.inputs import InputForm
from sidecar.edge.rpc import Methods, address_of, caller_of, done, new_address, parsed
from sidecar.edge.transport.ports import Call
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.clients import ClientService
from sidecar.services.run_again import Administration


class Again:
    """Handlers."""

    def __init__(self, service: ClientService, administration: Administration) -> None:
        self._ids = service.engine.ids
        self._administration = administration

    def methods(self) -> Methods:
        """Return the handlers by RPC."""
        return {
            "RewindInstance": parsed(pb.RewindInstanceRequest, self._rewind),
            "RestartInstance": parsed(pb.RestartInstanceRequest, self._restart),
            "RerunWorkflowFromEvent": parsed(pb.RerunRequest, self._rerun),
        }

    async def _rewind(self, call: Call, request: pb.RewindInstanceRequest) -> bytes:
        address = address_of(call, request.instance_id)
        reason = request.reason if request.HasField("reason") else None
        return done(await self._administration.rewind(address, reason, caller_of(call)))

    async def _restart(self, call: Call, request: pb.RestartInstanceRequest) -> bytes:
        address = address_of(call, request.instance_id)
        new_id = (request.new_instance_id or self._ids.new_id()) if request.with_new_instance_id else None
        if new_id is not None:
            new_address(call, new_id)
        reply, instance_id = await self._administration.restart(address, new_id, caller_of(call))
        done(reply)
        return pb.RestartInstanceResponse(instance_id=instance_id).SerializeToString()

    async def _rerun(self, call: Call, request: pb.RerunRequest) -> bytes:
        source = address_of(call, request.source_instance_id)
        new_id = request.new_instance_id if request.HasField("new_instance_id") else self._ids.new_id()
        new_address(call, new_id)
        wanted = RerunRequest(
            request.event_id,
            request.overwrite_input,
            request.input if request.HasField("input") else None,
            request.new_child_instance_id if request.HasField("new_child_instance_id") else None,
            InputForm.BARE,  # what a client writes is bare, whatever its SDK
        )
        done(await self._administration.rerun(source, new_id, wanted, caller_of(call)))
        return pb.RerunResponse(new_instance_id=new_id).SerializeToString()
