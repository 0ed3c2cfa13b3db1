"""What mutation begins with: messages that released SDKs have sent, and messages made from the schema."""

import base64
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.mutate import NUMBERS

CORPUS = Path(__file__).parents[1] / "edge" / "corpus"
INSTANCES = ("one", "two", "three", "@counter@a", "@account@b")
_WORDS = (
    *INSTANCES,
    "",
    "flow",
    "work",
    "ml",
    "orders",
    "default",
    '"text"',
    "€",
    "tick",
    "1.0",
    "a.1.1.x",
    "0",
    "lock",
)
_DEPTH = 5
Kind = type[Message]


@cache
def recorded() -> dict[str, list[bytes]]:
    """The messages of the corpus, by method."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(CORPUS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row["method"], []).append(base64.b64decode(row["body"]))
    return found


def made(kind: Kind, rng: random.Random, depth: int = _DEPTH) -> Any:
    """Return a message of a kind with some of its fields set, to values that stand at the edges."""
    message = kind()
    share = rng.choice((0.2, 0.5, 0.8))
    for one in kind.DESCRIPTOR.fields:
        if rng.random() < share:
            _set(message, one, rng, depth)
    return message


def _set(message: Any, one: FieldDescriptor, rng: random.Random, depth: int) -> None:
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        value = one.message_type.fields_by_name["value"]
        getattr(message, one.name)[rng.choice(_WORDS)] = _scalar(value, rng)
    elif one.message_type is not None:
        if depth:
            made_one = made(_class(message, one), rng, depth - 1)
            where = getattr(message, one.name)
            where.append(made_one) if one.is_repeated else where.CopyFrom(made_one)
    elif one.is_repeated:
        getattr(message, one.name).append(_scalar(one, rng))
    else:
        setattr(message, one.name, _scalar(one, rng))


def _class(message: Any, one: FieldDescriptor) -> Kind:
    where = getattr(message, one.name)
    return type(where.add()) if one.is_repeated else type(where)


def _scalar(one: FieldDescriptor, rng: random.Random) -> Any:
    if one.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        word = rng.choice(_WORDS)
        return word.encode() if one.type == FieldDescriptor.TYPE_BYTES else word
    if one.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if one.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([*one.enum_type.values_by_number, 77])
    if one.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 1e300, float("nan"), float("inf")))
    return _integer(one, rng)


def _integer(one: FieldDescriptor, rng: random.Random) -> int:
    bits = 32 if one.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    number = rng.choice((rng.randrange(5), rng.randrange(5), *NUMBERS)) % (1 << bits)
    signed = one.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    return number - (1 << bits) if signed and number >> (bits - 1) else number
