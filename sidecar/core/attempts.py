"""Deliveries that end with the loss of the worker: how many an item has had, and how many it may have.

A crash is the end of the stream of a worker that had an item and had not answered it, unless the worker said goodbye.
"""

from dataclasses import dataclass
from typing import NamedTuple

# A worker that gives an item back, or is stopped, is no sign that the item is at fault; that all do so for ever is.
_RETURNS = 3


class DeliveryAttempts(NamedTuple):
    """The crashes of an item since it was last answered. `quarantined`: no worker gets it until a person says so."""

    times: int = 0
    error: str = ""  # of the last one
    quarantined: bool = False

    def another(self, error: str) -> "DeliveryAttempts":
        """Return these attempts and one more that ended with this error."""
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
        """Whether an item with these attempts is not handed out again."""
        return self.most is not None and crashes.times >= self.most

    @property
    def most_returns(self) -> int:
        """How often an item may come back from workers that neither answered nor crashed; 0 for any number."""
        return _RETURNS * (self.most or 0)

    def is_futile(self, returns: int) -> bool:
        """Whether an item that came back so often, without an answer in between, is not to be tried for ever."""
        return 0 < self.most_returns <= returns

    def on_probation(self, times: int) -> bool:
        """Whether an item with so many crashes is on probation.

        A worker has at most one such item at a time: if it crashes, it is clear which item was the cause.
        """
        return self.most is not None and times >= max(1, self.most // 2)
