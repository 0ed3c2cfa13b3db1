"""What the sidecar needs of a store, `Store`: one write, a few reads; and what only some stores can, `Maintenance`.

A store knows nothing of workflows. It never looks inside an event or decides anything: what is to change, and what
the change assumes, is said by `Changes`.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sidecar.core.attempts import NONE, DeliveryAttempts
from sidecar.core.model import ActorId, CallId, Changes, Child, Instance, Kind, Lock, Position, Reminder, State, Status
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.progress import At

Timed = Callable[[int], AbstractContextManager[object]]  # is around each commit of so many changes
PAGE_BYTES = 4 * 1024 * 1024  # of the payloads in a page of reminders; one may be larger by its last


class Refusal(enum.Enum):
    """Why changes were left out; nothing of them was written."""

    CONFLICT = "the instance is at another revision: load it again and decide anew"
    GONE = "a reminder that was to be used up is gone, or a schedule is at another revision"
    DUPLICATE = "the message, or the activity of another app, was accepted before"


class UnavailableError(Exception):
    """The store did not answer or failed; the outcome is unknown until the instance is loaded again."""


class FullError(UnavailableError):
    """The disk is full, so that this was not tried. What only removes is taken all the same, and reads are answered."""


class RejectedError(Exception):
    """Something in the changes can never be stored, such as a number that no column holds; nothing was written."""


class DamagedError(Exception):
    """What is stored of an instance cannot be read; the others are as they were. The text names it."""


class CopyError(Exception):
    """A copy of a store could not be made, checked or put in its place; the text says why and what to do."""


class Copied(NamedTuple):
    """A copy of a store: where it is, and its bytes."""

    path: str
    bytes: int


class Ready(NamedTuple):
    """One that has something for a worker: key, hub, ID, the name and version that filters look at, its crashes."""

    key: int
    hub: str
    id: str
    name: str
    version: str | None
    crashes: int = 0


class Order(enum.Enum):
    """What the answers to a query are ordered by: a time, and instances of one moment by their keys."""

    CREATED = "created"
    COMPLETED = "completed"  # instances that have not ended are not among them


class Cursor(NamedTuple):
    """Where a query goes on: behind the instance with this time, by its order, and key."""

    moment: int
    key: int


BEGINNING = Cursor(-(1 << 62), 0)


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which workflow instances of a hub a query is about: those for which all of it holds.

    `since` and `before` are about the time that the query is ordered by: from the first, up to but without the
    second. An instance has a tag when its stored tags contain these bytes. Entities are among the answers only if
    `entities` says so.
    """

    hub: str
    statuses: frozenset[Status] = frozenset(Status)
    since: int | None = None
    before: int | None = None
    prefix: str = ""
    name: str | None = None
    tags: tuple[bytes, ...] = ()
    entities: bool = False


class Page(NamedTuple):
    """A part of the answers to a query, and where the next begins: None when there is nothing more to look at."""

    found: list[Instance]
    next: Cursor | None


class Waiting(NamedTuple):
    """A call without an answer: to another app, `delivered` once that has accepted it, or an activity with crashes."""

    id: int
    kind: Kind
    instance: ActorId
    target: ActorId
    call: CallId
    name: str
    since: int
    delivered: bool
    crashes: DeliveryAttempts = NONE


class EntityRow(NamedTuple):
    """An entity as a query shows it. `backlog` is how many messages wait; `state` is None where it was not read."""

    id: str
    revision: int
    updated_at: int
    backlog: int
    lock: Lock | None
    has_state: bool
    state: str | None


def store_id(identity: str) -> str:
    """Return the ID in the identity of a store, without its generation: it stays the same over a restore."""
    return identity.rpartition(".")[0]


