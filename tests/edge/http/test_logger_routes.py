"""The levels of the log are read and changed over HTTP, by those who may."""

from collections.abc import AsyncIterator

import pytest

from sidecar.config.parsers import Secret
from sidecar.edge.http.logger_routes import LoggerRoutes
from sidecar.edge.http.surface import HttpSurface
from sidecar.edge.security.api_tokens import ApiTokens
from tests.edge.http.test_surface import Reply, Shown, ask, exchange

DEBUG = '{"level": "debug"}'


class Levels:
    """Levels of one logger."""

    def __init__(self) -> None:
        self.known = {"sidecar": "info"}

    def levels(self) -> dict[str, str]:
        return self.known

    def set_level(self, name: str, level: str) -> None:
        if name not in self.known:
            raise ValueError(f"no logger {name}")
        self.known[name] = level


def surface(levels: Levels, token: str = "") -> HttpSurface:
    tokens = ApiTokens(Secret(token) if token else None, None)
    return HttpSurface(Shown(), tokens, calls=LoggerRoutes(levels).routes())


@pytest.fixture
def levels() -> Levels:
    return Levels()


@pytest.fixture
async def port(levels: Levels) -> AsyncIterator[int]:
    serving = surface(levels)
    yield await serving.start("127.0.0.1", 0)
    await serving.stop()


async def put(port: int, name: str, body: str, headers: str = "", host: str = "localhost") -> Reply:
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    head = f"PUT /v1.0/loggers/{name} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n"
    return await exchange(port, (head + body).encode())


async def test_the_level_of_a_logger_can_be_read_and_changed(port: int, levels: Levels) -> None:
    assert (await ask(port, "/v1.0/loggers")).json() == {"loggers": {"sidecar": "info"}}
    changed = await put(port, "sidecar", DEBUG)
    assert (changed.status, changed.json()) == (200, {"loggers": {"sidecar": "debug"}})
    assert levels.known == {"sidecar": "debug"}


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '"debug"', '{"level": 1}', "{}", '{"level": null}', "[" * 100_000]
)
async def test_a_level_that_is_none_is_refused(port: int, levels: Levels, body: str) -> None:
    refused = await put(port, "sidecar", body)
    assert (refused.status, refused.json()["errorCode"]) == (400, "ERR_LOGGER")
    assert levels.known == {"sidecar": "info"}


async def test_a_body_that_is_too_large_is_refused(port: int) -> None:
    assert (await put(port, "sidecar", " " * 3_000_000 + DEBUG)).status == 413


async def test_a_charset_that_is_none_is_refused(port: int) -> None:
    kind = "Content-Type: application/json; charset=none\r\n"
    assert (await put(port, "sidecar", DEBUG, kind)).status == 400


async def test_who_refuses_a_logger_says_why(port: int) -> None:
    refused = await put(port, "other", DEBUG)
    assert (refused.status, refused.json()["message"]) == (400, "no logger other")


async def test_the_level_of_a_logger_is_guarded(levels: Levels) -> None:
    serving = surface(levels, "open sesame")
    port = await serving.start("127.0.0.1", 0)
    token = "dapr-api-token: open sesame\r\n"
    assert (await put(port, "sidecar", DEBUG)).status == 401
    assert (await ask(port, "/v1.0/loggers")).status == 401
    assert (await put(port, "sidecar", DEBUG, token, host="evil.example")).status == 403
    assert (await put(port, "sidecar", DEBUG, token + "Origin: http://evil.example\r\n")).status == 403
    assert levels.known == {"sidecar": "info"}
    assert (await put(port, "sidecar", DEBUG, token)).status == 200
    await serving.stop()
