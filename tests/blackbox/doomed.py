"""A worker in a process of its own, which can be killed with what it has: `python -m tests.blackbox.doomed PORT NAME`.

It prints the field of its first item, and has that until it is killed; or until its input ends: then it says goodbye.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.blackbox.afterwards import only
from tests.blackbox.wire import Caller, Worker


@contextmanager
def doomed(port: int, name: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Such a process, and the field of the item that it has; it is stopped in good order unless it was killed."""
    command = [sys.executable, "-m", "tests.blackbox.doomed", str(port), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


def main(port: int, name: str) -> None:
    """Be the worker."""
    with Caller(port) as caller, caller.work(only(name), timeout=60) as worker:
        item = worker.item()
        print(Worker.TURN if Worker.TURN in item else Worker.ACTIVITY, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