class Store(Protocol):
    """The state of one app. Every method may raise UnavailableError."""

    @property
    def identity(self) -> str:
        """ID of this store and its generation as it was opened: another one means that accepted work may be gone."""

    @property
    def next_key(self) -> int:
        """First instance key that was never used."""

    @property
    def next_order(self) -> int:
        """First order number that was never used."""

    @property
    def trouble(self) -> str:
        """Why nothing is written at the moment, and what to do; "" while all is well."""

    async def recovered(self) -> None:
        """Wait until there is no trouble. What was read before must then be read again."""

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        """Write changes durably in one transaction, in order; each of them whole or not at all.

        Returns, for each, None or why it was left out. What follows in the batch was decided on the state that the
        change would have left: when a change of an instance is left out, so is all behind it. Batches that are
        handed in at the same time may share the transaction; one does no harm to another.
        """

    async def load(self, hub: str, instance_id: str) -> State | None:
        """Return an instance with its open calls, live children and inbox, or None."""

    async def events(self, key: int, after: Position, upto_turn: int) -> list[bytes]:
        """Return the log from behind `after` to the end of turn `upto_turn`, in order."""

    async def payloads(self, key: int) -> tuple[bytes | None, str | None]:
        """Return the event that started (or will start) the running execution, and the output."""

    async def lineage(self, key: int) -> bytes:
        """Return the encoded history of its callers that an instance was given, b"" if none."""

    async def children(self, key: int) -> list[Child]:
        """Return all children of an instance that were not purged with it, ended ones too."""

    async def creations(self, key: int) -> list[Child]:
        """Return the children of an instance, which may be gone, whose creation waits to be delivered, by call."""

    async def ready(self, after: int, limit: int, entities: bool = False) -> list[Ready]:
        """Return workflows that are ready for a turn, or entities that are for a batch, by key, from behind `after`."""

    async def entities(self, hub: str, prefix: str, after: str, limit: int, *, states: bool) -> list[EntityRow]:
        """Return entities whose ID begins with `prefix`, by ID, from behind `after`; their states if asked for."""

    async def due(self, before: int, after: Position, limit: int) -> list[Reminder]:
        """Return reminders of own workflows due before a time, by (due, ID), from behind `after`: none at the end.

        Like the two that follow, it gives less than `limit` when the payloads come to more than `PAGE_BYTES`.
        """

    async def activities(self, after: int, limit: int) -> list[Reminder]:
        """Return activities for this app's workers, by ID, from behind `after`."""

    async def outbound(self, namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        """Return reminders for another app that are not delivered, by ID, from behind `after`."""

    async def destinations(self) -> Sequence[tuple[str, str]]:
        """Return namespace and app of every other app that a reminder is for or an answer is awaited from."""

    async def waiting(self, app: str, after: int, limit: int) -> list[Waiting]:
        """Return calls to an app ("": to any), by ID, from behind `after`.

        Of those for the own workers only activities that have cost some, whoever asked for them.
        """

    async def reminder(self, reminder_id: int) -> Reminder | None:
        """Return one reminder, or None when it is gone."""

    async def query(self, criteria: Criteria, order: Order, after: Cursor, limit: int) -> Page:
        """Return instances from behind `after`, in order, at most `limit` of them.

        One call looks at no more than a store can in a few milliseconds. So a page may have fewer instances than
        `limit`, or none, and yet not be the last. `limit` must be small enough to hold as many rows in memory.
        """

    async def hubs(self) -> list[str]:
        """Return the names of the hubs that have instances, in order."""

    async def schedule(self, hub: str, schedule_id: str) -> ScheduleRow | None:
        """Return a schedule, or None."""

    async def schedules(self, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        """Return schedules by (hub, ID), from behind `after`."""

    async def foreign_activity(self, namespace: str, app: str, call: CallId) -> Reminder | None:
        """Return the activity that was taken in for a call of another app, if it is not done."""

    async def close(self) -> None:
        """Finish what was handed in and let go of what the store holds. Nothing may be asked afterwards."""


class Maintenance(Protocol):
    """What some stores can do by themselves while they serve; another has tools of its own for it."""

    async def check(self) -> list[str]:
        """Return what is wrong with what is stored, a line each; empty if nothing is.

        Raises:
            CopyError: it could not be checked.
        """

    async def backup(self, name: str, now: int) -> Copied:
        """Make a copy of one moment, checked, under a name that is free; "" for one made of `now` (microseconds).

        Raises:
            CopyError: there is no copy: the name cannot be used, the store has faults, or it could not be written.
        """

    def at(self) -> At | None:
        """Return how far a check or a backup is; None while there is none."""

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of what it keeps, by part."""

    async def run(self) -> None:
        """Do the upkeep that the store needs whenever there is time, until cancelled."""
