"""Entities with Microsoft's unchanged SDK: signals, calls, locks, what they start, and what clients see of them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.harness import App, CallError, Sidecar, attempt, lines, until


class EntitiesApp(App):
    """An app with entities."""

    def __init__(self, port: int, directory: Path, label: str = "entities") -> None:
        super().__init__("microsoft", port, directory, label, script="entities_app.py")

    def signal(self, key: str, operation: str, value: Any = None, **more: Any) -> None:
        self.call("signal", key=key, operation=operation, value=value, **more)

    def entity(self, key: str) -> dict[str, Any] | None:
        return self.call("entity", key=key)

    def value(self, key: str) -> Any:
        found = self.entity(key)
        return None if found is None else found["state"]

    def operate(self, key: str, operation: str, value: Any = None) -> Any:
        return self.run("operate", {"key": key, "operation": operation, "value": value})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    process = Sidecar("orders", tmp_path_factory.mktemp("sidecar"))
    try:
        yield process.start()
    finally:
        process.kill9()


@pytest.fixture(scope="module")
def shop(home: Sidecar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EntitiesApp]:
    process = EntitiesApp(home.port, tmp_path_factory.mktemp("app"))
    try:
        yield process.start_process()
    finally:
        process.kill9()


# ---------------------------------------------------------------- operations


def test_signals_of_a_client_are_run_in_order(shop: EntitiesApp) -> None:
    for number in range(20):
        shop.signal("order", "set", number)
    until(lambda: shop.value("order") == 19, what="the last signal has run")


def test_a_workflow_gets_the_result_or_the_failure_of_what_it_calls(shop: EntitiesApp) -> None:
    """E.10: a failed operation changes no state."""
    assert shop.operate("call", "add", 5) == 5
    assert shop.operate("call", "add", 2) == 7
    assert "no such luck" in shop.operate("call", "fail", "no such luck")
    assert "'nonsense'" in shop.operate("call", "nonsense")
    assert shop.value("call") == 7


def test_signals_of_a_workflow_arrive_before_its_later_calls(shop: EntitiesApp) -> None:
    assert shop.run("signal_all", {"keys": ["w1", "w2"], "times": 25}) == 25
    until(lambda: shop.value("w2") == 25, what="every signal counts")


def test_a_delayed_signal_waits_for_its_time(shop: EntitiesApp) -> None:
    """E.10: scheduledTime."""
    due = time.time() + 1.5
    shop.signal("late", "add", 1, at=due)
    assert shop.entity("late") is None
    until(lambda: shop.value("late") == 1, what="the delayed signal has run")
    assert time.time() >= due


def test_an_entity_signals_another_now_and_later_and_starts_a_workflow(shop: EntitiesApp) -> None:
    """E.10: actions."""
    shop.signal("boss", "add_to", {"key": "helper", "amount": 3})
    shop.signal("boss", "add_to", {"key": "helper", "amount": 4, "seconds": 0.5})
    shop.signal("boss", "launch", {"workflow": "chain", "input": {"start": 1, "steps": 2}, "id": "launched"})
    until(lambda: shop.get("launched"), what="the workflow is there")
    assert shop.output("launched") == 3
    until(lambda: shop.value("helper") == 7, what="both signals have run")


def test_an_entity_that_deletes_its_state_is_gone_for_clients(shop: EntitiesApp) -> None:
    """E.10: state unset = deleted."""
    assert shop.operate("deleted", "add", 1) == 1
    shop.operate("deleted", "delete")
    assert shop.entity("deleted") is None
    assert shop.operate("deleted", "add", 1) == 1


# ---------------------------------------------------------------- critical sections


def test_no_transfer_is_lost_among_many_that_lock_the_same_two(shop: EntitiesApp) -> None:
    """E.10: locks are taken all or none, in an order in which nobody waits for ever."""
    for key in ("bank-a", "bank-b", "bank-c"):
        shop.operate(key, "set", 100)
    keys = ["bank-a", "bank-b", "bank-c"]
    orders = [{"source": keys[n % 3], "target": keys[(n + 1 + n % 2) % 3], "amount": n % 5} for n in range(24)]
    started = [shop.start("transfer", order) for order in orders]
    for one in started:
        shop.output(one, 60)
    expected = dict.fromkeys(keys, 100)
    for order in orders:
        expected[str(order["source"])] -= int(order["amount"])
        expected[str(order["target"])] += int(order["amount"])
    assert {key: shop.value(key) for key in keys} == expected
    assert [shop.entity(key)["locked_by"] for key in keys] == ["", "", ""]  # type: ignore[index]


def test_others_wait_while_a_workflow_holds_a_lock(shop: EntitiesApp) -> None:
    shop.operate("held", "set", 1)
    holder = shop.start("hold", {"keys": ["held"]}, id="holder")
    until(lambda: shop.get(holder).custom_status == "holds", what="the lock is held")  # type: ignore[union-attr]
    shop.signal("held", "add", 1)
    until(lambda: shop.entity("held")["backlog"] == 1, what="the signal waits")  # type: ignore[index]
    assert (shop.value("held"), shop.entity("held")["locked_by"]) == (1, "holder")  # type: ignore[index]
    shop.raise_event(holder, "go", "on")
    assert shop.output(holder) == "on"
    until(lambda: shop.value("held") == 2, what="the signal has run")


@pytest.mark.parametrize("how", ["fails", "is terminated", "is purged"])
def test_a_workflow_that_ends_lets_go_of_its_locks(shop: EntitiesApp, how: str) -> None:
    key = f"freed-{how}"
    shop.operate(key, "set", 1)
    holder = shop.start("hold", {"keys": [key, f"other-{key}"]})
    until(lambda: shop.get(holder).custom_status == "holds", what="the lock is held")  # type: ignore[union-attr]
    waiting = shop.start("transfer", {"source": f"other-{key}", "target": key, "amount": 1})
    if how == "fails":
        shop.raise_event(holder, "go", "fail")
        assert shop.wait(holder).status == "FAILED"
    elif how == "is terminated":
        shop.call("terminate", id=holder)
    else:
        shop.call("terminate", id=holder)
        shop.call("purge", id=holder)
    assert shop.output(waiting) == [0, 1]
    until(lambda: shop.entity(key)["locked_by"] == "", what="the lock is free")  # type: ignore[index]


# ---------------------------------------------------------------- clients


def test_a_query_pages_through_all_that_match(shop: EntitiesApp) -> None:
    began = time.time()
    for number in range(7):
        shop.operate(f"page-{number}", "set", number)
    found = shop.call("entities", instance_id_starts_with="@counter@page-", include_state=True, page_size=3)
    assert [(one["id"], one["state"] or 0) for one in found] == [(f"@counter@page-{n}", n) for n in range(7)]
    bare = shop.call("entities", instance_id_starts_with="@Counter@page-", include_state=False)
    assert [one["state"] for one in bare] == [None] * 7
    old = shop.call("entities", instance_id_starts_with="@counter@page-", last_modified_to=began - 60)
    new = shop.call("entities", instance_id_starts_with="@counter@page-", last_modified_from=began - 60)
    assert (len(old), len(new)) == (0, 7)
    shop.operate("page-3", "delete")
    assert len(shop.call("entities", instance_id_starts_with="@counter@page-")) == 6
    assert len(shop.call("entities", instance_id_starts_with="@counter@page-", include_transient=True)) == 7


def test_cleaning_removes_entities_that_have_nothing(shop: EntitiesApp) -> None:
    shop.call("clean")
    for number in range(3):
        shop.operate(f"empty-{number}", "delete")
    shop.operate("full", "set", 1)
    assert shop.call("clean", release_orphaned_locks=False) == [3, 0]
    assert shop.call("clean") == [0, 0]
    assert shop.value("full") == 1


def test_no_workflow_has_the_id_of_an_entity(shop: EntitiesApp) -> None:
    """E.10: entities must not appear among workflows."""
    shop.operate("apart", "set", 1)
    calls: dict[str, dict[str, Any]] = {
        "get": {},
        "wait": {"timeout": 5},
        "start": {"workflow": "hello"},
        "terminate": {},
        "suspend": {},
        "purge": {},
    }
    for op, more in calls.items():
        with pytest.raises(CallError, match="entity") as refused:
            shop.call(op, id="@counter@apart", **more)
        assert refused.value.code == "INVALID_ARGUMENT", op
    assert shop.value("apart") == 1


# ---------------------------------------------------------------- over restarts


def test_what_was_accepted_counts_once_over_kills(tmp_path: Path) -> None:
    sidecar = Sidecar("orders", tmp_path).start()
    app = EntitiesApp(sidecar.port, tmp_path).start_process()
    try:
        for key in ("x", "y"):
            app.operate(key, "set", 1000)
        signals = {"keys": ["s", "t"], "times": 30}
        orders = [("transfer", {"source": "x", "target": "y", "amount": 1, "times": 3, "pause_ms": 60})] * 8
        orders += [("transfer", {"source": "y", "target": "x", "amount": 2, "times": 3, "pause_ms": 60})] * 8
        orders += [("signal_all", signals)] * 6
        ids = []
        for number, (workflow, order) in enumerate(orders):
            ids.append(attempt(app, "start", workflow=workflow, input=order, id=f"{workflow}-{number}"))
            if number in (5, 11, 17):
                sidecar.restart()
        sidecar.restart()
        for one in ids:
            state = attempt(app, "wait", id=one, timeout=30.0)
            assert state["status"] == "COMPLETED", state
        app.reconnected()
        until(lambda: (app.value("s"), app.value("t")) == (180, 180), 30, "every signal counts once")
        assert (app.value("x"), app.value("y")) == (1000 + 24, 1000 - 24)
        assert app.call("clean") == [0, 0]
    finally:
        app.kill9()
        sidecar.kill9()


# ---------------------------------------------------------------- scheduled tasks


def test_scheduled_tasks_of_the_sdk_work(shop: EntitiesApp, tmp_path: Path) -> None:
    """D.3, E.10: they are entities that signal themselves and start workflows; they need nothing of the server."""
    file = tmp_path / "ticks"
    tick = {"name": "noted", "value": {"file": str(file), "line": "tick"}}
    shop.call("schedule", id="tick", workflow="call_activity", seconds=1.0, input=tick)
    assert shop.call("describe_schedule", id="tick") == "ACTIVE"
    assert shop.call("schedules") == ["tick"]
    until(lambda: len(lines(file)) >= 3, what="three runs")
    shop.call("change_schedule", id="tick", how="pause")
    assert shop.call("describe_schedule", id="tick") == "PAUSED"
    time.sleep(0.5)  # for a run that had begun
    paused = len(lines(file))
    time.sleep(2.2)
    assert len(lines(file)) == paused
    shop.call("change_schedule", id="tick", how="resume")
    until(lambda: len(lines(file)) >= paused + 2, what="two more runs")
    shop.call("change_schedule", id="tick", how="delete")
    assert shop.call("describe_schedule", id="tick") is None
    time.sleep(0.5)
    deleted = len(lines(file))
    time.sleep(2.2)
    assert (len(lines(file)), shop.call("schedules")) == (deleted, [])


def test_an_export_job_of_the_sdk_works(shop: EntitiesApp) -> None:
    """D.3, E.10: an entity that drives a workflow, ListInstanceIds and StreamInstanceHistory."""
    began = time.time()
    expected = sorted(shop.start("chain", {"start": 1, "steps": 2}, id=f"exported-{number}") for number in range(7))
    for one in expected:
        shop.output(one)
    status, exported, failed, written = shop.call("export_job", since=began, until=time.time())
    assert (status, exported, failed) == ("COMPLETED", 7, 0)
    assert written == expected


def test_a_continuous_export_of_the_sdk_writes_each_history_once(shop: EntitiesApp) -> None:
    """E.16: it goes on from the key of the last page that had something."""
    began = time.time()

    def ended(numbers: range) -> list[str]:
        found = [shop.start("chain", {"start": 1, "steps": 2}, id=f"followed-{number}") for number in numbers]
        return [str(one) for one in found if shop.output(one)]

    def followed() -> list[str]:
        return [one for one in shop.call("followed") if one.startswith("followed-")]

    first = ended(range(4))
    shop.call("follow", since=began, job="follower")
    until(lambda: followed() == first, what="what had ended is written")
    second = ended(range(4, 6))
    until(lambda: set(followed()) >= {*first, *second}, what="what ended since is written")
    time.sleep(2.0)  # for some more looks
    assert followed() == [*first, *second]
    shop.call("unfollow", job="follower")
