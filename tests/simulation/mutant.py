"""What a deliberate bug is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug: in this file, this text becomes that.

    `tests` are the fast tests that find it, as pytest is told: paths from the root, and `-k` with words. Without any it
    is the simulation that must.
    """

    name: str
    layer: str
    file: str
    text: str
    becomes: str
    tests: str = ""
