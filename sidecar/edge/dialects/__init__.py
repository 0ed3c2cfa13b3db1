"""Owns how each family of SDKs writes what all of them mean, and how the family of a worker or client is told.

It must not know what an item or answer is for: the core has one neutral form of it, which every SDK reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from sidecar.core.errors import MalformedError
from sidecar.core.work_items import ActivityItem, EntityItem, Frames, TurnItem, fitting
from sidecar.edge.dialects import dapr, inputs, microsoft, older_entities, wire
from sidecar.edge.dialects.inputs import InputForm
from sidecar.schema import taskhub_pb2 as pb

PING_SECONDS = 25.0
SMALL_LIMIT = 4 * 1024 * 1024  # what most SDKs accept in one message
# Capabilities of workers: they keep what they have seen; they understand a ping on field 6.
_DAPR_HISTORY, _DAPR_PINGS = 2, 3
_PAST, _NEW, _TRACE, _CACHED = 3, 4, 8, 9  # fields of the request that a turn is
_STREAMED = wire.integer(6, 1)
_MICROSOFT_STREAMING = 1
_HEADROOM = 64 * 1024  # for what is around the events of an item, or the entries of an answer; less of a small message
RECEIVES = "max-receive-bytes"  # metadata of a worker: how large a message it receives
_LEAST = 64 * 1024
_LONGEST_NUMBER = 12  # digits
_LENGTHS = 16  # bytes that the lengths in an item, and the time in it, may take more than in an empty one
_LONGER = 8  # no family's form of an event is so many times as long as the neutral one


class Family(NamedTuple):
    """One way to write work items: `event` and `activity` turn neutral bytes into the family's.

    An event that the family has no word for becomes nothing (`b""`) and is left out. `extra` is what it looks for in
    every turn; `lineage` writes the history of an instance's callers; `traced` gives an activity a span of its own;
    `entities` says whether some of its SDKs have them.
    """

    name: str
    event: Callable[[bytes], bytes]
    activity: Callable[[bytes], bytes]
    extra: bytes = b""
    lineage: Callable[[bytes], bytes] = lambda given: b""
    traced: Callable[[bytes, str], bytes] = lambda request, span: request
    entities: bool = True


_TAGS = {
    "execution_stalled": wire.tag(31),
    "detached_created": wire.tag(32),
    "execution_rewound": wire.tag(1031),
}


def _without(*kinds: str) -> Callable[[bytes], bytes]:
    """Return the function that leaves out the events of some kinds."""
    tags = [_TAGS[kind] for kind in kinds]

    def event(neutral: bytes) -> bytes:
        if not any(tag in neutral for tag in tags):
            return neutral
        return b"" if pb.HistoryEvent.FromString(neutral).WhichOneof("kind") in kinds else neutral

    return event


_COMMON = _without("detached_created", "execution_rewound", "execution_stalled")
_OF_MICROSOFT = _without("detached_created", "execution_stalled")
_OF_READERS = _without("detached_created")
_OF_DAPR, _NOT_REWOUND = _without("detached_created", "execution_rewound"), _without("execution_rewound")
# Only callers of Dapr's family pass their history on, and whom they call is hardly ever of the other one: a worker that
# cannot be told yet is given it with its first item, as Go's before 0.13.
NEUTRAL = Family("neutral", _COMMON, dapr.with_lineage, b"", dapr.lineage)
MICROSOFT = Family("microsoft", lambda event: microsoft.event(_OF_MICROSOFT(event)), microsoft.activity, microsoft.TURN)
DAPR = Family("dapr", lambda event: dapr.event(_OF_DAPR(event)), dapr.activity, b"", dapr.lineage, dapr.traced, False)
# One that starts detached workflows knows their event; others of its family may not, and need not: a worker that does
# not find the event in its history asks for the start again, which changes nothing.
DAPR_DETACHING = DAPR._replace(name="dapr, detaching", event=lambda event: dapr.event(_NOT_REWOUND(event)))
# What its clients read: they know no STALLED, and have an event that only says something.
MICROSOFT_READERS = MICROSOFT._replace(
    name="microsoft, readers", event=lambda event: MICROSOFT.event(event) or microsoft.told(_OF_READERS(event))
)
_FAMILIES = (NEUTRAL, MICROSOFT, MICROSOFT_READERS, DAPR, DAPR_DETACHING)
BY_NAME = {family.name: family for family in (NEUTRAL, MICROSOFT, DAPR)}


def _in_dotnet(family: Family) -> Family:
    def event(neutral: bytes) -> bytes:
        return older_entities.event(inputs.without_empty(family.event(neutral)))

    return family._replace(name=f"{family.name}, .NET", event=event)


def _in_rust(family: Family) -> Family:
    return family._replace(
        name=f"{family.name}, Rust",
        event=lambda neutral: inputs.without_empty(family.event(neutral)),
        activity=lambda request: family.activity(inputs.without_empty_input(request)),
    )


_IN_DOTNET = {family.name: _in_dotnet(family) for family in _FAMILIES}
_IN_RUST = {family.name: _in_rust(family) for family in _FAMILIES}
# Families to which the number of a turn's trace means something else.
_WITHOUT_TRACE = {name for family in (DAPR, DAPR_DETACHING) for name in (family.name, _IN_RUST[family.name].name)}


def reading(family: Family, form: InputForm, *, fails_on_empty: bool = False) -> Family:
    """Return the family as a worker reads it that has this form of inputs, which is that of .NET or of the others.

    .NET's takes no empty text for nothing, and what is about entities all of its workers read in the older form alone.
    Rust's is the other one that `fails_on_empty` texts.
    """
    if form is InputForm.IN_ARRAY:
        return _IN_DOTNET[family.name]
    return _IN_RUST[family.name] if fails_on_empty else family


class Profile(NamedTuple):
    """What is known of a worker from the call that opened its stream.

    `ping` is the number of the field that an idle stream is kept alive with (0: none wanted); `in_flight` is how
    many items it takes when it does not say; `max_bytes` the largest item that it can receive. `keeps_history`: it
    keeps the past of instances between turns. `streams_history`: it fetches a past that is too large for a message.
    `ends_with_ok`: an error would end its work for good, while others wait for all that they run after an OK.
    """

    family: Family
    ping: int
    in_flight: int
    max_bytes: int
    keeps_history: bool = False
    streams_history: bool = False
    ends_with_ok: bool = False


def room_in(limit: int) -> int:
    """Return how many bytes may be used of a message for a receiver that takes at most `limit`."""
    return limit - min(_HEADROOM, limit // 16)


def means_older_reuse(metadata: Mapping[str, str | bytes]) -> bool:
    """Whether a client is one of the Go SDKs, whose reuse policy is that of the older generation."""
    return str(metadata.get("user-agent", "")).startswith(("grpc-go/", "dapr-sdk-go/"))


class Limits(NamedTuple):
    """Bytes of the largest message that this sidecar sends, and that workers receive which do not say it themselves."""

    largest: int
    of_workers: int = SMALL_LIMIT

    def of(self, metadata: Mapping[str, str | bytes]) -> tuple[int, int]:
        """Return how many bytes an item may have for a worker whose SDK sets a limit, and for one whose SDK sets none.

        Raises:
            MalformedError: the worker says that it receives what is no number of bytes.
        """
        told = metadata.get(RECEIVES)
        if told is None:
            return room_in(min(self.of_workers, self.largest)), room_in(self.largest)
        text = told if isinstance(told, str) else ""
        if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER and int(text) >= _LEAST):
            raise MalformedError(f"{RECEIVES}: {told[:80]!r} is no number of bytes from {_LEAST}")
        room = room_in(min(int(text), self.largest))
        return room, room


def detect(metadata: Mapping[str, str | bytes], request: pb.GetWorkItemsRequest, limits: Limits) -> Profile:
    """Tell the family of a worker and its limits from its first call.

    A worker that cannot be told gets neutral items, and may be known better from its first answer.

    Raises:
        MalformedError: it says of itself what cannot be.
    """
    agent = str(metadata.get("user-agent", ""))
    small, large = limits.of(metadata)
    streams = _MICROSOFT_STREAMING in request.microsoft_capabilities
    if "taskhub" in metadata or str(metadata.get("x-user-agent", "")).startswith("durabletask-"):
        return Profile(MICROSOFT, 4, 100, small, streams_history=streams)
    if request.dapr_capabilities:
        pings = _DAPR_PINGS in request.dapr_capabilities
        keeps = _DAPR_HISTORY in request.dapr_capabilities
        return Profile(DAPR, 6 if pings else 0, 200, large if pings else small, keeps)
    if "dapr-js-sdk/workflow" in agent or "durabletask-js" in agent:
        return Profile(NEUTRAL, 0, 100, large, ends_with_ok="dapr-js-sdk/workflow" in agent)
    if any(name in agent for name in ("dapr-sdk-java/", "dapr-sdk-dotnet/", "dapr-sdk-go/", "dapr-durabletask/")):
        return Profile(DAPR, 0, 100, large if "dotnet" in agent else small)
    known = request.HasField("filters") or request.worker_instance_id or set(request.microsoft_capabilities) & {2, 3}
    if known or request.max_entities:
        return Profile(MICROSOFT, 4, 100, small, streams_history=streams)
    sized = request.max_orchestrations or request.max_activities
    return Profile(NEUTRAL, 4 if sized else 0, 100, small, streams_history=streams)


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


def most_received(metadata: Mapping[str, str | bytes], limit: int) -> int:
    """Return the largest answer that a client receives; `limit` is this sidecar's own limit for messages (D.2).

    Raises:
        MalformedError: it says of itself what cannot be.
    """
    agent = str(metadata.get("user-agent", ""))
    small, large = Limits(limit).of(metadata)
    return large if any(name in agent for name in ("durabletask-js", "dapr-js-sdk/workflow")) else small


def is_told_of_missing(metadata: Mapping[str, str | bytes]) -> bool:
    """Whether a client's SDK documents that a wait for a missing instance ends with an error (E.16)."""
    return "dapr-sdk-dotnet/" in str(metadata.get("user-agent", ""))


