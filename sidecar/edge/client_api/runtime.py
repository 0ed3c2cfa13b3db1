"""What Dapr's clients ask of the sidecar itself: its metadata, a value of theirs beside it, and its end."""

from collections.abc import Callable, Mapping

import structlog
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty

from sidecar.edge.client_api import refusals
from sidecar.edge.client_api.refusals import InvalidRequest
from sidecar.edge.methods import CLIENT_API
from sidecar.edge.rpc import parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from sidecar.schema import dapr_pb2 as pb

GET, SET, SHUTDOWN = (CLIENT_API + name for name in ("GetMetadata", "SetMetadata", "Shutdown"))
MOST_KEYS = 64
LONGEST_KEY = 256  # characters
LONGEST_VALUE = 16 * 1024  # bytes: Dapr's CLI keeps a command line here
log = structlog.get_logger(__name__)


class Extended:
    """The values that clients have set, in memory alone. What the sidecar says of itself cannot be set."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = dict(own)
        self._set: dict[str, str] = {}

    def shown(self) -> dict[str, str]:
        """Return all values."""
        return self._set | self._own

    def set(self, key: str, value: str) -> None:
        """Set a value, in the place of the one before.

        Raises:
            Refused: the key is the sidecar's own or cannot be one, something is too long, or there are too many.
        """
        if not key or not key.isprintable() or key in self._own:
            raise InvalidRequest(refusals.MALFORMED, f"{key[:80]!r} is no key that can be set")
        if len(key) > LONGEST_KEY or len(value.encode()) > LONGEST_VALUE:
            text = f"a key has at most {LONGEST_KEY} characters, and a value {LONGEST_VALUE} bytes"
            raise InvalidRequest(refusals.MALFORMED, text)
        if key not in self._set and len(self._set) >= MOST_KEYS:
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{MOST_KEYS} keys are set, as many as may be")
        self._set[key] = value


class Runtime:
    """Handlers. `metadata` is the answer of GET /v1.0/metadata, `end` ends the sidecar as SIGTERM does."""

    def __init__(self, extended: Extended, metadata: Callable[[], dict[str, object]], end: Callable[[], None]) -> None:
        self._extended = extended
        self._metadata = metadata
        self._end = end

    def handlers(self) -> Handlers:
        """Return the methods by path."""
        return Handlers(
            unary={
                GET: parsed(pb.GetMetadataRequest, self._get),
                SET: parsed(pb.SetMetadataRequest, self._set),
                SHUTDOWN: parsed(pb.ShutdownRequest, self._shutdown),
            }
        )

    async def _get(self, call: Call, request: pb.GetMetadataRequest) -> bytes:
        found = json_format.ParseDict(self._metadata(), pb.GetMetadataResponse(), ignore_unknown_fields=True)
        return found.SerializeToString()

    async def _set(self, call: Call, request: pb.SetMetadataRequest) -> bytes:
        self._extended.set(request.key, request.value)
        return Empty().SerializeToString()

    async def _shutdown(self, call: Call, request: pb.ShutdownRequest) -> bytes:
        log.info("the sidecar ends: a client asked for it", peer=call.peer)
        self._end()
        return Empty().SerializeToString()
