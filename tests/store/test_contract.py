"""What every store keeps to. A case uses the protocol and nothing else."""

import asyncio
import itertools
from dataclasses import replace
from functools import partial

import pytest

from sidecar.core.attempts import Crash, DeliveryAttempts
from sidecar.core.model import (
    ActorId,
    CallId,
    CallKind,
    Changes,
    Child,
    Kind,
    Lock,
    Parent,
    Position,
    Reminder,
    Rewind,
    Row,
    Status,
)
from sidecar.core.receipts import Delivered, Forgotten, Lost, Received
from sidecar.core.schedule_row import ScheduleStep
from sidecar.store.protocol import PAGE_BYTES, EntityRow, Ready, Refusal, Store, UnavailableError, Waiting
from tests.store.builders import (
    EVERYTHING,
    MAIL,
    MANY,
    ME,
    ML,
    Reopen,
    activity,
    call_of_ml,
    child,
    created,
    entity,
    from_ml,
    instance,
    open_call,
    reminder,
    result_for,
    schedule_step,
    step,
    workflow,
)

FROM_ML = Received(*ML, "ml-store.1", 5)


async def done(store: Store, *batch: Changes) -> None:
    """Commit changes that must not be refused."""
    assert await store.commit(batch) == [None] * len(batch)


async def refused(store: Store, changes: Changes, why: Refusal) -> None:
    assert await store.commit([changes]) == [why]


async def events(store: Store, key: int = 1) -> list[bytes]:
    return await store.events(key, EVERYTHING, MANY)


async def to_ml(store: Store) -> list[int]:
    return [one.id for one in await store.outbound(*ML, 0, MANY)]


# --- instances -------------------------------------------------------------------------------------------------------


async def test_an_instance_that_was_never_stored_is_none(store: Store) -> None:
    await done(store, created(1, "a"))
    assert await store.load("default", "b") is None
    assert await store.load("other", "a") is None


async def test_an_instance_comes_back_as_it_was_written(store: Store) -> None:
    full = instance(
        7,
        "odd \x00 id 'with\" \N{SNOWMAN} \U0001f600",
        hub="hub",
        revision=1,
        name="",
        version="",
        status=Status.SUSPENDED,
        suspended=True,
        began=False,
        ready=True,
        created_at=0,
        updated_at=2**62,
        started_at=0,
        completed_at=1,
        scheduled_at=2,
        origin="o",
        execution="e",
        last_completed_turn=9,
        workflow_time=-5,
        custom_status="",
        failure=b"",
        tags=b"\x00\xff",
        parent=Parent(ActorId("n", "app", "workflow", "", "p"), CallId("pe", 3, -1), "Parent"),
        detached=3,
        trace=b"\x00trace",
        rewind=Rewind.REPLAY,
        stall=b"",
        recorded=b"\x0a\xff",
    )
    await done(store, created(7, instance=full))
    state = await store.load("hub", full.id)
    assert state is not None
    assert state.instance == full
    typed = (state.instance.suspended, state.instance.status, state.instance.rewind)
    assert [type(value) for value in typed] == [bool, Status, Rewind]


async def test_what_an_instance_does_not_have_comes_back_as_none(store: Store) -> None:
    await done(store, created(1))
    state = await store.load("default", "a")
    assert state is not None
    assert state.instance == instance(1)


async def test_a_step_replaces_the_row_of_its_instance(store: Store) -> None:
    first = instance(1)
    await done(store, created(1))
    await done(store, step(first, {"custom_status": "half way", "failure": b"f", "status": Status.FAILED}))
    state = await store.load("default", "a")
    assert state is not None
    assert (state.instance.revision, state.instance.custom_status, state.instance.failure) == (2, "half way", b"f")


async def test_the_same_id_in_two_hubs_is_two_instances(store: Store) -> None:
    await done(store, created(1), created(2, instance=instance(2, hub="other")))
    loaded = [await store.load(hub, "a") for hub in ("default", "other")]
    assert [state and state.instance.key for state in loaded] == [1, 2]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_commit_is_refused_when_the_revision_is_another(store: Store, expected: int) -> None:
    await done(store, created(1), step(instance(1)))
    stale = replace(step(instance(1, revision=2), {"name": "Changed"}), expected=expected)
    await refused(store, stale, Refusal.CONFLICT)
    state = await store.load("default", "a")
    assert state is not None
    assert (state.instance.revision, state.instance.name) == (2, "Order")


async def test_a_step_of_an_instance_that_is_gone_is_refused(store: Store) -> None:
    await refused(store, step(instance(1)), Refusal.CONFLICT)
    assert await store.load("default", "a") is None


async def test_a_creation_is_refused_when_another_instance_has_the_id(store: Store) -> None:
    await done(store, created(1))
    await refused(store, created(2), Refusal.CONFLICT)
    state = await store.load("default", "a")
    assert state is not None
    assert state.instance.key == 1
    assert await events(store, 2) == []


async def test_nothing_of_refused_changes_is_written(store: Store) -> None:
    call = call_of_ml(1)
    await done(store, created(1, set=(call, call_of_ml(2)), opened=(open_call(1),)))
    before = await store.load("default", "a")
    everything = step(
        instance(1, revision=5),
        output="out",
        truncate=Position(0, 0),
        append=(Row(3, 2, b"x"),),
        closed=(1,),
        opened=(open_call(2),),
        children=(child(3),),
        set=(reminder(3),),
        dropped=(1,),
        released=(2,),
        received=(FROM_ML,),
        delivered=(Delivered(2, "ml-store.1"),),
    )
    await refused(store, everything, Refusal.CONFLICT)
    assert await store.load("default", "a") == before
    assert await events(store) == [b"started"]
    assert await store.payloads(1) == (b"started", None)
    assert await store.children(1) == []
    assert [await store.reminder(id_) for id_ in (1, 2, 3)] == [call, call_of_ml(2), None]
    assert await to_ml(store) == [1, 2]
    await done(store, Changes(received=(FROM_ML,)))


async def test_changes_that_use_up_a_reminder_are_refused_when_it_is_gone(store: Store) -> None:
    await done(store, created(1, set=(reminder(1),)))
    use = step(instance(1), append=(Row(1, 2, b"event"),), required=(1,), dropped=(1,))
    await done(store, use)
    await refused(store, replace(use, expected=2), Refusal.GONE)
    assert await events(store) == [b"started", b"event"]


async def test_a_required_reminder_that_is_not_dropped_stays(store: Store) -> None:
    await done(store, Changes(set=(reminder(1),)))
    await done(store, Changes(required=(1,)))
    assert await store.reminder(1) == reminder(1)


