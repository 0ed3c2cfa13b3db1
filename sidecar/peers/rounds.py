"""When the queue of an app is looked at: one with a link in a task of its own, those without by one task, in turn.

So a destination that nobody can reach costs what is stored of it in memory, and no task. No rule of what is sent.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine

from sidecar.peers.peer_queue import PeerQueue
from sidecar.peers.ports import Link

Look = Callable[[PeerQueue, Link | None], Awaitable[float | None]]


class Rounds:
    """Looks at each queue when it is woken, and again after the pause that the last look has asked for.

    `look` is given the link that there is; it returns in how many seconds it wants to look again, None for "when
    something comes". It must not raise. One queue is looked at by one task at a time.
    """

    def __init__(self, find: Callable[[str, str], Link | None], look: Look) -> None:
        self._find = find
        self._look = look
        self._alone: deque[PeerQueue] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = False
        self._stopped = False

    def wake(self, queue: PeerQueue) -> None:
        """Look at a queue at once, or once more when what is under way has ended."""
        queue.woken = True
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if not (queue.busy or self._stopped):
            self._begin(queue)

    async def stop(self) -> None:
        """Look at nothing more."""
        self._stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, queue: PeerQueue) -> None:
        queue.busy = True
        link = self._find(*queue.peer)
        if link is not None:
            self._start(self._round(queue, link), f"outbox {queue.peer[1]}")
            return
        self._alone.append(queue)
        if not self._shared:
            self._shared = True
            self._start(self._one_after_the_other(), "outbox, apps without a link")

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one_after_the_other(self) -> None:
        try:
            while self._alone:
                queue = self._alone.popleft()
                await self._round(queue, None)
                await asyncio.sleep(0)  # there may be hundreds
        finally:
            self._shared = False

    async def _round(self, queue: PeerQueue, link: Link | None) -> None:
        queue.woken = False  # what comes while it is looked at leads to another look
        pause = await self._look(queue, link)
        queue.busy = False
        if self._stopped:
            return
        if queue.woken or pause == 0:
            self._begin(queue)
        elif pause is not None:
            queue.timer = asyncio.get_running_loop().call_later(pause, self.wake, queue)
