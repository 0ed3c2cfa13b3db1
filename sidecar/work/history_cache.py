"""What workers have seen of instances, kept in memory: the pasts that were used last, as many as fit."""

from collections import OrderedDict

from sidecar.actors.residents import Address
from sidecar.core.model import Changes, Turn
from sidecar.core.work_items import Past

LIMIT_BYTES = 128 * 1024 * 1024


class HistoryCache:
    """Pasts by address; all of them can be read again from the store."""

    def __init__(self) -> None:
        self._pasts: OrderedDict[Address, Past] = OrderedDict()
        self._sizes: dict[Address, int] = {}
        self._bytes = 0

    def get(self, address: Address) -> Past | None:
        """Return the past of an instance, None when it must be read."""
        return self._pasts.get(address)

    def use(self, address: Address, past: Past) -> None:
        """Keep the past of an instance as the one used last."""
        self._bytes += past.size - self._sizes.get(address, 0)
        self._pasts[address], self._sizes[address] = past, past.size
        self._pasts.move_to_end(address)
        while self._bytes > LIMIT_BYTES and len(self._pasts) > 1:
            self.forget(next(iter(self._pasts)))

    def committed(self, address: Address, changes: Changes, turn: Turn | None) -> None:
        """Move the past of an instance over changes; `turn` is the one that they complete, None if they complete none.

        An execution that begins has no past; what was told of those before it, it keeps, if it is told nothing else.
        """
        past, instance = self._pasts.get(address), changes.instance
        if past is None or instance is None:
            return
        if turn is not None and instance.execution != turn.execution:
            self.use(address, Past([], changes.lineage or past.lineage))
            return
        cut, rows = changes.truncate, () if turn is None else turn.rows
        taken = [row for row in rows if cut is None or row.position < cut]
        closed = (row for row in changes.append if row.turn <= instance.last_completed_turn)
        past.add(row.event for row in sorted((*taken, *closed)))

    def forget(self, address: Address) -> None:
        """Drop the past of an instance."""
        if self._pasts.pop(address, None) is not None:
            self._bytes -= self._sizes.pop(address)

    def drop(self) -> None:
        """Drop all of them."""
        self._pasts.clear()
        self._sizes.clear()
        self._bytes = 0
