"""Sidecars are killed with -9 at random moments under a mixed load; what was accepted comes out right.

All outputs are sums of what the activities return, and the histories are counted: every call that a workflow made
is answered there, once.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.blackbox.harness import App, CallError, Deployment, Sidecar, attempt, until
from tests.blackbox.wire import Caller, decode
from tests.conftest import Injected

KILLS = 32
MORE = 20
_LOAD_PAUSE = 0.05
_DRAIN_SECONDS = 90.0
# Events by number in a history: what is called, and what answers it (with the number of the field that says what).
_CALLS = {6: "activity", 9: "child"}
_ANSWERS = {7: ("activity", 1), 8: ("activity", 1), 10: ("child", 1), 11: ("child", 1), 13: ("timer", 2)}


class Work(NamedTuple):
    """A workflow to start, and the output it must have."""

    workflow: str
    input: Any
    output: Any


class Kill(NamedTuple):
    """When which sidecar was killed."""

    app: str
    when: float


class Started(NamedTuple):
    """A workflow that was accepted: when it was asked for, and when all that belongs to its start was acknowledged."""

    app: App
    id: str
    work: Work
    asked: float
    acknowledged: float


def anywhere(chance: random.Random) -> Work:
    """Work for an app of either dialect."""
    n = chance.randint(2, 8)
    return chance.choice(
        [
            Work("chain", {"start": n, "steps": 5}, n + 5),
            Work("fan_out", 10 * n, 10 * n * (10 * n - 1)),
            Work("sum_up", {"left": n}, n * (n + 1)),
            Work("timers", [0.1 * i for i in range(n)], n),
            Work("family", {"depth": 2, "width": n // 2}, (n // 2) ** 2),
            Work("call_child", {"name": "fan_out", "value": n}, n * (n - 1)),
            Work("wait_events", ["go"], ["went"]),
        ]
    )


def across(chance: random.Random) -> Work:
    """Work for an app that can call the other one."""
    if chance.random() < 0.6:
        return anywhere(chance)
    n = chance.randint(2, 8)
    return chance.choice(
        [
            Work("mixed_load", {"app": "ml", "width": n}, 2 * n * (n - 1)),
            Work("remote_call", {"app": "ml", "name": "double", "value": n}, 2 * n),
            Work("remote_child", {"app": "ml", "name": "sum_up", "value": {"left": n}}, n * (n + 1)),
        ]
    )


class Load:
    """Starts workflows in one app, one after the other, until it is stopped; remembers what was accepted."""

    def __init__(
        self, app: App, choose: Callable[[random.Random], Work], seed: int, pause: float = _LOAD_PAUSE
    ) -> None:
        self.started: list[Started] = []
        self.app = app
        self._choose = choose
        self._chance = random.Random(seed)
        self._pause = pause
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"load {app.label}")
        self._thread.start()

    def stop(self) -> list[Started]:
        self._stopping.set()
        self._thread.join()
        if self._error:
            raise self._error
        return self.started

    def begin(self, work: Work, number: int) -> Started:
        return begin(self.app, work, number)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._pause):
                self.started.append(self.begin(self._choose(self._chance), len(self.started)))
        except Exception as error:
            self._error = error


def begin(app: App, work: Work, number: int) -> Started:
    id, asked = f"{app.label}-{work.workflow}-{number}", time.time()
    attempt(app, "start", workflow=work.workflow, input=work.input, id=id)
    if work.workflow == "wait_events":
        attempt(app, "raise", id=id, name="go", value="went")
    return Started(app, id, work, asked, time.time())


def kill_at_random(sidecars: list[Sidecar], chance: random.Random) -> list[Kill]:
    """Kills at any moment, while a worker that has just come back is kept busy, and during a start."""
    kills = []
    while len(kills) < KILLS:
        sidecar = chance.choice(sidecars)
        if chance.random() < 0.6:
            until(lambda sidecar=sidecar: sidecar.metadata()["workflows"]["connectedWorkers"])
            time.sleep(chance.uniform(0, 0.6))
        else:
            time.sleep(chance.uniform(0, 2.5))
        kills.append(_kill(sidecar))
        if chance.random() < 0.2:
            sidecar.launch()
            time.sleep(chance.uniform(0.1, 1.0))
            kills.append(_kill(sidecar))
        sidecar.start()
    return kills


def _kill(sidecar: Sidecar) -> Kill:
    sidecar.kill9()
    return Kill(sidecar.app, time.time())


def lived_through(started: list[Started], kills: list[Kill]) -> int:
    """How many workflows were neither before nor after the kills of their sidecar, but went on after one."""
    answers = [(one.app, one.app.post("get", id=one.id)) for one in started]
    states = [(app.label, answer.result(60)) for app, answer in answers]
    return sum(
        any(app == kill.app and state["created_at"] < kill.when < state["updated_at"] for kill in kills)
        for app, state in states
    )


def wrong(started: list[Started], seconds: float) -> list[str]:
    """What has not come out as it must."""
    end = time.monotonic() + seconds
    found = []
    for app, id, work, *_ in started:
        state = ended(app, id, end - time.monotonic())
        if state is None:
            found.append(f"{id}: is gone")
        elif (state["status"], state["output"]) != ("COMPLETED", work.output):
            found.append(f"{id}: {state}, not {work.output}")
    return found


def ended(app: App, id: str, seconds: float) -> dict[str, Any] | None:
    """The state of an instance when it has ended, or when the time is over."""
    if seconds > 0:
        with suppress(CallError):
            return attempt(app, "wait", seconds=seconds, id=id, timeout=min(seconds, 20.0))
    return app.call("get", id=id)


def miscounted(started: list[Started]) -> list[str]:
    """The histories in which a call is not answered exactly once, or a timer fired twice."""
    found = []
    for port in {one.app.port for one in started}:
        with Caller(port) as caller:
            for id in (one.id for one in started if one.app.port == port):
                calls, answers = counted(caller.call("GetInstanceHistory", {1: id})[1])
                timers = {key for key in answers if key[0] == "timer"}
                if answers.keys() - timers != calls.keys() or set(answers.values()) > {1}:
                    found.append(f"{id}: calls {calls}, answers {answers}")
    return found


def counted(history: list[bytes]) -> tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]:
    """How often each call was made and answered: by kind and number."""
    calls: Counter[tuple[str, int]] = Counter()
    answers: Counter[tuple[str, int]] = Counter()
    for event in map(decode, history):
        for number in event.keys() & _CALLS.keys():
            calls[_CALLS[number], event[1][0]] += 1
        for number in event.keys() & _ANSWERS.keys():
            kind, field = _ANSWERS[number]
            answers[kind, decode(event[number][0])[field][0]] += 1
    return calls, answers


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, ("orders", "ml"))
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.start()
        deployment.app("orders", "dapr").start_process()
        deployment.app("ml", "microsoft").start_process()
        yield deployment
    finally:
        deployment.end()


@pytest.mark.fault(1, "What was accepted comes out right, and each call is answered once")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_counted_twice_when_sidecars_are_killed(
    deployment: Deployment, tell: Callable[[str], None], injected: Injected
) -> None:
    seed = random.randrange(10**6)
    tell(f"kill -9 at random moments, seed {seed}")
    orders, ml = deployment.apps["orders"], deployment.apps["ml"]
    loads = [Load(orders, across, seed), Load(ml, anywhere, seed + 1)]
    try:
        kills = kill_at_random(list(deployment.sidecars.values()), random.Random(seed))
    finally:
        started = [each for load in loads for each in load.stop()]
    injected(len(kills), "kills of a sidecar")
    count = Counter(kill.app for kill in kills)
    tell(f"{len(kills)} kills {dict(count)}, {len(started)} workflows accepted")
    assert wrong(started, _DRAIN_SECONDS) == []
    survivors = lived_through(started, kills)
    tell(f"{survivors} of them lived through at least one kill of their sidecar")
    assert miscounted(started) == []
    chance = random.Random(seed + 2)
    more = [begin(app, anywhere(chance), 100_000 + n) for n in range(MORE // 2) for app in (orders, ml)]
    assert wrong(more, 30) == []
    assert miscounted(more) == []
    assert len(kills) >= 30
    assert survivors >= 50, "too few workflows were at work when a sidecar was killed"
