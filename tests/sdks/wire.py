"""Messages as they are on the wire, read without a schema."""

from collections.abc import Iterator
from contextlib import suppress

_DEPTH = 8


def shape(body: bytes) -> str:
    """The paths of the fields of a message. What can be read as a message is, unless it is plainly a text."""
    return " ".join(sorted(set(_paths(body, "", _DEPTH))))


def _paths(body: bytes, above: str, depth: int) -> Iterator[str]:
    for number, kind, value in fields(body):
        path = f"{above}.{number}:{kind}"
        yield path
        if kind == 2 and depth and not _is_text(value):
            with suppress(ValueError):
                yield from list(_paths(value, path, depth - 1))


def _is_text(value: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return value.decode().isprintable()
    return False


def fields(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and bytes of each field; raises ValueError for what is no message."""
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1000:
            raise ValueError("no field of a message has this number")
        start = position
        if kind == 0:
            _, position = _varint(body, position)
        elif kind == 2:
            length, start = _varint(body, position)
            position = start + length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("no message")
        if position > len(body):
            raise ValueError("no message")
        yield number, kind, body[start:position]


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(body) and shift < 64:
        byte = body[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
    raise ValueError("no number")
