"""Bad moments of a sidecar: stopped for half a minute, held up, back after a day, ended under load, raced over."""

import asyncio
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sidecar.core import operations
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.ids import Ids
from sidecar.core.operations import Start
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite.store import open_store
from tests.blackbox.afterwards import further_workflows_finish, only
from tests.blackbox.harness import App, Sidecar
from tests.blackbox.test_misbehaving_workers import ask, turn
from tests.blackbox.test_statements_raw import end, finish, new_events
from tests.blackbox.wire import Caller, Fields, Worker, decode, text
from tests.conftest import Injected

pytestmark = [pytest.mark.timeout(150), pytest.mark.hard]

DAY = 86_400_000_000  # µs
EVENT_RAISED, CONTINUED_AS_NEW = 17, 2
AT_ONCE = 10_000
RAISES = 1_000


# Held up


def may_be_held_up(sidecar: Sidecar, seconds: float) -> None:
    plain = sidecar._command
    module = "tests.blackbox.blockloop"
    sidecar._command = lambda: [module if word == "sidecar" else word for word in plain()]  # type: ignore[method-assign]
    sidecar.environment["BLOCKLOOP"] = str(seconds)


def stand_still(sidecar: Sidecar, how: str, seconds: float) -> None:
    if how == "held up":
        sidecar.signal(signal.SIGUSR1)
        time.sleep(0.2)
        return
    sidecar.signal(signal.SIGSTOP)
    time.sleep(seconds)
    sidecar.signal(signal.SIGCONT)


@pytest.mark.fault(12, "What a worker has stays its own when the sidecar is stopped for 30 s; timers catch up once")
@pytest.mark.fault(40, "What a worker has stays its own when the event loop is held up for 5 s; its stream lives")
@pytest.mark.parametrize(("how", "seconds"), [("stopped", 30.0), ("held up", 5.0)])
def test_streams_and_work_survive_a_sidecar_that_stands_still(
    own_sidecar: Sidecar, injected: Injected, how: str, seconds: float
) -> None:
    """What a worker has stays its own, timers catch up once, and no worker is lost."""
    if how == "held up":
        may_be_held_up(own_sidecar, seconds)
    own_sidecar.start()
    with Caller(own_sidecar.port) as caller, caller.work(only("still"), timeout=120) as worker:
        timer = {1: 2, 4: {1: {1: int(time.time()) + 2}}}
        id = caller.call("StartInstance", {2: "still"})[1][0].decode()
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, "still"), timer))
        activity = worker.item()
        begun = time.monotonic()
        stand_still(own_sidecar, how, seconds)
        fired = worker.item()
        injected(1, f"times {how} for {seconds:g} s")
        assert time.monotonic() - begun >= seconds - 0.5
        assert len(new_events(fired, 13)) == 1
        caller.call("CompleteOrchestratorTask", turn(fired))
        assert finish(caller, activity, '"kept"') == ("OK", "")
        last = worker.item()
        assert Worker.TURN in last, "the activity was handed out again"
        assert not new_events(last, 13)
        caller.call("CompleteOrchestratorTask", turn(last, end()))
        further_workflows_finish(own_sidecar)
    assert id
    assert not any(line["worker"] == "worker 1" for line in own_sidecar.logged("worker disconnected")[:-1])


# After a day


async def seed(sidecar: Sidecar, count: int) -> list[str]:
    """Stores starts that were due a day ago, one after the other, in another order than they are stored in."""
    me = AppIdentity("default", sidecar.app)
    store = await open_store(me, sidecar.data, "5" * 32)
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)
    ids = Ids(store.next_key, store.next_order, lambda: f"{random.getrandbits(128):032x}")
    then = int(time.time() * 1e6) - 2 * DAY
    try:
        for first in range(0, count, 1000):
            batch = []
            for number in numbers[first : first + 1000]:
                started = pb.ExecutionStarted(name="late")
                id = f"late-{number:05}"
                started.instance.instance_id, started.instance.execution_id.value = id, f"e-{id}"
                wish = Start(Identity("default", id, f"e-{id}"), started, then + DAY + number)
                changes = operations.start(Context(me, then, ids), None, wish).changes
                assert changes is not None
                batch.append(changes)
            assert set(await store.commit(batch)) == {None}
    finally:
        await store.close()
    return [f"late-{number:05}" for number in range(count)]


