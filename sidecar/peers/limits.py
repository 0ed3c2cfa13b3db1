"""How large a message between two sidecars may be, and how large a reminder is as one. Pure."""

from typing import NamedTuple

from sidecar.core.model import Reminder

_FRAME_BYTES = 1024  # what a frame may have around its messages or its body, at most
_MESSAGE_BYTES = 256  # tags, lengths and numbers of one message, at most


class Limit(NamedTuple):
    """The largest frame, in bytes, that a link carries, and the app whose sidecar receives no larger one."""

    bytes: int
    app: str

    @property
    def room(self) -> int:
        """How many bytes the messages of a frame, or its body, may have."""
        return self.bytes - _FRAME_BYTES

    def refusal(self, what: str, size: int) -> str:
        """Say why `what` is not sent, which would have `size` bytes in a frame."""
        text = f"{what} has {size} bytes, and the sidecar of app '{self.app}' receives at most {self.room}"
        return f"{text}: send less, or raise its --max-message-bytes"


def size_of(reminder: Reminder) -> int:
    """Return how many bytes a reminder has in a frame, at most."""
    texts = (*reminder.source, *reminder.target, reminder.call.execution, reminder.name)
    return len(reminder.payload) + _MESSAGE_BYTES + sum(len(text.encode()) for text in texts)
