"""Running again what has ended: rewind, restart, and rerun from an event."""

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import rewind
from sidecar.core.model import Outcome, Reply
from sidecar.engine import Address
from sidecar.service import Service

_MOST_TRIES = 8


class Administration:
    """What may be done with instances that have ended."""

    def __init__(self, service: Service) -> None:
        self._engine = service.engine
        self._deliveries = service.dispatch.deliveries

    async def rewind(self, address: Address, reason: StringValue | None) -> Reply:
        """Let an instance that has failed run again from before its failures, and its children with it."""
        for _ in range(_MOST_TRIES):
            reply = await self._rewind_once(address, reason)
            if reply.outcome is not Outcome.UNAVAILABLE:
                return reply
        return rewind.MOVED

    async def _rewind_once(self, address: Address, reason: StringValue | None) -> Reply:
        record = await self._deliveries.record(address)
        return await self._engine.submit(address, lambda at, state: rewind.rewind(at, state, reason, record))
