"""Input that no SDK sends: each gets the status that SDKs can live with, and the sidecar goes on."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.blackbox.harness import App, Sidecar
from tests.blackbox.wire import SERVICE, Caller, Fields, Message, decode, encode, text

# Requests by method, for an instance; the numbers are those of the protocol.
CLIENT_CALLS: dict[str, Message] = {
    "StartInstance": {2: "hello"},
    "GetInstance": {2: 1},
    "WaitForInstanceStart": {2: 1},
    "WaitForInstanceCompletion": {2: 1},
    "RaiseEvent": {2: "go"},
    "TerminateInstance": {3: 1},
    "SuspendInstance": {},
    "ResumeInstance": {},
    "PurgeInstances": {3: 1},
}
WORKER_CALLS = ("CompleteOrchestratorTask", "CompleteWorkflowTask", "CompleteActivityTask")
ROUTERS = {
    "StartInstance": 11,
    "GetInstance": 3,
    "WaitForInstanceStart": 3,
    "WaitForInstanceCompletion": 3,
    "RaiseEvent": 4,
    "TerminateInstance": 4,
    "SuspendInstance": 3,
    "ResumeInstance": 3,
    "PurgeInstances": 5,
}
MALFORMED = {
    "truncated": b"\x0a\x7fabc",
    "endless number": b"\xff" * 12,
    "not UTF-8": b"\x0a\x02\xff\xfe",
    "unknown wire type": b"\x0f\x01",
}
COMPLETED = 1
each_client_call = pytest.mark.parametrize("method", CLIENT_CALLS)
each_worker_call = pytest.mark.parametrize("method", WORKER_CALLS)


@pytest.fixture(scope="module")
def raw_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    process = Sidecar("orders", tmp_path_factory.mktemp("raw"))
    try:
        yield process.start()
    finally:
        process.kill9()


@pytest.fixture
def caller(raw_sidecar: Sidecar) -> Iterator[Caller]:
    """A connection; afterwards the sidecar must still be there and answer at once."""
    with Caller(raw_sidecar.port) as caller:
        yield caller
    assert raw_sidecar.running
    with Caller(raw_sidecar.port) as other:
        assert other.call("GetInstance", {1: "nobody"}, timeout=2).get(1, [0]) == [0]


def start(caller: Caller) -> str:
    answer = caller.call("StartInstance", {2: "raw", 4: text('"input"')})
    return answer[1][0].decode()


def finish(item: Fields, instance: str, output: str) -> bytes:
    """The answer to a turn: the workflow is complete with `output`."""
    complete = {1: COMPLETED, 2: text(output)}
    return encode({1: instance, 2: {1: 1, 6: complete}, 4: item[10][0]})


def state_of(caller: Caller, instance: str) -> Fields:
    return decode(caller.call("GetInstance", {1: instance, 2: 1})[2][0])


def output_of(caller: Caller, instance: str) -> bytes:
    state = decode(caller.call("WaitForInstanceCompletion", {1: instance, 2: 1})[2][0])
    return decode(state[9][0])[1][0]


# Bytes


@pytest.mark.fault(25, "Malformed bytes are the caller's mistake, on every method")
@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("method", [*CLIENT_CALLS, *WORKER_CALLS])
def test_malformed_bytes(caller: Caller, method: str, kind: str) -> None:
    code, _ = caller.status(method, MALFORMED[kind])
    assert code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_bytes_of_a_worker(caller: Caller, kind: str) -> None:
    request = b"\x52\x7fabc" if kind == "truncated" else MALFORMED[kind]
    if kind == "not UTF-8":
        request = b"\x62\x02\xff\xfe"
    with caller.work(request) as worker, pytest.raises(grpc.RpcError) as caught:
        worker.item()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_hello_takes_anything_or_refuses_it(caller: Caller) -> None:
    assert caller.status("Hello", b"") == ("OK", "")
    assert caller.status("Hello", encode({99: "from a later version"})) == ("OK", "")
    assert caller.status("Hello", b"\xff" * 12)[0] in ("OK", "INVALID_ARGUMENT")


@each_client_call
def test_fields_of_a_later_version_are_ignored(caller: Caller, method: str) -> None:
    request = {1: f"later-{method}", **CLIENT_CALLS[method], 500: "new", 501: {1: 7}}
    code, _ = caller.status(method, request, timeout=0.5 if method.startswith("Wait") else 5.0)
    assert code in ("OK", "NOT_FOUND", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("method", ["NoSuchMethod", "startinstance", ""])
def test_a_method_that_does_not_exist(caller: Caller, method: str) -> None:
    assert caller.status(method, b"")[0] == "UNIMPLEMENTED"


def test_a_service_that_does_not_exist(raw_sidecar: Sidecar) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{raw_sidecar.port}") as channel:
        for path in ("/other.Service/Hello", SERVICE + "Hello/more", "/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"", timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Instances


def test_a_question_about_an_instance_that_is_not_there(caller: Caller) -> None:
    answer = caller.call("GetInstance", {1: "nobody", 2: 1})  # it waits for nothing, or its deadline would come
    assert answer.get(1, [0]) == [0]


@pytest.mark.parametrize("method", ["WaitForInstanceStart", "WaitForInstanceCompletion"])
def test_a_wait_for_an_instance_that_is_not_there_lasts_as_long_as_its_caller(caller: Caller, method: str) -> None:
    assert caller.status(method, {1: "nobody", 2: 1}, timeout=0.5)[0] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", ["RaiseEvent", "TerminateInstance", "SuspendInstance", "ResumeInstance"])
def test_commands_to_an_instance_that_is_not_there(caller: Caller, method: str) -> None:
    code, details = caller.status(method, {1: "nobody", **CLIENT_CALLS[method]})
    assert code == "NOT_FOUND"
    assert "no such instance exists" in details


def test_purge_of_an_instance_that_is_not_there(caller: Caller) -> None:
    assert caller.call("PurgeInstances", {1: "nobody", 3: 1}).get(1, [0]) == [0]


@each_client_call
@pytest.mark.parametrize("id", ["x" * 20_000, "a\x00b", "a\nb", "\x7f"], ids=["20 kB", "NUL", "newline", "DEL"])
def test_an_id_that_cannot_be(caller: Caller, method: str, id: str) -> None:
    code, details = caller.status(method, {1: id, **CLIENT_CALLS[method]})
    assert code == "INVALID_ARGUMENT"
    assert len(details) < 1000


def test_a_start_without_a_name(caller: Caller) -> None:
    assert caller.status("StartInstance", {1: "nameless"})[0] == "INVALID_ARGUMENT"
    assert caller.status("StartInstance", {})[0] == "INVALID_ARGUMENT"
    assert caller.call("GetInstance", {1: "nameless"}).get(1, [0]) == [0]


def test_a_start_without_an_id_gets_one(caller: Caller) -> None:
    assert start(caller)


@pytest.mark.parametrize("method", [name for name in CLIENT_CALLS if name != "StartInstance"])
def test_a_command_without_an_id(caller: Caller, method: str) -> None:
    code, _ = caller.status(method, CLIENT_CALLS[method])
    assert code in ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")  # a purge might have had a filter


@each_client_call
@pytest.mark.parametrize("app", ["no/slash", "a b", "a.b", "ünder", "a\x00", "a" * 1000])
def test_an_app_id_that_cannot_be(caller: Caller, method: str, app: str) -> None:
    """M14: nothing is looked for, and nothing is changed."""
    request = {1: "addressed", **CLIENT_CALLS[method], ROUTERS[method]: {2: app}}
    code, details = caller.status(method, request)
    assert code == "INVALID_ARGUMENT"
    assert repr(app)[1:-1][:20] in details or app[:20] in details
    assert caller.call("GetInstance", {1: "addressed"}).get(1, [0]) == [0]


def test_a_time_that_cannot_be(caller: Caller) -> None:
    for seconds in (2**62, -(2**62) % 2**64, 253402300800):
        code, _ = caller.status("StartInstance", {1: f"at-{seconds}", 2: "raw", 5: {1: seconds}})
        assert code in ("OK", "INVALID_ARGUMENT")
        caller.status("TerminateInstance", {1: f"at-{seconds}"})


# Completions


@each_worker_call
def test_a_completion_with_a_token_that_nobody_knows(caller: Caller, method: str) -> None:
    number = 5 if method == "CompleteActivityTask" else 4
    for token in ("unknown", "x" * 5000, "1:2:3", ""):
        for instance in ("nobody", ""):
            assert caller.status(method, {1: instance, number: token}) == ("OK", "")


@pytest.mark.fault(13, "A completion that comes again is answered and has no effect")
def test_a_completion_is_counted_once(caller: Caller) -> None:
    with caller.work() as worker:
        id = start(caller)
        item = worker.turn_of(id)
        assert caller.status("CompleteOrchestratorTask", finish(item, id, '"first"')) == ("OK", "")
        assert caller.status("CompleteOrchestratorTask", finish(item, id, '"second"')) == ("OK", "")
    assert output_of(caller, id) == b'"first"'


@pytest.mark.fault(15, "An answer to a turn that another worker has is not taken")
def test_a_completion_of_a_turn_that_another_worker_has_by_now(caller: Caller, raw_sidecar: Sidecar) -> None:
    """M47"""
    with Caller(raw_sidecar.port) as elsewhere:
        with elsewhere.work() as first:
            id = start(caller)
            lost = first.turn_of(id)
        with caller.work() as second:
            item = second.turn_of(id)
            assert item[10] != lost[10]
            late = finish(lost, id, '"of the one that left"')
            assert elsewhere.status("CompleteOrchestratorTask", late) == ("OK", "")
            assert state_of(caller, id).get(4) != [COMPLETED]
            assert caller.status("CompleteOrchestratorTask", finish(item, id, '"right"')) == ("OK", "")
    assert output_of(caller, id) == b'"right"'


def test_a_completion_without_a_token_from_a_stranger(caller: Caller, raw_sidecar: Sidecar) -> None:
    """SDKs that echo no token are known by their connection; this one has no item."""
    with Caller(raw_sidecar.port) as stranger, caller.work() as worker:
        id = start(caller)
        item = worker.turn_of(id)
        assert stranger.status("CompleteActivityTask", {1: id, 2: 1}) == ("OK", "")
        assert stranger.status("CompleteOrchestratorTask", {1: "other", 4: ""}) == ("OK", "")
        assert caller.status("CompleteOrchestratorTask", finish(item, id, '"right"')) == ("OK", "")
    assert output_of(caller, id) == b'"right"'


def test_an_activity_answered_by_the_wrong_method(caller: Caller) -> None:
    with caller.work() as worker:
        id = start(caller)
        item = worker.turn_of(id)
        assert caller.status("CompleteActivityTask", {1: id, 2: 1, 5: item[10][0]}) == ("OK", "")
        assert caller.status("CompleteOrchestratorTask", finish(item, id, '"right"')) == ("OK", "")
    assert output_of(caller, id) == b'"right"'


@pytest.mark.parametrize(
    "action",
    [
        {1: 1},
        {1: 1, 2: {}},
        {1: 1, 3: {}},
        {1: 1, 3: {1: "bad\x00id", 2: "raw"}},
        {1: 1, 4: {}},
        {1: 1, 4: {1: {1: 2**62}}},
        {1: 1, 5: {}},
        {1: 1, 6: {1: 77}},
        {1: 1, 2: {2: "raw"}, 9: {2: "no/slash"}},
        b"\xff\xff\xff",
        {1: 1, 77: "from a later version"},
    ],
    ids=str,
)
@pytest.mark.fault(15, "Actions that cannot be are refused, and the instance is unharmed")
def test_a_turn_with_an_action_that_cannot_be(caller: Caller, action: Message | bytes) -> None:
    """What comes of the workflow is open, but the item is not lost in silence and the sidecar lives."""
    with caller.work() as worker:
        id = start(caller)
        item = worker.turn_of(id)
        answer = encode({1: id, 2: action, 4: item[10][0]})
        code, _ = caller.status("CompleteOrchestratorTask", answer)
        assert code in ("OK", "INVALID_ARGUMENT")
    caller.call("TerminateInstance", {1: id})


def test_afterwards_workflows_still_run(raw_sidecar: Sidecar, start_app: Callable[..., App]) -> None:
    app = start_app("microsoft", raw_sidecar)
    assert app.run("chain", {"start": 1, "steps": 3}) == 4
