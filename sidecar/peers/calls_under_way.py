"""Calls of other apps that are being taken in, and whether the answer to them has arrived meanwhile. No I/O.

After a start of either side calls are sent again. Such a copy may wait here, for the store or behind others, while the
answer to the first one arrives: then nothing that is stored tells that the call has been answered.

A caller that has gone back may make its call anew after it has passed over an answer that came too early. Until this
is heard of here that answer is on its way, as the store sees it, so that the call asks for nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from sidecar.core.ids import PeerId
from sidecar.core.model import CallId, Kind, Outcome, Reminder, Reply


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
        self._leaving: dict[tuple[PeerId, CallId], bool] = {}  # answers: whether the call came since they left

    def arrived(self, peer: PeerId, call: CallId) -> CallUnderWay:
        """Take note that an app has sent a call."""
        if (peer, call) in self._leaving:
            self._leaving[peer, call] = True
        found = self._calls.get((peer, call))
        if found is None:
            found = self._calls[peer, call] = CallUnderWay()
        return found

    @contextmanager
    def leaving(self, peer: PeerId, messages: Iterable[Reminder]) -> Iterator[None]:
        """Messages are under way to an app until this ends."""
        keys = [(peer, message.call) for message in messages if message.kind is Kind.RESULT]
        self._leaving.update(dict.fromkeys(keys, False))
        try:
            yield
        finally:
            for key in keys:
                self._leaving.pop(key, None)

    def goes_again(self, peer: PeerId, message: Reminder, reply: Reply) -> bool:
        """Return whether a message is an answer that nobody waited for though its call has come since it left.

        Else the app has its answer: if it sends the call after that, it has lost it.
        """
        if message.kind is not Kind.RESULT:
            return False
        key = peer, message.call
        if reply.outcome is not Outcome.DONE and self._leaving.get(key):
            return True
        found = self._calls.pop(key, None)
        if found is not None:
            found.answered = True
        return False
