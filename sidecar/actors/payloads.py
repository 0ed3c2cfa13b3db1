"""Payloads of reminders that wait, kept in memory as far as a number of bytes goes: the others are read when needed."""

from sidecar.core.model import Reminder

MOST_BYTES = 16 * 1024 * 1024
LARGEST = 64 * 1024  # of one that is kept
_OVERHEAD = 1_000  # of a reminder without its payload, about


class AtHand:
    """Reminders by ID. One that is not here must be read from the store."""

    def __init__(self, most_bytes: int = MOST_BYTES, largest: int = LARGEST) -> None:
        self._most = most_bytes
        self._largest = largest
        self._bytes = 0
        self._found: dict[int, Reminder] = {}

    def __len__(self) -> int:
        return len(self._found)

    def keep(self, reminder: Reminder) -> None:
        """Keep a reminder, if there is room."""
        self.discard(reminder.id)
        size = _size(reminder)
        if len(reminder.payload) <= self._largest and self._bytes + size <= self._most:
            self._found[reminder.id] = reminder
            self._bytes += size

    def get(self, reminder_id: int) -> Reminder | None:
        """Return a reminder, or None."""
        return self._found.get(reminder_id)

    def pop(self, reminder_id: int) -> Reminder | None:
        """Take a reminder out, or return None."""
        reminder = self._found.pop(reminder_id, None)
        self._bytes -= 0 if reminder is None else _size(reminder)
        return reminder

    def discard(self, reminder_id: int) -> None:
        """Forget a reminder."""
        self.pop(reminder_id)

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
        self._bytes = 0


def _size(reminder: Reminder) -> int:
    return len(reminder.payload) + _OVERHEAD
