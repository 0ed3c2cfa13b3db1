"""What reads bytes without a sidecar around it: each function here takes one input and raises what should not be."""

from typing import Any
from unittest.mock import Mock

from google.protobuf.message import DecodeError

from sidecar.core import activities, events
from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity
from sidecar.core.model import Kind, Row
from sidecar.edge import dialects
from sidecar.edge.admin.health import Health
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, NEUTRAL, completion, wire
from sidecar.edge.http.surface import _host_of
from sidecar.edge.peer import codec, handshake
from sidecar.edge.taskhub import page_tokens
from sidecar.edge.taskhub.hubs import Hubs
from sidecar.edge.taskhub.streams import WorkerStream, _worker
from sidecar.edge.transport.ports import NO_NAMES, Call, Refused, StatusCode
from sidecar.edge.transport.send_queue import SendQueue
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb

ME = AppIdentity("default", "orders")
FAMILIES = (NEUTRAL, MICROSOFT, DAPR, DAPR_DETACHING)
_LONGEST_REFUSAL = 2_000
HEALTH = Health(lambda: True, lambda call: True)


def accepted(error: Exception) -> None:
    """See that a refusal is one: a status that blames the caller, and a text of a bounded length. Raises it if not."""
    if isinstance(error, Refused) and error.status in (StatusCode.UNKNOWN, StatusCode.INTERNAL):
        raise AssertionError(f"{error.status.name} for a caller's mistake") from error
    if len(str(error)) > _LONGEST_REFUSAL:
        raise AssertionError(f"a refusal of {len(str(error))} characters") from error


def answer(data: bytes) -> None:
    """A worker's answer to a turn; the first byte says what is known of the worker."""
    known = (None, *FAMILIES)[data[0] % 5] if data else None
    try:
        response, _ = completion.read(data[1:], known)
    except MalformedError as error:
        accepted(error)
        return
    again, _ = completion.read(response.SerializeToString(), known)
    again.SerializeToString()


def event(data: bytes) -> None:
    """A history event of a peer or a worker: stored, and written for every family."""
    try:
        found = events.decode(data)
    except MalformedError as error:
        accepted(error)
        return
    events.belongs_to_no_call(data)
    events.clock_after([Row(1, 1, events.stamped(data, 1, "ml", "orders"))], 0)
    stored = events.encode(found)
    for family in FAMILIES:
        dialects.encode_event(family, 3, stored)


def request(data: bytes) -> None:
    """A request to run an activity, from a peer."""
    message = peer_pb2.Message(kind=int(Kind.ACTIVITY), payload=data)
    message.target.namespace, message.target.app_id = ME.namespace, ME.app
    try:
        activities.requested(codec.reminder_of(ME, ("default", "evil"), message))
    except MalformedError as error:
        accepted(error)
        return
    for family in FAMILIES:
        family.activity(data)


def fields(data: bytes) -> None:
    """Any bytes, read without a schema, as the router of a call is."""
    for number in (1, 2, 3, 4, 11):
        found = wire.field(data, number)
        if found is not None and len(found) > len(data):
            raise AssertionError("more was read than there is")
        wire.has_timestamp(data, number)


def link(data: bytes) -> None:
    """A frame of a peer: as its greeting, and as what follows."""
    try:
        greeting = handshake.read_hello(data)
        handshake.check_hello(ME, greeting, None)
    except (MalformedError, DecodeError) as error:
        accepted(error)
    try:
        frame = peer_pb2.Frame.FromString(data)
    except DecodeError:
        return
    for one in frame.answers.answers:
        codec.reply_of(one)
    for one in frame.batch.messages:
        _message(one)


def _message(one: peer_pb2.Message) -> None:
    try:
        reminder = codec.reminder_of(ME, ("default", "evil"), one)
    except MalformedError as error:
        accepted(error)
        return
    if (reminder.source.namespace, reminder.source.app) != ("default", "evil"):
        raise AssertionError("a peer has chosen its own name")
    codec.message_of(reminder).SerializeToString()


def worker(data: bytes) -> None:
    """The call that opens a stream of work items: the metadata in lines, then the request."""
    head, _, body = data.partition(b"\n\n")
    call = called("GetWorkItems", head)
    try:
        asked = pb.GetWorkItemsRequest.FromString(body)
        profile = dialects.detect(call.metadata, asked, dialects.Limits(1 << 26))
    except (DecodeError, MalformedError):
        return
    stream = WorkerStream(profile, Mock(), call.metadata)
    made = _worker("worker", call, asked, stream)
    if made.max_turns < 0 or made.max_activities < 0 or made.max_entities < 0:
        raise AssertionError("a worker that takes fewer than no items")
    dialects.client_family(call.metadata)


def called(method: str, head: bytes = b"", **more: Any) -> Call:
    """Return a call with metadata as in lines of text: what ends in -bin is bytes, all else what gRPC lets through."""
    metadata: dict[str, str | bytes] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b"=")
        key = "".join(chr(byte) for byte in name.lower() if chr(byte).isalnum() or byte in b"-_.")
        if key:
            metadata[key] = value if key.endswith("-bin") else value.decode("latin1")
    return Call(method, metadata, more.get("deadline"), more.get("peer", "ipv4:127.0.0.1:1"), NO_NAMES)


def header(data: bytes) -> None:
    """A text that names something: a hub, a host, where a list goes on."""
    text = data.decode("latin1")
    _host_of(text)
    for hubs in (Hubs("separate"), Hubs(("blue",))):
        try:
            hubs.admit(called("m", b"taskhub=" + data.replace(b"\n", b"")))
        except Refused as error:
            accepted(error)
    try:
        page_tokens.read("s" * 32, "default", "list", text)
    except Refused as error:
        accepted(error)


class _Once:
    """The requests of a call that has one."""

    def __init__(self, request: bytes) -> None:
        self._requests = [request]

    def __aiter__(self) -> "_Once":
        return self

    async def __anext__(self) -> bytes:
        if not self._requests:
            raise StopAsyncIteration
        return self._requests.pop()


def health(data: bytes) -> None:
    """A question to the health service."""
    checking = HEALTH.check(called("Check"), _Once(data), SendQueue(1 << 20, 10))
    try:
        checking.send(None)
    except StopIteration:
        return
    except Refused as error:
        accepted(error)
