"""`sidecar.admin.AdminService`, the part about the sidecar itself: which app it is for, and how it goes with it."""

import json
from collections.abc import Callable

from sidecar.actors.clock import Clock
from sidecar.config.settings import version
from sidecar.core import events
from sidecar.core.identity import AppIdentity
from sidecar.edge import methods
from sidecar.edge.peer.passed_on import ROUTER_FIELDS
from sidecar.edge.rpc import guarded, parsed
from sidecar.edge.transport.ports import Call, Handlers
from sidecar.schema import admin_pb2 as pb


class StatusAdmin:
    """Handlers. `metadata` is what `GET /v1.0/metadata` answers."""

    def __init__(self, me: AppIdentity, clock: Clock, metadata: Callable[[], dict[str, object]]) -> None:
        self._me = me
        self._clock = clock
        self._metadata = metadata

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        return Handlers(unary={methods.STATUS: guarded(parsed(pb.GetStatusRequest, self._status))})

    async def _status(self, call: Call, request: pb.GetStatusRequest) -> bytes:
        return pb.GetStatusResponse(
            app_id=self._me.app,
            namespace=self._me.namespace,
            version=version(),
            now=events.timestamp(self._clock.now()),
            metadata=json.dumps(self._metadata()),
            passed_on=sorted(ROUTER_FIELDS),
        ).SerializeToString()
