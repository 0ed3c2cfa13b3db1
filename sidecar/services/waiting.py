"""Why instances and their calls wait: what is known here, and what other apps say. In memory alone, nothing is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from sidecar.core import causes
from sidecar.core.causes import Cause
from sidecar.core.ids import PeerId
from sidecar.core.model import DEFAULT_HUB, CallKind, Instance, OpenCall, State
from sidecar.core.policy import Operation
from sidecar.core.workflow import stalls
from sidecar.services.access import Access
from sidecar.work import takers
from sidecar.work.dispatch import Dispatch
from sidecar.work.leases import is_running
from sidecar.work.ready_queue import Group

MOST_CAUSES = 5  # that are told of one instance
_MOST_CALLS = 1_000  # of one instance that are looked at
_MOST_TOLD = 20  # names, to another app
_LANES = {CallKind.ACTIVITY: takers.ACTIVITY, CallKind.CHILD: takers.WORKFLOW}
_AT_ENTITIES = (CallKind.ENTITY, CallKind.LOCK)


Memo = dict[tuple[str, Group], Cause | None]  # what was found of work of a kind: calls and instances are often alike


class Reports(Protocol):
    """What other apps say of work that they have."""

    def cause(self, peer: PeerId, kind: str, name: str) -> Cause | None:
        """Say why such work waits there, as that app has said last; None if it does not, or that is not known."""

    def of(self, peer: PeerId) -> Sequence[Cause]:
        """Return all that an app has said last."""


class NoReports:
    """Nothing is known of other apps."""

    def cause(self, peer: PeerId, kind: str, name: str) -> Cause | None:
        """See `Reports`."""
        return None

    def of(self, peer: PeerId) -> Sequence[Cause]:
        """See `Reports`."""
        return ()


class Waiting:
    """Says why something waits. `reports` is given later: it needs links."""

    def __init__(self, dispatch: Dispatch, access: Access) -> None:
        self._dispatch = dispatch
        self._access = access
        self._engine = dispatch.engine
        self.reports: Reports = NoReports()

    def of_row(self, instance: Instance, memo: Memo) -> tuple[Cause, ...]:
        """Say why an instance that a query has found waits; its calls are looked at only if it is in memory.

        `memo` is one for all instances of a page.
        """
        actor = self._engine.residents.find((instance.hub, instance.id))
        if actor is not None and actor.state is not None and actor.state.instance.key == instance.key:
            return self.of_state(actor.state, memo)
        found = self.of_instance(instance, memo)
        return () if found is None else (found,)

    def of_state(self, state: State, memo: Memo | None = None) -> tuple[Cause, ...]:
        """Return the first causes for which an instance and its calls wait, none twice."""
        if state.instance.status.terminal:
            return ()
        found: dict[Cause, None] = {}
        for cause in islice(self._all(state, {} if memo is None else memo), _MOST_CALLS):
            if cause is not None:
                found[cause] = None
            if len(found) == MOST_CAUSES:
                break
        return tuple(found)

    def _all(self, state: State, memo: Memo) -> Iterator[Cause | None]:
        yield self.of_instance(state.instance, memo)
        for _, call in sorted(state.open.items()):
            yield self.of_call(call, memo)

    def of_instance(self, instance: Instance, memo: Memo | None = None) -> Cause | None:
        """Say why an instance itself gets no worker, None if it has one, gets one in a moment, or wants none."""
        standstill = stalls.standstill(instance)
        if instance.status.terminal or standstill is not None:
            return standstill
        actor = self._engine.residents.find((instance.hub, instance.id))
        if not instance.ready or (actor is not None and is_running(actor)):
            return None
        kind = takers.ENTITY if instance.entity else takers.WORKFLOW
        group = takers.queue_of(self._dispatch.pool, kind).group((instance.hub, instance.id))
        return self._of_work(kind, group or Group(instance.name, instance.version or "", hub=instance.hub), memo)

    def of_call(self, call: OpenCall, memo: Memo | None = None) -> Cause | None:
        """Say why a call waits, None if it is on its way, being done, or a timer."""
        if call.kind in _AT_ENTITIES:
            return next(self._locks(call), None)
        kind = _LANES.get(call.kind)
        if kind is None:
            return None
        target = call.target
        if not self._engine.me.owns(target):
            peer = (target.namespace, target.app)
            sent = self._dispatch.outbox.why(call.target, call.reminder)
            return self.reports.cause(peer, kind, call.name) if sent is None else sent
        if call.kind is CallKind.CHILD or call.reminder in self._dispatch.activities.leases:
            return None  # a child says for itself why it waits
        group = self._dispatch.pool.activities.group(call.reminder)
        return self._of_work(kind, group or Group(call.name, "", hub=target.hub), memo)

    def at_home(self, app: str, kind: str, names: Iterable[str]) -> dict[str, Cause]:
        """Say why work of these names waits here to another app, which is shown no name that it may not schedule."""

        def shows(name: str) -> bool:
            return self._access.allows(app, Operation.SCHEDULE, name, kind)

        lanes = {(DEFAULT_HUB, name) for name in names if shows(name)}
        groups = takers.lane_groups(self._dispatch.pool, kind, lanes)
        found = {group.name: self._seen(kind, group, shows) for group in islice(groups.values(), _MOST_TOLD)}
        return {name: cause for name, cause in found.items() if cause is not None}

    def _of_work(self, kind: str, group: Group, memo: Memo | None) -> Cause | None:
        if memo is None:
            return self._seen(kind, group)
        if (kind, group) not in memo:
            memo[kind, group] = self._seen(kind, group)
        return memo[kind, group]

    def _seen(self, kind: str, group: Group, shows: Callable[[str], bool] = takers.all_names) -> Cause | None:
        found = takers.cause(self._dispatch.pool, kind, group, shows)
        return None if found is None else self._dispatch.watch.since(found, kind, group)

    def _locks(self, call: OpenCall) -> Iterator[Cause]:
        """Say which workflows have locked the entities that a call is for, and why these wait themselves."""
        for entity in self._entities(call.entities or (call.target.id,), call.target.hub):
            lock = entity.lock
            if lock is not None and lock.execution != call.call.execution:
                yield causes.locked(entity.id, lock.owner)
            found = self.of_instance(entity)
            if found is not None:
                yield found

    def _entities(self, ids: Iterable[str], hub: str) -> Iterator[Instance]:
        for entity_id in ids:
            actor = self._engine.residents.find((hub, entity_id))
            if actor is not None and actor.state is not None:
                yield actor.state.instance
