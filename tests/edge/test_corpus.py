"""What the SDKs of the matrix really send, read by the sidecar: nothing misread, nothing lost.

The files in `corpus` are written by `python -m tests.sdks.matrix --record`, one for each build of an SDK.
"""

import base64
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sidecar.config.settings import Settings
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, completion
from sidecar.edge.methods import TASKHUB as SERVICE
from sidecar.edge.peer.forward import Forwarder
from sidecar.edge.taskhub.service import TaskHub
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work.memory import Memory
from tests.sdks import wire
from tests.sdks.sdks import builds

CORPUS = Path(__file__).parent / "corpus"
TURNS = {"CompleteOrchestratorTask", "CompleteWorkflowTask"}
# Parsed inside of their handlers, where the table of methods does not show it.
STREAMS = {"GetWorkItems": pb.GetWorkItemsRequest, "StreamInstanceHistory": pb.GetInstanceHistoryRequest}
# At the number of a field of another wire type. Purge: Microsoft says there that it means an orchestration, where Dapr
# has its router. Start: Dapr says there that the ID must be unique, where Microsoft has the time.
READ_ELSEWHERE = {"PurgeInstancesRequest.5", "CreateInstanceRequest.10"}
FAMILIES = {"microsoft": {MICROSOFT}, "dapr": {DAPR, DAPR_DETACHING}}
Row = tuple[str, bytes]


def rows(path: Path) -> list[Row]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["method"], base64.b64decode(line["body"])) for line in lines]


def served() -> Mapping[str, Any]:
    """The handlers of the sidecar by path."""
    forwarder = Forwarder(Mock(), Mock(), unknown_app_fails=False)
    return TaskHub(Mock(), Mock(), forwarder, Memory(None, Mock()), Settings(app_id="orders")).handlers().unary


def messages() -> dict[str, type[Message]]:
    """The message of each method, out of the sidecar's own handlers: what it serves tomorrow is tested tomorrow."""
    handlers = served()
    found = {path.removeprefix(SERVICE): kind for path, handler in handlers.items() for kind in kinds(handler)}
    return {**found, **STREAMS}


def kinds(handler: Any) -> Iterator[type[Message]]:
    held = inspect.getclosurevars(handler).nonlocals
    if "kind" in held:
        yield held["kind"]
    elif "method" in held and inspect.isfunction(held["method"]):
        yield from kinds(held["method"])


FILES = sorted(CORPUS.glob("*.jsonl"))
MESSAGES = messages()


def named(path: Path) -> str:
    return path.stem


def test_every_method_of_the_sidecar_has_its_message() -> None:
    names = {path.removeprefix(SERVICE) for path in served()}
    assert names - TURNS - set(MESSAGES) == set()


def test_every_build_of_the_matrix_has_been_recorded() -> None:
    assert {path.stem for path in FILES} == {build.id for build in builds()}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_turn_is_never_taken_for_one_of_the_other_family(path: Path) -> None:
    families = {build.id: FAMILIES[build.family] for build in builds()}
    told = [completion.read(body)[1] for method, body in rows(path) if method in TURNS]
    assert told, "no answer to a turn in the file"
    assert {family for family in told if family is not None} <= families[path.stem]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_request_is_the_same_after_it_was_parsed(path: Path) -> None:
    for method, body in rows(path):
        kind = MESSAGES.get(method)
        if kind is not None:
            assert _same_bytes(kind, body), f"{method}: {kind.DESCRIPTOR.name} loses something of {body!r}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_turn_is_the_same_after_it_was_parsed(path: Path) -> None:
    for method, body in rows(path):
        if method in TURNS:
            assert _same_bytes(pb.OrchestratorResponse, body), f"the schema loses something of {body!r}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_schema_knows_every_field_that_is_sent(path: Path) -> None:
    kinds = MESSAGES | dict.fromkeys(TURNS, pb.OrchestratorResponse)
    unknown = {field for method, body in rows(path) if method in kinds for field in _unknown(kinds[method], body)}
    assert unknown <= READ_ELSEWHERE


def _unknown(kind: type[Message], body: bytes) -> Iterator[str]:
    left = [kind.FromString(body)]
    while left:
        message = left.pop()
        unknown = UnknownFieldSet(message)
        yield from (f"{message.DESCRIPTOR.name}.{unknown[index].field_number}" for index in range(len(unknown)))
        for field, value in message.ListFields():
            if field.message_type and not field.message_type.GetOptions().map_entry:
                left += value if field.is_repeated else [value]


def _same_bytes(kind: type[Message], body: bytes) -> bool:
    """Whether the message keeps all bytes. They are compared field by field, since an SDK writes them in the order of
    its own schema and of its maps, and some write fields that have no value."""
    again = kind.FromString(body).SerializeToString()
    return _ordered(kind.DESCRIPTOR, again) == _ordered(kind.DESCRIPTOR, body)


def _ordered(schema: Descriptor, body: bytes) -> list[tuple[int, int, Any]]:
    found: list[tuple[int, int, Any]] = []
    for number, kind, value in wire.fields(body):
        field = schema.fields_by_number.get(number)
        if field and field.message_type and kind == 2:
            found.append((number, kind, _ordered(field.message_type, value)))
        elif value.strip(b"\0") or field is None or field.has_presence or field.is_repeated:
            found.append((number, kind, value))
    return sorted(found, key=lambda each: (each[0], repr(each[2]) if _is_map(schema, each[0]) else ""))


def _is_map(schema: Descriptor, number: int) -> bool:
    field = schema.fields_by_number.get(number)
    return bool(field and field.message_type and field.message_type.GetOptions().map_entry)
