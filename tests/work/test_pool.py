"""The pool of workers and its queues: who gets what, and what waits."""

from typing import Any

import pytest

from sidecar.core.work_items import WorkItem
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group
from sidecar.work.workers import Filter, Worker


def worker(name: str = "w", **more: Any) -> Worker:
    fields: dict[str, Any] = {
        "peer": name,
        "max_turns": 100,
        "max_activities": 100,
        "max_bytes": 1_000,
        "turn_filter": Filter(),
        "activity_filter": Filter(),
        "is_full": lambda: False,
        "send": _nothing,
        "fits": lambda item: len(item.new),
        "shows": lambda item: len(item.past.events),
    }
    return Worker(name=name, **fields | more)


def _nothing(_item: WorkItem) -> int:
    """A worker that is only counted."""
    return 0


def pool_of(*workers: Worker) -> Pool:
    pool = Pool()
    for one in workers:
        pool.add(one)
    return pool


def offer(pool: Pool, name: str, count: int, version: str = "") -> None:
    for number in range(count):
        pool.turns.offer(("default", f"{name}{version}{number}"), Group(name, version))


def given(pool: Pool) -> list[tuple[str, Any]]:
    return [(found.name, item[1] if isinstance(item, tuple) else item) for found, item, _ in pool.assign()]


def test_names_take_turns_so_that_many_of_one_do_not_hold_up_another() -> None:
    pool = pool_of(worker(max_turns=4))
    offer(pool, "many", 50)
    offer(pool, "few", 2)
    assert [item for _, item in given(pool)] == ["many0", "few0", "many1", "few1"]


def test_items_of_one_name_go_in_the_order_in_which_they_came() -> None:
    pool = pool_of(worker())
    offer(pool, "a", 20)
    assert [item for _, item in given(pool)] == [f"a{number}" for number in range(20)]


def test_the_least_busy_worker_gets_the_next_item() -> None:
    busy, idle = worker("busy"), worker("idle")
    pool = pool_of(busy)
    offer(pool, "first", 3)
    pool.assign()
    pool.add(idle)
    offer(pool, "a", 5)
    assert [name for name, _ in given(pool)].count("idle") == 4
    assert (len(busy.turns), len(idle.turns)) == (4, 4)


@pytest.mark.parametrize(("named", "all_", "gets"), [(1, 3, "all"), (3, 1, "named")])
def test_it_does_whether_it_lists_the_name_or_takes_all(named: int, all_: int, gets: str) -> None:
    listing = worker("named", max_turns=named, turn_filter=Filter({"x": frozenset()}))
    pool = pool_of(listing, worker("all", max_turns=all_))
    offer(pool, "x", 1)
    assert given(pool) == [(gets, "x0")]


def test_a_worker_gets_no_more_than_it_takes_of_each_kind() -> None:
    """E.6: the limits that a worker announces."""
    one = worker(max_turns=2, max_activities=3)
    pool = pool_of(one)
    offer(pool, "a", 5)
    for number in range(5):
        pool.activities.offer(number, Group("act", ""))
    assert len(pool.assign()) == 5
    assert (len(one.turns), len(one.activities)) == (2, 3)
    assert pool.assign() == []
    one.turns.clear()
    assert given(pool) == [("w", "a2"), ("w", "a3")]


def test_a_stream_that_is_full_gets_nothing_until_it_has_room() -> None:
    full = True
    pool = pool_of(worker("slow", is_full=lambda: full), worker("quick", max_turns=1))
    offer(pool, "a", 3)
    assert given(pool) == [("quick", "a0")]
    full = False
    assert [name for name, _ in given(pool)] == ["slow", "slow"]


@pytest.mark.parametrize(
    ("names", "takes"),
    [
        (None, {("a", ""), ("a", "1"), ("b", "2")}),
        ({}, set()),
        ({"a": frozenset()}, {("a", ""), ("a", "1")}),
        ({"a": frozenset({"1"})}, {("a", "1")}),
        ({"a": frozenset({""})}, {("a", "")}),
        ({"A": frozenset()}, set()),
    ],
)
def test_a_filter_takes_listed_names_and_versions_and_an_empty_list_of_names_takes_nothing(
    names: dict[str, frozenset[str]] | None, takes: set[tuple[str, str]]
) -> None:
    asked = {("a", ""), ("a", "1"), ("b", "2")}
    assert {pair for pair in asked if Filter(names).accepts(*pair)} == takes


