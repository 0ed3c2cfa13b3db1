"""The pasts of instances that are kept in memory: those used last, as many as fit."""

from collections import OrderedDict

from sidecar.actors.engine import Actor, Address, Engine
from sidecar.core.work_items import Past

LIMIT_BYTES = 128 * 1024 * 1024


class HistoryCache:
    """Counts the bytes of the pasts that actors hold and drops those that were not used for longest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sizes: OrderedDict[Address, int] = OrderedDict()
        self._bytes = 0

    def use(self, actor: Actor, past: Past) -> None:
        """Count the past of an instance as used just now."""
        self._bytes += past.size - self._sizes.pop(actor.address, 0)
        self._sizes[actor.address] = past.size
        while self._bytes > LIMIT_BYTES and len(self._sizes) > 1:
            address, size = self._sizes.popitem(last=False)
            self._bytes -= size
            self._engine.actor(address).past = None

    def drop(self) -> None:
        """Drop all of them."""
        for address in list(self._sizes):
            self._engine.actor(address).past = None
        self._sizes.clear()
        self._bytes = 0

    def forget(self, actor: Actor) -> None:
        """Drop the past of an instance."""
        actor.past = None
        self._bytes -= self._sizes.pop(actor.address, 0)
