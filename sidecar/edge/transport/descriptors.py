"""How many connections may be open, so that file descriptors are left for the database and for those who are here."""

import resource

RESERVED = 100  # the database, the log, links to peers, what libraries open
_MOST = 65_536
_FEWEST = 4


def raise_limit() -> None:
    """Let this process open as many files as it may: the soft limit is often low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_each(most: int, listeners: int) -> int:
    """Return how many connections each of so many listeners may have: `most`, or fewer where files are scarce."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return max(_FEWEST, min(most, (soft - RESERVED) // listeners))