def test_work_goes_only_to_workers_that_take_its_name_and_version() -> None:
    old = worker("old", turn_filter=Filter({"flow": frozenset({"1"})}))
    new = worker("new", turn_filter=Filter({"flow": frozenset({"2"})}))
    pool = pool_of(old, new)
    offer(pool, "flow", 2, "1")
    offer(pool, "flow", 2, "2")
    offer(pool, "flow", 1, "3")
    offer(pool, "other", 1)
    assert sorted(given(pool)) == [("new", "flow20"), ("new", "flow21"), ("old", "flow10"), ("old", "flow11")]
    assert len(pool.turns) == 2, "the rest waits"


def test_filters_of_turns_and_of_activities_are_apart() -> None:
    pool = pool_of(worker("turns", activity_filter=Filter({})), worker("activities", turn_filter=Filter({})))
    offer(pool, "a", 1)
    pool.activities.offer(7, Group("act", ""))
    assert given(pool) == [("turns", "a0"), ("activities", 7)]


def test_nothing_is_handed_out_while_the_pool_is_closed_or_empty() -> None:
    pool = pool_of(worker())
    offer(pool, "a", 1)
    pool.open = False
    assert pool.assign() == []
    pool.open = True
    pool.remove(pool.workers[0])
    assert pool.assign() == []
    assert len(pool.turns) == 1


def test_an_item_that_is_too_large_for_a_worker_waits_for_one_that_can_receive_it() -> None:
    pool = pool_of(worker("small", max_bytes=1_000))
    pool.activities.offer(1, Group("work", "", 1_001))
    pool.activities.offer(2, Group("work", "", 1_000))
    assert [given.item for given in pool.assign()] == [2]
    pool.add(worker("larger", max_bytes=1_001))
    assert [(given.worker.name, given.item) for given in pool.assign()] == [("larger", 1)]


def test_work_of_a_hub_goes_to_the_workers_of_that_hub_alone() -> None:
    pool = pool_of(worker("blue", hub="blue"), worker("default"))
    pool.turns.offer(("blue", "b"), Group("flow", "", hub="blue"))
    pool.turns.offer(("green", "g"), Group("flow", "", hub="green"))
    pool.activities.offer(1, Group("act", "", hub="blue"))
    pool.activities.offer(2, Group("act", ""))
    assert sorted(given(pool), key=str) == [("blue", "b"), ("blue", 1), ("default", 2)]
    pool.add(worker("green", hub="green"))
    assert given(pool) == [("green", "g")]


def test_one_slot_that_comes_free_at_a_time_goes_to_the_names_in_turn() -> None:
    one = worker(max_turns=1)
    pool = pool_of(one)
    offer(pool, "many", 50)
    offer(pool, "few", 2)
    found = []
    for _ in range(4):
        found += [item for _, item in given(pool)]
        one.turns.clear()
    assert found == ["many0", "few0", "many1", "few1"]


@pytest.mark.parametrize("names", [None, {"busy": frozenset[str]()}])
def test_work_that_no_free_worker_takes_costs_next_to_nothing_however_many_workers_there_are(
    names: dict[str, frozenset[str]] | None,
) -> None:
    """500 workers and 200 names: each worker is looked at once, not once for each name."""
    asked = 0

    def is_full() -> bool:
        nonlocal asked
        asked += 1
        return names is None

    pool = pool_of(*(worker(f"w{n}", turn_filter=Filter(names), is_full=is_full) for n in range(500)))
    for number in range(200):
        offer(pool, f"name{number}", 5)
    offer(pool, "busy", 1)
    asked = 0
    given(pool)
    assert asked <= 600


def test_a_worker_without_regard_to_case_is_found_beside_one_with() -> None:
    folding = worker("folding", turn_filter=Filter({"flow": frozenset()}, any_case=True))
    exact = worker("exact", turn_filter=Filter({"Flow": frozenset()}))
    pool = pool_of(exact, folding)
    offer(pool, "Flow", 2)
    offer(pool, "FLOW", 1)
    offer(pool, "flow", 1)
    assert sorted(given(pool)) == [("exact", "Flow0"), ("exact", "Flow1"), ("folding", "FLOW0"), ("folding", "flow0")]
