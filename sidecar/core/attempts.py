"""Work that costs its workers: how often that is borne, and from when on an item is suspected.

A crash is the loss of the stream of a worker that had an item and had not answered it.
"""

from dataclasses import dataclass
from typing import NamedTuple


class DeliveryAttempts(NamedTuple):
    """The crashes of an item since it was last answered. `parked`: no worker gets it until a person says so."""

    times: int = 0
    error: str = ""  # of the last one
    quarantined: bool = False

    def another(self, error: str) -> "DeliveryAttempts":
        """Return these and one more."""
        return DeliveryAttempts(self.times + 1, error)


NONE = DeliveryAttempts()


class Crash(NamedTuple):
    """One crash of the activity of a reminder."""

    reminder: int
    error: str


@dataclass(frozen=True, slots=True)
class DeliveryLimit:
    """How many deliveries of an item may end with a crash; None: any number."""

    most: int | None = None

    def is_over(self, crashes: DeliveryAttempts) -> bool:
        """Whether an item is handed out no more."""
        return self.most is not None and crashes.times >= self.most

    def on_probation(self, times: int) -> bool:
        """Whether a worker is to have no other item that is suspected, so that a crash tells them apart."""
        return self.most is not None and times >= max(1, self.most // 2)
