"""What the stores of two apps know of each other's messages: which were taken, accepted, forgotten, lost."""

from typing import NamedTuple


class Received(NamedTuple):
    """A message of another sidecar's store."""

    namespace: str
    app: str
    store: str
    id: int


class Delivered(NamedTuple):
    """A reminder that another store has accepted; it goes, or stays until its answer if it is held."""

    reminder: int
    store: str


class Forgotten(NamedTuple):
    """The other store holds no message with an ID in this range any more: none of them will come again."""

    store: str
    below: int
    first: int = 0


class Lost(NamedTuple):
    """An app whose store is another than the one that accepted our calls: they are to be sent again."""

    namespace: str
    app: str
    store: str
