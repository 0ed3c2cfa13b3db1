"""The few pieces of the protobuf wire format that are written and read by hand, to join kept bytes. Pure."""

from collections.abc import Collection
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

INTEGER, LENGTH_DELIMITED = 0, 2  # wire types


def varint(number: int) -> bytes:
    """Return a number of at least 0 as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(number: int) -> bytes:
    """Return what a length-delimited field with this number begins with."""
    return varint(number << 3 | 2)


def frame(number: int, value: bytes) -> bytes:
    """Return a length-delimited field."""
    return tag(number) + varint(len(value)) + value


def integer(number: int, value: int) -> bytes:
    """Return a field with a number of at least 0."""
    return varint(number << 3) + varint(value)


def has_timestamp(message: bytes, number: int) -> bool:
    """Whether field `number` of a message is a non-empty Timestamp: a message that begins with its seconds."""
    value = field(message, number)
    return value is not None and value[:1] == b"\x08"


def field(message: bytes, number: int) -> bytes | None:
    """Return the first length-delimited field with this number, or None; stops at what it cannot read."""
    position = 0
    while position < len(message):
        key, position = _read(message, position)
        kind = key & 7
        if kind == 2:
            size, position = _read(message, position)
            if key >> 3 == number:
                return message[position : position + size]
            position += size
        elif kind == 0:
            _, position = _read(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            return None
    return None


def only(message: bytes, numbers: Collection[int]) -> bytes:
    """Return a message with only the fields of these numbers; stops at what it cannot read."""
    kept, position = [], 0
    while position < len(message):
        begin = position
        key, position = _read(message, position)
        kind = key & 7
        if kind == 0:
            _, position = _read(message, position)
        elif kind == 2:
            size, position = _read(message, position)
            position += size
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            break
        if key >> 3 in numbers:
            kept.append(message[begin:position])
    return b"".join(kept)


def _read(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    return number, len(message)


def unknown(message: Message, number: int, kind: int) -> list[Any]:
    """Return what the schema does not know of a message: the values with this number and wire type.

    The two families use some numbers for values of different wire types; one of these is in the schema.
    """
    found = UnknownFieldSet(message)
    fields = (found[index] for index in range(len(found)))
    return [field.data for field in fields if (field.field_number, field.wire_type) == (number, kind)]
