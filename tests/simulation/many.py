"""Clients that look at many instances at once, or remove them, while others work on them: see `plan._on_many`."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.core.model import DEFAULT_HUB, Status
from sidecar.services.bulk import mark_of
from sidecar.services.purge import Purge
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, Order, Page
from tests.simulation import entities
from tests.simulation.deployment import Node
from tests.simulation.programs import Violation

Insist = Callable[[Node, str, Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]
_LONGEST_PAUSE = 2.0


class Many:
    """Operations on all instances of an app; `insist` calls a sidecar until it answers."""

    def __init__(self, insist: Insist, rng: random.Random) -> None:
        self._insist = insist
        self._rng = rng
        self._swept: set[tuple[str, str]] = set()

    def swept(self, node: Node, instance_id: str) -> bool:
        """Whether a client may have removed an instance by a filter."""
        return any(app == node.name and instance_id.startswith(prefix) for app, prefix in self._swept)

    async def list(self, node: Node, order: Order, limit: int) -> None:
        """Read all pages of a query: who was there before and is there after is seen, and nobody is seen twice."""
        before = _there(node, order)
        seen: list[Cursor] = []
        cursor: Cursor | None = BEGINNING
        while cursor is not None:
            page = await self._page(node, order, cursor, limit)
            seen += [mark_of(one, order) for one in page.found]
            cursor = page.next
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE))
        missing = (before & _there(node, order)).difference(seen)
        node.note(f"a list of {len(seen)} in order of {order.value}")
        if seen != sorted(set(seen)) or missing:
            raise Violation(f"{node.name}: a list in pages of {limit} is {seen}, and has not {missing}")

    async def _page(self, node: Node, order: Order, cursor: Cursor, limit: int) -> Page:
        def work() -> Coroutine[Any, Any, Page]:
            return node.middle.services.queries.page(Criteria(DEFAULT_HUB), order, cursor, limit)

        page: Page = await self._insist(node, f"list {order.value}", work)
        return page

    async def sweep(self, node: Node, statuses: frozenset[Status], prefix: str, recursive: bool) -> None:
        """Purge by a filter: nothing goes that has not ended."""
        criteria = Criteria(DEFAULT_HUB, statuses, prefix=prefix)
        self._swept.add((node.name, prefix))
        before = {one.key: one for one in node.disk.instances() if ":" not in one.id and one.id != entities.SHED}

        def work() -> Coroutine[Any, Any, tuple[int, bool]]:
            return node.middle.services.queries.purge(criteria, Purge(recursive, force=False))

        count, _ = await self._insist(node, f"sweep {prefix}", work)
        node.note(f"a sweep of {prefix} has removed {count}")
        for key in before.keys() - {one.key for one in node.disk.instances()}:
            if not node.watch.has_ended(key):
                raise Violation(f"{node.name}: {before[key].id} was removed and had never ended")


def _there(node: Node, order: Order) -> set[Cursor]:
    ended = order is Order.COMPLETED
    workflows = [one for one in node.disk.instances() if not one.entity]
    return {mark_of(one, order) for one in workflows if not ended or one.status.terminal}
