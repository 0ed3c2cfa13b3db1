"""`sidecar.admin.AdminService`, the part about the store: its check and its backup while the sidecar serves.

A client names a file, never a place: whoever reaches the app port must not write where the sidecar can.
"""

from typing import Protocol

from sidecar.actors.clock import Clock
from sidecar.core.identity import AppIdentity
from sidecar.edge.admin.inspection import SERVICE
from sidecar.edge.rpc import guarded, parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.store.protocol import Copied, CopyError

CHECK, BACKUP = f"{SERVICE}CheckStore", f"{SERVICE}BackupStore"
_Request = pb.CheckStoreRequest | pb.BackupStoreRequest


class Copies(Protocol):
    """Makes copies of a store that serves."""

    async def backup(self, name: str, now: int) -> Copied:
        """Make a backup of this name. Raises CopyError."""

    async def check(self) -> list[str]:
        """Return what is wrong. Raises CopyError."""


class StoreAdmin:
    """Handlers."""

    def __init__(self, me: AppIdentity, copies: Copies, clock: Clock) -> None:
        self._me = me
        self._copies = copies
        self._clock = clock

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        check, backup = parsed(pb.CheckStoreRequest, self._check), parsed(pb.BackupStoreRequest, self._backup)
        return Handlers(unary={CHECK: guarded(check), BACKUP: guarded(backup)})

    async def _check(self, call: Call, request: pb.CheckStoreRequest) -> bytes:
        self._see_that_it_is_us(request)
        try:
            return pb.CheckStoreResponse(problems=await self._copies.check()).SerializeToString()
        except CopyError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error

    async def _backup(self, call: Call, request: pb.BackupStoreRequest) -> bytes:
        self._see_that_it_is_us(request)
        try:
            made = await self._copies.backup(request.name, self._clock.now())
        except CopyError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error
        return pb.BackupStoreResponse(path=made.path, bytes=made.bytes).SerializeToString()

    def _see_that_it_is_us(self, request: _Request) -> None:
        if (request.namespace, request.app_id) != (self._me.namespace, self._me.app):
            text = f"this is the sidecar of app '{self._me.app}' of namespace '{self._me.namespace}'"
            raise Refused(StatusCode.FAILED_PRECONDITION, f"{text}: ask the right one, by --grpc-port")
