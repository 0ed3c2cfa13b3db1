"""The activities, the same under both SDKs: plain functions of one JSON value."""

import os
import time
from collections.abc import Callable
from typing import Any

LABEL = os.environ.get("APP_LABEL", "")
_POLL_SECONDS = 0.02
_GATE_SECONDS = 60


def double(number: int) -> int:
    return 2 * number


def add_one(number: int) -> int:
    return number + 1


def echo(value: Any) -> Any:
    return value


def repeat(size: int) -> str:
    return "x" * size


def size(text: str) -> int:
    return len(text)


def who(_: Any) -> str:
    """Which app this is."""
    return LABEL


def who_slowly(seconds: float) -> list[Any]:
    """Which process this is, after a while."""
    time.sleep(seconds)
    return [LABEL, os.getpid()]


def broken(message: str) -> None:
    raise ValueError(message)


def flaky(call: dict[str, Any]) -> Any:
    """Fails `fail` times, then returns `value`. The file counts the attempts, over all processes."""
    attempt = note(call["file"], LABEL)
    if attempt <= call["fail"]:
        raise ValueError(f"attempt {attempt}")
    return call["value"]


def noted(call: dict[str, Any]) -> Any:
    """Leaves a line, so that a test can count executions."""
    note(call["file"], call["line"])
    return call.get("value")


def gate(call: dict[str, Any]) -> Any:
    """Says in the file `started` that it runs, and ends only when the file `until` is there."""
    note(call["started"], f"{LABEL} {os.getpid()}")
    end = time.monotonic() + _GATE_SECONDS
    while not os.path.exists(call["until"]):
        if time.monotonic() > end:
            raise TimeoutError("the gate was never opened")
        time.sleep(_POLL_SECONDS)
    return call.get("value")


def note(path: str, line: str) -> int:
    """Appends a line in one write and returns how many there are."""
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.write(descriptor, (line + "\n").encode())
        return os.pread(descriptor, 1 << 20, 0).count(b"\n")
    finally:
        os.close(descriptor)


ACTIVITIES: tuple[Callable[[Any], Any], ...] = (
    double,
    add_one,
    echo,
    repeat,
    size,
    who,
    who_slowly,
    broken,
    flaky,
    noted,
    gate,
)
