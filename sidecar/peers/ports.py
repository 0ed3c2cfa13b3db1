"""What the outbox needs of links to other sidecars, whatever carries them."""

from collections.abc import Sequence
from typing import Protocol

from sidecar.core.causes import Cause
from sidecar.core.ids import PeerId
from sidecar.core.model import Reminder, Reply
from sidecar.peers.limits import Limit


class LinkBrokenError(Exception):
    """The link ended before the answer came: what was sent may have arrived or not."""


class Link(Protocol):
    """A connection to the sidecar of another app."""

    @property
    def peer(self) -> PeerId:
        """The app at its other end."""

    @property
    def store(self) -> str:
        """Identity of the store behind it."""

    @property
    def limit(self) -> Limit:
        """How much it carries at once."""

    @property
    def session(self) -> str:
        """What identifies this start of both sidecars and the store behind the link."""

    async def deliver(self, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        """Send messages and return the answer to each; `floor` is below every message that may still come.

        Raises:
            LinkBrokenError: there is no answer.
        """


class LinkFinder(Protocol):
    """Finds a link."""

    def link(self, namespace: str, app: str) -> Link | None:
        """Return a link to an app that is up, or None."""

    def knock(self, namespace: str, app: str) -> None:
        """Try to open a link to an app at once, if there is none."""

    def why(self, namespace: str, app: str) -> Cause:
        """Say why there is no link to an app."""
