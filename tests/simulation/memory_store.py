"""The reference store: the contract of `Store` over plain dictionaries, to be read beside it.

It is what the file store is measured against, and what a simulation runs on. No step of it waits, so what it does
depends on nothing but what it is given. Changes that no core would make, such as a row of the log where one is
already, fail an assertion.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sidecar.core.identity import AppIdentity
from sidecar.core.model import CallId, Changes, Child, Instance, Kind, OpenCall, Position, Reminder, Row, State
from sidecar.core.receipts import Lost
from sidecar.core.schedule_row import ScheduleRow, ScheduleStep
from sidecar.core.workflow.state import load as load_state
from sidecar.store.protocol import (
    PAGE_BYTES,
    Criteria,
    Cursor,
    EntityRow,
    Order,
    Page,
    Ready,
    Refusal,
    UnavailableError,
    Waiting,
)


@dataclass
class Data:
    """All that is stored. `log`, `calls` and `children` are by the key of their instance."""

    instances: dict[int, Instance] = field(default_factory=dict)
    outputs: dict[int, str] = field(default_factory=dict)
    lineages: dict[int, bytes] = field(default_factory=dict)
    log: dict[int, dict[Position, bytes]] = field(default_factory=dict)
    calls: dict[int, dict[int, OpenCall]] = field(default_factory=dict)
    children: dict[int, dict[CallId, tuple[Child, bool]]] = field(default_factory=dict)  # True: it has ended
    reminders: dict[int, Reminder] = field(default_factory=dict)
    accepted: dict[int, str] = field(default_factory=dict)  # held reminder -> the session in which it was accepted
    received: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)  # (store, ID) -> its app
    schedules: dict[tuple[str, str], ScheduleRow] = field(default_factory=dict)
    last_key: int = 0
    last_order: int = 0

    def copy(self) -> "Data":
        """Return a copy that later commits do not change. The values themselves never change."""

        def copied(value: Any) -> Any:
            return {key: copied(found) for key, found in value.items()} if isinstance(value, dict) else value

        return Data(**{one.name: copied(getattr(self, one.name)) for one in fields(self)})


class MemoryStore:
    """A `Store` in memory. Give its `data` to a new one, and that is the store opened again."""

    def __init__(self, me: AppIdentity, identity: str = "memory.1", data: Data | None = None) -> None:
        self.me = me
        self.identity = identity
        self.data = Data() if data is None else data
        self._open = True

    @property
    def next_key(self) -> int:
        """See `Store.next_key`."""
        return self.data.last_key + 1

    @property
    def next_order(self) -> int:
        """See `Store.next_order`."""
        return self.data.last_order + 1

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return ""

    async def recovered(self) -> None:
        """See `Store.recovered`."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything stored as plain data; equal stores give equal ones. An empty log is left out."""
        everything = {one.name: getattr(self.data.copy(), one.name) for one in fields(self.data)}
        for name in ("log", "calls", "children"):
            everything[name] = {key: found for key, found in everything[name].items() if found}
        return everything

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """See `Store.commit`."""
        self._check_open()
        outcomes: list[Refusal | None] = []
        broken = False
        for changes in batch:
            refusal = Refusal.CONFLICT if broken else self._refusal(changes)
            broken = broken or (refusal is not None and bool(changes.key))
            if refusal is None:
                self._write(changes)
            outcomes.append(refusal)
        return outcomes

    async def close(self) -> None:
        """See `Store.close`."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise UnavailableError("closed")

    # ------------------------------------------------------------ what a commit does

    def _refusal(self, changes: Changes) -> Refusal | None:
        data = self.data
        seen = any((message.store, message.id) in data.received for message in changes.received)
        if seen or any(self._taken_in(new) for new in changes.set) or any(map(self._answers, changes.unanswered)):
            return Refusal.DUPLICATE
        moved = changes.schedule is not None and self._has_moved(changes.schedule)
        if moved or any(reminder not in data.reminders for reminder in changes.required):
            return Refusal.GONE
        if changes.key and self._revision(changes.key) != changes.expected:
            return Refusal.CONFLICT
        if changes.replaces and self._revision(changes.replaces) != changes.replaced_at:
            return Refusal.CONFLICT
        if changes.instance is not None and not changes.expected:
            holder = self._find(changes.instance.hub, changes.instance.id)
            if holder is not None and holder.key != changes.replaces:
                return Refusal.CONFLICT
        return None

    def _has_moved(self, step: ScheduleStep) -> bool:
        found = self.data.schedules.get((step.hub, step.id))
        return (found.revision if found else 0) != step.expected

    def _taken_in(self, reminder: Reminder) -> bool:
        """Whether it is an activity of another app that is here already, or whose result is on its way home."""
        if reminder.owner or not self._for_own_workers(reminder):
            return False
        call = (*reminder.source[:2], reminder.call)
        return self._foreign(*call) is not None or self._answers(call)

    def _answers(self, call: tuple[str, str, CallId]) -> bool:
        """Whether the answer to a call of another app is on its way home."""
        results = (one for one in self.data.reminders.values() if one.kind is Kind.RESULT and self._for_others(one))
        return any((*one.target[:2], one.call) == call for one in results)

    def _revision(self, key: int) -> int:
        return self.data.instances[key].revision if key in self.data.instances else 0

    def _find(self, hub: str, instance_id: str) -> Instance | None:
        found = (one for one in self.data.instances.values() if (one.hub, one.id) == (hub, instance_id))
        return next(found, None)

    def _write(self, changes: Changes) -> None:
        self._purge(changes.replaces)
        if changes.purged:
            self._purge(changes.key)
        if changes.instance is not None:
            self._write_instance(changes, changes.instance)
        self._write_reminders(changes)
        self._write_links(changes)
        if changes.schedule is not None:
            self.data.schedules.pop((changes.schedule.hub, changes.schedule.id), None)
            if changes.schedule.row is not None:
                self.data.schedules[changes.schedule.hub, changes.schedule.id] = changes.schedule.row

    def _purge(self, key: int) -> None:
        data = self.data
        for table in (data.instances, data.outputs, data.lineages, data.log, data.calls, data.children):
            table.pop(key, None)

    def _write_instance(self, changes: Changes, instance: Instance) -> None:
        data, key = self.data, changes.key
        assert instance.key == key
        data.instances[key] = instance
        data.last_key = max(data.last_key, key)
        if changes.reopened or changes.no_output:
            data.outputs.pop(key, None)
        if changes.output is not None:
            data.outputs[key] = changes.output
        if changes.lineage:
            data.lineages[key] = changes.lineage
        calls = data.calls.setdefault(key, {})
        for task in list(calls) if changes.close_all else changes.closed:
            calls.pop(task, None)
        calls.update({call.call.task: call for call in changes.opened})
        children = data.children.setdefault(key, {})
        children.update({call: (children[call][0], True) for call in changes.ended if call in children})
        for call in [call for call, (_, ended) in children.items() if ended and call.turn < changes.forgets_before]:
            del children[call]
        children.update({child.call: (child, False) for child in changes.children})
        log = data.log.setdefault(key, {})
        if changes.truncate is not None:
            for position in [position for position in log if position >= changes.truncate]:
                del log[position]
        for position in changes.removed:
            log.pop(position, None)  # it may have been cut off by the same step
        for row in changes.append:
            assert row.position not in log, f"there is an event at {row.position} already"
            log[row.position] = row.event

    def _write_reminders(self, changes: Changes) -> None:
        data = self.data
        for reminder in changes.dropped:
            self._drop(reminder)
        for reminder in changes.released:
            if reminder in data.accepted:
                self._drop(reminder)
            elif reminder in data.reminders:
                data.reminders[reminder] = replace(data.reminders[reminder], kept_until_result=False)
        for crash in changes.crashed:
            if crash.reminder in data.reminders:
                found = data.reminders[crash.reminder]
                data.reminders[crash.reminder] = replace(found, crashes=found.crashes.another(crash.error))
        for new in changes.set:
            assert new.id not in data.reminders, f"there is a reminder {new.id} already"
            data.reminders[new.id] = new
            data.last_order = max(data.last_order, new.id)

    def _drop(self, reminder: int) -> None:
        self.data.reminders.pop(reminder, None)
        self.data.accepted.pop(reminder, None)

    def _write_links(self, changes: Changes) -> None:
        data = self.data
        for message in changes.received:
            data.received[message.store, message.id] = (message.namespace, message.app)
        for delivered in changes.delivered:
            reminder = data.reminders.get(delivered.reminder)
            if reminder is not None and reminder.kept_until_result:
                data.accepted[reminder.id] = delivered.session
            else:
                self._drop(delivered.reminder)
        for store, below, first in changes.forgotten:
            self._forget([message for message in data.received if message[0] == store and first <= message[1] < below])
        for lost in changes.lost:
            of_app = [message for message, app in data.received.items() if app == lost[:2]]
            self._forget([message for message in of_app if message[0] not in (lost.store, lost.session)])
            self._send_again(lost)

    def _forget(self, messages: list[tuple[str, int]]) -> None:
        for message in messages:
            del self.data.received[message]

    def _send_again(self, lost: Lost) -> None:
        for reminder, session in list(self.data.accepted.items()):
            if self.data.reminders[reminder].target[:2] == lost[:2] and session != lost.session:
                del self.data.accepted[reminder]

    # ------------------------------------------------------------ reads

    async def load(self, hub: str, instance_id: str) -> State | None:
        """See `Store.load`."""
        self._check_open()
        instance = self._find(hub, instance_id)
        if instance is None:
            return None
        key = instance.key
        live = {call: child for call, (child, ended) in self.data.children.get(key, {}).items() if not ended}
        inbox = [
            Row(*position, event) for position, event in self._log(key) if position.turn > instance.last_completed_turn
        ]
        return load_state(instance, State(instance, dict(self.data.calls.get(key, {})), live), inbox)

    def _log(self, key: int) -> list[tuple[Position, bytes]]:
        return sorted(self.data.log.get(key, {}).items())

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """See `Store.events`."""
        self._check_open()
        return [event for position, event in self._log(key) if position > after and position.turn <= upto_turn]

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """See `Store.payloads`."""
        self._check_open()
        starts = [event for position, event in self._log(key) if position.event_index == 1]
        starts += [one.payload for one in self._sorted() if one.owner == key and one.kind is Kind.START]
        return (starts[0] if starts else None, self.data.outputs.get(key))

    async def lineage(self, key: int) -> bytes:
        """See `Store.lineage`."""
        self._check_open()
        return self.data.lineages.get(key, b"")

    async def children(self, key: int) -> list[Child]:
        """See `Store.children`."""
        self._check_open()
        return [child for _, (child, _) in sorted(self.data.children.get(key, {}).items())]

    async def creations(self, key: int) -> list[Child]:
        """See `Store.creations`."""
        self._check_open()
        beginnings = [one for one in self._sorted() if one.owner == key and one.kind in (Kind.CREATE, Kind.REWIND)]
        waiting = [one for one in beginnings if one.id not in self.data.accepted]
        return [Child(one.target, one.call) for one in sorted(waiting, key=lambda one: one.call)]

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """See `Store.ready`."""
        self._check_open()
        waiting = [one for _, one in sorted(self.data.instances.items()) if one.ready and one.entity == entities]
        found = [one for one in waiting if one.key > after]
        return [Ready(one.key, one.hub, one.id, one.name, one.version, one.crashes.times) for one in found[:limit]]

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """See `Store.entities`."""
        self._check_open()
        of_hub = [one for one in self.data.instances.values() if one.entity and one.hub == hub]
        found = [one for one in of_hub if one.id.startswith(prefix) and one.id > after]
        return [self._entity(one, states) for one in sorted(found, key=lambda one: one.id)[:limit]]

    def _entity(self, row: Instance, states: bool) -> EntityRow:
        state, waiting = self.data.outputs.get(row.key), len(self._log(row.key))
        shown = state if states else None
        return EntityRow(row.id, row.revision, row.updated_at, waiting, row.lock, state is not None, shown)

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        """See `Store.due`."""
        self._check_open()
        own = [one for one in self._sorted() if not self._for_others(one) and not self._for_own_workers(one)]
        own.sort(key=lambda one: (one.due, one.id))
        return _page((one for one in own if one.due <= before and (one.due, one.id) > after), limit)

    async def activities(self, after: int, limit: int) -> list[Reminder]:
        """See `Store.activities`."""
        self._check_open()
        return _page((one for one in self._sorted() if self._for_own_workers(one) and one.id > after), limit)

    async def outbound(self, namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        """See `Store.outbound`."""
        self._check_open()
        others = [one for one in self._sorted() if self._for_others(one) and one.target[:2] == (namespace, app)]
        return _page((one for one in others if one.id not in self.data.accepted and one.id > after), limit)

    async def destinations(self) -> list[tuple[str, str]]:
        """See `Store.destinations`."""
        self._check_open()
        return sorted({one.target[:2] for one in self._sorted() if self._for_others(one)})

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """See `Store.waiting`."""
        self._check_open()
        calls = (one for one in self._sorted() if one.kind in (Kind.ACTIVITY, Kind.CREATE) and one.id > after)
        wanted = [one for one in calls if self._waits(one) and app in ("", one.target.app)]
        return [
            Waiting(
                *(one.id, one.kind, one.source, one.target, one.call, one.name, one.due),
                one.id in self.data.accepted,
                one.crashes,
            )
            for one in wanted[:limit]
        ]

    def _waits(self, one: Reminder) -> bool:
        return bool(one.owner) if self._for_others(one) else self._for_own_workers(one) and one.crashes.times > 0

    async def reminder(self, reminder_id: int) -> Reminder | None:
        """See `Store.reminder`."""
        self._check_open()
        return self.data.reminders.get(reminder_id)

    async def query(self, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
        """See `Store.query`. It looks at `limit` instances, so that pages are short or empty when few of them fit."""
        self._check_open()
        cursors = sorted(
            cursor for one in self.data.instances.values() if (cursor := _mark(one, criteria, order)) > after
        )
        looked_at = [self.data.instances[cursor.key] for cursor in cursors[:limit]]
        found = [one for one in looked_at if _fits(one, criteria)]
        return Page(found, cursors[limit - 1] if len(cursors) > limit else None)

    async def hubs(self) -> list[str]:
        """See `Store.hubs`."""
        self._check_open()
        return sorted({one.hub for one in self.data.instances.values()})

    async def schedule(self, hub: str, schedule_id: str) -> ScheduleRow | None:
        """See `Store.schedule`."""
        self._check_open()
        return self.data.schedules.get((hub, schedule_id))

    async def schedules(self, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        """See `Store.schedules`."""
        self._check_open()
        return [row for address, row in sorted(self.data.schedules.items()) if address > after][:limit]

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """See `Store.foreign_activity`."""
        self._check_open()
        return self._foreign(namespace, app, call)

    def _foreign(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        taken_in = (one for one in self._sorted() if self._for_own_workers(one) and not one.owner)
        return next((one for one in taken_in if (*one.source[:2], one.call) == (namespace, app, call)), None)

    def _sorted(self) -> list[Reminder]:
        return [reminder for _, reminder in sorted(self.data.reminders.items())]

    def _for_others(self, reminder: Reminder) -> bool:
        return not self.me.owns(reminder.target)

    def _for_own_workers(self, reminder: Reminder) -> bool:
        return self.me.owns(reminder.target) and reminder.kind is Kind.ACTIVITY


def _mark(instance: Instance, criteria: Criteria, order: Order) -> Cursor:
    """Return where an instance stands in the order of a query, or before everything if it has no place there."""
    moment = instance.created_at if order is Order.CREATED else instance.completed_at
    nowhere = Cursor(-(1 << 63), 0)
    if moment is None or instance.hub != criteria.hub or instance.status not in criteria.statuses:
        return nowhere
    if order is Order.COMPLETED and not instance.status.terminal:
        return nowhere
    late = criteria.before is not None and moment >= criteria.before
    early = criteria.since is not None and moment < criteria.since
    return nowhere if late or early else Cursor(moment, instance.key)


def _fits(instance: Instance, criteria: Criteria) -> bool:
    """Whether what no order is about holds."""
    return (
        (criteria.entities or not instance.entity)
        and instance.id.startswith(criteria.prefix)
        and criteria.name in (None, instance.name)
        and all(tag in instance.tags for tag in criteria.tags)
    )


def _page(found: Iterable[Reminder], limit: int) -> list[Reminder]:
    page, weight = [], 0
    for reminder in itertools.islice(found, limit):
        page.append(reminder)
        weight += len(reminder.payload)
        if weight > PAGE_BYTES:
            break
    return page
