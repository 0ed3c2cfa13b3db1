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
    assert [(one.kind, one.waiting, one.cause(pool).text) for one in takers.untaken(pool)] == [
        ("workflow", 2, "no connected worker takes workflow 'flow' in version '2': they take 'flow'"),
        ("workflow", 1, "no connected worker takes workflow 'other': they take 'flow'"),
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


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.all.append({"event": event, **fields})

    info = warning

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.all]


WAITS = "work waits that no connected worker takes"
TAKEN = "work waits no longer for a worker that takes it"
NOBODY = "work waits and no worker is connected"


def test_what_waits_in_vain_is_logged_once_with_what_is_taken_and_once_that_it_is_taken() -> None:
    pool, lines, now = Pool(), Lines(), iter(range(1_000_000, 90_000_000, 1_000_000))
    watch = takers.Watch(lambda: next(now), lines)
    offer(pool, "score", 3)
    for _ in range(3):
        watch.look(pool)
    assert lines.all == [], "that no worker is there yet is no reason to warn"
    pool.add(worker(turn_filter=Filter({"scroe": frozenset(), "b": frozenset()}), activity_filter=Filter({})))
    watch.look(pool)
    assert lines.all == [], "one that takes it may come in a moment"
    for _ in range(3):
        watch.look(pool)
    assert lines.events == [WAITS, "worker is of no use"]
    assert lines.all[0] == {
        "event": WAITS,
        "waiting": 3,
        "why": "no connected worker takes workflow 'score': they take 'b', 'scroe'; was 'scroe' meant?",
        "since": "1970-01-01T00:00:01Z",
        "advice": "register the name in the app, or correct it where it is called",
    }
    pool.add(worker("all"))
    watch.look(pool)
    assert lines.all[2:] == [{"event": TAKEN, "kind": "workflow", "hub": "default", "name": "score", "version": ""}]
    pool.remove(pool.workers[-1])
    for _ in range(3):
        watch.look(pool)
    assert lines.events.count(WAITS) == 2


def test_that_no_worker_is_connected_is_logged_once_when_it_lasts() -> None:
    pool, lines = Pool(), Lines()
    watch = takers.Watch(lambda: 1_000_000, lines, patience=4)
    offer(pool, "a", 1)
    offer(pool, "b", 1)
    for _ in range(3):
        watch.look(pool)
    assert lines.all == [], "apps restart"
    for _ in range(3):
        watch.look(pool)
    assert lines.events == [NOBODY]
    pool.add(worker("all"))
    watch.look(pool)
    assert lines.events == [NOBODY, TAKEN]


def test_a_limit_that_holds_work_back_is_logged_once_when_it_lasts_and_once_at_its_end() -> None:
    pool, lines = Pool({"activity:a*": 1}), Lines()
    watch, one = takers.Watch(lambda: 1_000_000, lines, patience=4), worker("w", max_activities=9)
    pool.add(one)
    one.activities[1] = "act"
    pool.activities.offer(2, Group("act", ""))
    for _ in range(3):
        watch.look(pool)
    assert lines.all == [], "it is there to do that"
    for _ in range(3):
        watch.look(pool)
    waits = {"why": "the limit for 'a*' is reached: 1 at once", "advice": "wait, or raise the limit (--limit)"}
    assert lines.all == [{"event": "work waits for a limit", "limit": "activity:a*", **waits}]
    del one.activities[1]
    watch.look(pool)
    assert lines.all[1:] == [{"event": "work waits no longer for a limit", "limit": "activity:a*"}]


def why(pool: Pool, **fields: Any) -> tuple[str, str]:
    found = takers.cause(pool, "activity", Group("act", "", **fields))
    return ("", "") if found is None else (found.reason.value, found.text)


def test_work_that_workers_take_says_why_it_waits_all_the_same() -> None:
    assert why(pool_of()) == ("no-worker", "no worker is connected")
    one = worker("w", max_activities=2)
    assert why(pool_of(one)) == ("", ""), "it is handed out in a moment"
    assert why(pool_of(one), size=1 << 40)[0] == "too-large"
    assert why(pool_of(one), excluded_workers=frozenset({"w"}))[0] == "given-back"
    one.activities.update({1: "act", 2: "other"})
    assert why(pool_of(one)) == (
        "workers-busy",
        "the 1 connected worker(s) that take it have all that they take at once",
    )
    limited = Pool({"activity:a*": 1})
    limited.add(one)
    assert why(limited) == ("over-limit", "the limit for 'a*' is reached: 1 at once")
