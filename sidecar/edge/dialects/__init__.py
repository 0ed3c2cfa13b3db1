"""How work items are written for each family of SDKs, and how the family of a worker is told.

The core knows one neutral form. What only one family understands stands beside it in fields of our own schema, and
moves into the family's slot when it is sent. An item in neutral form is read by every SDK.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sidecar.core.items import ActivityItem, TurnItem
from sidecar.edge.dialects import dapr, microsoft, wire
from sidecar.schema import taskhub_pb2 as pb

PING_SECONDS = 25.0
SMALL_LIMIT = 4 * 1024 * 1024  # what most SDKs accept in one message
_DAPR_PINGS = 3  # the capability of workers that understand a ping on field 6
_HEADROOM = 64 * 1024  # for what is around the events of an item


class Family(NamedTuple):
    """One way to write work items: `event` and `activity` turn neutral bytes into the family's."""

    name: str
    event: Callable[[bytes], bytes]
    activity: Callable[[bytes], bytes]


def _same(message: bytes) -> bytes:
    return message


NEUTRAL = Family("neutral", _same, _same)
MICROSOFT = Family("microsoft", microsoft.event, microsoft.activity)
DAPR = Family("dapr", dapr.event, dapr.activity)
BY_NAME = {family.name: family for family in (NEUTRAL, MICROSOFT, DAPR)}


class Profile(NamedTuple):
    """What is known of a worker from the call that opened its stream.

    `ping` is the number of the field that an idle stream is kept alive with (0: none wanted); `in_flight` is how
    many items it takes when it does not say; `max_bytes` the largest item that it can receive.
    """

    family: Family
    ping: int
    in_flight: int
    max_bytes: int


def detect(metadata: Mapping[str, str | bytes], request: pb.GetWorkItemsRequest, limit: int) -> Profile:
    """Tell the family of a worker and its limits from its first call.

    `limit` is this sidecar's own limit for messages. A worker that cannot be told gets neutral items, and may be
    known better from its first answer.
    """
    agent = str(metadata.get("user-agent", ""))
    small = min(SMALL_LIMIT, limit) - _HEADROOM
    if "taskhub" in metadata or str(metadata.get("x-user-agent", "")).startswith("durabletask-"):
        return Profile(MICROSOFT, 4, 100, small)
    if request.dapr_capabilities:
        pings = _DAPR_PINGS in request.dapr_capabilities
        return Profile(DAPR, 6 if pings else 0, 200, limit - _HEADROOM if pings else small)
    if "dapr-js-sdk/workflow" in agent or "durabletask-js" in agent:
        return Profile(NEUTRAL, 0, 100, limit - _HEADROOM)
    if any(name in agent for name in ("dapr-sdk-java/", "dapr-sdk-dotnet/", "dapr-sdk-go/", "dapr-durabletask/")):
        return Profile(DAPR, 0, 100, limit - _HEADROOM if "dotnet" in agent else small)
    known = request.HasField("filters") or request.worker_instance_id or set(request.microsoft_capabilities) & {2, 3}
    if known or request.max_entities:
        return Profile(MICROSOFT, 4, 100, small)
    sized = request.max_orchestrations or request.max_activities
    return Profile(NEUTRAL, 4 if sized else 0, 100, small)


def client_family(metadata: Mapping[str, str | bytes]) -> Family | None:
    """Tell the family of a client from what its calls say of it, or return None.

    Both Python packages call themselves grpc-python. A Dapr token says little alone: old packages of that family have
    Microsoft's code inside.
    """
    agent = str(metadata.get("user-agent", ""))
    if "taskhub" in metadata or str(metadata.get("x-user-agent", "")).startswith("durabletask-"):
        return MICROSOFT
    if any(name in agent for name in ("durabletask-js", "dapr-js-sdk/workflow")):
        return NEUTRAL
    if any(name in agent for name in ("dapr-sdk-java/", "dapr-sdk-dotnet/", "dapr-sdk-go/", "dapr-durabletask/")):
        return DAPR
    return DAPR if "dapr-api-token" in metadata and "grpc-python" in agent else None


def encode_turn(family: Family, item: TurnItem) -> bytes:
    """Return the work item for a turn; the past is framed once an event, and joined."""

    def past(event: bytes) -> bytes:
        return wire.frame(3, family.event(event))

    parts = [
        wire.frame(1, item.instance_id.encode()),
        wire.frame(2, wire.frame(1, item.execution.encode())),
        bytes(item.past.frames(family.name, past)),
        *(wire.frame(4, family.event(event)) for event in item.new),
    ]
    return wire.frame(1, b"".join(parts)) + wire.frame(10, item.token.encode())


def encode_activity(family: Family, item: ActivityItem) -> bytes:
    """Return the work item for an activity."""
    return wire.frame(2, family.activity(item.request)) + wire.frame(10, item.token.encode())


def encode_ping(profile: Profile) -> bytes:
    """Return the work item that only says that the stream is alive."""
    return wire.frame(profile.ping, b"")
