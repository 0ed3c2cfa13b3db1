"""Long reads of a store beside commits: what is read in pages may be gone by the time it is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Reads:
    """What went while a read of the store was under way: it may be in what was read all the same."""

    def __init__(self) -> None:
        self._gone: list[set[int]] = []

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], bool]]:
        """Enter a read; the function tells whether an item went since."""
        gone: set[int] = set()
        self._gone.append(gone)
        try:
            yield gone.__contains__
        finally:
            self._gone = [one for one in self._gone if one is not gone]

    def went(self, item: int) -> None:
        """Take note that an item is gone from the store."""
        for gone in self._gone:
            gone.add(item)
