"""Calls of other apps that are being taken in, and whether the answer to them has arrived meanwhile. No I/O.

After a start of either side calls are sent again. Such a copy may wait here, for the store or behind others, while the
answer to the first one arrives: then nothing that is stored tells that the call has been answered.
"""

from weakref import WeakValueDictionary

from sidecar.core.ids import PeerId
from sidecar.core.model import CallId


class CallUnderWay:
    """The copies of one call that are being taken in."""

    def __init__(self) -> None:
        self.answered = False  # since they came: they ask for nothing any more

    def is_answered(self) -> bool:
        """Return whether the app that made the call has its answer."""
        return self.answered


class CallsUnderWay:
    """The calls of all apps; each is known for as long as somebody holds what `arrived` has returned."""

    def __init__(self) -> None:
        self._calls: WeakValueDictionary[tuple[PeerId, CallId], CallUnderWay] = WeakValueDictionary()

    def arrived(self, peer: PeerId, call: CallId) -> CallUnderWay:
        """Take note that an app has sent a call."""
        found = self._calls.get((peer, call))
        if found is None:
            found = self._calls[peer, call] = CallUnderWay()
        return found

    def answered(self, peer: PeerId, call: CallId) -> None:
        """Take note that an app has the answer to a call. If it sends the call after that, it has lost the answer."""
        found = self._calls.pop((peer, call), None)
        if found is not None:
            found.answered = True
