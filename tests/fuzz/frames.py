"""Requests in bytes that no client of gRPC or HTTP would write, on connections that are cut when it suits."""

import asyncio
import random
import re
from contextlib import suppress

from tests.edge.transport.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, header_block

_SECONDS = 0.3
_NO_TABLE = b"\x00\x01" + bytes(4)  # a setting: headers come as literals, so that a status can be read
_STATUS = re.compile(rb"grpc-status[\x01\x02]([0-9]{1,2})")
_TYPES = (
    *(b"application/grpc", b"application/grpc+proto", b"application/grpc+json", b"application/json", b"text/html"),
    *(b"", b"APPLICATION/GRPC", b"application/grpc;;;", b"application/grpc-web", b"x" * 100),
)
_HEADERS = (
    *((b"grpc-timeout", value) for value in (b"1n", b"0S", b"-1S", b"99999999H", b"999999999999S", b"", b"S", b"1x")),
    *((b"grpc-encoding", value) for value in (b"gzip", b"deflate", b"identity", b"br", b"\xff", b"")),
    *((b"te", value) for value in (b"", b"chunked", b"trailers, deflate")),
    *((b":method", value) for value in (b"GET", b"PUT", b"CONNECT", b"", b"post")),
    *((b":authority", value) for value in (b"", b"evil.example", b"\xff\xfe")),
    *((b"user-agent", value) for value in (b"\x80\x81", b"", b"grpc-python/1" * 9)),
    *((b"taskhub", value) for value in (b"\xff", b"a b", b"..")),
    *((b"blob-bin", value) for value in (b"!!!", b"====", b"AAA", b"\xff")),
    *((b"connection", b"close"), (b"UPPER", b"x"), (b"", b"empty"), (b"content-length", b"-5"), (b"host", b"b")),
    *((b":path", b"//TaskHubSidecarService/Hello"), (b":path", b"/TaskHubSidecarService/%48ello"), (b":path", b"")),
    *((b":path", b"TaskHubSidecarService/Hello"), (b":path", b"/../TaskHubSidecarService/Hello"), (b":path", b"*")),
    (b":path", b"/TaskHubSidecarService/Hello?x=1"),
)


async def misframed(port: int, path: str, body: bytes, rng: random.Random) -> tuple[int, list[str], bool]:
    """Send a few requests over one connection; return how many, the statuses, and whether a handler has failed.

    grpc itself answers INTERNAL to headers that it cannot read, as the protocol says; a handler has its own words.
    """
    requests = [_request(2 * number + 1, path.encode(), body[:12_000], rng) for number in range(rng.choice((1, 2, 8)))]
    data = PREFACE + frame(SETTINGS, payload=_NO_TABLE) + b"".join(requests)
    answer = await _exchange(port, data, rng.random() < 0.8)
    return len(requests), [str(int(status)) for status in _STATUS.findall(answer)], b"internal error" in answer


def _request(stream: int, path: bytes, body: bytes, rng: random.Random) -> bytes:
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    choice = rng.randrange(5)
    if choice == 0:
        headers[b"content-type"] = rng.choice(_TYPES)
    elif choice == 1:
        headers |= dict([rng.choice(_HEADERS), rng.choice(_HEADERS)])
    elif choice == 2:
        headers = dict(rng.sample(sorted(headers.items()), rng.randrange(6)))
    block = header_block([(name, value[:120]) for name, value in headers.items()])
    message = _message(body, rng) if choice > 2 else bytes(1) + len(body).to_bytes(4, "big") + body
    data = frame(DATA, rng.choice((END_STREAM, END_STREAM, 0)), stream, message)
    if rng.random() < 0.1:
        data += frame(rng.randrange(12), rng.randrange(256), stream, rng.randbytes(rng.randrange(20)))
    return frame(HEADERS, END_HEADERS, stream, block) + data


def _message(body: bytes, rng: random.Random) -> bytes:
    """A message whose prefix lies: about compression, about its length, or by ending too early."""
    flag = rng.choice((0, 0, 1, 2, 255))
    size = max(0, rng.choice((len(body), len(body), len(body) - 1, len(body) + 1, 0, 2**31, 2**32 - 1)))
    whole = bytes([flag]) + size.to_bytes(4, "big") + body
    return whole[: rng.choice((len(whole), len(whole), 0, 1, 4, 5, len(whole) - 1))]


async def http(port: int, data: bytes) -> bytes:
    """Send bytes to the HTTP port; return what comes back."""
    return await _exchange(port, data, True)


async def _exchange(port: int, data: bytes, wait: bool) -> bytes:
    answer = b""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            if wait:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS):
                        while piece := await reader.read(65536):
                            answer += piece
        finally:
            writer.transport.abort()
    return answer
