"""A peer that is who it says it is, and cheats: what it may not do to the work of other apps (M9, M81).

Orders is the sidecar under attack; pay is an app that works with it; evil is another app with a link of its own.
Who has no right certificate gets no link at all: `test_peer_identity.py`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.core.model import Kind
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.peer.test_forward import ask as ask_call
from tests.edge.peer.test_forward import request as call_of_client
from tests.edge.peer.test_two_sidecars import echo
from tests.inprocess.played_apps import (
    ACCEPTED,
    ALREADY,
    DENIED,
    INVALID,
    MISSING,
    ORDERS,
    PlayedApp,
    asks,
    creation,
    history,
    log,
    state,
)
from tests.inprocess.sidecars import Node, Start, hello
from tests.inprocess.world import end, until

PENDING = 6


class Attack:
    """Orders, and the links of pay and evil to it."""

    def __init__(self, orders: Node) -> None:
        self.orders = orders
        self.pay, self.evil = PlayedApp(orders), PlayedApp(orders)

    async def connect(self, store: str = "store of evil") -> "Attack":
        assert await self.pay.introduce(hello("pay", store="store of pay")) == ""
        assert await self.evil.introduce(hello("evil", store=store)) == ""
        return self

    async def close(self) -> None:
        await asyncio.gather(self.pay.close(), self.evil.close())


@pytest.fixture
async def attack(start: Start) -> AsyncIterator[Attack]:
    attack = await Attack(await start("orders")).connect()
    yield attack
    await attack.close()


def workflow(app: str, instance_id: str) -> peer_pb2.Actor:
    return peer_pb2.Actor(namespace="default", app_id=app, kind="workflow", hub="default", id=instance_id)


def order(kind: Kind, source: peer_pb2.Actor, call: peer_pb2.Call | None, target: str = "kid") -> peer_pb2.Message:
    """A parent's command to a child of its."""
    event = pb.HistoryEvent(execution_terminated=pb.ExecutionTerminated(recurse=True))
    if kind is Kind.PAUSE:
        event.execution_suspended.SetInParent()
    payload = b"force" if kind is Kind.PURGE else event.SerializeToString()
    return peer_pb2.Message(kind=kind, target=workflow("orders", target), source=source, call=call, payload=payload)


def raised(instance_id: str, name: str = "e") -> peer_pb2.Message:
    event = pb.HistoryEvent(event_raised=pb.EventRaised(name=name))
    source, target = workflow("evil", "w"), workflow("orders", instance_id)
    return peer_pb2.Message(kind=Kind.EVENT, target=target, source=source, payload=event.SerializeToString())


def activity(source: peer_pb2.Actor, call: peer_pb2.Call) -> peer_pb2.Message:
    request = pb.ActivityRequest(name="score", task_id=call.task_id).SerializeToString()
    target = peer_pb2.Actor(**ORDERS, kind="activity", id="w::1::1")
    return peer_pb2.Message(kind=Kind.ACTIVITY, target=target, source=source, call=call, name="score", payload=request)


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("kind", [Kind.TERMINATE, Kind.PURGE, Kind.PAUSE])
@pytest.mark.parametrize("claimed", ["evil", "pay", "orders"])
async def test_a_stranger_ends_pauses_and_removes_no_child_of_another_app(
    attack: Attack, kind: Kind, claimed: str
) -> None:
    """M9, M81: whoever it claims to be, though it knows the call that made the child."""
    made = creation("kid-1")
    assert await attack.pay.tell(made) == [ACCEPTED]
    for call in (made.call, peer_pb2.Call(), None):
        assert await attack.evil.tell(order(kind, workflow(claimed, "boss"), call)) == [DENIED]
    assert (await state(attack.orders, "kid")).status == PENDING
    assert await log(attack.orders, "kid") == ["execution_started"]
    assert await attack.pay.tell(order(kind, workflow("pay", "boss"), made.call)) == [ACCEPTED], "its parent may"


@pytest.mark.parametrize("kind", [Kind.TERMINATE, Kind.PURGE, Kind.PAUSE])
async def test_nobody_elses_instance_is_anyones_child(attack: Attack, kind: Kind) -> None:
    """M81: one that a client of orders started; also not by what an own workflow would send."""
    await attack.orders.begin("a")
    for source in (workflow("orders", "a"), workflow("evil", "w")):
        assert await attack.evil.tell(order(kind, source, peer_pb2.Call(), "a")) == [DENIED]
    assert (await state(attack.orders, "a")).status == PENDING


@pytest.mark.parametrize("kind", [Kind.START, Kind.TIMER])
async def test_wake_ups_of_an_instance_come_from_its_own_sidecar_alone(attack: Attack, kind: Kind) -> None:
    """M81: a timer, or a scheduled start, that evil says is due."""
    attack.orders.worker(lambda events: [])
    await attack.orders.begin("a")
    await until(lambda: attack.orders.workers[0].turns)
    fired = pb.HistoryEvent(timer_fired=pb.TimerFired(timer_id=1)).SerializeToString()
    source = target = workflow("orders", "a")
    wrong = peer_pb2.Message(kind=kind, target=target, source=source, payload=fired)
    assert await attack.evil.tell(wrong) == [INVALID]
    assert len(attack.orders.workers[0].turns) == 1


# ---------------------------------------------------------------- calls and results


async def test_the_result_of_a_call_comes_from_the_app_that_was_asked(attack: Attack) -> None:
    """M9, M81: not from evil, which knows the call and says that it is pay, nor as the result of a child."""
    attack.orders.worker(asks("pay"))
    await attack.orders.begin("a")
    asked = await attack.pay.asked(1)
    assert await attack.evil.say(asked, "of evil") == ALREADY
    asked.source.hub = "another"
    assert await attack.evil.say(asked, "of evil") == MISSING
    asked.source.hub = "default"
    assert await attack.pay.say(asked, "of pay") == ACCEPTED
    assert (await attack.orders.outcome("a")).output.value == "of pay"