def is_microsoft_dotnet(metadata: Mapping[str, str | bytes]) -> bool:
    """Whether a call is one of Microsoft's .NET SDK.

    It fails when a wait is told that there is no instance, compares the names of its filters without case, says of a
    custom status on each turn what it is, and wants payloads, failure and custom status only where it asks for them.
    """
    agent = " ".join(str(metadata.get(name, "")) for name in ("user-agent", "x-user-agent"))
    return any(name in agent for name in ("grpc-dotnet", "durabletask-dotnet")) and "dapr" not in agent


def entities_at_once(metadata: Mapping[str, str | bytes], request: pb.GetWorkItemsRequest, profile: Profile) -> int:
    """Return how many batches of entities a worker takes at once, 0 if it takes none (E.10, D.2).

    SDKs for Java and .NET say so in their request, and those for Python and JavaScript, which always take them, do
    not; one of Python that is not Dapr's gives its other limits. Whoever cannot be told gets none.
    """
    if not profile.family.entities:
        return 0
    if request.max_entities > 0:
        return request.max_entities
    agent = str(metadata.get("user-agent", ""))
    sized = request.max_orchestrations or request.max_activities
    if "durabletask-js" in agent or ("grpc-python" in agent and (profile.family is MICROSOFT or sized)):
        return profile.in_flight
    return 0


