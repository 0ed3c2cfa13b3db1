"""`sidecar.admin.AdminService`, the part about the store: its check and its backup while the sidecar serves.

A client names a file, never a place: whoever reaches the app port must not write where the sidecar can.
"""

from sidecar.actors.clock import Clock
from sidecar.core.identity import AppIdentity
from sidecar.edge import methods
from sidecar.edge.rpc import guarded, parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.store.protocol import CopyError, Maintenance

CHECK, BACKUP = f"{methods.ADMIN}CheckStore", f"{methods.ADMIN}BackupStore"
WORK = f"{methods.ADMIN}GetStoreWork"
_Request = pb.CheckStoreRequest | pb.BackupStoreRequest


class StoreAdmin:
    """Handlers. Without maintenance the store is one that makes no copies of itself."""

    def __init__(self, me: AppIdentity, maintenance: Maintenance | None, clock: Clock) -> None:
        self._me = me
        self._maintenance = maintenance
        self._clock = clock

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        check, backup = parsed(pb.CheckStoreRequest, self._check), parsed(pb.BackupStoreRequest, self._backup)
        work = parsed(pb.GetStoreWorkRequest, self._work)
        return Handlers(unary={CHECK: guarded(check), BACKUP: guarded(backup), WORK: guarded(work)})

    async def _check(self, call: Call, request: pb.CheckStoreRequest) -> bytes:
        maintenance = self._maintenance_for(request)
        try:
            return pb.CheckStoreResponse(problems=await maintenance.check()).SerializeToString()
        except CopyError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error

    async def _backup(self, call: Call, request: pb.BackupStoreRequest) -> bytes:
        maintenance = self._maintenance_for(request)
        try:
            made = await maintenance.backup(request.name, self._clock.now())
        except CopyError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error
        return pb.BackupStoreResponse(path=made.path, bytes=made.bytes).SerializeToString()

    async def _work(self, call: Call, request: pb.GetStoreWorkRequest) -> bytes:
        at = None if self._maintenance is None else self._maintenance.at()
        return b"" if at is None else pb.GetStoreWorkResponse(**at._asdict()).SerializeToString()

    def _maintenance_for(self, request: _Request) -> Maintenance:
        """Raises Refused: the request is for another app, or the store makes no copies."""
        if (request.namespace, request.app_id) != (self._me.namespace, self._me.app):
            text = f"this is the sidecar of app '{self._me.app}' of namespace '{self._me.namespace}'"
            raise Refused(StatusCode.FAILED_PRECONDITION, f"{text}: ask the right one, by --grpc-port")
        if self._maintenance is None:
            text = (
                "the store of this sidecar is neither checked nor copied by the sidecar: use the tools of its database"
            )
            raise Refused(StatusCode.UNIMPLEMENTED, text)
        return self._maintenance
