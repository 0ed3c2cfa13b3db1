"""What must hold of stored data after every commit, and when all work has finished."""

from collections import Counter
from collections.abc import Iterable

from sidecar.core import events
from sidecar.core.entity import entity
from sidecar.core.identity import AppIdentity
from sidecar.core.model import (
    UNANSWERED,
    CallKind,
    Changes,
    Instance,
    Kind,
    OpenCall,
    Row,
    State,
    Status,
)
from tests.simulation import entities, ledger
from tests.simulation.faulty_store import Disk
from tests.simulation.programs import Violation

_OPENS = ("task_scheduled", "child_created", "timer_created", "entity_called", "entity_lock_requested")
_CLOSES = {
    "task_completed": "task_scheduled_id",
    "task_failed": "task_scheduled_id",
    "child_completed": "task_scheduled_id",
    "child_failed": "task_scheduled_id",
    "timer_fired": "timer_id",
    **entities.ANSWERS,
}


_OFTEN = 10  # commits between two checks of the whole store


class Watch:
    """Checks one store after each commit, on what the commit touched."""

    def __init__(self, me: AppIdentity, disk: Disk) -> None:
        self._me = me
        self._disk = disk
        self._covered: dict[int, tuple[str, list[Row]]] = {}
        self._ended: dict[int, int] = {}
        self._pauses: dict[int, tuple[bool, int]] = {}
        self._made: dict[int, dict[int, tuple[int, int]]] = {}  # turn and task of the children it waits for
        self._commits = 0
        self._ledger = ledger.Ledger(disk)
        self.ends: dict[str, tuple[int, str | None]] = {}  # status and output of the last end of each instance ID

    def check(self, changes: Iterable[Changes]) -> None:
        """Check the instances that changes have touched. Raises Violation."""
        self._commits += 1
        if self._commits % _OFTEN == 0 and (broken := self._disk.broken_rules()):
            raise Violation(f"`store check` would say: {broken[:5]}")
        for one in changes:
            self._check_pause(one)
            self._ledger.check(one)
            instance = self._disk.instance(one.key) if one.key else None
            if instance is not None and instance.entity:
                self._check_entity(instance)
            elif instance is not None:
                self._check_instance(instance, one)

    def _check_pause(self, changes: Changes) -> None:
        """A pause that reaches children, or its end, is sent to each of them in the commit that makes it so."""
        instance, made = changes.instance, self._made.setdefault(changes.key, {})
        suspended, last_order = self._pauses.get(changes.key, (False, 0))
        if instance is not None:
            self._pauses[changes.key] = instance.suspended, instance.last_order
            by_client = self._me.cascade_suspend and instance.suspended != suspended
            alone = instance.status.terminal and suspended and (self._me.cascade_suspend or last_order)
            if instance.last_order != last_order or by_client or alone:
                # A rewound parent waits under its new execution for what it commands by the call that made the child.
                told = {
                    (one.call.turn, one.call.task) for one in changes.set if one.kind in (Kind.PAUSE, Kind.TERMINATE)
                }
                _require(told >= set(made.values()), instance, f"was paused or goes on, and told {told} of {made}")
        for task in list(made) if changes.close_all else changes.closed:
            made.pop(task, None)
        made.update(
            (call.call.task, (call.call.turn, call.call.task)) for call in changes.opened if call.kind is CallKind.CHILD
        )

    def has_ended(self, key: int) -> bool:
        """Whether an instance, which may be gone, has ever ended."""
        return key in self._ended

    def _check_entity(self, instance: Instance) -> None:
        """What may run is ready, and a lock is not waited for where nobody has it."""
        rows = self._disk.log(instance.key)
        may_run = entity.next_batch(State(instance, inbox=rows), "", 1 << 20).rows
        awake = bool(may_run) and not instance.crashes.quarantined
        _require(instance.ready == awake, instance, "its readiness is not that of its inbox")
        _require(instance.lock is not None or not rows or bool(may_run), instance, "nobody lets on what waits")

    def _check_instance(self, instance: Instance, changes: Changes) -> None:
        rows = self._disk.log(instance.key)
        self._check_status(instance, changes)
        self._check_prefix(instance, rows)
        still_open = _walk(instance, rows)
        found = self._disk.calls(instance.key)
        if instance.status.terminal:
            _require(not found, instance, "has ended and has open calls")
            return
        calls = {call.call.task: call for call in found if call.kind not in UNANSWERED}
        _require(still_open == set(calls), instance, f"open by its log {still_open}, by its calls {set(calls)}")
        for call in calls.values():
            _require(self._cause(call), instance, f"nothing will ever answer {call}")
        waiting = instance.rewind or any(row.turn > instance.last_completed_turn for row in rows)
        stalled = instance.status is Status.STALLED
        _require(stalled == (instance.stall is not None), instance, "is stalled without a reason, or the other way")
        quarantined = instance.crashes.quarantined
        _require(stalled or not quarantined, instance, "is parked and does not say so")
        _require(instance.ready or quarantined or not stalled, instance, "is stalled and nothing waits for a worker")
        runnable = instance.began and not instance.suspended and waiting and not quarantined
        _require(instance.ready == bool(runnable), instance, "its readiness is not that of its inbox")

    def _check_status(self, instance: Instance, changes: Changes) -> None:
        before = self._ended.get(instance.key)
        if changes.reopened and before == Status.FAILED:
            self._ended.pop(instance.key)
            _require(self._disk.output(instance.key) is None, instance, "runs again and has an output")
            return
        _require(before in (None, int(instance.status)), instance, f"had ended with {before}")
        if instance.status.terminal:
            self._ended[instance.key] = int(instance.status)
            self.ends[instance.id] = (int(instance.status), self._disk.output(instance.key))

    def _check_prefix(self, instance: Instance, rows: list[Row]) -> None:
        """What workers have seen of an execution only grows."""
        covered = [row for row in rows if row.turn <= instance.last_completed_turn]
        execution, before = self._covered.get(instance.key, ("", []))
        if execution == instance.execution:
            _require(covered[: len(before)] == before, instance, "the history that a worker has seen was changed")
        self._covered[instance.key] = (instance.execution, covered)

    def _cause(self, call: OpenCall) -> bool:
        """Whether something stored here will lead to an answer: for another app's answer, the kept call."""
        if self._disk.holds_answer(call):
            return True
        if call.kind in (CallKind.ENTITY, CallKind.LOCK):
            logs = [row.event for one in self._disk.instances("@") if one.entity for row in self._disk.log(one.key)]
            return entities.waits_at_an_entity(call.call, self._disk.reminders(), logs)
        return self._me.owns(call.target) and any(not child.status.terminal for child in self._disk.children(call))