def encode_turn(family: Family, item: TurnItem, *, streamed: bool = False) -> bytes:
    """Return the work item for a turn; the past is framed once an event, and joined.

    Of the past that the worker keeps only the number of its events is sent (`cachedHistory`); nothing of it when it is
    `streamed`: the worker then asks for it (`requiresHistoryStreaming`).
    """
    past = _past(family, item)
    known, start = past.upto(item.known)
    end = None if item.shown is None else past.upto(item.shown)[1]
    # Dapr has the history of callers at this number: who gave no trace is not given one.
    lineage = family.lineage(item.past.lineage)
    traced = item.trace and not lineage and family.name not in _WITHOUT_TRACE
    trace = wire.frame(_TRACE, item.trace) if traced else b""
    parts: list[bytes | memoryview] = [
        wire.frame(1, item.instance_id.encode()),
        wire.frame(2, wire.frame(1, item.execution.encode())),
        family.extra,
        _STREAMED if streamed else memoryview(past.joined)[start:end],
        *(encode_event(family, _NEW, event) for event in item.new),
        lineage,
        trace,
    ]
    if known:
        parts.append(wire.frame(_CACHED, wire.integer(1, known)))
    return wire.frame(1, b"".join(parts)) + wire.frame(10, item.token.encode())


def _past(family: Family, item: TurnItem) -> Frames:
    return item.past.frames(family.name, lambda event: encode_event(family, _PAST, event))


def fitting_events(family: Family, item: TurnItem, most_bytes: int, *, streams: bool) -> int:
    """Return how many of the new events of a turn a worker of this family can receive in one message.

    The past has to fit beside them unless the worker `streams` it.
    """
    if item.past.size + sum(map(len, item.new)) < most_bytes // _LONGER:
        return len(item.new)
    past = _past(family, item)
    beside = 0 if streams else len(past.joined) - past.upto(item.known)[1]
    around = len(encode_turn(family, replace(item, new=[]), streamed=True)) + _LENGTHS
    sizes = (len(encode_event(family, _NEW, event)) for event in item.new)
    return fitting(sizes, most_bytes - beside - around)


def fitting_past(family: Family, item: TurnItem, most_bytes: int) -> int:
    """Return of how many events of its past a turn can tell a worker of this family beside the first of the new ones.

    Those that the worker has kept count among them and need no room.
    """
    past = _past(family, item)
    around = len(encode_turn(family, replace(item, new=item.new[:1]), streamed=True)) + _LENGTHS
    return max(item.known, past.within(past.upto(item.known)[1] + most_bytes - around))


def encode_event(family: Family, number: int, event: bytes) -> bytes:
    """Return an event as field `number` of a message of the family, or nothing if the family has no word for it."""
    written = family.event(event)
    return wire.frame(number, written) if written else b""


def encode_activity(family: Family, item: ActivityItem, form: InputForm = InputForm.UNKNOWN) -> bytes:
    """Return the work item for an activity; `form` is that in which the worker reads inputs of activities."""
    request = family.activity(family.traced(inputs.rewritten(item.request, form), item.span))
    return wire.frame(2, request) + wire.frame(10, item.token.encode())


def encode_entity(item: EntityItem) -> bytes:
    """Return the work item for operations of an entity."""
    return wire.frame(5, microsoft.entity_request(item)) + wire.frame(10, item.token.encode())


def encode_ping(profile: Profile) -> bytes:
    """Return the work item that only says that the stream is alive."""
    return wire.frame(profile.ping, b"")
