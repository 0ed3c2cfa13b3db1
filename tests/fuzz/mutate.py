"""Changes messages so that they stay almost right: by the protobuf wire format, by bytes, and for text by lines.

Everything comes from the generator of random numbers that is given, so that a seed stands for one run.
"""

import random
from collections.abc import Callable, Sequence

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_DEEPEST = 200
_LARGEST = 1 << 16  # of a mutated message, in bytes: what is larger only makes the run slow
NUMBERS = (0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 253402300799, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xc0\x80",
    "\u202e\U0001f600".encode(),
    b"a\r\nb: c\x1b[31m",
    b"@counter@a",
    b"@@",
    b"../../etc/passwd",
    b"%2e%2e//",
    b"' OR 1=1 --",
    b"x" * 256,
    b"x" * 257,
    b"y" * 5000,
    b"main",
    b"orders",
    b"ORDERS",
    b"ml",
    b"default",
)
Field = tuple[int, int, bytes]  # number, wire type, what stands behind the tag (of BYTES without its length)


def varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def parse(data: bytes) -> list[Field] | None:
    """The fields of a message, or None when it is none."""
    found, at = [], 0
    while at < len(data):
        key, at = _read(data, at)
        kind, start = key & 7, at
        if kind == VARINT:
            _, at = _read(data, at)
        elif kind == BYTES:
            size, start = _read(data, at)
            at = start + size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            return None
        if at > len(data) or not key >> 3:
            return None
        found.append((key >> 3, kind, data[start:at]))
    return found


def join(fields: Sequence[Field]) -> bytes:
    return b"".join(
        varint(number << 3 | kind) + (varint(len(value)) + value if kind == BYTES else value)
        for number, kind, value in fields
    )


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    return 0, len(data) + 1


def message(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """Return a mutated protobuf message; `donors` are messages that fields may be taken from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _field_of(data, rng, donors) if rng.random() < 0.93 else raw(data, rng)
    return data[:_LARGEST]


def _field_of(data: bytes, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    fields = parse(data)
    if not fields:
        return data + rng.choice(donors) if donors and rng.random() < 0.5 else raw(data, rng)
    at = rng.randrange(len(fields))
    number, kind, value = fields[at]
    if kind == BYTES and value and rng.random() < 0.6 and parse(value):
        fields[at] = (number, kind, _field_of(value, rng, donors))
        return join(fields)
    return rng.choice(_OPERATIONS)(fields, at, rng, donors)


def _drop(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    return join([*fields[:at], *fields[at + 1 :]])


def _repeat(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    return join([*fields[:at], *[fields[at]] * rng.choice((2, 3, 100)), *fields[at + 1 :]])


def _swap(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    other = rng.randrange(len(fields))
    fields[at], fields[other] = fields[other], fields[at]
    return join(fields)


def _value(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    number, kind, value = fields[at]
    if kind == VARINT:
        value = varint(rng.choice((*NUMBERS, rng.getrandbits(64), value[0] ^ 1)))
    elif kind == BYTES:
        value = rng.choice(TEXTS) if rng.random() < 0.7 else raw(value, rng)
    else:
        value = rng.randbytes(len(value))
    fields[at] = (number, kind, value)
    return join(fields)


def _type(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    """Another wire type: the bytes behind the tag are then something else."""
    number, _, value = fields[at]
    other = varint(number << 3 | rng.randrange(8)) + value
    return join(fields[:at]) + other + join(fields[at + 1 :])


def _number(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    number, kind, value = fields[at]
    wanted = (number + 1, number - 1, rng.randrange(1, 40), 1001, 1031, 2**29 - 1, 0, rng.randrange(1, 40))
    fields[at] = (rng.choice(wanted), kind, value)
    return join(fields)


def _length(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    number, _, value = fields[at]
    size = max(0, len(value) + rng.choice((-1, 1, 5, 1000, 2**31, 2**63)))
    return join(fields[:at]) + varint(number << 3 | BYTES) + varint(size) + value + join(fields[at + 1 :])


def _nest(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    """The message in itself, many times."""
    number, _, _ = fields[at]
    inner = join(fields)
    for _ in range(rng.choice((1, 5, 50, 99, 100, 101, _DEEPEST))):
        inner = field(number, inner)
        if len(inner) > _LARGEST:
            break
    return inner


def _long_varint(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    number, _, _ = fields[at]
    fields[at] = (number, VARINT, b"\x80" * rng.choice((1, 8, 9, 10, 20)) + bytes([rng.choice((0, 1, 0x7F))]))
    return join(fields)


def _group(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    number, _, _ = fields[at]
    depth = rng.choice((1, 3, 101))
    opened, closed = varint(number << 3 | GROUP) * depth, varint(number << 3 | END_GROUP) * rng.choice((depth, 1, 0))
    return join(fields[:at]) + opened + join(fields[at + 1 :]) + closed


def _graft(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    """A field of another message, here."""
    found = parse(rng.choice(donors)) if donors else None
    if not found:
        return _repeat(fields, at, rng, donors)
    return join([*fields[:at], rng.choice(found), *fields[at:]])


def _replant(fields: list[Field], at: int, rng: random.Random, donors: Sequence[bytes]) -> bytes:
    """Another message in the place of this field."""
    number, _, _ = fields[at]
    fields[at] = (number, BYTES, rng.choice(donors) if donors else b"")
    return join(fields)


_Operation = Callable[[list[Field], int, random.Random, Sequence[bytes]], bytes]
_OPERATIONS: tuple[_Operation, ...] = (
    *(_drop, _repeat, _swap, _type, _number, _length, _nest, _long_varint, _group, _replant),
    *(_drop, _repeat, _swap, _graft, _graft, _graft, _graft) * 2,
    *(_value,) * 14,
)


def raw(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them changed, taken out, put in, or the end cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(out) + 1)
        choice = rng.randrange(6)
        if choice == 0:
            del out[at : at + rng.choice((1, 1, 4, 64))]
        elif choice == 1:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 4, 64)))
        elif choice == 2:
            out[at:at] = rng.choice(TEXTS)
        elif choice == 3 and rng.random() < 0.3:
            del out[at:]
        elif choice == 4:
            out[at:at] = out[at : at + rng.choice((1, 16, 256))]
        elif at < len(out):
            out[at] = rng.choice((out[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 0xFF, 0x7F, 0x80))
    return bytes(out[:_LARGEST])


def text(data: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes:
    """Return a mutated text: lines moved, dropped and repeated, words in strange places, brackets very deep."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        choice = rng.randrange(8)
        if choice == 0:
            del lines[at]
        elif choice == 1:
            lines[at:at] = [rng.choice(lines)] * rng.choice((1, 2, 50))
        elif choice == 2:
            lines[at] = raw(lines[at], rng)
        elif choice == 3:
            lines[at] = b" " * rng.randrange(4) + lines[at]
        elif choice == 4:
            word = (rng.choice(words) * rng.choice((1, 1, 1, 1, 2, 40, 1000)))[: _LARGEST // 4]
            cut = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + word + lines[at][cut:]
        elif choice == 5:
            key = lines[at].partition(b":")[0]
            lines[at] = key + b": " + rng.choice(words)
        elif choice == 6:
            lines.insert(at, rng.choice(words) + rng.choice((b": ", b" = ", b"", b"=")) + rng.choice(words))
        else:
            return raw(data, rng)
        data = b"\n".join(lines)[:_LARGEST]
    return data
