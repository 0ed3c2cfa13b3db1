"""The sources of new keys, order numbers and IDs."""

from collections.abc import Callable

PeerId = tuple[str, str]  # namespace and app ID of another app
LARGEST_NUMBER = 2**63 - 1  # that a store holds; peers and persons can name larger ones


class Ids:
    """Sources of new numbers and IDs, handed in so that a simulation can give them from a seed.

    `new_id` returns a fresh, unguessable text of 32 characters. `stored` is the highest order number that the store is
    known to have kept, and so does not give again.
    """

    def __init__(self, next_key: int, next_order: int, new_id: Callable[[], str], stored: int = 0) -> None:
        self.next_key = next_key
        self.next_order = next_order
        self.new_id = new_id
        self.stored = stored

    def key(self) -> int:
        """Return a key for an instance that no instance of this store ever had."""
        self.next_key += 1
        return self.next_key - 1

    def order(self) -> int:
        """Return the next order number for a reminder."""
        self.next_order += 1
        return self.next_order - 1
