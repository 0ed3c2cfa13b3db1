"""Connections of the HTTP port: how many, and for how long."""

import asyncio

import pytest

from sidecar.edge.http import connection_limit
from sidecar.edge.http import surface as http
from tests.edge.http.test_surface import Shown, ask, surface_of

MOST = 3


async def opened(port: int, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def test_more_connections_than_may_be_are_told_so_and_room_comes_back() -> None:
    surface = surface_of(Shown(), max_connections=MOST)
    port = await surface.start("127.0.0.1", 0)
    held = [await opened(port) for _ in range(MOST)]
    await asyncio.sleep(0.1)
    assert (await ask(port, "/livez")).status == 503
    for _, writer in held:
        writer.close()
    for _ in range(3 * MOST):  # each takes a place and gives it back
        await until_served(port)
    await surface.stop()


async def until_served(port: int) -> None:
    async with asyncio.timeout(5):
        while (await ask(port, "/livez")).status != 204:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"GET /live", b"GET /livez HTTP/1.1\r\nHost: local"])
async def test_who_asks_nothing_in_time_is_cut_off(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "Doors", lambda most: connection_limit.Doors(most, seconds=1.5))
    surface = surface_of(Shown(), max_connections=MOST)
    port = await surface.start("127.0.0.1", 0)
    held = [await opened(port, said) for _ in range(MOST)]

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.1)

    dripping = [asyncio.create_task(drip(writer)) for _, writer in held] if said else []
    await asyncio.sleep(0.1)
    assert (await ask(port, "/livez")).status == 503
    await until_served(port)
    for task in dripping:
        task.cancel()
    for _, writer in held:
        writer.close()
    await surface.stop()


async def test_a_connection_has_one_request() -> None:
    surface = surface_of(Shown())
    port = await surface.start("127.0.0.1", 0)
    reader, writer = await opened(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
    answers = await asyncio.wait_for(reader.read(), 5)
    assert answers.count(b"HTTP/1.1 204") == 1
    writer.close()
    await surface.stop()
