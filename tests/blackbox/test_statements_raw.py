"""Statements about workers and clients that no SDK would be: apps orders and ml have sidecars, and the test speaks."""

from collections.abc import Iterator
from itertools import count

import grpc
import pytest

from tests.blackbox.harness import Deployment, until
from tests.blackbox.wire import Caller, Fields, Message, Worker, decode, encode, text

pytestmark = pytest.mark.timeout(60)

COMPLETED, CONTINUED_AS_NEW = 1, 2
TRACE = {1: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 2: "b7ad6b7169203331"}
_numbers = count(1)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("raw-statements"), ("orders", "ml"))
    deployment.sidecars["ml"].options = ["--max-deliveries", "none"]  # its workers hang up all the time
    try:
        for sidecar in deployment.sidecars.values():
            sidecar.launch()
        for sidecar in deployment.sidecars.values():
            until(sidecar._ready, 15, f"{sidecar.name} is ready")
        yield deployment
    finally:
        deployment.end()


@pytest.fixture
def orders(deployment: Deployment) -> Iterator[Caller]:
    with Caller(deployment.sidecars["orders"].port) as caller:
        yield caller


@pytest.fixture
def ml(deployment: Deployment) -> Iterator[Caller]:
    with Caller(deployment.sidecars["ml"].port) as caller:
        yield caller


@pytest.fixture
def id(orders: Caller, ml: Caller) -> Iterator[str]:
    """The ID of an instance; nothing of it is left when the test ends."""
    id = f"raw-{next(_numbers)}"
    yield id
    for caller in (orders, ml):
        caller.status("TerminateInstance", {1: id, 3: 1})


def start(caller: Caller, id: str, **more: Message) -> None:
    caller.call("StartInstance", {1: id, 2: "flow", **{int(number[1:]): value for number, value in more.items()}})


def answer(caller: Caller, item: Fields, *actions: Message) -> None:
    id = decode(item[Worker.TURN][0])[1][0]
    caller.call("CompleteOrchestratorTask", {1: id, 2: list(actions), 4: item[Worker.TOKEN][0]})


def end(output: str = '"done"', status: int = COMPLETED) -> Message:
    return {1: 99, 6: {1: status, 2: text(output)}}


def task(number: int, name: str, app: str, source: str = "") -> Message:
    return {1: number, 2: {1: name, 3: text("1")}, 9: {1: source, 2: app}}


def child(number: int, id: str, app: str, source: str = "") -> Message:
    return {1: number, 3: {1: id, 2: "flow"}, 9: {1: source, 2: app}}


def new_events(item: Fields, number: int) -> list[Fields]:
    """What is new in a turn, of the kind with this number."""
    events = [decode(event) for event in decode(item[Worker.TURN][0])[4]]
    return [decode(event[number][0]) for event in events if number in event]


def output_of(caller: Caller, id: str) -> str:
    state = decode(caller.call("WaitForInstanceCompletion", {1: id, 2: 1})[2][0])
    return decode(state[9][0])[1][0].decode()


def history(caller: Caller, id: str, number: int) -> list[Fields]:
    """The events of a kind, each as it stands in the history."""
    events = [decode(event) for event in caller.call("GetInstanceHistory", {1: id}).get(1, ())]
    return [event for event in events if number in event]


def apps_of(event: Fields) -> list[bytes]:
    """Source and target of an event, as Dapr's clients read them."""
    router = decode(event[30][0])
    return [*router[1], *router.get(2, [])]


def nothing_comes(caller: Caller, seconds: float = 0.4) -> bool:
    with caller.work(timeout=seconds) as worker, pytest.raises(grpc.RpcError) as caught:
        worker.item()
    return caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def finish(caller: Caller, item: Fields, result: str) -> tuple[str, str]:
    request = decode(item[Worker.ACTIVITY][0])
    instance = decode(request[4][0])[1][0]
    body = {1: instance, 2: request[5][0], 3: text(result), 5: item[Worker.TOKEN][0]}
    return caller.status("CompleteActivityTask", body)


# Who sent it


def test_the_source_app_that_a_worker_or_client_claims_is_ignored(orders: Caller, ml: Caller, id: str) -> None:
    """M9, M10: in what is sent, in both histories, and in what comes back."""
    start(orders, id, f11={1: "bank"})
    with orders.work() as worker, ml.work() as other:
        item = worker.turn_of(id)
        answer(orders, item, task(1, "score", "ml", "bank"), child(2, f"{id}-kid", "ml", "bank"))
        got = [other.item(), other.item()]
        items = {kind: item for item in got for kind in (Worker.TURN, Worker.ACTIVITY) if kind in item}
        answer(ml, items[Worker.TURN], end('"child"'))
        assert finish(ml, items[Worker.ACTIVITY], '"score"') == ("OK", "")
        while len(history(orders, id, 7)) + len(history(orders, id, 10)) < 2:
            answer(orders, worker.turn_of(id))
    assert apps_of(history(orders, id, 3)[0]) == [b"orders"]
    (started,) = new_events(items[Worker.TURN], 3)
    assert decode(started[5][0])[5] == [b"orders"]
    assert apps_of(history(ml, f"{id}-kid", 3)[0]) == [b"orders", b"ml"]
    state = decode(ml.call("GetInstance", {1: f"{id}-kid"})[2][0])
    assert decode(state[16][0])[1] == [b"orders"]
    assert apps_of(history(orders, id, 6)[0]) == apps_of(history(orders, id, 7)[0]) == [b"orders", b"ml"]
    assert apps_of(history(orders, id, 9)[0]) == [b"orders", b"ml"]
    assert apps_of(history(orders, id, 10)[0]) == [b"ml", b"orders"]


