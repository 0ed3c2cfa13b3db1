"""The actors that are in memory: all that are busy, and of the idle ones those that were used last."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.core.identity import Context
from sidecar.core.model import Decision, Reply, State

Address = tuple[str, str]  # hub and instance ID
Decide = Callable[[Context, State | None], Decision]
IDLE_ACTORS = 5_000


@dataclass(slots=True)
class Command:
    """One decision to take, and who waits for its outcome."""

    decide: Decide
    done: "asyncio.Future[Reply]"
    tries: int = 0


@dataclass(slots=True, eq=False)
class Actor:
    """An instance or entity in memory. `state` is None when there is none, and unknown until `loaded`."""

    address: Address
    state: State | None = None
    loaded: bool = False
    running: bool = False
    commands: deque[Command] = field(default_factory=deque)
    lease: object | None = None  # what a worker has of it, or is to get: only those who hand out work look into it
    watchers: dict["asyncio.Future[None]", None] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether it may be dropped from memory."""
        return not (self.running or self.commands or self.lease or self.watchers)

    def changed(self) -> None:
        """Tell those who watch that they should look again."""
        watchers, self.watchers = self.watchers, {}
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)


class Residents:
    """Actors by address; `forgotten` is told of each that leaves memory."""

    def __init__(self, forgotten: Callable[[Actor], None]) -> None:
        self._actors: OrderedDict[Address, Actor] = OrderedDict()
        self._forgotten = forgotten

    def __len__(self) -> int:
        return len(self._actors)

    def get(self, address: Address) -> Actor:
        """Return the actor of an address, in memory or fresh."""
        found = self._actors.get(address)
        if found is None:
            found = self._actors[address] = Actor(address)
            self._evict()
        else:
            self._actors.move_to_end(address)
        return found

    def find(self, address: Address) -> Actor | None:
        """Return the actor of an address if it is in memory; that it was looked at does not keep it there."""
        return self._actors.get(address)

    def all(self) -> list[Actor]:
        """Return all of them."""
        return list(self._actors.values())

    def drop_idle(self) -> None:
        """Drop those that nobody works on; they are read again when they are needed."""
        for actor in self.all():
            if actor.idle:
                self._drop(actor)

    def _evict(self) -> None:
        while len(self._actors) > IDLE_ACTORS:
            oldest = next(iter(self._actors.values()))
            if not oldest.idle:
                self._actors.move_to_end(oldest.address)
                return
            self._drop(oldest)

    def _drop(self, actor: Actor) -> None:
        del self._actors[actor.address]
        self._forgotten(actor)
