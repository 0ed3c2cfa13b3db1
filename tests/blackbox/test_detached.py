"""Detached workflows: no Python SDK can start one yet, so a raw worker speaks the protocol (M71, M72, M75)."""

from collections.abc import Callable, Iterator

import pytest

from tests.blackbox.harness import App, Sidecar
from tests.blackbox.wire import Caller, Fields, decode, encode, text

DETACHED_CREATED = 32


@pytest.fixture
def caller(own_sidecar: Sidecar) -> Iterator[Caller]:
    with Caller(own_sidecar.start().port) as caller:
        yield caller


def events_of(item: Fields) -> list[Fields]:
    request = decode(item[1][0])
    return [decode(event) for event in request.get(3, []) + request[4]]


def answer(item: Fields, instance: str, *actions: dict[int, object]) -> bytes:
    return encode({1: instance, 2: list(actions), 4: item[10][0]})


def test_a_workflow_starts_another_for_good_and_does_not_wait_for_it(
    caller: Caller, own_sidecar: Sidecar, start_app: Callable[..., App]
) -> None:
    only_raw = {11: {1: [{1: "caller"}]}}
    with caller.work(only_raw) as worker:
        caller.call("StartInstance", {1: "c", 2: "caller"})
        item = worker.turn_of("c")
        given = {2: "chain", 4: text('{"start": 1, "steps": 3}'), 7: {1: "team", 2: "growth"}}
        start = {1: 1, 11: given}
        caller.call("CompleteOrchestratorTask", answer(item, "c", start))
        caller.call("RaiseEvent", {1: "c", 2: "again"})
        item = worker.turn_of("c")
        confirmed = [event for event in events_of(item) if DETACHED_CREATED in event]
        assert [decode(event[DETACHED_CREATED][0])[1] for event in confirmed] == [[b"c-0"]]
        done = {1: 2, 6: {1: 1, 2: text('"done"')}}
        caller.call("CompleteOrchestratorTask", answer(item, "c", start, done))
    start_app("microsoft", own_sidecar)
    found = decode(caller.call("WaitForInstanceCompletion", {1: "c-0", 2: 1}, timeout=30)[2][0])
    assert decode(found[9][0])[1] == [b"4"]
    assert decode(found[15][0]) == {1: [b"team"], 2: [b"growth"]}
    assert 14 not in found
    assert caller.call("GetInstance", {1: "c-1"}).get(1, [0]) == [0]
    caller.call("TerminateInstance", {1: "c"})
