"""Which apps are dialled at the same time: all that the directory lists, and of the others so many, in turn. No I/O.

A pattern gives an address to any app ID, also to one that was made of data.
"""

from collections.abc import Callable

MOST_UNLISTED = 32


class DialLine:
    """The apps without an entry of their own that are dialled, and those that wait for that, each once.

    `dial` is called with the app whose turn has come.
    """

    def __init__(self, dial: Callable[[str], None]) -> None:
        self._dial = dial
        self._dialled: set[str] = set()
        self._waiting: dict[str, None] = {}

    def enter(self, app: str) -> bool:
        """Whether an app may be dialled now; else it waits for its turn."""
        if len(self._dialled) < MOST_UNLISTED:
            self._dialled.add(app)
            self._waiting.pop(app, None)
        else:
            self._waiting[app] = None
        return app in self._dialled

    def leave(self, app: str) -> None:
        """An app is dialled no longer, or has a link: it is the next one's turn."""
        if app in self._dialled:
            self._dialled.remove(app)
            following = next(iter(self._waiting), None)
            if following is not None:
                self._dial(following)
