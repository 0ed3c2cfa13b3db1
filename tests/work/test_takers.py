"""No connected worker is useless in silence, and no work waits in silence for a worker that takes it."""

from typing import Any

from sidecar.work import takers
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group
from sidecar.work.workers import Filter
from tests.work.test_pool import given, offer, pool_of, worker


def test_what_no_connected_worker_takes_is_known_with_the_reason() -> None:
    pool = pool_of(worker(turn_filter=Filter({"flow": frozenset({"1"})}), activity_filter=Filter({})))
    offer(pool, "flow", 2, "1")
    offer(pool, "flow", 2, "2")
    offer(pool, "other", 1)
    pool.activities.offer(7, Group("act", "", hub="far"))
    assert [(one.kind, one.waiting, one.why) for one in takers.untaken(pool)] == [
        ("workflow", 2, "no connected worker takes workflow 'flow' in version '2'"),
        ("workflow", 1, "no connected worker takes workflow 'other'"),
        ("activity", 1, "no worker is connected in task hub 'far'"),
    ]


def test_a_worker_is_useless_when_it_takes_nothing_at_all_or_nothing_that_waits() -> None:
    nothing = worker(
        "nothing", turn_filter=Filter({}), activity_filter=Filter({}), entity_filter=Filter({"c": frozenset()})
    )
    other = worker("other", turn_filter=Filter({"b": frozenset()}), activity_filter=Filter({}))
    all_ = worker("all")
    pool = pool_of(nothing, other)
    assert [bool(takers.useless(one, takers.untaken(pool))) for one in (nothing, other)] == [True, False]
    offer(pool, "a", 1)
    assert [bool(takers.useless(one, takers.untaken(pool))) for one in (nothing, other)] == [True, True]
    pool.add(all_)
    left = takers.untaken(pool)
    assert [bool(takers.useless(one, left)) for one in (nothing, other, all_)] == [True, False, False]


def test_a_worker_that_has_had_work_is_of_use() -> None:
    one = worker(turn_filter=Filter({"b": frozenset()}), activity_filter=Filter({}))
    pool = pool_of(one)
    offer(pool, "b", 1)
    assert given(pool) == [("w", "b0")]
    offer(pool, "a", 1)
    assert takers.useless(one, takers.untaken(pool)) == ""


def test_what_waits_in_vain_is_logged_once_until_it_was_taken() -> None:
    pool = Pool()
    logged: list[str] = []

    def warn(event: str, **fields: Any) -> None:
        logged.append(f"{event}: {fields['why']}")

    watch = takers.Watch(warn)
    offer(pool, "a", 3)
    for _ in range(3):
        watch.look(pool)
    assert logged == [], "that no worker is there yet is no reason to warn"
    pool.add(worker(turn_filter=Filter({"b": frozenset()}), activity_filter=Filter({})))
    watch.look(pool)
    assert logged == [], "one that takes it may come in a moment"
    for _ in range(3):
        watch.look(pool)
    expected = "work waits that no connected worker takes: no connected worker takes workflow 'a'"
    assert logged[0] == expected
    assert len(logged) == 2, "the work, and the worker that takes nothing of it"
    pool.add(worker("all"))
    watch.look(pool)
    pool.remove(pool.workers[-1])
    for _ in range(3):
        watch.look(pool)
    assert logged.count(expected) == 2
