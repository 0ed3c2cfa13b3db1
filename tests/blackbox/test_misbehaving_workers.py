"""Workers that no SDK would be: silent, late, many times over, with another's token, with garbage, or too much."""

import random
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import grpc
import pytest

from sidecar.schema import admin_pb2 as admin
from tests.blackbox.afterwards import further_workflows_finish, only
from tests.blackbox.doomed import doomed
from tests.blackbox.harness import DIALECTS, App, Sidecar, lines, until
from tests.blackbox.test_statements_raw import end, finish, history, new_events, output_of
from tests.blackbox.wire import Caller, Fields, Message, Worker, decode, encode, text
from tests.conftest import Injected

pytestmark = [pytest.mark.timeout(90), pytest.mark.hard]

TERMINATED, CONTINUED_AS_NEW = 5, 2
TASK_SCHEDULED, TASK_COMPLETED, TASK_FAILED = 6, 7, 8
LEASE = 1.0
_numbers = count(1)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    process = Sidecar("orders", tmp_path_factory.mktemp("misbehaving"))
    process.options = ["--turn-timeout", str(LEASE)]
    try:
        yield process.start()
    finally:
        process.kill9()


@pytest.fixture
def caller(beside: Sidecar) -> Iterator[Caller]:
    with Caller(beside.port) as caller:
        yield caller
    further_workflows_finish(beside)


@pytest.fixture
def name() -> str:
    """Of a workflow and its activity that no other test has."""
    return f"odd-{next(_numbers)}"


def start(caller: Caller, name: str, id: str = "") -> str:
    return caller.call("StartInstance", {1: id or name, 2: name})[1][0].decode()


def turn(item: Fields, *actions: Message, id: str = "", token: bytes = b"") -> bytes:
    """An answer to a turn."""
    instance = id or decode(item[Worker.TURN][0])[1][0]
    return encode({1: instance, 2: list(actions), 4: token or item[Worker.TOKEN][0]})


def ask(number: int, name: str) -> Message:
    return {1: number, 2: {1: name, 3: text("1")}}


def status(caller: Caller, id: str) -> int | None:
    answer = caller.call("GetInstance", {1: id})
    return decode(answer[2][0]).get(4, [0])[0] if answer.get(1) == [1] else None


def tree(caller: Caller, id: str) -> admin.TreeNode:
    call = caller._channel.unary_unary("/sidecar.admin.AdminService/GetTree")
    return admin.TreeNode.FromString(call(admin.GetTreeRequest(instance_id=id).SerializeToString(), timeout=5))


def is_stalled(caller: Caller, id: str) -> bool:
    """Clients of this family know no such status, and are told that it runs."""
    return tree(caller, id).status == "STALLED"


def fail_call(caller: Caller, id: int, reason: str) -> None:
    call = caller._channel.unary_unary("/sidecar.admin.AdminService/FailCall")
    call(admin.FailCallRequest(id=id, reason=reason).SerializeToString(), timeout=5)


# Silent


@pytest.mark.fault(16, "A turn that is never answered is handed out again under another token; one answer counts")
def test_a_turn_that_is_never_answered_is_handed_out_again_under_another_token(
    caller: Caller, name: str, injected: Injected
) -> None:
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        items = list(islice(worker.items(), 4))
        injected(3, "turns not answered")
        assert len({item[Worker.TOKEN][0] for item in items}) == 4
        assert caller.status("CompleteOrchestratorTask", turn(items[1], end('"late"'))) == ("OK", "")
        for other in (items[0], *items[2:]):
            assert caller.status("CompleteOrchestratorTask", turn(other, end('"later"'))) == ("OK", "")
    assert output_of(caller, id) == '"late"'


@pytest.mark.fault(17, "An activity whose worker loses its connection is not counted, nor run again at once")
def test_an_activity_whose_worker_loses_its_connection_is_not_taken_for_one_that_crashes(
    caller: Caller, name: str, injected: Injected
) -> None:
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, name)))
        activity = worker.item()
        caller.lose()
    for _ in range(3):
        with Caller(caller.port) as again, again.work(only(name), timeout=1):
            until(lambda: tree(again, id).waits, 5)
            again.lose()
    injected(4, "connections of a worker broken")
    with Caller(caller.port) as last:
        (wait,) = tree(last, id).waits
        assert (wait.state, wait.crashes) == ("running", 0)
        assert finish(last, activity, '"in the end"') == ("OK", "")
        with last.work(only(name)) as worker:
            last.call("CompleteOrchestratorTask", turn(worker.item(), end('"done"')))
        assert output_of(last, id) == '"done"'


