"""How many connections may be open, so that file descriptors are left for the database and for those who are here."""

from sidecar import system

RESERVED = 100  # the database, the log, links to peers, what libraries open
_MOST = 65_536
_FEWEST = 4


def raise_limit() -> None:
    """Let this process open as many files as it may: the soft limit is often low."""
    system.raise_most_files(_MOST)


def connections_each(most: int, listeners: int) -> int:
    """Return how many connections each of so many listeners may have: `most`, or fewer where files are scarce."""
    files = system.most_files()
    return most if files is None else max(_FEWEST, min(most, (files - RESERVED) // listeners))