async def test_one_missing_reminder_of_several_refuses_the_changes(store: Store) -> None:
    await done(store, Changes(set=(reminder(1),)))
    await refused(store, Changes(required=(1, 2), dropped=(1, 2)), Refusal.GONE)
    assert await store.reminder(1) == reminder(1)


async def test_a_message_is_accepted_once(store: Store) -> None:
    await done(store, created(1, received=(FROM_ML,)))
    await refused(store, step(instance(1), received=(FROM_ML,)), Refusal.DUPLICATE)
    await done(store, Changes(received=(FROM_ML._replace(id=6),)), Changes(received=(FROM_ML._replace(store="m.2"),)))


async def test_a_duplicate_is_called_one_even_where_the_rest_fits_no_more(store: Store) -> None:
    await done(store, created(1, received=(FROM_ML,)))
    late = replace(step(instance(1, revision=9)), required=(77,), received=(FROM_ML,))
    await refused(store, late, Refusal.DUPLICATE)


async def test_a_reminder_that_is_gone_is_named_before_a_revision_that_moved(store: Store) -> None:
    await done(store, created(1))
    await refused(store, replace(step(instance(1, revision=9)), required=(77,)), Refusal.GONE)


# --- schedules -------------------------------------------------------------------------------------------------------


async def test_a_schedule_comes_back_as_it_was_written_also_after_a_restart(store: Store, reopen: Reopen) -> None:
    assert await store.schedule("default", "nightly") is None
    await done(store, Changes(schedule=schedule_step(1)))
    changed = schedule_step(2, definition=b"other", progress=b"", reminder=7)
    await done(store, Changes(schedule=changed))
    again = await reopen()
    assert await again.schedule("default", "nightly") == changed.row
    assert await again.schedule("other", "nightly") is None


@pytest.mark.parametrize("revision", [1, 3])
async def test_a_step_of_a_schedule_at_another_revision_is_refused_with_all_that_goes_with_it(
    store: Store, revision: int
) -> None:
    first = schedule_step(1)
    await done(store, Changes(schedule=first))
    late = created(1, set=(reminder(1),), schedule=schedule_step(revision))
    await refused(store, late, Refusal.GONE)
    assert await store.load("default", "a") is None
    assert await store.reminder(1) is None
    assert await store.schedule("default", "nightly") == first.row


async def test_a_run_and_the_step_of_its_schedule_are_one_commit(store: Store) -> None:
    await done(store, Changes(schedule=schedule_step(1, reminder=1), set=(reminder(1, Kind.SCHEDULE),)))
    moved = schedule_step(2, reminder=2)
    await done(store, created(1, schedule=moved, dropped=(1,), set=(reminder(2, Kind.SCHEDULE, due=9),)))
    assert await store.load("default", "a") is not None
    assert await store.schedule("default", "nightly") == moved.row
    assert [one.id for one in await store.due(9, Position(-1, 0), MANY)] == [2]


async def test_a_schedule_that_is_removed_is_gone_and_may_be_made_anew(store: Store) -> None:
    await done(store, Changes(schedule=schedule_step(1)))
    removed = ScheduleStep("default", "nightly", 1, None)
    await done(store, Changes(schedule=removed))
    assert await store.schedule("default", "nightly") is None
    await refused(store, Changes(schedule=removed), Refusal.GONE)
    await done(store, Changes(schedule=schedule_step(1)))


async def test_schedules_are_read_by_hub_and_id_in_pages(store: Store) -> None:
    places = [("default", "a"), ("default", "b"), ("other", "a")]
    for hub, schedule_id in reversed(places):
        await done(store, Changes(schedule=schedule_step(1, schedule_id, hub)))
    assert [(one.hub, one.id) for one in await store.schedules(("", ""), 2)] == places[:2]
    assert [(one.hub, one.id) for one in await store.schedules(places[1], 2)] == places[2:]


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_an_empty_batch_has_no_answers(store: Store) -> None:
    assert await store.commit([]) == []


async def test_changes_of_a_batch_build_on_those_before(store: Store) -> None:
    first = instance(1)
    second = replace(first, revision=2)
    await done(store, created(1), step(first, append=(Row(1, 2, b"one"),)), step(second, append=(Row(1, 3, b"two"),)))
    assert await events(store) == [b"started", b"one", b"two"]


async def test_behind_a_change_of_an_instance_that_is_refused_the_batch_is_left_out(store: Store) -> None:
    """What follows was decided on the state that the change would have left, even where it names no instance."""
    await done(store, created(1, "a"), created(2, "b"))
    fine = step(instance(2, "b"), append=(Row(1, 2, b"fine"),))
    stale = step(instance(1, "a", revision=4), append=(Row(1, 2, b"stale"),))
    on_stale = step(instance(1, "a", revision=5), append=(Row(1, 3, b"on stale"),))
    nothing_to_do = Changes(received=(FROM_ML,))
    answers = await store.commit([fine, stale, on_stale, nothing_to_do])
    assert answers == [None, Refusal.CONFLICT, Refusal.CONFLICT, Refusal.CONFLICT]
    assert await events(store, 1) == [b"started"]
    assert await events(store, 2) == [b"started", b"fine"]
    assert await store.commit([nothing_to_do]) == [None]


async def test_a_refused_change_of_no_instance_harms_nobody(store: Store) -> None:
    await done(store, created(1, "a"))
    gone = Changes(required=(9,))
    answers = await store.commit([gone, step(instance(1, "a"), append=(Row(1, 2, b"fine"),))])
    assert answers == [Refusal.GONE, None]


async def test_the_second_of_two_equal_messages_in_a_batch_is_a_duplicate(store: Store) -> None:
    once = Changes(received=(FROM_ML,))
    assert await store.commit([once, once]) == [None, Refusal.DUPLICATE]


async def test_the_second_of_two_creations_of_an_id_in_a_batch_is_refused(store: Store) -> None:
    assert await store.commit([created(1), created(2)]) == [None, Refusal.CONFLICT]


async def test_commits_of_one_moment_each_get_their_own_answers(store: Store) -> None:
    batches = [[created(key, f"id-{key}"), *[created(key, f"id-{key}")] * (key % 3)] for key in range(1, 30)]
    answers = await asyncio.gather(*(store.commit(batch) for batch in batches))
    assert answers == [[None] + [Refusal.CONFLICT] * (len(batch) - 1) for batch in batches]


async def test_of_many_that_step_from_one_revision_one_wins(store: Store) -> None:
    """M48"""
    await done(store, created(1))
    tries = [step(instance(1), append=(Row(1, 2, bytes([number])),)) for number in range(20)]
    answers = [one for (one,) in await asyncio.gather(*(store.commit([changes]) for changes in tries))]
    assert answers.count(None) == 1
    assert answers.count(Refusal.CONFLICT) == 19
    assert await events(store) == [b"started", bytes([answers.index(None)])]


