"""A worker that keeps the history of workflows is sent what is new, and all of it when it has lost it."""

from collections.abc import Callable

import pytest

from tests.blackbox.harness import App, Sidecar, until

pytestmark = pytest.mark.timeout(120)

Starter = Callable[..., App]
STEPS = 60


def bytes_sent(sidecar: Sidecar, app: App) -> int:
    """Hang up; return how much the worker was sent."""
    before = len(sidecar.logged("worker disconnected"))
    app.call("disconnect")
    return until(lambda: sidecar.logged("worker disconnected")[before:])[0]["sent_bytes"]


def work(sidecar: Sidecar, start_app: Starter, **options: object) -> int:
    app = start_app("dapr", sidecar, connect=False)
    app.call("connect", **options)
    assert app.run("chain", {"start": 0, "steps": STEPS}) == STEPS
    return bytes_sent(sidecar, app)


def test_what_is_sent_follows_what_is_new(own_sidecar: Sidecar, start_app: Starter) -> None:
    own_sidecar.start()
    deltas = work(own_sidecar, start_app)
    whole = work(own_sidecar, start_app, keep_history=False)
    assert whole > 5 * deltas


def test_a_worker_that_has_lost_the_history_reads_it_and_goes_on(own_sidecar: Sidecar, start_app: Starter) -> None:
    """Its cache holds one workflow, and four run at the same time."""
    own_sidecar.start()
    app = start_app("dapr", own_sidecar, connect=False)
    app.call("connect", history_cache=1)
    ids = [app.start("chain", {"start": number, "steps": 15}) for number in range(4)]
    assert [app.output(id) for id in ids] == [number + 15 for number in range(4)]


def test_events_that_arrive_while_the_history_is_read_come_once(own_sidecar: Sidecar, start_app: Starter) -> None:
    own_sidecar.start()
    app = start_app("dapr", own_sidecar, connect=False)
    app.call("connect", history_cache=1)
    names = [f"e{number}" for number in range(20)]
    ids = [app.start("wait_events", names) for _ in range(3)]
    for name in names:
        for id in ids:
            app.raise_event(id, name, name)
    assert [app.output(id) for id in ids] == [names] * 3


def test_a_worker_that_comes_back_is_sent_everything_once(own_sidecar: Sidecar, start_app: Starter) -> None:
    own_sidecar.start()
    app = start_app("dapr", own_sidecar)
    id = app.start("wait_events", ["a", "b", "c"])
    for name in ("a", "b"):
        app.raise_event(id, name, name)
    app.call("disconnect")
    app.call("connect")
    app.raise_event(id, "c", "c")
    assert app.output(id) == ["a", "b", "c"]
