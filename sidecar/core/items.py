"""Work for workers, in neutral form."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


class Past:
    """Events that a worker has seen, and the frames that were made of them for each dialect: each is framed once."""

    def __init__(self, events: list[bytes]) -> None:
        self.events = events
        self.size = sum(map(len, events))
        self._frames: dict[str, tuple[int, bytearray]] = {}

    def add(self, events: Iterable[bytes]) -> None:
        """Append the events of a turn that was completed."""
        fresh = list(events)
        self.events.extend(fresh)
        self.size += sum(map(len, fresh))

    def frames(self, profile: str, frame: Callable[[bytes], bytes]) -> bytearray:
        """Return all events framed for a dialect profile, joined."""
        done, joined = self._frames.get(profile, (0, bytearray()))
        for event in self.events[done:]:
            joined += frame(event)
        self._frames[profile] = (len(self.events), joined)
        return joined


@dataclass(frozen=True, slots=True)
class TurnItem:
    """A turn for a worker: what it has seen of the instance, and what is new.

    `rewind` says that it asks for a new history.
    """

    instance_id: str
    execution: str
    past: Past
    new: list[bytes]
    token: str
    rewind: bool = False


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """An activity for a worker: an encoded `taskhub.ActivityRequest`."""

    request: bytes
    token: str


WorkItem = TurnItem | ActivityItem
