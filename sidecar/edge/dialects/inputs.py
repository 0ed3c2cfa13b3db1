"""How an SDK writes the input of an activity: bare, or as an array of one. Pure.

Microsoft's SDK for .NET writes such an array, and takes one pair of brackets off whatever one of its activities is
given; all others write and read the input as it is. Inputs of workflows, events, entities and results are bare in
every SDK. A call has the form of its input with it; the input is rewritten only in what is handed to a worker that is
known to read another one. Whose form cannot be told, gets and gives inputs as they are.

The same SDK, and Dapr's for Rust, fail on an empty text, which others send for nothing, and take it for nothing where
it is absent.
"""

import enum
import re
from collections.abc import Mapping

from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb


class InputForm(enum.IntEnum):
    """The form of an activity's input. Stored, and crosses the peer link: never renumber."""

    UNKNOWN = 0
    BARE = 1
    IN_ARRAY = 2


# Agents of the SDKs that write bare inputs, .NET's apart. Names of gRPC libraries tell languages.
_BARE = (
    *("grpc-python", "grpc-go/", "grpc-java", "grpc-node-js/"),
    *("durabletask-python", "durabletask-java", "durabletask-js", "durabletask-go"),
    *("dapr-sdk-go/", "dapr-sdk-java/", "dapr-js-sdk/", "dapr-durabletask/"),
)
_DAPR_DOTNET = re.compile(r"dapr-sdk-dotnet/v?(\d{1,9})\.(\d{1,9})")
_OWN_CODE = (1, 17)  # the first version of Dapr's for .NET that has none of Microsoft's code inside
_FIELD = pb.ActivityRequest.INPUT_FORM_FIELD_NUMBER
# By the form that a worker reads: the other one, from which it can be made, and that one's mark in a request.
_FROM = {
    InputForm.BARE: (InputForm.IN_ARRAY, wire.integer(_FIELD, InputForm.IN_ARRAY)),
    InputForm.IN_ARRAY: (InputForm.BARE, wire.integer(_FIELD, InputForm.BARE)),
}
# What a JSON text begins with. Others are not wrapped: SDKs look for marks of their own at the beginning of a text.
_JSON = frozenset(["", *'"{[-0123456789tfn \t\r\n'])


def form_of(metadata: Mapping[str, str | bytes]) -> InputForm:
    """Tell from a call of a worker in which form it writes and reads the inputs of activities."""
    said = str(metadata.get("x-user-agent", ""))
    agent = said if said.startswith("durabletask-") else str(metadata.get("user-agent", ""))
    # What stands in front is the SDK's: a proxy in between may add its own library behind it.
    if agent.startswith(("grpc-dotnet/", "durabletask-dotnet")) and "dapr" not in agent:
        return InputForm.IN_ARRAY
    if any(name in agent for name in _BARE):
        return InputForm.BARE
    dapr = _DAPR_DOTNET.search(agent)
    if dapr is not None:
        return InputForm.BARE if (int(dapr[1]), int(dapr[2])) >= _OWN_CODE else InputForm.UNKNOWN
    return InputForm.UNKNOWN


def fails_on_empty(metadata: Mapping[str, str | bytes]) -> bool:
    """Whether a worker's call is one of Dapr's SDK for Rust, to which an empty text is JSON that ends too early."""
    return any("dapr-durabletask/rust" in str(metadata.get(name, "")) for name in ("user-agent", "x-user-agent"))


def rewritten(request: bytes, form: InputForm) -> bytes:
    """Return an encoded request to run an activity with its input in the form that a worker reads."""
    if form not in _FROM:
        return request
    other, mark_ = _FROM[form]
    if mark_ not in request:
        return request
    message = pb.ActivityRequest.FromString(request)
    if message.input_form != other:
        return request
    given = message.input.value
    text = _wrapped(given) if form is InputForm.IN_ARRAY else _bare(given)
    if text != given:
        message.input.value = text
    message.input_form = form
    return message.SerializeToString(deterministic=True)


def without_empty_input(request: bytes) -> bytes:
    """Return an encoded request to run an activity without its input if that is an empty text."""
    message = pb.ActivityRequest.FromString(request)
    if not message.HasField("input") or message.input.value:
        return request
    message.ClearField("input")
    return message.SerializeToString(deterministic=True)


# What a workflow is given, by event; and how an empty text is written as field 2 or 3.
_GIVEN = {
    "execution_started": "input",
    "task_completed": "result",
    "child_completed": "result",
    "event_raised": "input",
    "entity_completed": "output",
}
_EMPTY = (wire.frame(2, b""), wire.frame(3, b""))


def without_empty(event: bytes) -> bytes:
    """Return an encoded history event without the input or result that it has if that is an empty text."""
    if not any(empty in event for empty in _EMPTY):
        return event
    message = pb.HistoryEvent.FromString(event)
    kind = message.WhichOneof("kind") or ""
    if kind not in _GIVEN or getattr(getattr(message, kind), _GIVEN[kind]).value:
        return event
    getattr(message, kind).ClearField(_GIVEN[kind])
    return message.SerializeToString(deterministic=True)


def _wrapped(text: str) -> str:
    """Return an input in an array of one; none, whether it is absent or empty, is null there."""
    return f"[{text or 'null'}]" if text[:1] in _JSON else text


def _bare(text: str) -> str:
    """Return what is in an array of one; what is none, as a mark of large payloads, stays as it is."""
    return text[1:-1] if len(text) > len("[]") and text[0] == "[" and text[-1] == "]" else text