async def test_a_commit_whose_caller_gave_up_is_made_and_harms_nobody(store: Store) -> None:
    given_up = asyncio.create_task(store.commit([created(1, "a")]))
    other = asyncio.create_task(store.commit([created(2, "b")]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await other == [None]
    assert await store.load("default", "a") is not None
    await done(store, step(instance(1, "a")))


# --- replacing and purging -------------------------------------------------------------------------------------------


async def test_an_instance_that_is_replaced_leaves_nothing_but_its_reminders(store: Store) -> None:
    leftover = call_of_ml(1)
    old = created(1, output="old", opened=(open_call(0),), children=(child(3),), set=(leftover,))
    await done(store, old)
    await done(store, created(2, append=(Row(1, 1, b"anew"),), replaces=1, replaced_at=1))
    state = await store.load("default", "a")
    assert state is not None
    assert (state.instance.key, state.open, state.children) == (2, {}, {})
    assert await events(store, 1) == []
    assert await events(store, 2) == [b"anew"]
    assert [await store.payloads(key) for key in (1, 2)] == [(None, None), (b"anew", None)]
    assert await store.children(1) == []
    assert await store.reminder(1) == leftover


@pytest.mark.parametrize("replaced_at", [0, 1, 3])
async def test_a_replacement_is_refused_when_the_old_one_is_at_another_revision(store: Store, replaced_at: int) -> None:
    await done(store, created(1), step(instance(1)))
    await refused(store, created(2, replaces=1, replaced_at=replaced_at), Refusal.CONFLICT)
    state = await store.load("default", "a")
    assert state is not None
    assert state.instance.key == 1
    assert await events(store, 1) == [b"started"]


async def test_a_replacement_of_an_instance_that_is_gone_is_refused(store: Store) -> None:
    await done(store, created(1), Changes(key=1, expected=1, purged=True))
    await refused(store, created(2, replaces=1, replaced_at=1), Refusal.CONFLICT)


async def test_a_purge_leaves_nothing_but_reminders(store: Store) -> None:
    leftover = reminder(1)
    await done(
        store,
        created(1, output="out", opened=(open_call(0),), children=(child(3),), set=(leftover,)),
    )
    await done(store, Changes(key=1, expected=1, purged=True, set=(reminder(2, Kind.PURGE, target=workflow("c")),)))
    assert await store.load("default", "a") is None
    assert await events(store) == []
    assert await store.payloads(1) == (None, None)
    assert await store.children(1) == []
    assert await store.ready(0, MANY) == []
    assert [one.id for one in await store.due(MANY, Position(0, 0), MANY)] == [1, 2]


async def test_a_purge_at_another_revision_is_refused(store: Store) -> None:
    await done(store, created(1))
    await refused(store, Changes(key=1, expected=2, purged=True), Refusal.CONFLICT)
    assert await store.load("default", "a") is not None


async def test_a_purge_happens_once(store: Store) -> None:
    purge = Changes(key=1, expected=1, purged=True)
    await done(store, created(1))
    assert await store.commit([purge, purge]) == [None, Refusal.CONFLICT]


async def test_an_id_is_free_after_a_purge(store: Store) -> None:
    await done(store, created(1, opened=(open_call(0),)), Changes(key=1, expected=1, purged=True), created(2))
    state = await store.load("default", "a")
    assert state is not None
    assert (state.instance.key, state.open) == (2, {})


# --- the log ---------------------------------------------------------------------------------------------------------


async def test_events_are_read_in_order_from_a_position_to_the_end_of_a_turn(store: Store) -> None:
    log = [Row(turn, index, b"%d.%d" % (turn, index)) for turn in (1, 2, 3, 10) for index in (0, 1, 2, 11)]
    await done(store, created(1, append=tuple(reversed(log))), created(2, "b"))
    assert await events(store) == [row.event for row in log]
    assert await store.events(1, Position(1, 2), 2) == [b"1.11", b"2.0", b"2.1", b"2.2", b"2.11"]
    assert await store.events(1, Position(3, 11), 9) == []
    assert await store.events(1, Position(2, 50), 10) == [row.event for row in log[8:]]


async def test_a_cut_removes_the_log_from_a_position_on(store: Store) -> None:
    log = tuple(Row(turn, index, b"%d.%d" % (turn, index)) for turn in (1, 2, 3) for index in (1, 2, 3))
    await done(store, created(1, append=log))
    await done(store, step(instance(1), truncate=Position(2, 2), append=(Row(2, 2, b"other"),)))
    assert await events(store) == [b"1.1", b"1.2", b"1.3", b"2.1", b"other"]


async def test_a_cut_of_everything_leaves_what_is_appended_with_it(store: Store) -> None:
    await done(store, created(1), created(2, "b"))
    await done(
        store, step(instance(1), {"last_completed_turn": 1}, truncate=Position(0, 0), append=(Row(2, 1, b"anew"),))
    )
    assert await events(store, 1) == [b"anew"]
    assert await events(store, 2) == [b"started"]


async def test_the_inbox_is_the_log_behind_the_last_covered_turn(store: Store) -> None:
    log = (Row(1, 1, b"started"), Row(1, 2, b"x"), Row(2, 2, b"y"), Row(3, 2, b"z"), Row(2, 3, b"y2"))
    await done(store, created(1, append=log))
    await done(store, step(instance(1), {"last_completed_turn": 1}))
    state = await store.load("default", "a")
    assert state is not None
    assert state.inbox == [Row(2, 2, b"y"), Row(2, 3, b"y2"), Row(3, 2, b"z")]


@pytest.mark.parametrize(
    ("rows", "tail"),
    [
        ((), Position(5, 2)),
        ((Row(5, 1, b"started"),), Position(5, 2)),
        ((Row(5, 2, b"x"), Row(6, 2, b"y"), Row(6, 3, b"z")), Position(6, 4)),
    ],
)
async def test_the_next_arrival_goes_behind_the_inbox(store: Store, rows: tuple[Row, ...], tail: Position) -> None:
    await done(store, created(1, instance=instance(1, last_completed_turn=4), append=(Row(4, 2, b"old"), *rows)))
    state = await store.load("default", "a")
    assert state is not None
    assert state.tail == tail


async def test_the_start_and_the_output_are_the_payloads(store: Store) -> None:
    assert await store.payloads(1) == (None, None)
    await done(store, created(1))
    await done(store, step(instance(1), append=(Row(1, 0, b"turn"), Row(2, 2, b"x")), output=""))
    assert await store.payloads(1) == (b"started", "")


async def test_the_start_of_a_scheduled_instance_is_read_from_its_reminder(store: Store) -> None:
    start = reminder(1, Kind.START, payload=b"will start", due=50)
    other = reminder(2, Kind.START, owner=2, payload=b"of another")
    await done(store, created(1, append=(), set=(reminder(3), other, start)))
    assert await store.payloads(1) == (b"will start", None)
    await done(store, step(instance(1), append=(Row(1, 1, b"has started"),), required=(1,), dropped=(1,)))
    assert await store.payloads(1) == (b"has started", None)


async def test_the_start_is_that_of_the_running_execution(store: Store) -> None:
    await done(store, created(1))
    await done(store, step(instance(1), truncate=Position(0, 0), append=(Row(3, 1, b"again"), Row(3, 2, b"x"))))
    assert await store.payloads(1) == (b"again", None)


async def test_an_output_stays_until_there_is_another(store: Store) -> None:
    first = instance(1)
    await done(store, created(1, output="one"), step(first))
    assert (await store.payloads(1))[1] == "one"
    await done(store, step(replace(first, revision=2), output="two"))
    assert (await store.payloads(1))[1] == "two"


async def test_the_output_of_an_instance_that_runs_again_goes(store: Store) -> None:
    first = instance(1)
    await done(store, created(1, output="one"), step(first, reopened=True))
    assert (await store.payloads(1))[1] is None
    await done(store, step(replace(first, revision=2), reopened=True, output="two"))
    assert (await store.payloads(1))[1] == "two"


# --- calls and children ----------------------------------------------------------------------------------------------


async def test_open_calls_come_back_as_they_were_opened(store: Store) -> None:
    timer = open_call(-1, CallKind.TIMER, name="", reminder=0)
    far = open_call(3, CallKind.CHILD, target=ActorId("n", "ml", "workflow", "", "x"))
    await done(store, created(1, opened=(timer, far)), created(2, "b"))
    loaded = [await store.load("default", id_) for id_ in ("a", "b")]
    assert [state and state.open for state in loaded] == [{-1: timer, 3: far}, {}]


async def test_calls_are_closed_by_task(store: Store) -> None:
    await done(store, created(1, opened=(open_call(0), open_call(1), open_call(2))))
    await done(store, created(2, "b", opened=(open_call(1),)))
    await done(store, step(instance(1), closed=(1, 7)))
    loaded = [await store.load("default", id_) for id_ in ("a", "b")]
    assert [state and list(state.open) for state in loaded] == [[0, 2], [1]]


async def test_a_task_that_is_closed_and_opened_in_one_step_is_open(store: Store) -> None:
    again = open_call(0)._replace(call=CallId("execution-1", 2, 0))
    await done(store, created(1, opened=(open_call(0),)))
    await done(store, step(instance(1), closed=(0,), opened=(again,)))
    state = await store.load("default", "a")
    assert state is not None
    assert state.open == {0: again}


async def test_close_all_spares_the_calls_of_its_own_step(store: Store) -> None:
    await done(store, created(1, opened=(open_call(0), open_call(1))), created(2, "b", opened=(open_call(0),)))
    await done(store, step(instance(1), close_all=True, opened=(open_call(2),)))
    loaded = [await store.load("default", id_) for id_ in ("a", "b")]
    assert [state and list(state.open) for state in loaded] == [[2], [0]]


async def test_children_that_ended_and_were_called_long_ago_are_forgotten(store: Store) -> None:
    calls = [CallId("execution-1", turn, 0) for turn in (1, 2, 3, 4)]
    children = [Child(workflow("c"), one) for one in calls]
    await done(store, created(1, children=tuple(children)), created(2, "b", children=tuple(children)))
    ended = step(instance(1), ended=tuple(calls[1:]))
    await done(store, ended)
    assert ended.instance is not None
    await done(store, step(ended.instance, forgets_before=4))
    assert sorted(await store.children(1)) == [children[0], children[3]], "one that lives is known however old it is"
    assert len(await store.children(2)) == 4


async def test_children_that_ended_are_not_live_but_are_children(store: Store) -> None:
    own, far = child(0), child(1, workflow("c0", ML))
    await done(store, created(1, children=(own, far)), created(2, "b", children=(own,)))
    await done(store, step(instance(1), ended=(own.call, CallId("execution-1", 2, 1))))
    loaded = [await store.load("default", id_) for id_ in ("a", "b")]
    assert [state and state.children for state in loaded] == [{far.call: far}, {own.call: own}]
    assert sorted(await store.children(1)) == sorted([own, far])


async def test_a_creation_waits_until_it_is_delivered_though_its_parent_is_gone(store: Store) -> None:
    """M62: of the owner alone, what begins a child; one that is held is delivered when another store has it."""
    far = [Child(workflow(f"c{number}", ML), CallId("e", 1, number)) for number in range(4)]
    starts = [
        reminder(10 - number, kind, target=far[number].actor, call=far[number].call, kept_until_result=number == 0)
        for number, kind in enumerate((Kind.CREATE, Kind.CREATE, Kind.REWIND, Kind.DETACHED))
    ]
    foreign = reminder(20, Kind.CREATE, owner=2, call=far[0].call)
    await done(store, created(1, set=tuple(starts)), created(2, "b", set=(foreign,)))
    assert await store.creations(1) == far[:3]
    assert await store.creations(2) == [Child(workflow(), far[0].call)]
    await done(store, Changes(key=1, expected=1, purged=True))
    assert await store.creations(1) == far[:3]
    await done(store, Changes(delivered=(Delivered(10, "s"), Delivered(9, "s"))))
    assert await store.creations(1) == [far[2]]
    await done(store, Changes(lost=(Lost(*ML, "another", "another"),)))
    assert await store.creations(1) == [far[0], far[2]]
    await done(store, Changes(dropped=(8, 10)))
    assert await store.creations(1) == []


async def test_one_workflow_may_be_the_child_of_several_calls(store: Store) -> None:
    children = [Child(workflow("c"), CallId(e, turn, task)) for e in "xy" for turn in (1, 2) for task in (0, 1)]
    await done(store, created(1, children=tuple(children)))
    await done(store, step(instance(1), ended=tuple(one.call for one in children[1:])))
    state = await store.load("default", "a")
    assert state is not None
    assert list(state.children.values()) == children[:1]
    assert sorted(await store.children(1)) == children


async def test_a_child_that_is_stored_again_lives_again(store: Store) -> None:
    first, second = child(0), child(0, workflow("other"))
    await done(store, created(1, children=(first,)))
    await done(store, step(instance(1), ended=(first.call,), children=(second,)))
    state = await store.load("default", "a")
    assert state is not None
    assert state.children == {second.call: second}
    assert await store.children(1) == [second]


# --- ready -----------------------------------------------------------------------------------------------------------


async def test_ready_instances_are_read_by_key_in_pages(store: Store) -> None:
    rows = [instance(key, f"id-{key}", ready=key % 2 == 1, version=f"v{key}") for key in range(1, 10)]
    await done(store, *(created(row.key, instance=row) for row in reversed(rows)))
    assert await store.ready(0, 2) == [Ready(key, "default", f"id-{key}", "Order", f"v{key}") for key in (1, 3)]
    assert [one.key for one in await store.ready(3, MANY)] == [5, 7, 9]
    assert await store.ready(9, MANY) == []


async def test_an_instance_is_ready_as_long_as_its_row_says_so(store: Store) -> None:
    first = instance(1, ready=True)
    await done(store, created(1, instance=first), step(first, {"ready": False}))
    assert await store.ready(0, MANY) == []
    await done(store, step(instance(1, revision=2), {"ready": True}))
    assert await store.ready(0, MANY) == [Ready(1, "default", "a", "Order", None)]


# --- entities --------------------------------------------------------------------------------------------------------


async def test_ready_entities_are_read_apart_from_workflows(store: Store) -> None:
    """So a backlog of the one kind, with no worker for it, never hides the other."""
    rows = [entity(1, "@a@1", ready=True), instance(2, "w", ready=True), entity(3, "@a@2", ready=True)]
    await done(store, *(created(row.key, instance=row) for row in rows), created(4, instance=entity(4, "@a@3")))
    assert [one.id for one in await store.ready(0, MANY)] == ["w"]
    assert [one.id for one in await store.ready(0, MANY, True)] == ["@a@1", "@a@2"]
    assert [one.id for one in await store.ready(1, MANY, True)] == ["@a@2"]


async def test_an_entity_is_loaded_with_its_lock(store: Store) -> None:
    locked = entity(1, "@a@1", lock=Lock("w", "execution", "section"))
    await done(store, created(1, instance=locked))
    loaded = await store.load("default", "@a@1")
    assert loaded is not None
    assert loaded.instance == locked
    free = step(locked, {"lock": None})
    await done(store, free)
    loaded = await store.load("default", "@a@1")
    assert loaded is not None
    assert loaded.instance == free.instance


async def test_entities_are_listed_by_id_from_a_prefix_in_pages(store: Store) -> None:
    ids = ["@b@1", "@a@2", "@a@10", "@ab@1", "@a@\U0001f600"]
    await done(store, *(created(key, instance=entity(key, id_)) for key, id_ in enumerate(ids, 1)))
    elsewhere = [instance(6, "@a@workflow"), entity(7, "@a@1", hub="other")]
    await done(store, *(created(row.key, instance=row) for row in elsewhere))

    async def listed(prefix: str, after: str = "", limit: int = MANY) -> list[str]:
        return [one.id for one in await store.entities("default", prefix, after, limit, states=False)]

    assert await listed("@") == ["@a@10", "@a@2", "@a@\U0001f600", "@ab@1", "@b@1"]
    assert await listed("@a@") == ["@a@10", "@a@2", "@a@\U0001f600"]
    assert await listed("@a@", "", 2) == ["@a@10", "@a@2"]
    assert await listed("@a@", "@a@2") == ["@a@\U0001f600"]
    assert await listed("@c") == []


async def test_an_entity_is_listed_with_its_lock_its_backlog_and_its_state(store: Store) -> None:
    lock = Lock("w", "execution", "section")
    first = created(1, instance=entity(1, "@a@1", lock=lock), append=(Row(1, 2, b"x"), Row(1, 3, b"y")), output="{}")
    await done(store, first, created(2, instance=entity(2, "@a@2", updated_at=7), append=()))
    with_state, without = await store.entities("default", "@", "", MANY, states=True)
    assert with_state == EntityRow("@a@1", 1, 100, 2, lock, True, "{}")
    assert without == EntityRow("@a@2", 1, 7, 0, None, False, None)
    [shorter, _] = await store.entities("default", "@", "", MANY, states=False)
    assert shorter == with_state._replace(state=None)


async def test_single_events_of_the_log_are_removed(store: Store) -> None:
    await done(store, created(1, append=tuple(Row(1, index, b"%d" % index) for index in range(1, 6))))
    await done(store, step(instance(1), removed=(Position(1, 2), Position(1, 4)), append=(Row(1, 6, b"6"),)))
    assert await events(store) == [b"1", b"3", b"5", b"6"]


async def test_an_output_goes_when_there_is_none_any_more(store: Store) -> None:
    await done(store, created(1, output="state"), created(2, "b", output="other"))
    await done(store, step(instance(1), no_output=True))
    assert [(await store.payloads(key))[1] for key in (1, 2)] == [None, "other"]


async def test_an_open_call_keeps_the_entities_that_it_is_about(store: Store) -> None:
    locks = open_call(1, CallKind.HELD, name="section", entities=("@a@1", "@a@2"))
    await done(store, created(1, opened=(locks, open_call(2))))
    loaded = await store.load("default", "a")
    assert loaded is not None
    assert loaded.open == {1: locks, 2: open_call(2)}


# --- reminders -------------------------------------------------------------------------------------------------------


async def test_a_reminder_comes_back_as_it_was_set(store: Store) -> None:
    full = Reminder(
        id=2**40,
        kind=Kind.CREATE,
        owner=3,
        target=ActorId("n", "ml", "workflow", "h", "t\x00\N{SNOWMAN}"),
        source=ActorId("default", "orders", "workflow", "default", "s"),
        call=CallId("e", 2**40, -7),
        due=2**62,
        name="name",
        payload=bytes(range(256)),
        kept_until_result=True,
    )
    await done(store, Changes(set=(full, reminder(1, payload=b""))))
    assert await store.reminder(full.id) == full
    assert await store.reminder(1) == reminder(1, payload=b"")
    assert await store.reminder(2) is None
    assert await store.outbound("n", "ml", 0, MANY) == [full]


async def test_a_reminder_is_for_a_workflow_a_worker_or_another_app(store: Store) -> None:
    own, work, far = reminder(1), reminder(2, Kind.ACTIVITY, target=activity()), call_of_ml(3)
    namesake = reminder(4, target=ActorId("elsewhere", ME.app, "workflow", "", "a"))
    await done(store, Changes(set=(own, work, far, namesake)))
    assert await store.due(MANY, Position(0, 0), MANY) == [own]
    assert await store.activities(0, MANY) == [work]
    assert await store.outbound(*ML, 0, MANY) == [far]
    assert await store.outbound("elsewhere", ME.app, 0, MANY) == [namesake]
    assert await store.outbound(ME.namespace, ME.app, 0, MANY) == []


async def test_reminders_are_due_by_time_then_number_in_pages(store: Store) -> None:
    dues = {1: 30, 2: 10, 3: 20, 4: 10, 5: 21, 6: 20}
    await done(store, Changes(set=tuple(reminder(id_, due=due) for id_, due in dues.items())))
    assert [one.id for one in await store.due(20, Position(0, 0), MANY)] == [2, 4, 3, 6]
    assert [one.id for one in await store.due(20, Position(10, 2), 2)] == [4, 3]
    assert [one.id for one in await store.due(MANY, Position(20, 3), MANY)] == [6, 5, 1]
    assert await store.due(9, Position(0, 0), MANY) == []


async def test_a_page_of_reminders_is_bounded_in_bytes_too(store: Store) -> None:
    """However large the payloads are that a thousand of them have, one page of them fits into memory."""
    payload = b"x" * (PAGE_BYTES // 4)
    mine = [reminder(id_, payload=payload) for id_ in range(1, 11)]
    work = [reminder(id_, Kind.ACTIVITY, target=activity(), payload=payload) for id_ in range(11, 21)]
    far = [replace(call_of_ml(id_), payload=payload) for id_ in range(21, 31)]
    await done(store, Changes(set=(*mine, *work, *far)))
    position, found = Position(0, 0), []
    while page := await store.due(MANY, position, MANY):
        assert len(page) <= 5
        found += [one.id for one in page]
        position = Position(page[-1].due, page[-1].id)
    assert found == list(range(1, 11))
    for read in (store.activities, partial(store.outbound, *ML)):
        after, found = 0, []
        while page := await read(after, MANY):
            assert len(page) <= 5
            found += [one.id for one in page]
            after = found[-1]
        assert len(found) == 10


async def test_a_reminder_that_is_larger_than_a_page_comes_and_hides_nothing_behind_it(store: Store) -> None:
    large = b"x" * (PAGE_BYTES + 1)
    mine = [reminder(id_, payload=large) for id_ in (1, 2)]
    work = [reminder(id_, Kind.ACTIVITY, target=activity(), payload=large) for id_ in (3, 4)]
    await done(store, Changes(set=(*mine, *work)))
    assert [one.id for one in await store.due(MANY, Position(0, 0), MANY)] == [1]
    assert [one.id for one in await store.due(MANY, Position(mine[0].due, 1), MANY)] == [2]
    assert [[one.id for one in await store.activities(after, MANY)] for after in (0, 3, 4)] == [[3], [4], []]


async def test_activities_and_outbound_are_read_by_number_in_pages(store: Store) -> None:
    work = [reminder(id_, Kind.ACTIVITY, target=activity()) for id_ in (5, 1, 3)]
    far = [call_of_ml(id_) for id_ in (6, 2, 4)]
    mail = reminder(7, target=workflow("m", MAIL))
    await done(store, Changes(set=(*work, *far, mail)))
    assert [one.id for one in await store.activities(0, 2)] == [1, 3]
    assert [one.id for one in await store.activities(3, MANY)] == [5]
    assert [one.id for one in await store.outbound(*ML, 0, 2)] == [2, 4]
    assert [one.id for one in await store.outbound(*ML, 4, MANY)] == [6]


async def test_the_history_that_an_instance_was_given_stays_with_it_until_it_is_purged_or_replaced(
    store: Store,
) -> None:
    await done(store, replace(created(1, "a"), lineage=b"given"), created(2, "b"))
    assert [await store.lineage(key) for key in (1, 2, 3)] == [b"given", b"", b""]
    await done(store, Changes(key=1, expected=1, purged=True))
    assert await store.lineage(1) == b""


async def test_dropped_reminders_are_gone_and_dropping_them_again_is_no_harm(store: Store) -> None:
    await done(store, Changes(set=(reminder(1), reminder(2))))
    await done(store, Changes(dropped=(1,)), Changes(dropped=(1, 99)))
    assert [one.id for one in await store.due(MANY, Position(0, 0), MANY)] == [2]


async def test_destinations_are_the_other_apps_that_a_reminder_is_for(store: Store) -> None:
    assert list(await store.destinations()) == []
    mail = reminder(3, target=workflow("m", MAIL))
    await done(store, Changes(set=(call_of_ml(1), call_of_ml(2), mail, reminder(4))))
    assert sorted(await store.destinations()) == sorted([ML, MAIL])
    await done(store, Changes(delivered=(Delivered(1, "ml.1"), Delivered(2, "ml.1"), Delivered(3, "mail.1"))))
    assert list(await store.destinations()) == [ML]
    await done(store, Changes(dropped=(1, 2)))
    assert list(await store.destinations()) == []


async def test_calls_that_wait_for_other_apps_are_read_by_number_with_their_state_and_without_their_payload(
    store: Store,
) -> None:
    own = reminder(5, Kind.ACTIVITY, target=activity())
    foreign = replace(call_of_ml(6), owner=0)
    await done(
        store, Changes(set=(call_of_ml(1), call_of_ml(3), reminder(4, target=workflow("m", MAIL)), own, foreign))
    )
    await done(store, Changes(delivered=(Delivered(3, "ml.1"),)))
    first, second = await store.waiting("", 0, MANY)
    one = call_of_ml(1)
    assert first == Waiting(1, one.kind, one.source, one.target, one.call, one.name, one.due, delivered=False)
    assert (second.id, second.delivered) == (3, True)
    assert await store.waiting("", 1, 1) == [second]
    assert await store.waiting(ML[1], 0, 1) == [first]
    assert await store.waiting("other", 0, MANY) == []


# --- delivery to another app -----------------------------------------------------------------------------------------


async def test_a_delivered_reminder_goes_unless_it_is_held(store: Store) -> None:
    await done(store, Changes(set=(call_of_ml(1), call_of_ml(2, kept_until_result=False), call_of_ml(3))))
    await done(store, Changes(delivered=(Delivered(1, "ml.1"), Delivered(2, "ml.1"), Delivered(99, "ml.1"))))
    assert await store.reminder(1) == call_of_ml(1)
    assert await store.reminder(2) is None
    assert await to_ml(store) == [3]


async def test_a_released_reminder_goes_when_it_was_delivered(store: Store) -> None:
    await done(store, Changes(set=(call_of_ml(1), call_of_ml(2))))
    await done(store, Changes(delivered=(Delivered(1, "ml.1"),)), Changes(released=(1, 2, 99)))
    assert await store.reminder(1) is None
    assert await store.reminder(2) == call_of_ml(2, kept_until_result=False)
    assert await to_ml(store) == [2]
    await done(store, Changes(delivered=(Delivered(2, "ml.1"),)))
    assert await store.reminder(2) is None


async def test_calls_that_a_lost_store_had_accepted_are_sent_again(store: Store) -> None:
    mail = call_of_ml(4, target=activity(app=MAIL))
    await done(store, Changes(set=(call_of_ml(1), call_of_ml(2), call_of_ml(3), mail)))
    accepted = (Delivered(1, "ml.1"), Delivered(2, "ml.2"), Delivered(4, "mail.1"))
    await done(store, Changes(delivered=accepted), Changes(lost=(Lost(*ML, "ml.2", "ml.2"),)))
    assert await to_ml(store) == [1, 3]
    assert await store.outbound(*MAIL, 0, MANY) == []
    await done(store, Changes(delivered=(Delivered(1, "ml.2"),), lost=(Lost(*ML, "ml.2", "ml.2"),)))
    assert await to_ml(store) == [3]


async def test_the_crashes_of_an_activity_are_counted_with_the_last_error(store: Store) -> None:
    asked = from_ml(1)
    await done(store, Changes(set=(asked,)), Changes(crashed=(Crash(1, "first"), Crash(7, "of one that is gone"))))
    await done(store, Changes(crashed=(Crash(1, "second"),)))
    assert await store.reminder(1) == replace(asked, crashes=DeliveryAttempts(2, "second"))
    assert await store.activities(0, MANY) == [replace(asked, crashes=DeliveryAttempts(2, "second"))]


async def test_an_activity_of_the_own_workers_is_shown_as_waiting_once_it_has_crashed(store: Store) -> None:
    await done(store, Changes(set=(from_ml(1), call_of_ml(2))))
    assert [one.id for one in await store.waiting("", 0, MANY)] == [2]
    await done(store, Changes(crashed=(Crash(1, "lost"),)))
    found = await store.waiting("", 0, MANY)
    assert [(one.id, one.crashes) for one in found] == [(1, DeliveryAttempts(1, "lost")), (2, DeliveryAttempts())]
    assert [one.id for one in await store.waiting(ME.app, 0, MANY)] == [1]


async def test_the_crashes_of_an_instance_are_stored_with_it(store: Store) -> None:
    row = instance(1, ready=True, crashes=DeliveryAttempts(3, "lost"))
    await done(store, Changes(key=1, instance=row))
    state = await store.load("default", "a")
    assert state is not None
    assert state.instance == row
    assert [one.crashes for one in await store.ready(0, MANY)] == [3]
    quarantined = step(row, {"crashes": DeliveryAttempts(4, "again", True), "ready": False})
    await done(store, quarantined)
    state = await store.load("default", "a")
    assert state is not None
    assert state.instance == quarantined.instance


async def test_a_call_that_is_sent_again_is_held_until_it_is_released(store: Store) -> None:
    await done(store, Changes(set=(call_of_ml(1),)), Changes(delivered=(Delivered(1, "ml.1"),)))
    await done(store, Changes(lost=(Lost(*ML, "ml.2", "ml.2"),)), Changes(released=(1,)))
    assert await store.reminder(1) == call_of_ml(1, kept_until_result=False)
    assert await to_ml(store) == [1]


async def test_messages_of_a_lost_store_are_forgotten(store: Store) -> None:
    old, new = Received(*ML, "ml.1", 1), Received(*ML, "ml.2", 1)
    mail, elsewhere = Received(*MAIL, "mail.1", 1), Received("elsewhere", "ml", "e.1", 1)
    await done(store, Changes(received=(old, new, mail, elsewhere)), Changes(lost=(Lost(*ML, "ml.2", "ml.2"),)))
    answers = await store.commit([Changes(received=(one,)) for one in (old, new, mail, elsewhere)])
    assert answers == [None, Refusal.DUPLICATE, Refusal.DUPLICATE, Refusal.DUPLICATE]


async def test_messages_below_a_number_are_forgotten_when_their_store_says_so(store: Store) -> None:
    seen = [Received(*ML, "ml.1", id_) for id_ in (1, 2, 3)] + [Received(*MAIL, "mail.1", 1)]
    await done(store, Changes(received=tuple(seen)), Changes(forgotten=(Forgotten("ml.1", 3),)))
    answers = await store.commit([Changes(received=(one,)) for one in seen])
    assert answers == [None, None, Refusal.DUPLICATE, Refusal.DUPLICATE]


# --- activities of other apps ----------------------------------------------------------------------------------------


async def test_an_activity_of_another_app_is_taken_in_once(store: Store) -> None:
    first = from_ml(1)
    await done(store, Changes(set=(first,)))
    await refused(store, Changes(set=(from_ml(2, payload=b"again"),), received=(FROM_ML,)), Refusal.DUPLICATE)
    assert await store.activities(0, MANY) == [first]
    assert await store.reminder(2) is None
    assert await store.foreign_activity(*ML, first.call) == first
    await done(store, Changes(received=(FROM_ML,)))


async def test_a_call_whose_answer_is_on_its_way_is_not_answered_again(store: Store) -> None:
    asked = from_ml(1)
    again = Changes(received=(FROM_ML,), unanswered=((*ML, asked.call),))
    await done(store, replace(again, received=()))
    await done(store, Changes(set=(result_for(asked, 2),)))
    await refused(store, again, Refusal.DUPLICATE)
    others = ((*MAIL, asked.call), (*ML, asked.call._replace(turn=99)))
    await done(store, replace(again, unanswered=others, received=()))
    await done(store, Changes(delivered=(Delivered(2, "ml.1"),)), again)


async def test_in_another_session_calls_are_sent_again_and_only_messages_are_remembered(store: Store) -> None:
    event, answer, older = (Received(*ML, name, 1) for name in ("ml.1", "ml.1/now", "ml.1/before"))
    await done(store, Changes(set=(call_of_ml(1), call_of_ml(2)), received=(event, answer, older)))
    await done(store, Changes(delivered=(Delivered(1, "ml.1/before"), Delivered(2, "ml.1/now"))))
    await done(store, Changes(lost=(Lost(*ML, "ml.1", "ml.1/now"),)))
    assert await to_ml(store) == [1]
    answers = await store.commit([Changes(received=(one,)) for one in (event, answer, older)])
    assert answers == [Refusal.DUPLICATE, Refusal.DUPLICATE, None]


async def test_activities_are_the_same_only_if_app_and_call_are(store: Store) -> None:
    calls = [CallId("far", 1, 0), CallId("far", 1, 1), CallId("far", 2, 0), CallId("other", 1, 0)]
    apps = [ML, MAIL, ("elsewhere", "ml")]
    combinations = list(itertools.product(apps, calls))
    asked = [from_ml(id_, call, source=workflow("w", app)) for id_, (app, call) in enumerate(combinations, 1)]
    await done(store, Changes(set=tuple(asked)))
    assert await store.activities(0, MANY) == asked
    assert [await store.foreign_activity(*app, call) for app, call in combinations] == asked


async def test_own_activities_are_never_taken_for_one_another(store: Store) -> None:
    own = [reminder(id_, Kind.ACTIVITY, target=activity(), call=CallId("e", 1, 0)) for id_ in (1, 2)]
    await done(store, Changes(set=tuple(own)))
    assert await store.activities(0, MANY) == own
    assert await store.foreign_activity(ME.namespace, ME.app, CallId("e", 1, 0)) is None


async def test_an_activity_is_not_taken_in_again_while_its_result_waits(store: Store) -> None:
    asked = from_ml(1)
    finish = Changes(set=(result_for(asked, 2),), dropped=(1,), required=(1,))
    await done(store, Changes(set=(asked,)), finish)
    await refused(store, Changes(set=(from_ml(3),)), Refusal.DUPLICATE)
    await done(store, Changes(set=(from_ml(4, CallId("far", 1, 1)),)))
    assert await store.foreign_activity(*ML, asked.call) is None
    assert [one.id for one in await store.activities(0, MANY)] == [4]
    await refused(store, replace(finish, set=(result_for(asked, 5),)), Refusal.GONE)
    assert await to_ml(store) == [2]


async def test_a_result_for_one_app_does_not_keep_the_call_of_another_out(store: Store) -> None:
    asked = from_ml(1)
    await done(store, Changes(set=(result_for(asked, 2),)))
    await done(store, Changes(set=(from_ml(3, source=workflow("far", MAIL)),)))
    await refused(store, Changes(set=(from_ml(4),)), Refusal.DUPLICATE)
    assert [one.id for one in await store.activities(0, MANY)] == [3]


async def test_an_activity_is_taken_in_again_once_its_result_is_delivered(store: Store) -> None:
    asked = from_ml(1)
    await done(store, Changes(set=(result_for(asked, 2),)), Changes(delivered=(Delivered(2, "ml.1"),)))
    await done(store, Changes(set=(from_ml(3),)))
    assert [one.id for one in await store.activities(0, MANY)] == [3]


async def test_an_activity_that_was_withdrawn_is_gone(store: Store) -> None:
    await done(store, Changes(set=(from_ml(1),)), Changes(dropped=(1,), required=(1,)))
    assert await store.foreign_activity(*ML, CallId("far", 1, 0)) is None
    await refused(store, Changes(dropped=(1,), required=(1,)), Refusal.GONE)


# --- opening and closing ---------------------------------------------------------------------------------------------


async def test_numbers_of_a_new_store_begin_at_one(store: Store) -> None:
    assert (store.next_key, store.next_order) == (1, 1)


async def test_numbers_are_never_used_again_after_deletes_and_a_reopening(store: Store, reopen: Reopen) -> None:
    await done(store, created(7, set=(reminder(40), reminder(41))), created(8, "b"))
    await done(store, Changes(key=8, expected=1, purged=True), Changes(key=7, expected=1, purged=True))
    await done(store, Changes(dropped=(40, 41)))
    for _ in range(2):
        again = await reopen()
        assert (again.next_key, again.next_order) == (9, 42)


async def test_everything_is_there_after_a_reopening(store: Store, reopen: Reopen) -> None:
    rows = (Row(1, 1, b"started"), Row(1, 2, b"x"))
    far, asked = call_of_ml(1), from_ml(3)
    await done(
        store,
        created(
            1, append=rows, opened=(open_call(1),), children=(child(3),), output="o", set=(far, reminder(2), asked)
        ),
        Changes(delivered=(Delivered(1, "ml.1"),), received=(FROM_ML,)),
    )
    before = (store.identity, await store.load("default", "a"), await store.payloads(1))
    again = await reopen()
    assert (again.identity, await again.load("default", "a"), await again.payloads(1)) == before
    assert await events(again) == [b"started", b"x"]
    assert [await again.reminder(id_) for id_ in (1, 2, 3)] == [far, reminder(2), asked]
    assert await to_ml(again) == []
    await refused(again, Changes(received=(FROM_ML,)), Refusal.DUPLICATE)


async def test_closing_finishes_what_was_handed_in(store: Store, reopen: Reopen) -> None:
    commits = [asyncio.create_task(store.commit([created(key, f"id-{key}")])) for key in range(1, 50)]
    await asyncio.sleep(0)
    again = await reopen()
    assert await asyncio.gather(*commits) == [[None]] * 49
    assert await again.load("default", "id-49") is not None


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.close()
    with pytest.raises(UnavailableError):
        await store.commit([created(1)])
    with pytest.raises(UnavailableError):
        await store.load("default", "a")
    with pytest.raises(UnavailableError):
        await store.ready(0, 1)
    await store.close()


# --- reading while others write --------------------------------------------------------------------------------------


async def test_a_read_never_sees_half_of_a_commit(store: Store) -> None:
    """A token moves from reminder to reminder, and each step adds one event for its revision."""
    await done(store, created(1, set=(reminder(1),)))
    seen: set[int] = set()

    async def move() -> None:
        row = instance(1)
        for number in range(1, 60):
            moved = step(
                row,
                append=(Row(1, number + 1, b"x"),),
                required=(number,),
                dropped=(number,),
                set=(reminder(number + 1),),
            )
            await done(store, moved)
            await asyncio.sleep(0)
            row = replace(row, revision=row.revision + 1)

    async def look(moving: "asyncio.Task[None]") -> None:
        while not moving.done():
            state = await store.load("default", "a")
            tokens = await store.due(MANY, Position(0, 0), MANY)
            assert state is not None
            assert len(state.inbox) == state.instance.revision
            assert len(tokens) == 1
            seen.add(state.instance.revision)
            await asyncio.sleep(0)

    moving = asyncio.create_task(move())
    await asyncio.gather(moving, look(moving), look(moving))
    assert len(await events(store)) == 60
    assert len(seen) > 10


async def test_what_stands_between_two_turns_is_in_the_log_and_not_in_the_inbox(store: Store) -> None:
    """At a place behind all events of the turn that was covered last, also before the first."""
    behind = 1 << 40
    await done(store, created(1))
    first = step(instance(1), append=(Row(0, behind + 2, b"noted"), Row(0, behind + 3, b"again"), Row(1, 2, b"x")))
    await done(store, first)
    state = await store.load("default", "a")
    assert state is not None
    assert [row.event for row in state.inbox] == [b"started", b"x"]
    assert await store.events(1, EVERYTHING, 0) == [b"noted", b"again"]
    assert await store.events(1, EVERYTHING, 1) == [b"noted", b"again", b"started", b"x"]
    assert (await store.payloads(1))[0] == b"started"


async def test_the_trace_of_an_execution_is_stored_with_it(store: Store) -> None:
    row = instance(1, orchestration_trace=b"span", ended_by=7)
    assert await store.commit([Changes(key=1, instance=row)]) == [None]
    state = await store.load("default", "a")
    assert state is not None
    assert (state.instance.orchestration_trace, state.instance.ended_by) == (b"span", 7)
