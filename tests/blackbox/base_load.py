"""The base load of fault tests, played without an SDK, and the oracle outside the system: what must come of it.

Each workflow fans out to three activities, sleeps, calls a child, and waits for an event; a child runs one activity.
What a client was told is kept here; so is each run of an activity.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import grpc
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.schema import taskhub_pb2 as pb
from tests.blackbox.harness import HOST, until
from tests.blackbox.test_crash import counted
from tests.blackbox.wire import SERVICE, decode

TASKS = (1, 2, 3)
TIMER, CHILD = 4, 5
COMPLETED = 1
# A caller may be told these while a fault lasts; anything else is a mistake.
TROUBLE = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)]


class BaseLoad:
    """A client and a worker beside one sidecar, which may come and go. `seen` counts the statuses of its calls."""

    def __init__(self, port: int, label: str = "w") -> None:
        self.accepted: dict[str, int] = {}  # workflows whose start was acknowledged, with their number
        self.raised: set[str] = set()  # of them, those whose event was
        self.ran: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.asleep: set[str] = set()
        self._label = label
        self._numbers = itertools.count(1)
        self._channel = grpc.insecure_channel(
            f"{HOST}:{port}",
            [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
        )
        self._pool = ThreadPoolExecutor(16)
        self._ending = threading.Event()
        self._stream: grpc.Call | None = None
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._stream is not None:
            self._stream.cancel()
        self._worker.join()
        self._pool.shutdown()
        self._channel.close()

    # ------------------------------------------------------------ the client

    def start(self, size: int = 0) -> str:
        """Start a workflow with an input of a size and raise its event; return the status of the start."""
        number = next(self._numbers)
        instance_id = f"{self._label}-{number}"
        data = StringValue(value=f'"{number}{"x" * size}"')
        code, _ = self.call("StartInstance", pb.CreateInstanceRequest(instance_id=instance_id, name="base", input=data))
        if code == "OK":
            self.accepted[instance_id] = number
            self._raise(instance_id)
        return code

    def _raise(self, instance_id: str) -> None:
        event = pb.RaiseEventRequest(instance_id=instance_id, name="go", input=StringValue(value="1"))
        if instance_id not in self.raised and self.call("RaiseEvent", event)[0] == "OK":
            self.raised.add(instance_id)

    def call(self, method: str, request: Message, seconds: float = 10.0) -> tuple[str, bytes]:
        """Status and answer of a call, whatever they are."""
        try:
            call = self._channel.unary_unary(SERVICE + method)
            answer: bytes = call(request.SerializeToString(), timeout=seconds)
        except grpc.RpcError as error:
            code, answer = error.code().name, (error.details() or "").encode()
        else:
            code = "OK"
        self.seen[code] += 1
        return code, answer

    def status(self, instance_id: str) -> tuple[int, str] | None:
        """Status and output of an instance; None if it is not there or cannot be seen."""
        request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=True)
        code, answer = self.call("GetInstance", request)
        found = pb.GetInstanceResponse.FromString(answer) if code == "OK" else pb.GetInstanceResponse()
        return (found.state.status, found.state.output.value) if found.exists else None

    def sleep_until(self, instance_id: str, due: float) -> None:
        """Start a workflow that sleeps until a time, and return once it sleeps."""
        data = StringValue(value=str(int(due * 1e6)))
        request = pb.CreateInstanceRequest(instance_id=instance_id, name="sleeper", input=data)
        assert self.call("StartInstance", request)[0] == "OK"
        until(lambda: instance_id in self.asleep, 10, f"{instance_id} sleeps")

    def ended(self, instance_id: str) -> bool:
        """Whether an instance has completed."""
        state = self.status(instance_id)
        return state is not None and state[0] == COMPLETED

    # ------------------------------------------------------------ the oracle

    def all_is_right(self, seconds: float = 40.0) -> int:
        """Wait for all that was accepted and check it: ACK, ONE, LIVE, CODE. Returns how many workflows that were."""
        end = time.monotonic() + seconds
        for instance_id, number in self.accepted.items():
            until(lambda one=instance_id: self._has_ended(one), max(1.0, end - time.monotonic()), f"{instance_id} ends")
            assert self.status(instance_id) == (COMPLETED, f'"{number}"'), instance_id
            code, answer = self.call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id=instance_id))
            assert code == "OK"
            calls, answers = counted(decode(answer)[1])
            timers = [key for key in answers if key[0] == "timer"]
            assert len(timers) == 1
            assert answers == calls + Counter(timers), f"{instance_id}: {calls} {answers}"
            assert all(self.ran[f"{instance_id}/{task}"] for task in TASKS), "answered and never run"
        assert not set(self.seen) - TROUBLE - {"OK", "ALREADY_EXISTS", "NOT_FOUND"}, self.seen
        return len(self.accepted)

    def _has_ended(self, instance_id: str) -> bool:
        self._raise(instance_id)  # in case that it was not acknowledged; a second one is not looked at
        return self.ended(instance_id)

    def and_then(self, count: int = 10, seconds: float = 40.0) -> None:
        """So many further workflows finish."""
        end = time.monotonic() + seconds
        done = 0
        while done < count:
            assert time.monotonic() < end, f"only {done} further workflows could be started"
            done += self.start() == "OK"
        self.all_is_right(max(1.0, end - time.monotonic()))

    # ------------------------------------------------------------ the worker

    def _work(self) -> None:
        while not self._ending.is_set():
            with suppress(grpc.RpcError, RuntimeError):
                self._stream = self._channel.unary_stream(SERVICE + "GetWorkItems")(b"")
                for item in self._stream:
                    self._pool.submit(self._answer, decode(item))
            self._ending.wait(0.05)

    def _answer(self, item: dict[int, list[bytes]]) -> None:
        token = item[10][0].decode() if 10 in item else ""
        if 1 in item:
            turn = decode(item[1][0])
            events = [pb.HistoryEvent.FromString(event) for event in (*turn.get(3, ()), *turn[4])]
            instance_id = turn[1][0].decode()
            wanted = actions(instance_id, events)
            response = pb.OrchestratorResponse(instance_id=instance_id, actions=wanted, completion_token=token)
            if self.call("CompleteOrchestratorTask", response, 60.0)[0] == "OK" and wanted[:1]:
                self.asleep.add(instance_id)
        elif 2 in item:
            request = pb.ActivityRequest.FromString(item[2][0])
            instance_id = request.instance.instance_id
            self.ran[f"{instance_id}/{request.task_id}"] += 1
            result = pb.ActivityResponse(instance_id=instance_id, task_id=request.task_id, completion_token=token)
            result.result.value = "1"
            self.call("CompleteActivityTask", result, 60.0)


def actions(instance_id: str, events: list[pb.HistoryEvent]) -> list[pb.Action]:
    """What the workflow wants next, beside what its history shows that it has."""
    had = {event.event_id for event in events if event.WhichOneof("kind") in _CALLS}
    kinds = Counter(event.WhichOneof("kind") for event in events)
    begun = next(event.execution_started for event in events if event.HasField("execution_started"))
    if begun.name == "sleeper":
        steps = _sleeper(kinds, begun)
    else:
        steps = _child(kinds) if begun.name == "leaf" else _base(instance_id, events, begun)
    return [action for action in steps if action.id not in had]


_CALLS = ("task_scheduled", "timer_created", "child_created")


def _child(kinds: Counter[str | None]) -> Iterator[pb.Action]:
    yield _activity(1)
    if kinds["task_completed"]:
        yield _end('"leaf"')


def _sleeper(kinds: Counter[str | None], begun: pb.ExecutionStarted) -> Iterator[pb.Action]:
    timer = pb.Action(id=TIMER)
    timer.create_timer.fire_at.FromMicroseconds(int(begun.input.value))
    yield timer
    if kinds["timer_fired"]:
        yield _end('"slept"')


def _base(instance_id: str, events: list[pb.HistoryEvent], begun: pb.ExecutionStarted) -> Iterator[pb.Action]:
    kinds = Counter(event.WhichOneof("kind") for event in events)
    yield from map(_activity, TASKS)
    if kinds["task_completed"] == len(TASKS):
        timer = pb.Action(id=TIMER)
        now = next(event.timestamp for event in reversed(events) if event.HasField("orchestrator_started"))
        timer.create_timer.fire_at.FromMicroseconds(now.ToMicroseconds() + 50_000)
        yield timer
    if kinds["timer_fired"]:
        yield pb.Action(id=CHILD, create_child=pb.CreateChild(instance_id=f"{instance_id}-leaf", name="leaf"))
    if kinds["child_completed"] and kinds["event_raised"]:
        yield _end(f'"{begun.input.value.strip(chr(34)).rstrip("x")}"')


def _activity(task: int) -> pb.Action:
    return pb.Action(id=task, schedule_task=pb.ScheduleTask(name="one", input=StringValue(value="1")))


def _end(result: str) -> pb.Action:
    return pb.Action(id=999, complete=pb.Complete(status=COMPLETED, result=StringValue(value=result)))
