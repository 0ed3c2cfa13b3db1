"""What a step over an entity has decided so far, and the changes that come of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.core.entity.inbox import may_run
from sidecar.core.identity import Context
from sidecar.core.model import NO_CALL, ActorId, CallId, Changes, Instance, Kind, Lock, Position, Reminder, Row, State


@dataclass(slots=True)
class Step:
    """What a step has decided so far. `fresh` joins the inbox and `gone` leaves it. `revision` 0: the entity is new."""

    at: Context
    instance: Instance
    inbox: list[Row]
    tail: Position
    revision: int
    lock: Lock | None
    fresh: list[Row] = field(default_factory=list)
    gone: set[Position] = field(default_factory=set)
    reminders: list[Reminder] = field(default_factory=list)

    def queue(self) -> Iterator[Row]:
        """Return the inbox as it will be after this step."""
        return (row for rows in (self.inbox, self.fresh) for row in rows if row.position not in self.gone)

    def send(
        self,
        kind: Kind,
        target: ActorId,
        payload: bytes,
        *,
        call: CallId = NO_CALL,
        due: int = 0,
        source: ActorId | None = None,
    ) -> None:
        """Set a reminder from this entity, or from `source`. It is due at `due`, but not before now."""
        number, due = self.at.ids.order(), max(due, self.at.now)
        source = source or self.at.me.entity(self.instance.hub, self.instance.id)
        self.reminders.append(Reminder(number, kind, self.instance.key, target, source, call, due, "", payload))

    def ready(self) -> bool:
        """Whether an operation may run after this step.

        Unless something left the inbox or the lock changed, only what is new has to be looked at.
        """
        same = self.revision and not self.gone and self.lock == self.instance.lock
        rows = self.fresh if same else list(self.queue())
        runnable = bool(same and self.instance.ready) or may_run(rows, self.lock)
        return runnable and not self.instance.crashes.quarantined

    def changes(self, **fields: Any) -> Changes:
        """Return the changes of this step."""
        instance = replace(
            self.instance,
            revision=self.revision + 1,
            lock=self.lock,
            ready=self.ready(),
            updated_at=max(self.at.now, self.instance.updated_at),
        )
        return Changes(
            key=instance.key,
            expected=self.revision,
            instance=instance,
            append=tuple(row for row in self.fresh if row.position not in self.gone),
            removed=tuple(row.position for row in self.inbox if row.position in self.gone) if self.gone else (),
            set=tuple(self.reminders),
            **fields,
        )


def step_over(at: Context, state: State) -> Step:
    """Begin a step over an entity."""
    return Step(at, state.instance, state.inbox, state.tail, state.instance.revision, state.instance.lock)