def _require(holds: bool, instance: Instance, text: str) -> None:
    if not holds:
        raise Violation(
            f"instance {instance.id} ({instance.status.name}, covered {instance.last_completed_turn}): {text}"
        )


def _walk(instance: Instance, rows: list[Row]) -> set[int]:
    """Read a log as a worker would; return the calls that it leaves open."""
    still_open: Counter[int] = Counter()
    named: dict[str, int] = {}  # the requests of entities by their IDs
    for row in rows:
        event = events.decode(row.event)
        kind = event.WhichOneof("kind") or ""
        if kind in _OPENS:
            if kind != "timer_created" or not events.never(event.timer_created.fire_at):
                still_open[event.event_id] += 1
            if kind in entities.NAMES:
                named[getattr(getattr(event, kind), entities.NAMES[kind])] = event.event_id
        elif kind in _CLOSES:
            task = getattr(getattr(event, kind), _CLOSES[kind])
            task = named[task] if kind in entities.ANSWERS else task
            still_open[task] -= 1
            _require(still_open[task] >= 0, instance, f"{kind} {task} answers no open call, or a second time")
    return {task for task, count in still_open.items() if count}


def at_rest(name: str, disk: Disk) -> None:
    """Check that nothing is left when all work has finished. Raises Violation."""
    ledger.at_rest(name, disk)
    instances = disk.instances()
    for instance in instances:
        if instance.entity and (instance.lock is not None or disk.log(instance.key)):
            raise Violation(f"{name}: entity {instance.id} is locked or waited for: {instance.lock}")
        if not instance.status.terminal and not instance.entity:
            raise Violation(f"{name}: instance {instance.id} is still {instance.status.name}")
    left = [f"{r.kind.name} {r.source.id} > {r.target.app} {r.target.id}" for r in disk.reminders()]
    if left:
        raise Violation(f"{name}: reminders are left behind: {left[:5]}")
    for key in disk.owners():
        if disk.calls(key):
            raise Violation(f"{name}: instance {key} has open calls {disk.calls(key)}")
    gone = disk.owners() - {instance.key for instance in instances}
    if broken := disk.broken_rules():
        raise Violation(f"{name}: `store check` would say: {broken[:5]}")
    if gone:
        raise Violation(f"{name}: of the purged instances {sorted(gone)} something is left")
