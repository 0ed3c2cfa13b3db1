"""How far a long piece of work on a store is: told by who does it, shown by who watches. Pure."""

from collections.abc import Callable
from typing import NamedTuple


class At(NamedTuple):
    """What is being done, and how far it is: so many of so many. A total of 0: nobody knows of how many."""

    what: str
    done: int = 0
    total: int = 0


Progress = Callable[[At], None]


def unseen(at: At) -> None:
    """Nobody watches."""