@pytest.mark.fault(16, "An activity that is never answered is seen, not run again, and a person can let it fail")
def test_an_activity_that_is_never_answered_is_seen_and_not_run_again(
    caller: Caller, name: str, injected: Injected
) -> None:
    """Its stream lives, so it may be at work; a person may let it fail."""
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, name)))
        item = worker.item()
        with caller.work(only(name), timeout=3 * LEASE) as other, pytest.raises(grpc.RpcError):
            other.item()
        injected(1, "activity not answered")
        (wait,) = tree(caller, id).waits
        assert (wait.kind, wait.name, wait.state, wait.crashes) == ("activity", name, "running", 0)
        fail_call(caller, int(item[Worker.TOKEN][0].split(b".")[1]), "it hangs")
        failed = worker.item()
        ((details,),) = [event[2] for event in new_events(failed, TASK_FAILED)]
        assert decode(details)[1] == [b"CallFailedByOperator"]
        assert finish(caller, item, "1") == ("OK", "")
        caller.call("CompleteOrchestratorTask", turn(failed, end()))
    assert len(history(caller, id, TASK_FAILED)) == 1
    assert not history(caller, id, TASK_COMPLETED)


# Late


def terminate(caller: Caller, name: str, id: str) -> None:
    caller.call("TerminateInstance", {1: id})


def purge(caller: Caller, name: str, id: str) -> None:
    caller.call("PurgeInstances", {1: id, 4: 1})


def reuse(caller: Caller, name: str, id: str) -> None:
    terminate(caller, name, id)
    start(caller, name, id)


def suspend(caller: Caller, name: str, id: str) -> None:
    caller.call("SuspendInstance", {1: id})


@pytest.mark.parametrize(
    ("meanwhile", "expected"), [(terminate, {TERMINATED}), (purge, {None}), (reuse, {0, 6}), (suspend, {7})]
)
@pytest.mark.fault(14, "An answer that comes after terminate, purge, suspend or reuse of the ID changes nothing")
def test_an_answer_that_comes_after_its_time_changes_nothing(
    caller: Caller,
    name: str,
    meanwhile: Callable[[Caller, str, str], None],
    expected: set[int | None],
    injected: Injected,
) -> None:
    """For a turn and for an activity that was asked for before."""
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, name)))
        activity = worker.item()
        caller.call("RaiseEvent", {1: id, 2: "go"})
        late = worker.item()
        assert Worker.TURN in late
        meanwhile(caller, name, id)
        assert finish(caller, activity, '"late"') == ("OK", "")
        assert caller.status("CompleteOrchestratorTask", turn(late, ask(2, name), end('"late"'))) == ("OK", "")
        injected(2, "answers too late")
        assert status(caller, id) in expected
        assert not history_of(caller, id, TASK_SCHEDULED, above=1)
    caller.status("PurgeInstances", {1: id, 4: 1})


def history_of(caller: Caller, id: str, kind: int, above: int) -> list[Fields]:
    """The events of a kind beyond so many; none of an instance that is gone."""
    try:
        return history(caller, id, kind)[above:]
    except grpc.RpcError:
        return []


@pytest.mark.fault(14, "An answer to an execution that has continued as new does not reach the next")
def test_answers_of_an_earlier_execution_do_not_reach_the_one_that_follows(
    caller: Caller, name: str, injected: Injected
) -> None:
    """Continue-as-new, with a call of the same number open in both."""
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        first = worker.item()
        caller.call("CompleteOrchestratorTask", turn(first, ask(1, name)))
        old = worker.item()
        caller.call("RaiseEvent", {1: id, 2: "go"})
        caller.call("CompleteOrchestratorTask", turn(worker.item(), end("2", CONTINUED_AS_NEW)))
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, name)))
        fresh = worker.item()
        assert finish(caller, old, '"old"') == ("OK", "")
        assert caller.status("CompleteOrchestratorTask", turn(first, end('"old"'))) == ("OK", "")
        injected(2, "answers too late")
        assert finish(caller, fresh, '"new"') == ("OK", "")
        last = worker.item()
        assert [decode(event[2][0])[1] for event in new_events(last, TASK_COMPLETED)] == [[b'"new"']]
        caller.call("CompleteOrchestratorTask", turn(last, end('"right"')))
    assert output_of(caller, id) == '"right"'


# Many times over, or not its own


