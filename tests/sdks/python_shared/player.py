"""The contract of the matrix for the programs in Python: knows no SDK."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol

OTHER_APP = os.environ.get("OTHER_APP", "other")
APP_ID = os.environ.get("APP_ID", "home")
RUN_ID = os.environ.get("RUN_ID", "run")
# What the scenario "inputs" gives to an activity, beside nothing at all, and what that must show.
INPUTS = ("text", 7, [1, 2], [], None, {"a": 1})
SHOWN = ['"text"', "7", "[1,2]", "[]", "null", '{"a":1}', "null"]
# How long the activity of the scenario "graceful-stop" takes.
LINGER_SECONDS = 4.0
_SCENARIO_SECONDS = 30.0
_POLL_SECONDS = 0.05

# Plays one scenario; what it returns, if anything, is what is missing although it passed.
Scenario = Callable[[], "str | None"]


class NotOffered(Exception):  # noqa: N818 - no error
    """The SDK has no API for it; the text says so in one line."""


class Failed(Exception):  # noqa: N818 - no error of ours
    """Something is not what it must be."""


class Side(Protocol):
    """The SDK's side of a program."""

    def start_worker(self) -> None: ...
    def stop_worker(self) -> None: ...
    def scenarios(self) -> Mapping[str, Scenario]: ...


def main(side: Side) -> None:
    """Does what the command line asks for."""
    out = _Out()
    mode, *names = sys.argv[1:]
    side.start_worker()
    out.write({"ready": True})
    if mode == "run":
        for name in names:
            out.write(_played(name, side.scenarios().get(name)))
    else:
        for line in sys.stdin:
            name = line.strip() or "hello"
            if mode == "idle":
                out.write(_played(name, side.scenarios().get(name)))
    side.stop_worker()
    # A scenario that hangs has left a thread.
    os._exit(0)


def _played(name: str, scenario: Scenario | None) -> dict[str, Any]:
    """The line of a scenario."""
    if scenario is None:
        return {"scenario": name, "result": "fail", "detail": "this program does not know it"}
    line: dict[str, Any] = {"scenario": name, "result": "fail", "detail": "timed out"}
    begin = time.monotonic()
    thread = threading.Thread(target=_play, args=[scenario, line], daemon=True)
    thread.start()
    thread.join(_SCENARIO_SECONDS)
    return {**line, "seconds": round(time.monotonic() - begin, 3)}


def _play(scenario: Scenario, line: dict[str, Any]) -> None:
    try:
        detail = scenario()
        outcome = {"result": "pass", "detail": detail or ""}
    except NotOffered as reason:
        outcome = {"result": "not offered", "detail": str(reason)}
    except Failed as error:
        outcome = {"result": "fail", "detail": str(error)}
    except Exception as error:
        outcome = {"result": "fail", "detail": f"{type(error).__name__}: {error}"}
    line.update(outcome)


class _Out:
    """Keeps standard output to itself: what an SDK prints goes to standard error."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def write(self, line: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


# --- what scenarios compare and wait with --------------------------------------------------------------------------


def same(actual: Any, wanted: Any, what: str) -> None:
    if actual != wanted:
        raise Failed(f"{what}: expected {_short(wanted)}, got {_short(actual)}")


def holds(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def until(check: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    """The first true value of `check`."""
    end = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > end:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(_POLL_SECONDS)
    return value


def eventually(check: Callable[[], Any], passing: type[Exception]) -> None:
    """Waits for a true value as long as the scenario may take; what fails meanwhile is asked again."""
    while True:
        with suppress(passing):
            if check():
                return
        time.sleep(2 * _POLL_SECONDS)


def early(wait: Callable[[], Any], begin: Callable[[], Any]) -> Any:
    """Begins a wait half a second before what it waits for, and returns what it gives."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        time.sleep(0.5)
        holds(not waiting.done(), "the wait ended before there was anything")
        begin()
        return waiting.result()


@contextmanager
def raises(kind: type[BaseException], what: str, text: str = "") -> Iterator[list[BaseException]]:
    """Expects an error with a text in it; the error is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        if text not in str(error):
            raise Failed(f"{what}: expected an error with '{text}', got {_short(str(error))}") from error
        caught.append(error)
    else:
        raise Failed(f"{what}: expected {kind.__name__}, got nothing")


def new_id(name: str) -> str:
    """An instance ID of this run."""
    return f"{RUN_ID}-{name}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}… ({len(text)} characters)"
