"""The backlog: what waits for workers, how it overflows, and what it asks the store for again."""

from sidecar.store.reads import Reads
from sidecar.work.ready_queue import Group, ReadyQueue

A = ("default", "a")


def fill(backlog: ReadyQueue[int], name: str, numbers: range) -> None:
    for number in numbers:
        backlog.offer(number, Group(name, ""))


def waiting(backlog: ReadyQueue[int], numbers: range) -> list[int]:
    return [number for number in numbers if number in backlog]


def test_an_item_waits_once_however_often_it_is_offered() -> None:
    backlog: ReadyQueue[int] = ReadyQueue()
    for _ in range(3):
        backlog.offer(1, Group("a", ""))
    backlog.offer(2, Group("a", ""))
    assert len(backlog) == 2
    backlog.discard(1)
    backlog.discard(1)
    assert 1 not in backlog
    assert backlog.take(Group("a", "")) == (2, 0)
    assert list(backlog.groups()) == []
    assert backlog.take(Group("a", "")) is None


def test_a_backlog_that_overflows_wants_more_once_it_has_room() -> None:
    backlog: ReadyQueue[int] = ReadyQueue(limit=10)
    fill(backlog, "a", range(10))
    assert not backlog.wanted()
    backlog.offer(10, Group("a", ""))
    assert (len(backlog), 10 in backlog, backlog.wanted()) == (10, False, frozenset())
    for number in range(5):
        backlog.discard(number)
    assert not backlog.wanted()
    backlog.discard(5)
    assert backlog.wanted() == {A}
    backlog.refilling(frozenset({A}))
    assert not backlog.wanted()


def test_what_nobody_takes_makes_room_for_other_names() -> None:
    """The newest of the largest name go first: what waited longest stays."""
    backlog: ReadyQueue[int] = ReadyQueue(limit=10)
    fill(backlog, "dead", range(10))
    fill(backlog, "live", range(100, 103))
    assert waiting(backlog, range(100, 103)) == [100, 101, 102]
    assert waiting(backlog, range(10)) == [0, 1, 2, 3, 4, 5, 6]
    fill(backlog, "live", range(103, 110))
    assert len(waiting(backlog, range(10))) == len(waiting(backlog, range(100, 110))) == 5, "a fair share each"
    assert not backlog.wanted()
    for number in range(100, 103):
        backlog.discard(number)
    assert backlog.wanted() == {("default", "live")}, "what nobody takes is not asked for again and again"


def test_reading_on_is_no_use_once_no_more_of_the_names_fits() -> None:
    backlog: ReadyQueue[int] = ReadyQueue(limit=4)
    fill(backlog, "a", range(5))
    backlog.refilling(None)
    assert not backlog.has_share(frozenset({A}))
    backlog.offer(9, Group("a", ""))
    assert backlog.has_share(frozenset({A}))
    assert not backlog.has_share(frozenset({A, ("other", "a")}))
    assert not backlog.has_share(None), "there may be names further on that nobody knows of"


def test_each_read_knows_what_went_while_it_was_under_way() -> None:
    reads = Reads()
    reads.went(1)
    with reads.reading() as gone:
        reads.went(2)
        with reads.reading() as later:
            reads.went(3)
            assert [later(item) for item in (1, 2, 3)] == [False, False, True]
        reads.went(4)
        assert [gone(item) for item in (1, 2, 3, 4)] == [False, True, True, True]


def queue_of(limit: int, *names: str) -> tuple[ReadyQueue[int], set[tuple[str, str]]]:
    """A queue, and the lanes that workers take, to be changed."""
    taken = {("default", name) for name in names}
    return ReadyQueue(limit, taken.__contains__), taken


def test_lanes_that_a_worker_takes_come_before_any_number_of_names_that_nobody_takes() -> None:
    backlog, _ = queue_of(10, "live")
    for number in range(50):
        backlog.offer(number, Group(f"dead{number}", ""))
    fill(backlog, "live", range(100, 112))
    assert waiting(backlog, range(100, 112)) == list(range(100, 110))
    assert waiting(backlog, range(50)) == []
    for number in range(100, 106):
        backlog.discard(number)
    assert backlog.wanted() == {("default", "live")}
    backlog.refilling(frozenset({("default", "live")}))
    assert backlog.wanted() == frozenset(), "what nobody takes is not asked for"


def test_a_lane_has_a_share_of_one_however_many_lanes_there_are() -> None:
    names = [f"n{number}" for number in range(40)]
    backlog, _ = queue_of(10, *names)
    for number, name in enumerate(names):
        backlog.offer(number, Group(name, ""))
    assert len(backlog) == 10
    for number in range(10):
        backlog.discard(number)
    wanted = backlog.wanted()
    assert wanted is not None
    assert len(wanted) == 30


def test_work_that_was_left_out_is_asked_for_when_a_worker_for_it_comes() -> None:
    backlog, taken = queue_of(10, "live")
    fill(backlog, "live", range(10))
    backlog.offer(99, Group("late", ""))
    assert (99 in backlog, backlog.wanted()) == (False, frozenset())
    taken.add(("default", "late"))
    backlog.workers_changed(more=True)
    assert backlog.wanted() is None
    backlog.refilling(None)
    backlog.offer(99, Group("late", ""))
    assert 99 in backlog


def test_what_waited_for_a_worker_that_came_keeps_its_order() -> None:
    backlog, taken = queue_of(10)
    fill(backlog, "late", range(3))
    assert backlog.takeable() == []
    assert [backlog.count(group) for group in backlog.groups()] == [3]
    taken.add(("default", "late"))
    backlog.workers_changed(more=True)
    [group] = backlog.takeable()
    assert [backlog.take(group) for _ in range(4)] == [(0, 0), (1, 0), (2, 0), None]
    assert len(backlog) == 0


def test_the_name_that_was_served_is_last_the_next_time() -> None:
    backlog: ReadyQueue[int] = ReadyQueue()
    fill(backlog, "a", range(3))
    fill(backlog, "b", range(10, 13))
    taken = []
    for _ in range(6):
        found = backlog.take(backlog.takeable()[0])
        assert found is not None
        taken.append(found[0])
    assert taken == [0, 10, 1, 11, 2, 12]


def test_the_oldest_item_is_known_whichever_group_it_is_in() -> None:
    times = iter(range(100, 200))
    queue: ReadyQueue[int] = ReadyQueue(is_taken=lambda lane: lane != ("default", "idle"), now=lambda: next(times))
    assert queue.waits_since() is None
    queue.offer(1, Group("idle", ""))
    queue.offer(2, Group("a", ""))
    queue.offer(3, Group("b", ""))
    assert queue.waits_since() == 100
    queue.discard(1)
    assert queue.waits_since() == 101
    queue.regroup(2, frozenset({"worker"}))
    assert queue.waits_since() == 101
    queue.workers_changed(more=True)
    assert queue.waits_since() == 101
