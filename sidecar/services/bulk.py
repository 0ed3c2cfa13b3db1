"""What is asked of many instances at once: pages of a query, purges by criteria or in batches, the end of a hub.

Every step is a bounded read or an operation on one instance, so nobody else waits for it.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.residents import Address
from sidecar.actors.trees import in_groups
from sidecar.core import events, operations
from sidecar.core.identity import Context
from sidecar.core.model import Decision, Instance, Outcome, Reply, State, Status
from sidecar.services.access import Access
from sidecar.services.clients import OWN, Caller, InstanceView, input_of
from sidecar.services.purge import Purge, Purging
from sidecar.services.waiting import Memo, Waiting
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, Order, Page
from sidecar.work.turns import as_shown

_MOST_BYTES = 4 * 1024 * 1024  # of rows that are held for one page
_AT_ONCE = 50  # instances of a page that is purged
TERMINAL = frozenset(status for status in Status if status.terminal)
log = structlog.get_logger(__name__)


async def page_of(engine: Engine, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
    """Return the next `limit` instances, fewer when they are large, or all that are left: `next` is None just then."""
    wanted, found = criteria.statuses, list[Instance]()
    if Status.RUNNING in wanted:  # what is stored as pending may read as running
        criteria = replace(criteria, statuses=wanted | {Status.PENDING})
    cursor: Cursor | None = after
    while cursor is not None:
        page = await engine.store.query(criteria, order, cursor, limit + 1 - len(found))
        shown = (as_shown(engine, one) for one in page.found if _has_tags(one, criteria))
        found += [one for one in shown if one.status in wanted]
        if len(found) > limit:
            return Page(found[:limit], mark_of(found[limit - 1], order))
        cursor = page.next
        if cursor is not None and sum(map(_weight, found)) > _MOST_BYTES:
            return Page(found, cursor)
    return Page(found, None)


def _weight(instance: Instance) -> int:
    """Return the bytes of what can be large in the row of an instance."""
    return len(instance.custom_status or "") + len(instance.failure or b"") + len(instance.tags)


def mark_of(instance: Instance, order: Order) -> Cursor:
    """Return where an instance stands in an order."""
    moment = instance.created_at if order is Order.CREATED else instance.completed_at
    return Cursor(moment or 0, instance.key)


def _has_tags(instance: Instance, criteria: Criteria) -> bool:
    """Whether the tags are there as tags: the store has only found their bytes, which a value may contain."""
    return not criteria.tags or events.tags_in(instance.tags).issuperset(criteria.tags)


class Queries:
    """Operations over the instances of one sidecar."""

    def __init__(self, engine: Engine, purging: Purging, waiting: Waiting, access: Access) -> None:
        self._engine = engine
        self._access = access
        self._waiting = waiting
        self._purging = purging

    async def page(self, criteria: Criteria, order: Order, after: Cursor, limit: int, caller: Caller = OWN) -> Page:
        """See `page_of`. What the caller may not see is left out, so that a page may be empty and not the last.

        Raises:
            DeniedError: the policy lets the caller's app see nothing here.
        """
        self._access.check_listing(caller.app)
        page = await page_of(self._engine, criteria, order, after, limit)
        return page._replace(found=[one for one in page.found if self._access.shows(caller.app, one.name)])

    async def view(self, instance: Instance, payloads: bool, memo: Memo) -> InstanceView:
        """Return an instance as a client sees it. `memo`: see `Waiting.of_row`."""
        causes = self._waiting.of_row(instance, memo)
        if not payloads:
            return InstanceView(instance, None, None, causes)
        started, output = await self._engine.store.payloads(instance.key)
        return InstanceView(instance, input_of(started), output, causes)

    async def purge(self, criteria: Criteria, how: Purge, seconds: float | None = None) -> tuple[int, bool]:
        """Remove what fits, only what has ended unless by force; return how many went and whether that was all.

        After `seconds` no more is begun.
        """
        clock = self._engine.clock
        end = None if seconds is None else clock.monotonic() + seconds
        if not how.force:
            criteria = replace(criteria, statuses=criteria.statuses & TERMINAL)
        count, complete = 0, True
        cursor: Cursor | None = BEGINNING
        while cursor is not None:
            page = await self.page(criteria, Order.CREATED, cursor, _AT_ONCE)
            gone, all_reached = await self.purge_batch([(one.hub, one.id) for one in page.found], how)
            count, complete = count + gone, complete and all_reached
            cursor = page.next
            if end is not None and clock.monotonic() >= end:
                return count, complete and cursor is None
        return count, complete

    async def purge_batch(self, addresses: Sequence[Address], how: Purge) -> tuple[int, bool]:
        """Remove those instances that are there and may go; return how many instances went, in all apps.

        And whether every app that has a part of them was reached: what the others have a part of is kept.
        """
        done = await in_groups(addresses, lambda address: self._purging.purge(address, how))
        kept = [reply.text for reply, _ in done if reply.outcome is Outcome.UNAVAILABLE]
        if kept:
            log.warning("workflows are kept: an app that has children of theirs was not reached",
                        count=len(kept), first=kept[0])  # fmt: skip
        return sum(count for _, count in done), not kept

    async def end_batch(self, addresses: Sequence[Address], output: str | None) -> list[bool]:
        """Terminate instances and not their children; for each, False if there is none that runs."""
        return await in_groups(addresses, lambda address: self._end(address, output))

    async def _end(self, address: Address, output: str | None) -> bool:
        def decide(at: Context, state: State | None) -> Decision:
            if state is None or state.instance.status.terminal:
                return Decision(None, Reply(Outcome.STALE))
            return operations.terminate(at, state, output, recurse=False)

        return (await self._engine.submit(address, decide)).outcome is Outcome.DONE

    async def delete_hub(self, hub: str) -> int:
        """Remove all instances of a hub, whatever they do."""
        count, _ = await self.purge(Criteria(hub, entities=True), Purge(recursive=False, force=True))
        return count
