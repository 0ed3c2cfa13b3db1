"""Work of actors for the own workers: what turns of workflows and batches of operations of entities have in common.

An actor waits, is assigned to a worker, and what that has of it is out under a lease until the worker answers, leaves
or takes too long. An answer claims the lease before anything is decided of it, and settles it when that is committed.
One that comes when the lease has ended counts all the same while nothing contradicts it. All of it is a hint over the
store.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.residents import Actor, Address
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Row, State
from sidecar.core.workflow import stalls
from sidecar.work.actor_queue import ActorQueue
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import ReadyQueue
from sidecar.work.workers import Worker

_MOST_OVERDUE, _OVERDUE_BYTES = 1_000, 32 * 1024 * 1024
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Lease(ABC):
    """What a worker has of an actor, or is to get.

    `deadline` is the monotonic time at which it is handed out again. A lease that is claimed belongs to the answer that
    is being decided: nobody takes it back. One that is void counts no more, and its answer changes nothing. One is
    forsaken whose worker has said goodbye or crashed.
    """

    actor: Actor
    worker: Worker
    deadline: float = 0.0
    claimed: bool = False
    void: bool = False
    forsaken: bool = False

    @property
    @abstractmethod
    def key(self) -> int:
        """Key of the instance whose work is out, 0 while it is only assigned."""

    @property
    @abstractmethod
    def token(self) -> str:
        """What the worker echoes with its answer, "" while nothing is out."""

    @property
    @abstractmethod
    def rows(self) -> tuple[Row, ...]:
        """The events that the worker has."""

    @abstractmethod
    def fits(self, state: State) -> bool:
        """Close what the worker has over a state, as if it had just been handed out; False if it does not fit."""

    @property
    def is_out(self) -> bool:
        """Whether the worker was sent something."""
        return bool(self.key)


L = TypeVar("L", bound=Lease)


class Overdue(Generic[L]):
    """What workers may have still though it was taken back, by token, as far as a number and its bytes go."""

    def __init__(self) -> None:
        self._leases: OrderedDict[str, tuple[L, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, lease: L) -> None:
        """Remember a lease that has ended; what is in memory of its actor is not kept for it."""
        lease.actor = Actor(lease.actor.address)
        weight = sum(len(row.event) for row in lease.rows)
        self._leases[lease.token] = (lease, weight)
        self._bytes += weight
        while len(self._leases) > _MOST_OVERDUE or self._bytes > _OVERDUE_BYTES:
            self.pop(next(iter(self._leases)))

    def get(self, token: str) -> L | None:
        """Return the lease of a token, or None."""
        found = self._leases.get(token)
        return None if found is None else found[0]

    def pop(self, token: str) -> None:
        """Forget the lease of a token."""
        self._bytes -= self._leases.pop(token, (None, 0))[1]


class ActorLeases(ActorQueue, Generic[L]):
    """Hands work of one kind of actors to workers and takes it back."""

    _lease_type: type[L]

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        waiting: ReadyQueue[Address],
        *,
        entities: bool,
        timeout: float | None,
        delivery_limit: DeliveryLimit,
        pump: Callable[[], None],
    ) -> None:
        super().__init__(engine, pool, waiting, entities=entities, delivery_limit=delivery_limit, pump=pump)
        self._timeout = math.inf if timeout is None else timeout
        self.out: dict[Address, L] = {}  # what workers have and have not answered
        self._overdue: Overdue[L] = Overdue()

    @abstractmethod
    def _freed(self, lease: L) -> None:
        """A lease has ended: let go of what is kept for it."""

    @abstractmethod
    def _late(self, lease: L) -> None:
        """A worker has not answered in time."""

    def unqueue(self, actor: Actor) -> None:
        """An actor is to wait no longer, whatever it waited for: what is out of it is void."""
        self.recall(actor)
        self._waiting.discard(actor.address)

    # ------------------------------------------------------------ leases

    def lease_of(self, actor: Actor) -> L | None:
        """Return the lease of an actor if it is one of this kind."""
        return actor.lease if isinstance(actor.lease, self._lease_type) else None

    def assign(self, address: Address, worker: Worker) -> None:
        """Give an actor's work to a worker, as soon as the actor is between two steps."""
        actor = self._engine.actor(address)
        if actor.lease is not None:  # claimed by the answer of a worker that has left since: it is queued afterwards
            self._held_by(worker).pop(address, None)
            return
        actor.lease = self._lease_type(actor, worker)
        self._engine.wake(actor)

    def recall(self, actor: Actor) -> None:
        """Void the lease of an actor and free its slot, unless an answer has claimed it."""
        lease = self.lease_of(actor)
        if lease is not None and not lease.claimed:
            self._end(lease)

    def _end(self, lease: L) -> None:
        """Void a lease and free the slot of its worker."""
        lease.void = True
        self.out.pop(lease.actor.address, None)
        self._freed(lease)
        if lease.actor.lease is lease:
            self._held_by(lease.worker).pop(lease.actor.address, None)
            lease.actor.lease = None
        self._pump()

    def claim(self, lease: L) -> L:
        """Take a lease for the answer that has come: nobody else ends it before `settle`."""
        lease.claimed = True
        self.out.pop(lease.actor.address, None)
        return lease

    def settle(self, lease: L) -> None:
        """End a lease whose answer is decided, or whose worker is gone or took too long; queue what waits by then."""
        self._end(lease)
        actor = lease.actor
        if actor.loaded and actor.state is not None:
            self.queue(actor, actor.state.instance)
        else:
            self._engine.wake(actor)

    def decline(self, lease: L) -> None:
        """Queue work that came to nothing: others may have it at once, this worker after a pause."""
        self.refusals.refuse(lease.actor.address, lease.worker.name)
        self.settle(lease)
        self._came_back(lease)

    # ------------------------------------------------------------ late answers

    async def taken_up(self, token: str) -> L | None:
        """Return the lease that a late answer is for, in force again, in the place of the one that is out by now.

        None if there is none, or if something contradicts the answer: another one has come, a person has decided, or
        its worker has left and another has the work by now (M47).

        Raises:
            UnavailableError: the store failed.
        """
        lease = self._overdue.get(token)
        if lease is None:
            return None
        address = lease.actor.address
        await self._engine.submit(address, lambda at, state: Decision(None, DONE))  # it is loaded by then
        actor = self._engine.actor(address)
        other = self.lease_of(actor)
        self._overdue.pop(token)
        taken = other is not None and (other.claimed or (lease.forsaken and other.is_out))
        if actor.state is None or taken or not lease.fits(actor.state):
            return None
        self.recall(actor)
        self._waiting.discard(address)
        lease.actor, lease.void, lease.claimed = actor, False, False
        lease.deadline = self._engine.clock.monotonic() + self._timeout
        actor.lease = lease
        self._went_out(lease)
        return lease

    def _went_out(self, lease: L) -> None:
        """A worker has something."""
        self.out[lease.actor.address] = lease

    # ------------------------------------------------------------ time

    def left(self, worker: Worker, *, lost: bool) -> None:
        """Queue all that a worker had which is gone; if it was lost, count that against what was out."""
        self.refusals.left(worker.name)
        for address in list(self._held_by(worker)):
            lease = self.lease_of(self._engine.actor(address))
            if lease is None or lease.claimed:
                continue
            if not lease.is_out:
                self.settle(lease)
                continue
            if lost:
                self._crashed(lease)
            else:
                self.settle(lease)
                self._came_back(lease)
            lease.forsaken = not worker.broken_off
            self._overdue.keep(lease)

    def away(self, worker: Worker) -> None:
        """Queue what a worker was to get, of which the stream has ended; what it has stays with it."""
        for address in list(self._held_by(worker)):
            lease = self.lease_of(self._engine.actor(address))
            if lease is not None and not lease.is_out:
                self.settle(lease)

    def _came_back(self, lease: L) -> None:
        """A worker has given back what it had, has left in good order or takes too long: no fault by itself."""

    def _crashed(self, lease: L) -> None:
        """Count the loss of a worker; with the commit the work is queued again, or quarantined."""
        key, error, actor = lease.key, lease.worker.loss(), lease.actor
        self._end(lease)

        def decide(at: Context, state: State | None) -> Decision:
            if state is None or state.instance.key != key or not state.instance.ready:
                return Decision(None, DONE)
            changes = stalls.crashed(at, state, error, self._delivery_limit)
            if changes.instance is not None and changes.instance.crashes.quarantined:
                log.warning("parked: each worker that gets it crashes", instance=actor.address[1], error=error)
            return Decision(changes, DONE)

        self._engine.tell(actor.address, decide)

    def sweep(self) -> None:
        """Hand out again what took longer than it may, and what was given back and has paused."""
        now = self._engine.clock.monotonic()
        for lease in [lease for lease in self.out.values() if lease.deadline <= now]:
            self._late(lease)
            self.settle(lease)
            self._came_back(lease)
            self._overdue.keep(lease)
        if self.refusals.resume(self._waiting):
            self._pump()


def is_valid(lease: Lease, state: State | None) -> bool:
    """Whether the answer to a lease may still count: an instance may have gone, or been read anew, meanwhile."""
    return state is not None and not lease.void and lease.key == state.instance.key


def is_running(actor: Actor) -> bool:
    """Whether a worker has something of an actor."""
    return isinstance(actor.lease, Lease) and actor.lease.is_out
