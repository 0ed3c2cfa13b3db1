"""Keeps the answer of a worker until it can be stored.

Some SDKs let a workflow fail when their answer is refused, and others ask again for more than a minute.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sidecar.actors.engine import Engine
from sidecar.store.protocol import UnavailableError

HOLD_SECONDS = 25.0  # SDKs wait for a minute
_PAUSE_SECONDS = 0.2
T = TypeVar("T")


async def held(engine: Engine, take: Callable[[], Awaitable[T]]) -> T:
    """Take an answer in, again when the store has recovered if it failed; `take` may run several times.

    Raises:
        UnavailableError: the store did not recover in time, or before the sidecar ended.
    """
    end = engine.clock.monotonic() + HOLD_SECONDS
    while True:
        try:
            await _recovered(engine, end)
            return await take()
        except UnavailableError as error:
            if engine.closing.is_set() or engine.clock.monotonic() + _PAUSE_SECONDS >= end:
                raise UnavailableError(str(error)) from error  # that the disk is full would end the work
        await engine.clock.sleep(_PAUSE_SECONDS)


async def _recovered(engine: Engine, end: float) -> None:
    if not engine.store.trouble:
        return
    either = [asyncio.ensure_future(engine.store.recovered()), asyncio.ensure_future(engine.closing.wait())]
    left = max(0.0, end - engine.clock.monotonic())
    try:
        await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not either[0].done():
            raise UnavailableError(engine.store.trouble)
    finally:
        for waiting in either:
            waiting.cancel()
