"""A client of the protocol without any SDK: messages by field number, calls as bytes."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

import grpc

SERVICE = "/TaskHubSidecarService/"
Message = Mapping[int, Any]
Fields = dict[int, list[Any]]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encode(message: Message) -> bytes:
    """Numbers become varints, text and bytes length-delimited, mappings messages, lists repeated fields."""
    out = bytearray()
    for number, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            out += _field(number, item)
    return bytes(out)


def text(value: str) -> Message:
    """A google.protobuf.StringValue."""
    return {1: value}


def decode(data: bytes) -> Fields:
    """Each field's values, numbers or bytes, in their order."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            size, at = {_FIXED64: (8, at), _FIXED32: (4, at)}[kind] if kind != _BYTES else _read_varint(data, at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _field(number: int, value: Any) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, Mapping):
        value = encode(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


class Caller:
    """One connection to a sidecar."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def lose(self) -> None:
        """What the system does for a process that is killed: the connections to the port end, and nothing is said."""
        for name in os.listdir("/dev/fd"):
            with suppress(OSError), socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as connection:
                if connection.getpeername()[1] == self.port:
                    connection.shutdown(socket.SHUT_RDWR)

    def call(self, method: str, request: bytes | Message, timeout: float = 10.0) -> Fields:
        """The answer; raises grpc.RpcError."""
        call = self._channel.unary_unary(SERVICE + method)
        return decode(call(request if isinstance(request, bytes) else encode(request), timeout=timeout))

    def begin(self, method: str, request: Message, timeout: float = 10.0) -> Any:
        """The call under way, as grpc's future."""
        return self._channel.unary_unary(SERVICE + method).future(encode(request), timeout=timeout)

    def status(self, method: str, request: bytes | Message, timeout: float = 10.0) -> tuple[str, str]:
        """Name and text of the status of a call, whatever it is."""
        try:
            self.call(method, request, timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def work(self, request: bytes | Message = b"", timeout: float = 30.0) -> "Worker":
        """A worker that asks for items."""
        stream = self._channel.unary_stream(SERVICE + "GetWorkItems")
        return Worker(stream(request if isinstance(request, bytes) else encode(request), timeout=timeout))


class Worker:
    """A stream of work items, read one by one."""

    TURN, ACTIVITY, TOKEN = 1, 2, 10

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.cancel()

    def items(self) -> Iterator[Fields]:
        for item in self._stream:
            fields = decode(item)
            if self.TURN in fields or self.ACTIVITY in fields:
                yield fields

    def item(self) -> Fields:
        """The next turn or activity."""
        return next(self.items())

    def turn_of(self, instance: str) -> Fields:
        """The next turn of an instance; items of others are left alone."""
        for item in self.items():
            if self.TURN in item and decode(item[self.TURN][0])[1] == [instance.encode()]:
                return item
        raise LookupError(instance)