@pytest.mark.parametrize("times", [2, 100])
@pytest.mark.fault(13, "An answer that comes 2 or 100 times counts once")
def test_an_answer_that_comes_many_times_counts_once(caller: Caller, name: str, times: int, injected: Injected) -> None:
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        answer = turn(worker.item(), ask(1, name))
        assert {caller.status("CompleteOrchestratorTask", answer) for _ in range(times)} == {("OK", "")}
        activity = worker.item()
        assert {finish(caller, activity, f'"{number}"') for number in range(times)} == {("OK", "")}
        item = worker.item()
        assert {caller.status("CompleteOrchestratorTask", turn(item, end())) for _ in range(times)} == {("OK", "")}
    injected(3 * (times - 1), "answers too many")
    assert len(history(caller, id, TASK_SCHEDULED)) == len(history(caller, id, TASK_COMPLETED)) == 1


@pytest.mark.fault(15, "An answer with the token of another instance changes neither")
def test_the_token_of_another_instance_opens_nothing(caller: Caller, name: str, injected: Injected) -> None:
    with caller.work(only(name)) as worker:
        items = {}
        for id in (start(caller, name, f"{name}-a"), start(caller, name, f"{name}-b")):
            items[id] = worker.turn_of(id)
        a, b = items
        for target, token in (
            (a, items[b][Worker.TOKEN][0]),
            (b, items[a][Worker.TOKEN][0]),
            ("nobody", b"t.x.default"),
        ):
            answer = turn(items[a], end('"stolen"'), id=target, token=token)
            assert caller.status("CompleteOrchestratorTask", answer) == ("OK", "")
        injected(3, "answers with a token of another")
        for id, item in items.items():
            caller.call("CompleteOrchestratorTask", turn(item, end(f'"{id}"')))
    assert [output_of(caller, id) for id in items] == [f'"{id}"' for id in items]


