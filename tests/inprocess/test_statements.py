"""Statements about what crosses between sidecars, by their numbers: real sidecars, and an app that the test plays."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.model import NO_CALL, ActorId, Kind, Outcome, Position, Reminder
from sidecar.core.receipts import Received
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from tests.edge.peer.test_two_sidecars import echo
from tests.inprocess.played_apps import ACCEPTED, ALREADY, EXISTS, ORDERS, PlayedApp, asks, creation, log, state
from tests.inprocess.sidecars import Node, Start, fields, hello, work_items
from tests.inprocess.world import DONE, DUPLICATE, ME, Hand, World, at, call, child, end, kinds, raised, timer, until
from tests.ports import free_port


@pytest.fixture
async def home(start: Start) -> AsyncIterator[tuple[Node, PlayedApp]]:
    """Orders, and the link of app pay to it."""
    orders = await start("orders")
    pay = PlayedApp(orders)
    assert await pay.introduce(hello("pay", store="store of pay")) == ""
    yield orders, pay
    await pay.close()


# ---------------------------------------------------------------- addresses


async def test_the_addresses_of_what_crosses(start: Start) -> None:
    """M8: the actor types name namespace and app; an activity is named by instance, task and turn."""
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        went = sum(event.HasField("event_raised") for event in events)
        return [[call(1, app="ml"), child(2, "kid::2::1", "ml")], [call(3, app="ml")]][went]

    orders.worker(flow)
    await orders.begin("a::7::1")
    backlog = ml.sidecar.dispatch.pool
    await until(lambda: len(backlog.activities) == 1 and len(backlog.turns) == 1)
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a::7::1", name="go"))
    await until(lambda: len(backlog.activities) == 2)
    store = ml.sidecar.store
    taken = await store.activities(0, 10)
    activity, home = "dapr.internal.default.ml.activity", ("dapr.internal.default.orders.workflow", "a::7::1")
    assert [(one.target.type, one.target.id) for one in taken] == [
        (activity, "a::7::1::1::1"),
        (activity, "a::7::1::3::2"),
    ]
    assert [(one.source.type, one.source.id) for one in taken] == [home, home]
    kid = await store.load("default", "kid::2::1")
    assert kid is not None
    assert kid.instance.parent is not None
    assert (kid.instance.parent.actor.type, kid.instance.parent.actor.id) == home
    asking = await orders.sidecar.store.load("default", "a::7::1")
    assert asking is not None
    assert {(one.target.type, one.target.id) for one in asking.open.values()} == {
        (activity, "a::7::1::1::1"),
        (activity, "a::7::1::3::2"),
        ("dapr.internal.default.ml.workflow", "kid::2::1"),
    }


# ---------------------------------------------------------------- a target that lost its disk


async def test_a_worker_that_outlived_the_disk_of_its_sidecar_answers_nobody_elses_call(
    start: Start, tmp_path: Path
) -> None:
    """M30: numbers begin again in a new store; an answer to an activity of the lost one is for no other."""
    port = free_port()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    ml = await start("ml", peer_port=port)
    orders.worker(asks("ml"))
    await orders.begin("a")
    stream = await work_items(ml.channel)
    lost = await stream.receive()
    assert lost is not None
    await ml.stop()
    shutil.rmtree(tmp_path / "ml")
    await orders.call("TerminateInstance", pb.TerminateRequest(instance_id="a"))
    await orders.begin("b")
    ml = await start("ml", peer_port=port)
    stream = await work_items(ml.channel)
    item = await stream.receive()
    assert item is not None

    for token, value in ((fields(lost)[10][0], "of a"), (fields(item)[10][0], "of b")):
        response = pb.ActivityResponse(instance_id="a", task_id=1, completion_token=token.decode())
        response.result.value = value
        await ml.call("CompleteActivityTask", response)
    assert (await orders.outcome("b")).output.value == "of b"


# ---------------------------------------------------------------- answers to calls


async def test_only_the_first_answer_to_a_call_counts(home: tuple[Node, PlayedApp]) -> None:
    """M38, M40: a second one is dropped while the first is queued, and when it is history; a new call is another."""
    orders, pay = home
    await orders.begin("a")
    first = orders.worker(asks("pay", "pay"))
    asked = await pay.asked(1)
    await first.stop()
    assert [await pay.say(asked, value) for value in ("one", "two")] == [ACCEPTED, ALREADY]
    assert (await log(orders, "a")).count("task_completed") == 1, "queued"
    orders.worker(asks("pay", "pay"))
    again = await pay.asked(2)
    assert [message.call.task_id for message in pay.messages] == [1, 2]
    assert await pay.say(asked, "three") == ALREADY, "in the history"
    assert await pay.say(again, "four") == ACCEPTED
    assert (await orders.outcome("a")).output.value == "one,four"
    assert await pay.say(again, "five") == ALREADY
    assert (await log(orders, "a")).count("task_completed") == 2


async def test_an_answer_to_a_call_that_was_never_made_leaves_no_trace(home: tuple[Node, PlayedApp]) -> None:
    """M41, M42: of another task, another turn or another execution, and one that comes before its call is made."""
    orders, pay = home
    orders.worker(asks("pay", "pay"))
    await orders.begin("a")
    asked = await pay.asked(1)
    await until(lambda: orders.sidecar.engine.actor(at("a")).lease is None)
    before = await log(orders, "a")
    wrong: tuple[dict[str, Any], ...] = (
        {"task_id": 2},
        {"task_id": 7},
        {"turn": asked.call.turn + 1},
        {"turn": asked.call.turn + 1, "task_id": 2},
        {"execution_id": "another"},
        {"execution_id": ""},
    )
    for changed in wrong:
        assert await pay.say(asked, "forged", **changed) == ALREADY
    assert await log(orders, "a") == before
    assert len(orders.workers[0].turns) == 1, "it was not woken for them"
    assert await pay.say(asked, "one") == ACCEPTED
    assert await pay.say(await pay.asked(2), "two") == ACCEPTED, "what claimed to be its answer too early is no answer"
    assert (await orders.outcome("a")).output.value == "one,two"


async def test_an_answer_of_an_earlier_generation_resolves_no_call_of_the_next(home: tuple[Node, PlayedApp]) -> None:
    """M43: the call has the same number, and is to the same app."""
    orders, pay = home

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        if any(event.HasField("event_raised") for event in events):
            return [end("again", status=2)]
        return asks("pay")(events)

    orders.worker(flow)
    await orders.begin("a")
    old = await pay.asked(1)
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="renew"))
    while (new := await pay.asked(len(pay.messages) + 1)).kind != Kind.ACTIVITY:
        pass
    assert (new.call.task_id, new.call.execution_id == old.call.execution_id) == (old.call.task_id, False)
    assert await pay.say(old, "of the generation before") == ALREADY
    assert await pay.say(new, "of this one") == ACCEPTED
    assert (await orders.outcome("a")).output.value == "of this one"


async def test_a_burst_of_copies_of_one_call_is_one_activity(home: tuple[Node, PlayedApp]) -> None:
    """M32: sent as different messages, over two links, before it runs and while it does."""
    orders, pay = home
    again = PlayedApp(orders)
    await again.introduce(hello("pay", store="store of pay"))
    request = pb.ActivityRequest(name="score", task_id=1).SerializeToString()
    wanted = peer_pb2.Message(
        kind=Kind.ACTIVITY,
        target=peer_pb2.Actor(**ORDERS, kind="activity", id="w::1::1"),
        source=peer_pb2.Actor(namespace="default", app_id="pay", kind="workflow", hub="default", id="w"),
        call=peer_pb2.Call(execution_id="e", turn=1, task_id=1),
        name="score",
        payload=request,
    )
    copies = [peer_pb2.Message.FromString(wanted.SerializeToString()) for _ in range(20)]
    again._last = 100
    assert await asyncio.gather(pay.tell(*copies[:10]), again.tell(*copies[10:])) == [[ACCEPTED] * 10] * 2
    stream = await work_items(orders.channel)
    item = await stream.receive()
    assert item is not None
    assert await asyncio.gather(pay.tell(*copies[:10]), again.tell(*copies[10:])) == [[ACCEPTED] * 10] * 2
    worker = orders.worker(None, {"score": echo})
    response = pb.ActivityResponse(instance_id="w", task_id=1, completion_token=fields(item)[10][0].decode())
    await orders.call("CompleteActivityTask", response)
    result = await again.asked(1)
    await asyncio.sleep(0.1)
    assert (worker.requests, result.kind, result.target.id) == ([], Kind.RESULT, "w")
    await again.close()


async def test_a_timer_that_fires_twice_has_fired_once(world: World, hand: Hand) -> None:
    """M38: the second time while the first waits for its turn, and when it is history."""
    due = world.clock.wall + 60_000_000
    await world.start("a")
    await world.complete(await hand.turn(1), timer(1, due))
    (reminder,) = await world.store.real.due(due, Position(0, 0), 10)
    world.reminders.deliver(reminder)
    world.reminders.deliver(reminder)
    item = await hand.turn(2)
    assert kinds(item.new) == ["orchestrator_started", "timer_fired"]
    await world.complete(item)
    world.reminders.deliver(reminder)
    await world.quiet()
    assert len(hand.turns) == 2
    assert kinds(await world.clients.history(at("a")) or []).count("timer_fired") == 1


# ---------------------------------------------------------------- children


def raised_in(events: list[pb.HistoryEvent]) -> bool:
    return any(event.HasField("event_raised") for event in events)


async def test_the_creation_of_a_child_that_comes_again_is_the_same_child(home: tuple[Node, PlayedApp]) -> None:
    """M45: before its first turn, while it runs, and after its end."""
    orders, pay = home
    assert await pay.tell(creation("kid-1"), creation("kid-1")) == [ACCEPTED, ALREADY]
    worker = orders.worker(lambda events: [end("done")] if raised_in(events) else [])
    await until(lambda: worker.turns)
    assert await pay.tell(creation("kid-1")) == [ALREADY]
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="kid", name="go"))
    assert (await orders.outcome("kid")).output.value == "done"
    assert (await pay.asked(1)).kind == Kind.RESULT
    assert await pay.tell(creation("kid-1")) == [ALREADY]
    await pay.asked(2)
    said = [pb.HistoryEvent.FromString(message.payload).child_completed for message in pay.messages]
    assert said[0] == said[1], "the answer may be what was lost"
    assert len(worker.turns) == 2, "it ran once"


async def test_a_later_execution_of_the_parent_gets_a_child_of_its_own(home: tuple[Node, PlayedApp]) -> None:
    """M46, M50: a new child under the same ID, once the first has ended; until then the ID is taken."""
    orders, pay = home
    worker = orders.worker(lambda events: [end("done")] if raised_in(events) else [])
    assert await pay.tell(creation("kid-1")) == [ACCEPTED]
    await until(lambda: worker.turns)
    assert await pay.tell(creation("kid-2", parent="p-2")) == [EXISTS]
    refused = pb.HistoryEvent.FromString((await pay.asked(1)).payload)
    assert refused.child_failed.failure.error_type == "WorkflowInstanceAlreadyExists"
    assert (await state(orders, "kid")).input.value == '"kid-1"'
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="kid", name="go"))
    await orders.outcome("kid")
    assert await pay.tell(creation("kid-3", parent="p-2", turn=2)) == [ACCEPTED]
    found = await state(orders, "kid")
    assert (found.input.value, found.execution_id.value, found.parent_app_id.value) == ('"kid-3"', "kid-3", "pay")
    await until(lambda: len(worker.turns) == 3)
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="kid", name="go"))
    await orders.outcome("kid")
    answers = [await pay.asked(number) for number in (2, 3)]
    assert [(answer.call.execution_id, answer.call.turn) for answer in answers] == [("p-1", 1), ("p-2", 2)]


# ---------------------------------------------------------------- stored first, then woken


def message(number: int, kind: Kind, instance_id: str, payload: pb.HistoryEvent) -> tuple[Reminder, Received]:
    """What app pay sends to an instance of this app."""
    pay = ActorId("default", "pay", "workflow", "default", "w")
    target = ME.workflow("default", instance_id)
    reminder = Reminder(number, kind, 0, target, pay, NO_CALL, 0, "", payload.SerializeToString())
    return reminder, Received("default", "pay", "store of pay", number)


async def no_recovery() -> None:
    return None


@pytest.mark.parametrize("what", ["event", "creation"])
async def test_a_copy_that_is_dropped_wakes_what_the_first_one_stored_and_did_not_wake(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """M39, M45: the first was written, but the sidecar did not hear of it and could not look; nothing else would."""
    monkeypatch.setattr(world.dispatch, "_recover", no_recovery)
    if what == "event":
        await world.start("a")
        await world.complete(await hand.turn(1))
        sent = message(5, Kind.EVENT, "a", pb.HistoryEvent(event_raised=pb.EventRaised(name="go")))
    else:
        sent = message(5, Kind.CREATE, "kid", pb.HistoryEvent.FromString(creation("kid-1").payload))
    turns = len(hand.turns)
    await world.clients.instance((sent[0].target.hub, sent[0].target.id))
    world.store.lost = world.store.failing["load"] = 1
    with pytest.raises(UnavailableError):
        await world.messages.deliver(*sent)
    await world.quiet()
    assert len(hand.turns) == turns
    assert (await world.messages.deliver(*sent)).outcome is DUPLICATE
    item = await hand.turn(turns + 1)
    assert kinds(item.new)[1:] == ["event_raised" if what == "event" else "execution_started"]


async def test_nothing_is_woken_before_it_is_stored_nor_by_what_could_not_be_stored(world: World, hand: Hand) -> None:
    """M49: an activity here, a call to another app, a timer and a message of a peer."""
    await world.start("a")
    item = await hand.turn(1)
    soon = pb.Action(id=3)
    soon.create_timer.fire_at.FromMicroseconds(world.clock.wall)
    actions = (call(1), call(2, app="ml"), soon)

    world.store.gate.clear()
    world.store.failing["commit"] = 1_000_000
    tried = len(world.store.batches)
    answer = asyncio.create_task(world.complete(item, *actions))
    await asyncio.sleep(0.02)
    assert (hand.activities, world.outbox.waiting, len(hand.turns)) == ([], {}, 1), "not stored yet"
    world.store.gate.set()
    await until(lambda: len(world.store.batches) > tried + 2)
    assert (hand.activities, world.outbox.waiting, len(hand.turns)) == ([], {}, 1), "it could not be stored"

    world.store.failing.clear()
    assert (await answer).outcome is DONE
    await hand.activity(1)
    assert [reminder.target.app for reminder in world.outbox.waiting.values()] == ["ml"]
    assert kinds((await hand.turn(2)).new)[1:] == ["timer_fired"]


async def test_a_wake_up_that_fails_is_made_again(world: World, hand: Hand) -> None:
    """M49: what was stored is read again after the sidecar did not hear that it was, with nobody asking."""
    await world.start("a")
    item = await hand.turn(1)
    world.store.lost = 1
    assert (await world.complete(item, call(1), call(2, app="ml"))).outcome is Outcome.STALE
    await hand.activity(1)
    assert world.outbox.reloads == 1
    sent = message(5, Kind.EVENT, "a", pb.HistoryEvent(event_raised=pb.EventRaised(name="go")))
    world.store.lost = 1
    with pytest.raises(UnavailableError):
        await world.messages.deliver(*sent)
    assert raised((await hand.turn(2)).new) == ["go"]


@pytest.mark.parametrize("protocol", [1, 2])
async def test_peers_of_this_version_and_the_next_work_together(start: Start, protocol: int) -> None:
    """M92: a hello with a later number of the protocol and fields that are not known here begins a link that works."""
    orders = await start("orders")
    pay = PlayedApp(orders)
    frame = hello("pay", store="store of pay")
    frame.hello.protocol = protocol
    unknown = b"\xfa\x3f\x03new"  # field 1023, of a later version
    greeting = frame.hello.SerializeToString() + unknown
    assert await pay.introduce(b"\x0a" + bytes([len(greeting)]) + greeting) == ""
    await orders.begin("a")
    to = peer_pb2.Actor(namespace="default", app_id="orders", kind="workflow", hub="default", id="a")
    payload = pb.HistoryEvent(event_raised=pb.EventRaised(name="go")).SerializeToString()
    sent = peer_pb2.Message(id=5, kind=int(Kind.EVENT), target=to, source=to, payload=payload)
    sent.MergeFromString(unknown)
    assert await pay.tell(sent) == [ACCEPTED]
    await pay.close()
