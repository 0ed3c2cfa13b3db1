"""Actors that wait for workers: which do, what workers must be able to take to have them, and reading them again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping

from sidecar.actors.engine import Engine
from sidecar.actors.residents import Actor, Address
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.model import Instance
from sidecar.store.protocol import Ready
from sidecar.work.backoff import Refusals
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group, Lane, ReadyQueue
from sidecar.work.workers import Worker

PAGE = 5_000


class ActorQueue(ABC):
    """Actors of one kind. A hint over the store."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        waiting: ReadyQueue[Address],
        *,
        entities: bool,
        delivery_limit: DeliveryLimit,
        pump: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._waiting = waiting
        self._entities = entities
        self._delivery_limit = delivery_limit
        self._pump = pump
        self.refusals: Refusals[Address] = Refusals(engine.clock)

    @abstractmethod
    def _held_by(self, worker: Worker) -> MutableMapping[Address, str]:
        """Return the actors whose work a worker has, or is to get, with their names."""

    def queue(self, actor: Actor, instance: Instance) -> None:
        """Let an actor wait for a worker if it is ready and no worker has it."""
        if instance.ready and actor.lease is None:
            self._offer(actor.address, self.group_of(instance))
            self._pump()

    def _offer(self, address: Address, group: Group) -> None:
        """Put an actor into the queue, kept from workers that do not want it now."""
        self._waiting.offer(address, group._replace(excluded_workers=self.refusals.of(address)))

    def group_of(self, instance: Instance, size: int = 0) -> Group:
        """Return what workers must be able to take to have the work of an instance; `size` in bytes, 0 for any."""
        return self._group(instance, instance.crashes.times, size)

    def _group(self, found: Instance | Ready, crashes: int, size: int = 0) -> Group:
        on_probation = self._delivery_limit.on_probation(crashes)
        return Group(found.name, found.version or "", size, hub=found.hub, on_probation=on_probation)

    async def refill(self, lanes: frozenset[Lane] | None = None) -> None:
        """Queue what is ready in the store, of these lanes (None: of all), as far as it fits.

        Raises:
            UnavailableError: the store failed.
        """
        waiting = self._waiting
        waiting.refilling(lanes)
        after, more = 0, True
        while more and not waiting.has_share(lanes):
            page = await self._engine.store.ready(after, PAGE, self._entities)
            held = {address for worker in self._pool.workers for address in self._held_by(worker)}
            for found in page:
                address = (found.hub, found.id)
                if address not in held and (lanes is None or (found.hub, found.name) in lanes):
                    self._offer(address, self._group(found, found.crashes))
            more = len(page) == PAGE
            after = page[-1].key if page else after
