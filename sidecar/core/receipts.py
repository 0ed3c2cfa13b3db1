"""What the stores of two apps know of each other's messages: which were received, accepted, forgotten or lost."""

from typing import NamedTuple


class Received(NamedTuple):
    """A message of another sidecar's store that was received here; it is remembered so that a copy changes nothing."""

    namespace: str
    app: str
    store: str
    id: int


class Delivered(NamedTuple):
    """A reminder that another store has accepted: it is deleted, or stays until its call is answered."""

    reminder: int
    store: str


class Forgotten(NamedTuple):
    """The other store has deleted its messages with IDs from `first` to below `below`: none of them will come again."""

    store: str
    below: int
    first: int = 0


class Lost(NamedTuple):
    """An app that has another store than the one that accepted our calls: these calls are to be sent again."""

    namespace: str
    app: str
    store: str
