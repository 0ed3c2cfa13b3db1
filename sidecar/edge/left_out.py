"""What is left out of an answer that its caller could not receive otherwise. Pure.

A list that cannot be sent hides all that comes behind it, for ever. So what is too large in one entry is replaced by a
mark that says how large it was, a JSON text as payloads are; the entry itself is always there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.work_items import fitting

M = TypeVar("M", bound=Message)


class _Text(NamedTuple):
    """A text somewhere in a message, and how it is replaced."""

    value: str
    replace: Callable[[str], None]


def mark(size: int) -> str:
    """Return what stands in the place of a text of so many bytes."""
    return f'"(left out: {size} bytes, more than the caller can receive)"'


def fitted(message: M, most_bytes: int) -> M:
    """Return a message of at most so many bytes: as it is, or a copy in which a mark stands for its largest texts.

    Where it is large for another reason than texts, it may be larger still.
    """
    if message.ByteSize() <= most_bytes:
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    for text in sorted(_texts(copy), key=lambda text: len(text.value), reverse=True):
        size = len(text.value.encode())
        if copy.ByteSize() <= most_bytes or size <= len(mark(size)):
            break
        text.replace(mark(size))
    return copy


def _texts(message: Message) -> Iterator[_Text]:
    if isinstance(message, StringValue):
        yield _Text(message.value, lambda new: setattr(message, "value", new))
        return
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
                yield from (_Text(value[key], _setter(value, key)) for key in list(value))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                yield from _texts(part)
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield _Text(value, _attribute(message, field.name))


def _setter(container: dict[str, str], key: str) -> Callable[[str], None]:
    return lambda new: container.__setitem__(key, new)


def _attribute(message: Message, name: str) -> Callable[[str], None]:
    return lambda new: setattr(message, name, new)


def as_many_as_fit(sizes: Sequence[int], most_bytes: int) -> int:
    """Return how many entries of these sizes, from the first, make an answer of so many bytes: at least one."""
    return min(len(sizes), max(1, fitting(sizes, most_bytes)))
