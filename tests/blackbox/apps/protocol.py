"""The wire between a test and an app: commands arrive on stdin, answers leave on stdout, one JSON a line.

Knows no SDK. Commands run at the same time, each on a thread of its own, since some wait for a workflow.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc

_THREADS = 128


def serve(app: object) -> None:
    """Answers commands with the `do_…` methods of `app` until stdin ends, then leaves at once."""
    answers = _Answers()
    answers.send(0, {"ok": os.getpid()})
    with ThreadPoolExecutor(_THREADS) as pool:
        for line in sys.stdin:
            command = json.loads(line)
            pool.submit(_run, app, command.pop("n"), command, answers)
        os._exit(0)


class _Answers:
    """Keeps stdout to itself: what an SDK prints there goes to stderr instead."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def send(self, number: int, answer: Mapping[str, Any]) -> None:
        with self._lock:
            self._stream.write(json.dumps({"n": number, **answer}) + "\n")
            self._stream.flush()


def _run(app: object, number: int, command: dict[str, Any], answers: _Answers) -> None:
    try:
        method = getattr(app, "do_" + command.pop("op"))
        answers.send(number, {"ok": method(**command)})
    except TimeoutError as error:
        answers.send(number, {"code": "TIMEOUT", "text": str(error)})
    except grpc.RpcError as error:
        answers.send(number, {"code": error.code().name, "text": error.details()})
    except Exception as error:
        answers.send(number, {"code": type(error).__name__, "text": str(error)})


def described(state: Any) -> dict[str, Any] | None:
    """What a client sees of an instance; both SDKs name the fields alike."""
    if state is None:
        return None
    return {
        "id": state.instance_id,
        "name": state.name,
        "status": state.runtime_status.name,
        "input": decoded(state.serialized_input),
        "output": decoded(state.serialized_output),
        "custom_status": decoded(state.serialized_custom_status),
        "failure": failure(state.failure_details),
        "created_at": state.created_at.replace(tzinfo=UTC).timestamp(),
        "updated_at": state.last_updated_at.replace(tzinfo=UTC).timestamp(),
    }


def decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def failure(details: Any) -> dict[str, Any] | None:
    """The parts of a failure that both SDKs have."""
    if details is None:
        return None
    return {"type": details.error_type, "message": details.message, "stack": details.stack_trace}


def moment(seconds: float | None) -> datetime | None:
    """A time as a client passes it to an SDK."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