def resident(sidecar: Sidecar) -> int:
    """The most memory that the process ever had, in MB."""
    status = Path(f"/proc/{sidecar.pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.fault(30, "10,000 reminders due at once come in order, each once; a new start takes under 1 s")
def test_ten_thousand_that_are_due_come_in_order_and_keep_nobody_out(own_sidecar: Sidecar, injected: Injected) -> None:
    expected = asyncio.run(seed(own_sidecar, AT_ONCE))
    own_sidecar.start()
    took = further_workflows_finish(own_sidecar, 1)
    found: list[str] = []
    with Caller(own_sidecar.port) as caller, caller.work(only("late", turns=50), timeout=140) as worker:
        for item in worker.items():
            found.append(decode(item[Worker.TURN][0])[1][0].decode())
            caller.call("CompleteOrchestratorTask", turn(item, end()))
            if len(found) == AT_ONCE:
                break
    injected(AT_ONCE, f"reminders due at once: a new start took {took:.2f} s, {resident(own_sidecar)} MB in all")
    assert sorted(found) == expected, "each once"
    assert found == expected, "in the order in which they were due"
    assert took < 1.0
    assert resident(own_sidecar) < 300
    further_workflows_finish(own_sidecar)


# Raises


@pytest.mark.fault(33, "1,000 events for a workflow that continues as new arrive once each, in order")
def test_no_event_is_lost_or_doubled_by_one_that_continues_as_new(own_sidecar: Sidecar, injected: Injected) -> None:
    """Each turn takes what has come and begins a new execution."""
    own_sidecar.start()
    with Caller(own_sidecar.port) as caller, caller.work(only("renews"), timeout=120) as worker:
        id = caller.call("StartInstance", {2: "renews"})[1][0].decode()

        def raise_all() -> None:
            with Caller(own_sidecar.port) as other:
                for number in range(RAISES):
                    other.call("RaiseEvent", {1: id, 2: "n", 3: text(str(number))})

        thread = threading.Thread(target=raise_all)
        thread.start()
        found: list[int] = []
        renewed = 0
        for item in worker.items():
            found += [int(decode(event[2][0])[1][0]) for event in new_events(item, EVENT_RAISED)]
            renewed += 1
            done = len(found) >= RAISES
            caller.call("CompleteOrchestratorTask", turn(item, end() if done else end("1", CONTINUED_AS_NEW)))
            if done:
                break
        thread.join()
    injected(renewed, f"executions that {RAISES} events went to")
    assert found == list(range(RAISES))
    assert renewed > 10
    further_workflows_finish(own_sidecar)


# The end


@pytest.mark.fault(38, "SIGTERM twice under load: exit code 0, nothing is lost, and no delivery counts")
def test_it_ends_under_load_with_exit_code_0_and_loses_nothing(
    own_sidecar: Sidecar, start_app: Callable[..., App], injected: Injected
) -> None:
    """SIGTERM, and once more; what was out is handed out again, and costs nobody a delivery."""
    own_sidecar.options = ["--max-deliveries", "1", "--drain-timeout", "1"]
    app = start_app("microsoft", own_sidecar.start())
    ids: list[str] = []
    for _ in range(3):
        ids += [app.start("chain", {"start": number, "steps": 10}) for number in range(20)]
        own_sidecar.signal(signal.SIGTERM)
        time.sleep(0.2)
        own_sidecar.stop()
        own_sidecar.start()
        app.reconnected()
    assert [app.output(id) for id in ids] == [number + 10 for _ in range(3) for number in range(20)]
    injected(6, f"SIGTERMs while {len(ids)} workflows ran")
    app.kill9()
    further_workflows_finish(own_sidecar)


# Races


class Race:
    """Clients that do anything to a few instances, and a worker that answers whatever comes."""

    COMMANDS = (
        ("StartInstance", {2: "raced"}),
        ("RaiseEvent", {2: "go"}),
        ("SuspendInstance", {}),
        ("ResumeInstance", {}),
        ("TerminateInstance", {3: 1}),
        ("PurgeInstances", {3: 1}),
        ("PurgeInstances", {3: 1, 4: 1}),
    )

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.seen: Counter[tuple[str, str]] = Counter()
        self.answered = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._client, args=[seed + number]) for number in range(4)]
        self.threads += [threading.Thread(target=self._worker, args=[seed + 100 + number]) for number in range(2)]

    def run(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        time.sleep(seconds)
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _client(self, seed: int) -> None:
        rng = random.Random(seed)
        with Caller(self.port) as caller:
            while not self.over.is_set():
                method, request = rng.choice(self.COMMANDS)
                code, _ = caller.status(method, {1: f"raced-{rng.randrange(8)}", **request})
                self.seen[method, code] += 1

    def _worker(self, seed: int) -> None:
        rng = random.Random(seed)
        with Caller(self.port) as caller, caller.work(only("raced", "sub", turns=5), timeout=60) as worker:
            while not self.over.is_set():
                try:
                    self._answer(rng, caller, worker.item())
                except grpc.RpcError:
                    return

    def _answer(self, rng: random.Random, caller: Caller, item: Fields) -> None:
        self.answered += 1
        if Worker.ACTIVITY in item:
            assert finish(caller, item, "1") == ("OK", "")
            return
        timer = {1: 3, 4: {1: {1: int(time.time()) + rng.randrange(3)}}}
        child = {1: 2, 3: {1: f"raced-{rng.randrange(8)}", 2: "sub"}}
        actions = rng.choice([[], [end()], [end("1", CONTINUED_AS_NEW)], [ask(1, "sub"), child, timer], [child]])
        caller.call("CompleteOrchestratorTask", turn(item, *actions))


@pytest.mark.fault(
    32, "Races of commands and answers over the same IDs end with codes that are true, and leave nothing behind"
)
def test_races_over_the_same_ids_leave_nothing_behind(own_sidecar: Sidecar, injected: Injected) -> None:
    """Purge, terminate, suspend, resume, raise and starts under the same IDs, with completions in flight."""
    seed_ = random.randrange(10**6)
    own_sidecar.start()
    race = Race(own_sidecar.port, seed_)
    race.run(10.0)
    injected(sum(race.seen.values()), f"commands beside {race.answered} answers, seed {seed_}")
    assert {code for _, code in race.seen} <= {"OK", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS"}
    assert min(Counter(method for method, _ in race.seen.elements()).values()) > 20
    with Caller(own_sidecar.port) as caller:
        for _ in range(3):
            for number in range(8):
                caller.call("PurgeInstances", {1: f"raced-{number}", 3: 1, 4: 1})
    further_workflows_finish(own_sidecar)
    time.sleep(1.0)
    own_sidecar.stop()
    with sqlite3.connect(own_sidecar.data / "default.orders.db") as store:
        left = {
            table: store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("reminders", "open_calls", "children")
        }
        logs = store.execute("SELECT count(*) FROM history WHERE key NOT IN (SELECT key FROM instances)").fetchone()[0]
    assert (left, logs) == ({"reminders": 0, "open_calls": 0, "children": 0}, 0)
    own_sidecar.start()
    further_workflows_finish(own_sidecar)