def test_a_client_cannot_start_in_the_name_of_another_app(orders: Caller, ml: Caller, id: str) -> None:
    """M9: a start that is sent on to ml."""
    start(orders, id, f11={1: "bank", 2: "ml"})
    with ml.work() as worker:
        answer(ml, worker.turn_of(id), end('"done"'))
    (started,) = history(ml, id, 3)
    assert b"bank" not in started[30][0]


# Where it goes


def test_a_child_goes_to_the_app_that_the_number_of_the_proposal_names(orders: Caller, ml: Caller, id: str) -> None:
    """C: field 5 of the action, with the app's name as text; what is sent has the app where SDKs look for it."""
    start(orders, id)
    with orders.work() as worker, ml.work() as other:
        answer(orders, worker.turn_of(id), {1: 2, 3: {1: f"{id}-kid", 2: "flow", 5: "ml"}})
        answer(ml, other.turn_of(f"{id}-kid"), end('"child"'))
        answer(orders, worker.turn_of(id), end('"over"'))
    assert output_of(orders, id) == '"over"'
    assert apps_of(history(orders, id, 10)[0]) == [b"ml", b"orders"]
    (created,) = history(orders, id, 9)
    assert apps_of(created) == [b"orders", b"ml"]
    assert 5 not in decode(created[9][0])


# One at a time


@pytest.mark.fault(17, "An activity is with one worker at a time; the first answer counts")
def test_an_activity_is_with_one_worker_at_a_time_and_its_first_answer_counts(
    orders: Caller, ml: Caller, id: str
) -> None:
    """M32, M30: thirty streams have it and break, no two at once; the first may answer while another has it."""
    start(orders, id)
    deliveries: list[Fields] = []
    with orders.work() as home:
        answer(orders, home.turn_of(id), task(1, "score", "ml"))
        for number in range(30):
            with ml.work() as worker:
                deliveries.append(worker.item())
                if number % 10 == 0:
                    assert nothing_comes(ml), "a second worker has it too"
        with ml.work() as worker:
            deliveries.append(worker.item())
            for number, item in enumerate(deliveries):
                assert finish(ml, item, f'"{number}"') == ("OK", "")
        assert len({item[Worker.ACTIVITY][0] for item in deliveries}) == 1
        assert len({item[Worker.TOKEN][0] for item in deliveries}) == 31
        item = home.turn_of(id)
        ((completed,),) = [event[2] for event in new_events(item, 7)]
        assert decode(completed)[1] == [b'"0"']
        answer(orders, item, end())
    assert nothing_comes(ml), "it was done"
    assert len(history(orders, id, 7)) == 1


@pytest.mark.fault(14, "An answer that comes after its turn was handed out again has no effect")
def test_a_stale_answer_to_a_turn_has_no_effect_anywhere(orders: Caller, ml: Caller, id: str) -> None:
    """M47: the calls in the answer of a worker that lost its turn are not made."""
    start(orders, id)
    with Caller(orders.port) as elsewhere:
        with elsewhere.work() as first:
            lost = first.turn_of(id)
        with orders.work() as second:
            item = second.turn_of(id)
            answer(elsewhere, lost, task(1, "stale", "ml"), child(2, f"{id}-stale", "ml"), end('"stale"'))
            assert nothing_comes(ml)
            assert not history(orders, id, 6)
            answer(orders, item, task(1, "right", "ml"))
            answer(elsewhere, lost, task(1, "stale", "ml"))
            with ml.work() as other:
                activity = other.item()
                assert decode(activity[Worker.ACTIVITY][0])[1] == [b"right"]
                finish(ml, activity, "1")
            item = second.turn_of(id)
            answer(orders, item, end('"right"'))
    assert output_of(orders, id) == '"right"'
    assert ml.call("GetInstance", {1: f"{id}-stale"}).get(1, [0]) == [0]


# Traces


@pytest.mark.parametrize("trace", [TRACE, None], ids=["traced", "untraced"])
def test_continue_as_new_ends_the_trace_of_its_caller(orders: Caller, id: str, trace: Message | None) -> None:
    """M94: the first execution is told the caller's trace, each later one begins its own; untraced stays untraced."""
    start(orders, id, **({} if trace is None else {"f9": trace}))
    contexts: list[bytes] = []
    with orders.work() as worker:
        for generation in range(3):
            item = worker.turn_of(id)
            (started,) = new_events(item, 3)
            contexts += started.get(7, [])
            answer(orders, item, end("1", CONTINUED_AS_NEW if generation < 2 else COMPLETED))
    assert output_of(orders, id) == "1"
    traces = [decode(context)[1][0].split(b"-")[1] for context in contexts]
    assert contexts[:1] == ([] if trace is None else [encode(trace)])
    assert len(set(traces)) == len(traces) == (0 if trace is None else 3)