async def test_an_activity_is_taken_back_by_the_app_that_sent_it(attack: Attack) -> None:
    """M9, M81: a withdrawal by evil in the name of pay takes nothing."""
    call = peer_pb2.Call(execution_id="e", turn=1, task_id=1)
    sent = activity(workflow("pay", "w"), call)
    assert await attack.pay.tell(sent) == [ACCEPTED]
    withdrawal = peer_pb2.Message(kind=Kind.WITHDRAW, target=sent.target, source=sent.source, call=call)
    await attack.evil.tell(withdrawal)
    assert len(await attack.orders.sidecar.store.activities(0, 10)) == 1
    await attack.pay.tell(withdrawal)
    assert await attack.orders.sidecar.store.activities(0, 10) == []


async def test_work_in_the_name_of_another_app_is_the_senders_own(attack: Attack) -> None:
    """M9, M81: the result of an activity, and of a child, goes to evil; nothing of pay is in the way or is told."""
    call = peer_pb2.Call(execution_id="e", turn=1, task_id=1)
    forged = activity(workflow("pay", "w"), call)
    assert await attack.evil.tell(forged) == [ACCEPTED]
    assert await attack.pay.tell(activity(workflow("pay", "w"), call)) == [ACCEPTED], "a call of its own"
    made = creation("kid-1")
    made.payload = parent_forged(made.payload)
    assert await attack.evil.tell(made) == [ACCEPTED]
    worker = attack.orders.worker(lambda events: [end("done")], {"score": echo})
    got = [await attack.evil.asked(number) for number in (1, 2)]
    assert {message.target.app_id for message in got} == {"evil"}
    assert (await attack.pay.asked(1)).target.app_id == "pay"
    await until(lambda: len(worker.requests) == 2)
    assert len(attack.pay.messages) == 1
    found = await state(attack.orders, "kid")
    assert found.parent_app_id.value == "evil"
    (begun,) = [event for event in await history(attack.orders, "kid") if event.HasField("execution_started")]
    assert begun.execution_started.parent.app_id == "evil"
    assert b"pay" not in begun.SerializeToString()


def parent_forged(payload: bytes) -> bytes:
    event = pb.HistoryEvent.FromString(payload)
    event.router.source_app_id = "pay"
    parent = event.execution_started.parent
    parent.app_id, parent.name.value = "pay", "boss"
    parent.instance.instance_id = "boss"
    parent.instance.app_id = "pay"
    return event.SerializeToString()


# ---------------------------------------------------------------- messages that come again


@pytest.mark.parametrize("between", ["nothing", "a new link", "a restart"])
async def test_a_message_that_is_replayed_counts_once(
    start: Start,
    between: str,
) -> None:
    """M44, M81: the very same message, over the link that it came by, over another, and after a restart."""
    orders = await start("orders")
    await orders.begin("a")
    attack = await Attack(orders).connect()
    event, made = raised("a"), creation("kid-1")
    assert await attack.pay.tell(event, made) == [ACCEPTED, ACCEPTED]
    if between != "nothing":
        await attack.close()
        if between == "a restart":
            await orders.stop()
            orders = await start("orders")
        attack = await Attack(orders).connect()
    answers = await attack.pay.ask(event, made, event)
    assert [answer.verdict for answer in answers] == [ALREADY] * 3
    assert (await log(orders, "a")).count("event_raised") == 1
    await attack.close()


async def test_the_store_that_a_peer_says_it_has_is_no_other_apps(
    start: Start,
) -> None:
    """M81: pay tells everybody its store's identity; evil claims it, and can neither use up pay's messages nor have
    them counted twice."""
    orders = await start("orders")
    await orders.begin("a")
    attack = await Attack(orders).connect(store="store of pay")
    assert await attack.pay.tell(raised("a", "first")) == [ACCEPTED]

    assert await attack.evil.tell(raised("none"), raised("none"), raised("none")) == [MISSING] * 3
    second = raised("a", "second")
    assert await attack.pay.tell(second) == [ACCEPTED], "it was not taken for the message of evil with its number"

    await attack.evil.ask(raised("none"), floor=2**62)
    again = [answer.verdict for answer in await attack.pay.ask(second)]
    assert again == [ALREADY], "it was not forgotten for evil"
    names = [event.event_raised.name for event in await history(orders, "a") if event.HasField("event_raised")]
    assert names == ["first", "second"]
    await attack.close()


async def test_the_call_of_a_client_of_another_app_is_neither_used_up_nor_let_go_of(
    start: Start,
) -> None:
    """M81: evil knows its ID and claims the store of pay; the call has its effect, and has it once."""
    orders = await start("orders")
    await orders.begin("a")
    attack = await Attack(orders).connect(store="store of pay")
    call_id = "ab" * 16
    event = call_of_client(call_id, "RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="of pay"))
    used = call_of_client(call_id, "RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="of evil"))
    assert (await ask_call(attack.evil, used)).status == 0
    assert (await ask_call(attack.pay, event)).status == 0
    await attack.evil.send(peer_pb2.Frame(released=call_id))
    assert (await ask_call(attack.evil, call_of_client("cd" * 16, "GetInstance", pb.GetInstanceRequest()))).status
    await attack.pay.close()
    attack.pay = PlayedApp(orders)
    assert await attack.pay.introduce(hello("pay", store="store of pay")) == ""
    assert (await ask_call(attack.pay, event)).status == 0
    names = [event.event_raised.name for event in await history(orders, "a") if event.HasField("event_raised")]
    assert sorted(names) == ["of evil", "of pay"]
    await attack.close()
