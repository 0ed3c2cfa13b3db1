"""Ports for what the tests start: no other process of a test run on this machine draws the same ones.

They lie below those that the system gives to outgoing connections (32768 and up on Linux), so that a sidecar that is
started again finds its port free. Each process holds a block of them by a lock on a file, which ends with the process.
"""

import fcntl
import itertools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FIRST, _BLOCK, _BLOCKS = 20_000, 200, 60
_held: list[int] = []  # file descriptors of the locks


def free_port() -> int:
    """A port of this process's own that nothing listens on, neither on IPv4 nor on IPv6."""
    while True:
        port = next(_ports)
        with suppress(OSError), socket.socket() as four, socket.socket(socket.AF_INET6) as six:
            four.bind(("127.0.0.1", port))
            with suppress(OSError):  # a machine without IPv6
                six.bind(("::1", port))
            return port


def _own_block() -> Iterator[int]:
    """The ports of a block that no other process has, in turn."""
    directory = Path(tempfile.gettempdir()) / f"test-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    for block in random.sample(range(_BLOCKS), _BLOCKS):
        lock = os.open(directory / str(block), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _held.append(lock)
        first = _FIRST + block * _BLOCK
        yield from itertools.cycle(range(first, first + _BLOCK))
    raise RuntimeError(f"all {_BLOCKS} blocks of ports are taken: see who holds the files in {directory}")


_ports = _own_block()