@pytest.mark.fault(25, "Answers with spoiled bytes are refused or understood, and the sidecar goes on")
def test_garbage_in_the_place_of_answers(caller: Caller, name: str, beside: Sidecar, injected: Injected) -> None:
    """Answers with flipped, lost and added bytes. Each is refused or understood; nobody else notices."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    seen: dict[str, int] = {}
    with caller.work(only(name)) as worker:
        id = start(caller, name)
        answer = turn(worker.item(), ask(1, name), {1: 2, 4: {1: {1: 4_000_000_000}}}, {1: 3, 5: {1: {1: "x"}, 2: "e"}})
        for _ in range(400):
            code, _ = caller.status("CompleteOrchestratorTask", spoiled(rng, answer))
            seen[code] = seen.get(code, 0) + 1
    injected(seen["INVALID_ARGUMENT"], f"spoiled answers refused of {sum(seen.values())}, seed {seed}")
    assert set(seen) <= {"OK", "INVALID_ARGUMENT"}
    assert seen["INVALID_ARGUMENT"] > 50
    assert beside.running
    caller.status("PurgeInstances", {1: id, 4: 1})


def spoiled(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(found))
        how = rng.randrange(3)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del found[at : at + rng.randint(1, 5)]
        else:
            found[at:at] = rng.randbytes(rng.randint(1, 5))
    return bytes(found)


# Too much


@pytest.mark.slow
@pytest.mark.fault(29, "Results that grow until no worker can receive the turn stall their workflow alone")
def test_results_that_grow_without_end_stall_their_workflow_alone(own_sidecar: Sidecar, injected: Injected) -> None:
    """1, 2, 4 … MB until a turn is more than its worker receives; it says so, and others go on."""
    own_sidecar.start()
    with Caller(own_sidecar.port) as caller, caller.work(only("greedy")) as worker:
        id = start(caller, "greedy")
        size, sent = 1 << 20, 0
        while not is_stalled(caller, id):
            assert size < 1 << 27, "no limit was met"
            item = next_or_stalled(caller, worker, id)
            if item is None:
                break
            caller.call("CompleteOrchestratorTask", turn(item, ask(1, "greedy")))
            code, _ = finish(caller, worker.item(), "x" * size)
            sent += size
            if code != "OK":
                assert code == "RESOURCE_EXHAUSTED"
                break
            size *= 2
        injected(sent >> 20, "MB of results")
        further_workflows_finish(own_sidecar)
        caller.call("PurgeInstances", {1: id, 4: 1})
    assert status_after(own_sidecar, id) is None


def next_or_stalled(caller: Caller, worker: Worker, id: str) -> Fields | None:
    """The next turn, or None when the workflow says that no worker can receive it."""
    until(lambda: is_stalled(caller, id) or tree(caller, id).waits[-1].state == "running", 20)
    return None if is_stalled(caller, id) else worker.item()


def status_after(sidecar: Sidecar, id: str) -> int | None:
    with Caller(sidecar.port) as caller:
        return status(caller, id)


# Deadly


@pytest.fixture
def strict(own_sidecar: Sidecar) -> Sidecar:
    """A sidecar that bears the loss of four workers."""
    own_sidecar.options = ["--max-deliveries", "4"]
    return own_sidecar.start()


def lose_workers(sidecar: Sidecar, name: str, wanted: int) -> int:
    """Kills workers that have an item, so many times; the sidecar is killed, and stopped, while one has it too."""
    lost = 0
    for number in count():
        with doomed(sidecar.port, name) as (process, kind):
            if kind != wanted:
                return lost
            if number == 1:
                sidecar.restart()
            elif number == 3:
                sidecar.stop()
                sidecar.start()
            else:
                process.kill()
                lost += 1
                if lost == 4 and wanted == Worker.TURN:
                    return lost
    raise AssertionError


@pytest.mark.fault(28, "An activity that costs each worker fails after the limit; ends of the sidecar do not count")
def test_an_activity_that_costs_each_worker_fails_and_our_ends_do_not_count(
    strict: Sidecar, injected: Injected
) -> None:
    with Caller(strict.port) as caller, caller.work(only("deadly")) as worker:
        id = start(caller, "deadly")
        caller.call("CompleteOrchestratorTask", turn(worker.item(), ask(1, "deadly")))
        until(lambda: [one.kind for one in tree(caller, id).waits] == ["activity"])
    lost = lose_workers(strict, "deadly", Worker.ACTIVITY)
    injected(lost, "workers lost, a sidecar killed and one stopped")
    assert lost == 4
    with Caller(strict.port) as caller, caller.work(only("deadly")) as worker:
        item = worker.item()
        ((details,),) = [event[2] for event in new_events(item, TASK_FAILED)]
        assert decode(details)[1] == [b"WorkerCrashed"]
        assert b"handed out 4 times" in decode(details)[2][0]
        caller.call("CompleteOrchestratorTask", turn(item, end('"caught"')))
        assert output_of(caller, id) == '"caught"'
    further_workflows_finish(strict)


@pytest.mark.fault(28, "A turn that costs each worker is parked, says why, and goes on when it is resumed")
def test_a_turn_that_costs_each_worker_is_parked_until_it_is_resumed(strict: Sidecar, injected: Injected) -> None:
    with Caller(strict.port) as caller:
        id = start(caller, "deadly")
    lost = lose_workers(strict, "deadly", Worker.TURN)
    injected(lost, "workers lost, a sidecar killed and one stopped")
    with Caller(strict.port) as caller, caller.work(only("deadly")) as worker:
        until(lambda: is_stalled(caller, id), 5)
        (wait,) = tree(caller, id).waits
        assert (wait.kind, wait.state, wait.crashes) == ("worker", "parked", 4)
        code, why = caller.status("RaiseEvent", {1: id, 2: "go"})
        assert (code, "Worker crashed: 4 deliveries" in why) == ("FAILED_PRECONDITION", True)
        further_workflows_finish(strict)
        assert caller.status("ResumeInstance", {1: id}) == ("OK", "")
        caller.call("CompleteOrchestratorTask", turn(worker.item(), end('"mended"')))
        assert output_of(caller, id) == '"mended"'
    further_workflows_finish(strict)


@pytest.mark.parametrize("sdk", DIALECTS)
@pytest.mark.fault(28, "The SDK of a workflow shows why an activity that killed its workers failed")
def test_an_activity_that_costs_real_workers_fails_in_a_way_that_their_sdk_shows(
    strict: Sidecar, start_app: Callable[..., App], tmp_path: Path, sdk: str, injected: Injected
) -> None:
    """Each process is killed with -9 in the middle of it."""
    started, opened = tmp_path / "started", tmp_path / "open"
    call = {"started": str(started), "until": str(opened), "value": 1}
    app = start_app(sdk, strict)
    id = app.start("call_activity", {"name": "gate", "value": call})
    for number in range(1, 5):
        until(lambda number=number: len(lines(started)) == number, 20, f"delivery {number}")
        app.kill9()
        app = start_app(sdk, strict)
    injected(4, "workers killed")
    state = app.wait(id)
    assert state.status == "FAILED"
    assert "was handed out 4 times" in str(state.failure)
    assert len(lines(started)) == 4
    assert app.run("chain", {"start": 0, "steps": 3}) == 3
    app.kill9()  # its worker would take what the next workers are to have
    further_workflows_finish(strict)
