"""What runs on the side of everything else: each task has a name, and none fails unseen."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
log = structlog.get_logger(__name__)


class SideTasks:
    """Tasks that nobody waits for, or that must reach their end though the one who waits is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Run something whose failure the caller looks at."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something on the side, and log it if it fails."""
        self.start(work, name).add_done_callback(log_failure)

    def through(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Future[Any]":
        """Run something to its end even if the one who waits for the returned future is cancelled meanwhile."""
        task = self.start(work, name)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look at it
        return asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until all of them have ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def log_failure(task: "asyncio.Task[Any]") -> None:
    """Log what a task that nobody waits for has failed of: to be called when it is done."""
    if not task.cancelled() and task.exception() is not None:
        log.error("side task failed", task=task.get_name(), exc_info=task.exception())


async def kept_up(
    work: Callable[[], Coroutine[Any, Any, None]], name: str, sleep: Callable[[float], Coroutine[Any, Any, None]]
) -> None:
    """Run something that has no end until it is cancelled: if it fails, log that and run it anew after a pause.

    The pause grows, in seconds, with each failure.
    """
    pause = SHORTEST_PAUSE
    while True:
        try:
            return await work()
        except Exception:
            log.exception("a task failed and is started again", task=name, seconds=pause)
        await sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
