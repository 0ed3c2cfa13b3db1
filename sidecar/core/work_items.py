"""What is handed to workers, in the form that is the same for every SDK."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass


class Frames:
    """Events encoded for one profile of workers and joined. Events that the profile does not read are left out."""

    def __init__(self) -> None:
        self.joined = bytearray()
        self._ends = array("Q", [0])  # by number of events: bytes that they take
        self._counts = array("Q", [0])  # by number of events: how many of them the profile reads

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, frame: bytes) -> None:
        """Append an encoded event; an empty frame stands for an event that the profile does not read."""
        self.joined += frame
        self._ends.append(len(self.joined))
        self._counts.append(self._counts[-1] + bool(frame))

    def upto(self, events: int) -> tuple[int, int]:
        """Return how many of the first `events` events the profile reads, and how many bytes these take."""
        return self._counts[events], self._ends[events]

    def within(self, size: int) -> int:
        """Return how many of the first events take at most `size` bytes."""
        return bisect_right(self._ends, size) - 1


class Past:
    """Events that a worker has seen, with their encodings by profile: each event is encoded once for a profile."""

    def __init__(self, events: list[bytes], lineage: bytes = b"") -> None:
        """`lineage` is the history of its callers that the instance was given."""
        self.events = events
        self.lineage = lineage
        self.size = sum(map(len, events)) + len(lineage)
        self._frames: dict[str, Frames] = {}

    def add(self, events: Iterable[bytes]) -> None:
        """Append the events of a turn that was completed."""
        fresh = list(events)
        self.events.extend(fresh)
        self.size += sum(map(len, fresh))

    def frames(self, profile: str, frame: Callable[[bytes], bytes]) -> Frames:
        """Return all events encoded for a profile; `frame` encodes those that have not been encoded yet."""
        frames = self._frames.setdefault(profile, Frames())
        for number in range(len(frames), len(self.events)):
            frames.add(frame(self.events[number]))
        return frames


@dataclass(frozen=True, slots=True)
class TurnItem:
    """A turn for a worker: the events that were seen of the instance before, and the new ones.

    `known` is the number of past events that the worker has kept; they are not sent again. `shown` is the number of
    those that it is told of with this item, None for all. `trace` is what a worker gave earlier to trace the execution
    by.
    """

    instance_id: str
    execution: str
    past: Past
    new: list[bytes]
    token: str
    known: int = 0
    trace: bytes = b""
    shown: int | None = None


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """An activity for a worker: an encoded `taskhub.ActivityRequest`.

    `span` are 32 hexadecimal digits of this delivery alone, from which the IDs to trace it by are made.
    """

    request: bytes
    token: str
    span: str


@dataclass(frozen=True, slots=True)
class EntityItem:
    """Operations for a worker to run on an entity: its state, None if it has none, and the encoded messages."""

    entity_id: str
    state: str | None
    operations: tuple[bytes, ...]
    token: str


def fitting(sizes: Iterable[int], room: int) -> int:
    """Return how many of the first of these sizes fit into so much room together. No more of them are read."""
    count = 0
    for size in sizes:
        room -= size
        if room < 0:
            break
        count += 1
    return count


WorkItem = TurnItem | ActivityItem | EntityItem
