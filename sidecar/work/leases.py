"""Work of actors for the own workers: what turns of workflows and batches of operations of entities have in common.

An actor waits, is assigned to a worker (its holder), and what that has of it is out until the worker answers, leaves or
takes too long. All of it is a hint over the store.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import structlog

from sidecar.actors.engine import Actor, Address, Engine
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Instance, Rewind, State
from sidecar.core.workflow import stalls
from sidecar.work.backoff import Refusals
from sidecar.work.pool import Pool, Worker
from sidecar.work.ready_queue import Group, Lane, ReadyQueue

PAGE = 5_000
log = structlog.get_logger(__name__)


class ActorLeases(ABC):
    """Hands work of one kind of actors to workers and takes it back. What waits of it is in `backlog`."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        backlog: ReadyQueue[Address],
        *,
        entities: bool,
        timeout: float,
        delivery_limit: DeliveryLimit,
        pump: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._backlog = backlog
        self._entities = entities
        self._timeout = timeout
        self._delivery_limit = delivery_limit
        self._pump = pump
        self._refusals: Refusals[Address] = Refusals(engine.clock)
        self.out: dict[Address, Actor] = {}

    @abstractmethod
    def _held(self, worker: Worker) -> Iterable[Address]:
        """Return the actors whose work a worker has, or is to get."""

    @abstractmethod
    def recall(self, actor: Actor) -> None:
        """Void what is out, or assigned, and free its slot."""

    @abstractmethod
    def _late(self, actor: Actor) -> None:
        """A worker has not answered in time."""

    # ------------------------------------------------------------ waiting

    def queue(self, actor: Actor, instance: Instance) -> None:
        """Let an actor wait for a worker if it is ready and no worker has it."""
        if instance.ready and actor.holder is None:
            self._offer(actor.address, self._group_of(instance))
            self._pump()

    def _offer(self, address: Address, group: Group) -> None:
        """Put an actor into the backlog, kept from workers that do not want it now."""
        self._backlog.offer(address, group._replace(excluded_workers=self._refusals.of(address)))

    def _group_of(self, instance: Instance, size: int = 0) -> Group:
        """Return what workers must be able to take to have the work of an instance; `size` in bytes, 0 for any."""
        version, asked = instance.version or "", instance.rewind is Rewind.ASKED
        on_probation = self._delivery_limit.on_probation(instance.crashes.times)
        return Group(instance.name, version, size, hub=instance.hub, rewind=asked, on_probation=on_probation)

    async def refill(self, lanes: frozenset[Lane] | None = None) -> None:
        """Queue what is ready in the store, of these lanes (None: of all), as far as it fits.

        Raises:
            UnavailableError: the store failed.
        """
        backlog = self._backlog
        backlog.refilling(lanes)
        after, more = 0, True
        while more and not backlog.has_share(lanes):
            page = await self._engine.store.ready(after, PAGE, self._entities)
            held = {address for worker in self._pool.workers for address in self._held(worker)}
            for found in page:
                address = (found.hub, found.id)
                if address not in held and (lanes is None or (found.hub, found.name) in lanes):
                    on_probation = self._delivery_limit.on_probation(found.crashes)
                    self._offer(
                        address, Group(found.name, found.version or "", hub=found.hub, on_probation=on_probation)
                    )
            more = len(page) == PAGE
            after = page[-1].key if page else after

    def unqueue(self, actor: Actor) -> None:
        """An actor is to wait no longer, whatever it waited for: what is out of it is void."""
        self.recall(actor)
        self._backlog.discard(actor.address)

    # ------------------------------------------------------------ out

    def assign(self, address: Address, worker: Worker) -> None:
        """Give an actor's work to a worker, as soon as the actor is between two steps."""
        actor = self._engine.actor(address)
        actor.holder = worker
        self._engine.wake(actor)

    def give_back(self, actor: Actor) -> None:
        """Queue the work of a worker that is gone, or took too long."""
        self.recall(actor)
        if actor.loaded and actor.state is not None:
            self.queue(actor, actor.state.instance)
        else:
            self._engine.wake(actor)

    def decline(self, actor: Actor) -> None:
        """Queue work that came to nothing: others may have it at once, this worker after a pause."""
        if actor.holder is not None:
            self._refusals.refuse(actor.address, actor.holder.name)
        self.give_back(actor)

    def forget_refusals(self, actor: Actor) -> None:
        """An actor has ended or is gone: one that takes its ID is another."""
        self._refusals.forget(actor.address)

    # ------------------------------------------------------------ time

    def left(self, worker: Worker, *, lost: bool) -> None:
        """Queue all that a worker had which is gone; if it was lost, count that against what was out."""
        self._refusals.left(worker.name)
        for address in list(self._held(worker)):
            actor = self._engine.actor(address)
            if lost and address in self.out:
                self._crashed(actor, worker)
            else:
                self.give_back(actor)

    def _crashed(self, actor: Actor, worker: Worker) -> None:
        """Count the loss of a worker; with the commit the work is queued again, or parked."""
        work, error = actor.turn or actor.batch, worker.loss()
        key = 0 if work is None else work.key
        self.recall(actor)

        def decide(at: Context, state: State | None) -> Decision:
            if state is None or state.instance.key != key or not state.instance.ready:
                return Decision(None, DONE)
            changes = stalls.crashed(at, state, error, self._delivery_limit)
            if changes.instance is not None and changes.instance.crashes.quarantined:
                log.warning("parked: each worker that gets it crashes", instance=actor.address[1], error=error)
                if actor.past is not None:
                    actor.past.add(row.event for row in changes.append)
            return Decision(changes, DONE)

        self._engine.tell(actor.address, decide)

    def sweep(self) -> None:
        """Hand out again what took longer than it may, and what was given back and has paused."""
        now = self._engine.clock.monotonic()
        for actor in [actor for actor in self.out.values() if actor.deadline <= now]:
            self._late(actor)
            self.give_back(actor)
        if self._refusals.resume(self._backlog):
            self._pump()
