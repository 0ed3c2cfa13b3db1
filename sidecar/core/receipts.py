"""What the stores of two apps know of each other's messages: which were received, accepted, forgotten or lost.

A store may lose time: it is restored, wiped, or goes back with the disk under it. Whatever the cause, its sidecar was
started after that, or takes itself for started anew. So what one side has taken in is believed for a *session*, which
is one start of each of the two sidecars. In the next one all calls without an answer are sent again.
"""

from typing import NamedTuple


class Received(NamedTuple):
    """A message of another sidecar that was received here; it is remembered so that a copy changes nothing.

    `store` is the identity of that sidecar's store, or the session for what is known by its call.
    """

    namespace: str
    app: str
    store: str
    id: int


class Delivered(NamedTuple):
    """A reminder that another app has accepted: it is deleted, or stays until its call is answered."""

    reminder: int
    session: str


class Forgotten(NamedTuple):
    """The other store has deleted its messages with IDs from `first` to below `below`: none of them will come again."""

    store: str
    below: int
    first: int = 0


class Lost(NamedTuple):
    """What an app had accepted in other sessions may be lost: these calls are to be sent again.

    Of its messages those of other stores, and the calls and answers of other sessions, need not be remembered.
    """

    namespace: str
    app: str
    store: str
    session: str
