"""What every store keeps to in queries, and how the file store finds its answers."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.model import Changes, Instance, Status
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, Order, Page, Store
from sidecar.store.sqlite import queries
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.store.builders import ME, entity, instance, step

ALL = Criteria("default")
ENDED = Order.COMPLETED
GOES = {Status.COMPLETED, Status.FAILED}


async def stored(store: Store, *instances: Instance) -> None:
    assert set(await store.commit([Changes(key=one.key, instance=one) for one in instances])) <= {None}


async def pages(store: Store, criteria: Criteria, order: Order = Order.CREATED, limit: int = 100) -> list[Page]:
    """All pages of a query, each with no more than it may have, each behind the one before."""
    found: list[Page] = []
    after: Cursor | None = BEGINNING
    while after is not None:
        page = await store.query(criteria, order, after, limit)
        assert len(page.found) <= limit
        assert page.next is None or page.next > after
        found.append(page)
        after = page.next
    return found


async def keys(store: Store, criteria: Criteria, order: Order = Order.CREATED, limit: int = 100) -> list[int]:
    return [one.key for page in await pages(store, criteria, order, limit) for one in page.found]


def some(statuses: Iterable[Status]) -> list[Instance]:
    """Instances 1, 2, … with these statuses, one a second."""
    return [
        instance(
            key,
            f"i{key}",
            status=status,
            created_at=key * 10,
            completed_at=1_000 - key * 10 if status.terminal else None,
        )
        for key, status in enumerate(statuses, 1)
    ]


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_a_query_answers_in_order_of_creation_whatever_the_page(store: Store, limit: int) -> None:
    times = {1: 50, 2: 10, 3: 50, 4: 10, 5: 70, 6: 50}
    statuses = [Status.RUNNING, Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.PENDING, Status.RUNNING]
    rows = [instance(key, f"i{key}", created_at=times[key], status=statuses[key - 1]) for key in times]
    await stored(store, *rows)
    assert await keys(store, ALL, limit=limit) == [2, 4, 1, 3, 6, 5]


async def test_an_answer_is_the_whole_instance(store: Store) -> None:
    full = instance(3, "a", custom_status="half", failure=b"f", tags=b"t", completed_at=5, status=Status.FAILED)
    await stored(store, full)
    assert (await store.query(ALL, Order.CREATED, BEGINNING, 10)).found == [full]


async def test_an_empty_store_has_one_empty_page(store: Store) -> None:
    for order in Order:
        assert await pages(store, ALL, order) == [Page([], None)]


async def test_a_query_is_about_one_hub(store: Store) -> None:
    await stored(store, instance(1, "a"), instance(2, "a", hub="other"), instance(3, "b"))
    assert await keys(store, ALL) == [1, 3]
    assert await keys(store, Criteria("other")) == [2]
    assert await keys(store, Criteria("oth")) == []
    assert await store.hubs() == ["default", "other"]


@pytest.mark.parametrize("statuses", [[], [Status.RUNNING], [Status.FAILED, Status.PENDING], list(Status)])
async def test_a_query_by_status(store: Store, statuses: list[Status]) -> None:
    await stored(store, *some([*Status, *Status]))
    expected = [key for key, status in enumerate([*Status, *Status], 1) if status in statuses]
    assert await keys(store, Criteria("default", frozenset(statuses)), limit=2) == expected


@pytest.mark.parametrize(
    ("since", "before", "expected"),
    [
        (None, None, [1, 2, 3, 4]),
        (20, None, [2, 3, 4]),
        (21, 40, [3]),
        (None, 20, [1]),
        (40, 40, []),
        (-(2**62), 2**62, [1, 2, 3, 4]),
    ],
)
async def test_a_range_of_times_begins_at_the_first_and_ends_before_the_second(
    store: Store, since: int | None, before: int | None, expected: list[int]
) -> None:
    await stored(store, *some([Status.RUNNING, Status.COMPLETED, Status.RUNNING, Status.FAILED]))
    for limit in (1, 100):
        assert await keys(store, Criteria("default", since=since, before=before), limit=limit) == expected


async def test_a_query_in_order_of_the_end_knows_only_what_has_ended(store: Store) -> None:
    await stored(store, *some([Status.COMPLETED, Status.RUNNING, Status.FAILED, Status.CANCELED, Status.TERMINATED]))
    odd = instance(9, "odd", status=Status.RUNNING, completed_at=5)  # as after a rewind, whatever is left of its end
    await stored(store, odd)
    assert await keys(store, ALL, ENDED, limit=2) == [5, 4, 3, 1]
    assert await keys(store, Criteria("default", frozenset(GOES | {Status.RUNNING})), ENDED) == [3, 1]
    assert await keys(store, Criteria("default", since=960, before=980), ENDED) == [4, 3]


PREFIXES = ["a", "ab", "abc", "ac", "b", "é", "éa", "a\x00", "\U0010ffff", "\U0010ffffx", "\ud7ff", "\ue000"]


@pytest.mark.parametrize("few", [0, 100], ids=["walked", "by ID"])
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_query_by_prefix(store: Store, monkeypatch: pytest.MonkeyPatch, prefix: str, few: int) -> None:
    monkeypatch.setattr(queries, "SLICE", few)
    ids = [*PREFIXES, "A", "aB"]
    await stored(store, *(instance(key, id_, created_at=100 - key) for key, id_ in enumerate(ids, 1)))
    expected = [key for key, id_ in enumerate(ids, 1) if id_.startswith(prefix)]
    for limit in (1, 3):
        assert await keys(store, Criteria("default", prefix=prefix), limit=limit) == expected[::-1]


async def test_a_query_by_name_and_tags(store: Store) -> None:
    rows = [
        instance(1, "a", name="A", tags=b"<x><y>"),
        instance(2, "b", name="B", tags=b"<x>"),
        instance(3, "c", name="A"),
    ]
    await stored(store, *rows)
    assert await keys(store, Criteria("default", name="A"), limit=1) == [1, 3]
    assert await keys(store, Criteria("default", tags=(b"<x>",)), limit=1) == [1, 2]
    assert await keys(store, Criteria("default", tags=(b"<y>", b"<x>"))) == [1]
    assert await keys(store, Criteria("default", name="B", tags=(b"<y>",))) == []


async def test_entities_are_no_workflows(store: Store) -> None:
    await stored(store, entity(1, "@counter@a"), instance(2, "a"), instance(3, "b@c"))
    assert await keys(store, ALL) == [2, 3]
    assert await keys(store, Criteria("default", prefix="@")) == []
    assert await keys(store, Criteria("default", entities=True)) == [1, 2, 3]


async def test_what_comes_while_pages_are_read_hides_nothing(store: Store) -> None:
    """Each instance that was there before and is there after is seen once, though others come, go and change."""
    await stored(store, *some([Status.RUNNING] * 6))
    seen: list[int] = []
    after: Cursor | None = BEGINNING
    new = 100
    while after is not None:
        page = await store.query(ALL, Order.CREATED, after, 2)
        seen += [one.key for one in page.found]
        after = page.next
        new += 1
        if new < 105:
            await stored(store, instance(new, f"n{new}", created_at=25))
            await store.commit([step(some([Status.RUNNING] * 6)[new - 101], {"status": Status.COMPLETED})])
    assert [key for key in seen if key < 100] == [1, 2, 3, 4, 5, 6]


# --- the file store --------------------------------------------------------------------------------------------------


@pytest.fixture
async def file(tmp_path: Path) -> Any:
    store = await open_store(ME, tmp_path, "fresh")
    yield store
    await store.close()


async def plan_of(store: Sqlite, statement: str, values: Sequence[Any]) -> list[str]:
    def explain(connection: sqlite3.Connection) -> list[str]:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    return await store.file.call(explain)


@pytest.mark.parametrize("order", list(Order))
async def test_no_query_reads_or_sorts_more_than_its_slice(file: Sqlite, order: Order) -> None:
    for criteria in (ALL, Criteria("default", frozenset({Status.FAILED}), since=1, before=9, name="A", prefix="a")):
        looked_at = queries.walk(criteria, order, BEGINNING, 10)
        statement, values = queries.matching(looked_at, criteria)
        plan = await plan_of(file, statement, [*values, 5])
        text = "\n".join(plan)
        assert "TEMP B-TREE" not in text, text
        ranges = [line for line in plan if "SEARCH instances USING COVERING INDEX" in line]
        assert all(f"instances_{order.value}" in line and "status=? AND" in line for line in ranges), text
        assert len(ranges) == len(criteria.statuses) or (order is ENDED and len(ranges) == 4) or len(ranges) == 1, text
        others = [line for line in plan if line.startswith(("SCAN", "SEARCH")) and line not in ranges]
        assert sorted(others) == ["SCAN slice", "SEARCH instances USING INTEGER PRIMARY KEY (rowid=?)"], text


async def test_ids_with_a_prefix_and_hubs_are_found_by_the_index(file: Sqlite) -> None:
    plan = await plan_of(file, queries._WITH_PREFIX, ("default", "a", "b", 10))
    assert ["COVERING INDEX" in line and "id>? AND id<?" in line for line in plan] == [True]
    assert all("SCAN instances" not in line for line in await plan_of(file, queries.HUBS, ()))


async def test_a_query_that_finds_nothing_looks_at_one_slice_at_a_time(
    file: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SLICE", 7)
    await stored(file, *some([Status.RUNNING] * 20))
    found = await pages(file, Criteria("default", name="nothing"), limit=5)
    assert [len(page.found) for page in found] == [0, 0, 0]


async def test_a_page_of_large_rows_is_cut(file: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_BYTES", 1_000)
    await stored(file, *(instance(key, f"i{key}", custom_status="x" * 400) for key in range(1, 8)))
    await stored(file, instance(8, "large", custom_status="x" * 5_000, created_at=101))
    found = await pages(file, ALL)
    assert [[one.key for one in page.found] for page in found] == [[1, 2, 3], [4, 5, 6], [7, 8], []]
