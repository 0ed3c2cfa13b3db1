"""Reminders for other apps: order, batches, retries, refusals, and what a lost store means. Links are played."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import structlog

from sidecar.actors.payloads import AtHand
from sidecar.core import causes
from sidecar.core.causes import Cause
from sidecar.core.model import ActorId, CallId, Kind, Outcome, Reminder, Reply, State
from sidecar.core.receipts import Received
from sidecar.peers import peer_queue
from sidecar.peers import unmet as apps_unmet
from sidecar.peers.directory import Directory
from sidecar.peers.limits import Limit
from sidecar.peers.outbox import Outbox
from sidecar.peers.peer_queue import PeerQueue
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import DamagedError
from sidecar.store.sqlite import pages
from tests.inprocess.world import DONE, ME, Hand, World, at, call, child, end, until

OK = Reply(Outcome.DONE)
BUSY = Reply(Outcome.UNAVAILABLE, "later")
ML = ("default", "ml")


class PlayedLink:
    """Answers each message by `rule`, or breaks; keeps what came."""

    def __init__(self, app: str = "ml") -> None:
        self.peer = ("default", app)
        self.store = f"store of {app}"
        self.session = f"session with {app}"
        self.limit = Limit(10_000, "ml")
        self.batches: list[list[Reminder]] = []
        self.floors: list[int] = []
        self.rule: Callable[[Reminder], Reply] = lambda reminder: OK
        self.breaking = 0
        self.open = asyncio.Event()
        self.open.set()

    async def deliver(self, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        self.batches.append(list(batch))
        self.floors.append(floor)
        await self.open.wait()
        if self.breaking:
            self.breaking -= 1
            raise LinkBrokenError("cut")
        return [self.rule(reminder) for reminder in batch]

    @property
    def messages(self) -> list[Reminder]:
        return [reminder for batch in self.batches for reminder in batch]


class PlayedLinks:
    def __init__(self) -> None:
        self.up: dict[tuple[str, str], PlayedLink] = {}

    def link(self, namespace: str, app: str) -> PlayedLink | None:
        return self.up.get((namespace, app))

    def why(self, namespace: str, app: str) -> Cause:
        return causes.unreachable(app, {}) if app in ("ml", "pay") else causes.no_address(app)


class Net:
    """A world whose outbox is the router."""

    def __init__(self, world: World, hand: Hand, *, unknown_app_fails: bool = False) -> None:
        self.world, self.hand = world, hand
        self.links = PlayedLinks()
        directory = Directory("default", {"ml": ("127.0.0.1:1",), "pay": ("127.0.0.1:2",)})
        self.router = Outbox(world.engine, directory, self.links, unknown_app_fails=unknown_app_fails)
        self.router.calls = world.messages.calls
        world.dispatch.outbox = self.router

    def connect(self, app: str = "ml") -> PlayedLink:
        link = self.links.up["default", app] = PlayedLink(app)
        return link

    async def run(self, instance_id: str, *actions: pb.Action) -> None:
        """Start a workflow whose first turn asks for these actions."""
        await self.world.start(instance_id)
        await until(lambda: any(item.instance_id == instance_id for item in self.hand.turns))
        item = next(item for item in self.hand.turns if item.instance_id == instance_id)
        assert (await self.world.complete(item, *actions)).outcome is DONE

    async def last_turn(self, instance_id: str, number: int) -> list[pb.HistoryEvent]:
        """What is new in the n-th turn of an instance."""

        def found() -> list[list[bytes]]:
            return [item.new for item in self.hand.turns if item.instance_id == instance_id]

        await until(lambda: len(found()) >= number)
        return [pb.HistoryEvent.FromString(event) for event in found()[number - 1]]

    async def undelivered(self) -> list[Reminder]:
        return await self.world.store.real.outbound("default", "ml", 0, 10_000)


@pytest.fixture
async def net(world: World, hand: Hand) -> AsyncIterator[Net]:
    net = Net(world, hand)
    yield net
    await net.router.stop()


@pytest.fixture
async def failing_net(world: World, hand: Hand) -> AsyncIterator[Net]:
    net = Net(world, hand, unknown_app_fails=True)
    yield net
    await net.router.stop()


def event_to(target: str, number: int, app: str = "ml") -> pb.Action:
    action = pb.Action(id=number, send_event=pb.SendEvent(name=f"e{number}"))
    action.send_event.instance.instance_id = target
    action.router.target_app_id = app
    return action


def _numbers(messages: Sequence[Reminder], target: str) -> list[int]:
    return [message.call.task for message in messages if message.target.id == target]


async def test_messages_of_one_workflow_to_one_instance_go_in_order(net: Net) -> None:
    link = net.connect()
    await net.run("a", *(event_to("there", number) for number in range(1, 30)), end())
    await until(lambda: len(link.messages) >= 29)
    assert _numbers(link.messages, "there") == list(range(1, 30))
    await until(lambda: not net.router.queue(ML).pending)
    assert await net.undelivered() == []


async def test_messages_travel_in_batches_of_bounded_number_and_size(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_queue, "BATCH_MESSAGES", 10)
    monkeypatch.setattr(peer_queue, "BATCH_BYTES", 4_000)
    actions = [event_to("there", number) for number in range(1, 41)]
    for action in actions[20:]:
        action.send_event.data.value = "x" * 1_000
    await net.run("a", *actions, end())
    link = net.connect()
    net.router.wake(net.router.queue(ML))
    await until(lambda: len(link.messages) >= 40)
    assert _numbers(link.messages, "there") == list(range(1, 41))
    assert max(len(batch) for batch in link.batches) == 10
    assert max(sum(len(message.payload) for message in batch) for batch in link.batches) <= 4_000
    assert len(link.batches) < 20


async def test_a_broken_link_is_tried_again_with_growing_pauses_and_the_same_messages(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    failed = PeerQueue.failed

    def quick(queue: PeerQueue, *args: Any) -> float:
        pauses.append(failed(queue, *args))
        return 0.001

    monkeypatch.setattr(PeerQueue, "failed", quick)
    link = net.connect()
    link.breaking = 9
    await net.run("a", event_to("there", 1), event_to("there", 2), end())
    await until(lambda: len(link.batches) >= 10)
    assert {tuple(_numbers(batch, "there")) for batch in link.batches} == {(1, 2)}
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0
    assert pauses[-1] == peer_queue.LONGEST_PAUSE


async def test_an_unavailable_answer_blocks_only_its_lane(net: Net) -> None:
    link = net.connect()
    link.rule = lambda message: BUSY if message.target.id == "busy" else OK
    await net.run("a", event_to("busy", 1), event_to("free", 2), end())
    await net.run("b", event_to("busy", 3), event_to("free", 4), end())
    await net.run("a2", event_to("free", 5), end())
    await until(lambda: len(net.router.queue(ML).pending) == 2)
    assert sorted(_numbers(link.messages, "free")) == [2, 4, 5]
    assert sorted(message.call.task for message in await net.undelivered()) == [1, 3]
    cause = net.router.queue(ML).cause
    assert cause is not None
    assert cause.text == "app 'ml' takes it later: later", "whoever looks sees why they wait"

    link.rule = lambda message: OK
    net.world.clock.steady += 5.0
    await until(lambda: not net.router.queue(ML).pending)
    assert await net.undelivered() == []
    assert sorted(_numbers(link.messages, "free")) == [2, 4, 5], "sent once"
    assert net.router.queue(ML).cause is None


async def test_what_follows_in_a_blocked_lane_waits_behind_it(net: Net) -> None:
    link = net.connect()
    link.rule = lambda message: BUSY
    await net.run("a", event_to("busy", 1))
    await until(lambda: link.batches)
    await net.world.event("a", "go on")
    await until(lambda: len(net.hand.turns) >= 2)
    await net.world.complete(net.hand.turns[-1], event_to("busy", 2), end())
    await asyncio.sleep(0.3)
    assert set(_numbers(link.messages, "busy")) == {1}
    link.rule = lambda message: OK
    net.world.clock.steady += 5.0
    await until(lambda: not net.router.queue(ML).pending)
    assert _numbers(link.messages, "busy")[-2:] == [1, 2]


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INVALID, Outcome.MISSING])
async def test_a_final_refusal_fails_the_activity_in_the_workflow(net: Net, outcome: Outcome) -> None:
    net.connect().rule = lambda message: Reply(outcome, "no way")
    await net.run("a", call(1, app="ml"))
    _, failed = await net.last_turn("a", 2)
    assert failed.task_failed.task_scheduled_id == 1
    assert failed.task_failed.failure.error_message == "no way"
    assert failed.task_failed.failure.is_non_retriable
    assert await net.undelivered() == []


async def test_a_final_refusal_fails_the_child_in_the_workflow(net: Net) -> None:
    net.connect().rule = lambda message: Reply(Outcome.DENIED, "not yours")
    await net.run("a", child(7, "kid", app="ml"))
    _, failed = await net.last_turn("a", 2)
    assert failed.child_failed.task_scheduled_id == 7
    assert failed.child_failed.failure.error_message == "not yours"
    state = net.world.actor("a").state
    assert state is not None
    assert not state.open
    assert not state.children


async def test_a_message_that_is_too_large_fails_its_call_and_lets_the_others_through(net: Net) -> None:
    link = net.connect()
    large = call(1, app="ml")
    large.schedule_task.input.value = "x" * 20_000
    await net.run("a", large, call(2, app="ml"))
    _, failed = await net.last_turn("a", 2)
    assert failed.task_failed.task_scheduled_id == 1
    assert "20" in failed.task_failed.failure.error_message
    await until(lambda: link.messages)
    assert [message.call.task for message in link.messages] == [2]


def asked_by(app: str, execution: str = "e") -> Reminder:
    """An activity that another app asks for."""
    source, target = ActorId("default", app, "workflow", "default", "theirs"), ME.activity("default", "theirs::1::1")
    request = pb.ActivityRequest(name="work", task_id=1).SerializeToString()
    return Reminder(7, Kind.ACTIVITY, 0, target, source, CallId(execution, 1, 1), 0, "work", request)


async def answered(net: Net, app: str, result: str = '"ok"') -> None:
    """Let the worker answer an activity of another app."""
    assert (await net.world.messages.deliver(asked_by(app), Received("default", app, "s", 7))).outcome is DONE
    assert (await net.world.answer(await net.hand.activity(1), result)).outcome is DONE


async def test_a_result_that_is_too_large_fails_the_call_that_waits_for_it_with_both_sizes(net: Net) -> None:
    link = net.connect()
    await answered(net, "ml", "x" * 20_000)
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    (sent,) = link.messages
    failed = pb.HistoryEvent.FromString(sent.payload).task_failed
    assert (sent.kind, sent.call, failed.task_scheduled_id) == (Kind.RESULT, CallId("e", 1, 1), 1)
    assert failed.failure.error_type == "PayloadSizeExceeded"
    assert failed.failure.is_non_retriable
    assert re.search(r"the result has 20\d\d\d bytes, .* app 'ml' receives at most \d+", failed.failure.error_message)


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.DENIED])
async def test_a_result_that_is_refused_for_good_fails_the_call_that_waits_for_it_once(
    net: Net, outcome: Outcome
) -> None:
    link = net.connect()
    link.rule = lambda message: Reply(outcome, "no way")
    await answered(net, "ml")
    await until(lambda: len(link.messages) >= 2 and not net.router.queue(ML).pending)
    refused, sent = link.messages
    assert sent.id > refused.id, "its receiver may remember the first"
    assert (sent.kind, sent.target, sent.call) == (Kind.RESULT, refused.target, refused.call)
    assert pb.HistoryEvent.FromString(sent.payload).task_failed.failure.error_message == "no way"
    assert await net.undelivered() == []


@pytest.mark.parametrize("outcome", [Outcome.DUPLICATE, Outcome.MISSING])
async def test_a_result_that_came_before_its_caller_made_the_call_anew_is_sent_again(
    net: Net, outcome: Outcome
) -> None:
    link = net.connect()
    link.rule = lambda message: Reply(outcome)
    link.open.clear()
    await answered(net, "ml")
    await until(lambda: link.messages)
    again = net.world.messages.calls.arrived(ML, link.messages[0].call)  # its caller has gone back
    assert (await net.world.messages.deliver(asked_by("ml"), Received(*ML, "s", 8), again)).outcome is DONE
    link.open.set()
    await until(lambda: len(link.messages) >= 2 and not net.router.queue(ML).pending)
    assert [message.id for message in link.messages] == [link.messages[0].id] * 2
    assert await net.undelivered() == []


async def test_a_result_that_came_too_early_counts_when_it_comes_again(net: Net) -> None:
    await net.world.start("a")
    await until(lambda: net.hand.turns)
    turn, source = net.hand.turns[0], ActorId(*ML, "activity", "default", "a::1::1")
    result = pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1)).SerializeToString()
    target, made = ActorId("default", ME.app, "workflow", "default", "a"), CallId(turn.execution, 1, 1)
    early = Reminder(9, Kind.RESULT, 0, target, source, made, 0, "", result)
    received = Received(*ML, "session", 9)
    assert (await net.world.messages.deliver(early, received)).outcome is Outcome.DUPLICATE
    assert (await net.world.complete(turn, call(1, app="ml"))).outcome is DONE
    assert (await net.world.messages.deliver(early, received)).outcome is DONE
    assert (await net.world.messages.deliver(early, received)).outcome is Outcome.DUPLICATE


@pytest.mark.parametrize("kind", [Kind.TERMINATE, Kind.PAUSE])
async def test_a_command_whose_reason_is_too_large_is_obeyed_without_it(net: Net, kind: Kind) -> None:
    link = net.connect()
    net.world.engine.me = replace(ME, cascade_suspend=True)
    await net.run("a", child(1, "kid", app="ml"))
    await until(lambda: link.messages)
    command = net.world.clients.suspend if kind is Kind.PAUSE else partial(net.world.clients.terminate, recurse=True)
    await command(at("a"), "x" * 20_000)
    await until(lambda: len(link.messages) == 2 and not net.router.queue(ML).pending)
    sent = link.messages[1]
    assert sent.kind is kind
    assert len(sent.payload) < 100
    assert pb.HistoryEvent.FromString(sent.payload).WhichOneof("kind") in (
        "execution_terminated",
        "execution_suspended",
    )


async def test_an_event_that_is_too_large_is_in_the_log_and_lets_the_others_through(net: Net) -> None:
    link = net.connect()
    large = event_to("there", 1)
    large.send_event.data.value = "x" * 20_000
    with structlog.testing.capture_logs() as logged:
        await net.run("a", large, event_to("there", 2))
        await until(lambda: link.messages and not net.router.queue(ML).pending)
    assert [message.call.task for message in link.messages] == [2]
    (told,) = [entry for entry in logged if entry["event"] == "message refused"]
    assert (told["source"], told["target"], told["kind"]) == ("a", "there", "EVENT")
    assert re.search(r"the event has 20\d\d\d bytes, .* receives at most \d+", told["why"])


async def test_what_goes_to_an_app_that_is_merely_away_is_kept_though_calls_to_it_fail(failing_net: Net) -> None:
    """It has no address here: it is known by the links that it opens."""
    net, away = failing_net, ("default", "away")
    await answered(net, "away")
    await net.run("a", event_to("there", 1, app="away"), call(2, app="away"))
    (_, failed) = await net.last_turn("a", 2)
    assert failed.task_failed.task_scheduled_id == 2
    assert len(await net.world.store.real.outbound(*away, 0, 10)) == 2
    link = net.connect("away")
    await net.router.link_up(link)
    await until(lambda: len(link.messages) == 2 and not net.router.queue(away).pending)
    assert {message.kind for message in link.messages} == {Kind.RESULT, Kind.EVENT}


async def test_a_fault_of_the_outbox_is_logged_and_sending_goes_on(net: Net) -> None:
    link = net.connect()
    faults = [ValueError("a mistake")]

    def rule(message: Reminder) -> Reply:
        if faults:
            raise faults.pop()
        return OK

    link.rule = rule
    await net.run("a", event_to("there", 1))
    await until(lambda: not faults and not net.router.queue(ML).pending)
    assert len(link.messages) == 2


async def test_an_accepted_call_stays_in_the_store_until_its_result(net: Net) -> None:
    link = net.connect()
    await net.run("a", call(1, app="ml"))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    sent = link.messages[0]
    assert await net.undelivered() == []
    kept = await net.world.store.real.reminder(sent.id)
    assert kept is not None
    assert await net.world.store.real.destinations() == [ML]


async def test_an_event_is_gone_from_the_store_once_it_is_accepted(net: Net) -> None:
    link = net.connect()
    await net.run("a", event_to("there", 1))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    assert await net.world.store.real.reminder(link.messages[0].id) is None


async def test_in_another_session_the_accepted_calls_are_sent_again(net: Net) -> None:
    link = net.connect()
    await net.run("a", call(1, app="ml"), event_to("there", 2), child(3, "kid", app="ml"))
    await until(lambda: len(link.messages) == 3 and not net.router.queue(ML).pending)

    await net.router.link_up(link)
    await asyncio.sleep(0.05)
    assert len(link.messages) == 3, "the same session: nothing was lost"

    link.session = "another start of one of the two"
    await net.router.link_up(link)
    await until(lambda: len(link.messages) == 5)
    assert [message.kind for message in link.messages[3:]] == [Kind.ACTIVITY, Kind.CREATE]


async def test_what_an_app_has_accepted_in_a_session_that_is_over_is_sent_again(net: Net) -> None:
    before = net.connect()
    before.open.clear()
    await net.run("a", call(1, app="ml"))
    await until(lambda: before.messages)
    after = net.connect()
    after.session = "another start of one of the two"
    await net.router.link_up(after)
    before.open.set()
    await until(lambda: after.messages)
    assert [message.call.task for message in after.messages] == [1]


async def test_an_app_without_an_address_is_waited_for(net: Net) -> None:
    await net.run("a", call(1, app="nowhere"))
    queue = net.router.queue(("default", "nowhere"))
    await until(lambda: queue.cause)
    assert queue.cause is not None
    assert "nowhere" in queue.cause.text
    link = net.connect("nowhere")
    await net.router.link_up(link)
    await until(lambda: link.messages)


async def test_an_app_without_an_address_fails_the_call_where_the_setting_says_so(failing_net: Net) -> None:
    net = failing_net
    await net.run("a", call(1, app="nowhere"), child(2, "kid", app="nowhere"))
    await net.run("b", call(1, app="ml"))
    failures = (await net.last_turn("a", 2))[1:]
    if len(failures) < 2:
        await net.world.complete(next(item for item in reversed(net.hand.turns) if item.instance_id == "a"))
        failures += (await net.last_turn("a", 3))[1:]
    assert {event.WhichOneof("kind") for event in failures} == {"task_failed", "child_failed"}
    assert "nowhere" in str(failures)
    assert len(await net.undelivered()) == 1, "an app that is down is waited for"


async def test_a_peer_that_is_down_or_slow_does_not_delay_another(net: Net) -> None:
    slow, quick = net.connect("ml"), net.connect("pay")
    slow.open.clear()
    await net.run("a", call(1, app="ml"), call(2, app="gone"), call(3, app="pay"), event_to("x", 4, app="pay"))
    await until(lambda: len(quick.messages) == 2)
    assert [len(batch) for batch in slow.batches] == [1]
    slow.open.set()
    await until(lambda: not net.router.queue(ML).pending)


async def test_more_than_the_queue_holds_is_read_again_in_order(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_queue, "QUEUE_LIMIT", 20)
    monkeypatch.setattr(peer_queue, "BATCH_MESSAGES", 7)
    link = net.connect()
    link.open.clear()
    for number in range(5):
        await net.run(f"a{number}", *(event_to("there", number * 30 + task) for task in range(1, 31)), end())
    assert len(net.router.queue(ML).pending) <= 20
    link.open.set()
    await until(lambda: len(link.messages) >= 150)
    for number in range(5):
        mine = [task for task in _numbers(link.messages, "there") if number * 30 < task <= number * 30 + 30]
        assert mine == list(range(number * 30 + 1, number * 30 + 31))
    await until(lambda: not net.router.queue(ML).pending)
    assert await net.undelivered() == []


async def test_a_read_that_fails_is_repeated(net: Net) -> None:
    """What waits in the store is not forgotten because it could not be read once."""
    await net.run("a", event_to("there", 1), end())
    await net.router.stop()
    again = Net(net.world, net.hand)
    link = again.connect()
    net.world.store.failing["outbound"] = 1
    await again.router.start()
    try:
        await until(lambda: link.messages)
    finally:
        await again.router.stop()


async def test_what_overflows_the_queue_while_it_is_read_is_not_forgotten(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read began before the messages were stored, so that it has found nothing."""
    monkeypatch.setattr(peer_queue, "QUEUE_LIMIT", 2)
    gate, read = asyncio.Event(), net.world.store.outbound

    async def slow(*args: Any) -> list[Reminder]:
        found: list[Reminder] = await read(*args)
        await gate.wait()
        return found

    monkeypatch.setattr(net.world.store, "outbound", slow, raising=False)
    link = net.connect()
    net.router.queue(ML)
    await asyncio.sleep(0.01)
    await net.run("a", *(event_to("there", number) for number in range(1, 6)), end())
    await net.world.quiet()
    gate.set()
    await until(lambda: _numbers(link.messages, "there") == [1, 2, 3, 4, 5])


async def test_a_page_that_its_bytes_make_short_is_not_the_last(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await net.run("a", *(event_to("there", number) for number in range(1, 6)), end())
    await net.router.stop()
    read = net.world.store.outbound

    async def two(namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        found: list[Reminder] = await read(namespace, app, after, min(limit, 2))
        return found

    monkeypatch.setattr(net.world.store, "outbound", two, raising=False)
    again = Net(net.world, net.hand)
    link = again.connect()
    await again.router.start()
    try:
        await until(lambda: _numbers(link.messages, "there") == [1, 2, 3, 4, 5])
    finally:
        await again.router.stop()


async def test_an_acceptance_that_could_not_be_stored_is_asked_for_again(net: Net) -> None:
    link = net.connect()
    link.open.clear()
    await net.run("a", event_to("there", 1), end())
    await until(lambda: link.batches)
    net.world.store.failing["commit"] = 1
    link.open.set()
    await until(lambda: len(link.batches) >= 2)
    await until(lambda: not net.router.queue(ML).pending)
    assert await net.undelivered() == []


async def test_a_call_that_is_taken_back_before_it_left_is_not_sent(net: Net) -> None:
    """Nor is what takes it back: both are gone, also from the store."""
    await net.run("a", call(1, app="ml"), event_to("there", 2))
    await net.world.quiet()
    assert {one.kind for one in net.router.queue(ML).pending.values()} == {Kind.ACTIVITY, Kind.EVENT}
    await net.world.clients.terminate(at("a"), None, False)
    await net.world.quiet()
    assert [one.kind for one in await net.undelivered()] == [Kind.EVENT]
    link = net.connect()
    net.router.wake(net.router.queue(ML))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    assert [message.kind for message in link.messages] == [Kind.EVENT]


async def test_a_call_that_may_have_left_is_taken_back_behind_it(net: Net) -> None:
    link = net.connect()
    link.breaking = 1
    await net.run("a", call(1, app="ml"))
    await until(lambda: link.batches)
    await net.world.clients.terminate(at("a"), None, False)
    await until(lambda: any(message.kind is Kind.WITHDRAW for message in link.messages))
    await until(lambda: not net.router.queue(ML).pending)
    assert await net.undelivered() == []


async def test_a_call_that_an_earlier_start_may_have_sent_is_taken_back_behind_it(net: Net) -> None:
    net.connect().breaking = 1
    await net.run("a", call(1, app="ml"))
    await until(lambda: net.links.up[ML].batches)
    await net.router.stop()
    again = Net(net.world, net.hand)
    await again.router.start()
    await until(lambda: again.router.queue(ML).pending)
    await net.world.clients.terminate(at("a"), None, False)
    await net.world.quiet()
    link = again.connect()
    again.router.wake(again.router.queue(ML))
    try:
        await until(lambda: [message.kind for message in link.messages] == [Kind.ACTIVITY, Kind.WITHDRAW])
    finally:
        await again.router.stop()


async def test_a_call_that_an_earlier_session_had_is_taken_back_though_it_waits_again(net: Net) -> None:
    """It is on the other side perhaps, and would run there for nobody."""
    link = net.connect()
    await net.run("a", call(1, app="ml"))
    await until(lambda: link.messages and not net.router.queue(ML).pending)
    link.session = "another start of one of the two"
    net.links.up.clear()
    await net.router.link_up(link)
    await until(lambda: net.router.queue(ML).pending)
    await net.world.clients.terminate(at("a"), None, False)
    net.links.up[ML] = link
    net.router.wake(net.router.queue(ML))
    await until(lambda: any(message.kind is Kind.WITHDRAW for message in link.messages))


async def test_payloads_that_wait_for_an_app_take_no_more_memory_than_they_may(net: Net) -> None:
    net.router._at_hand = AtHand(5_000)
    link = net.connect()
    link.open.clear()
    for number in range(10):
        action = event_to("there", number + 1)
        action.send_event.data.value = "x" * 1_000
        await net.run(f"a{number}", action, end())
    await net.world.quiet()
    assert (len(net.router.queue(ML).pending), len(net.router._at_hand)) == (10, 2)
    link.open.set()
    await until(lambda: len(link.messages) == 10)
    assert all(len(message.payload) > 1_000 for message in link.messages)
    await until(lambda: not net.router.queue(ML).pending)
    assert (len(net.router._at_hand), net.router._where) == (0, {})


async def test_payloads_for_apps_without_a_link_take_no_memory(net: Net) -> None:
    """They would take the room of those that can leave."""
    await net.run("a", *(event_to("there", number, app=f"gone{number}") for number in range(1, 20)), end())
    await until(lambda: len(net.router._where) == 19)
    await net.run("a2", event_to("there", 20, app="gone1"), end())
    await until(lambda: len(net.router._where) == 20)
    assert len(net.router._at_hand) == 0


def outbox_tasks() -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("outbox"))


@pytest.fixture
def reads(net: Net, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Lets reads of what waits for an app come to an end while it is set."""
    gate, read = asyncio.Event(), net.world.store.outbound

    async def slow(*args: Any) -> list[Reminder]:
        found: list[Reminder] = await read(*args)
        await gate.wait()
        return found

    monkeypatch.setattr(net.world.store, "outbound", slow, raising=False)
    return gate


async def test_apps_that_nobody_can_reach_cost_no_task(net: Net, reads: asyncio.Event) -> None:
    link = net.connect()
    link.open.clear()
    await net.run("a", *(call(number, app=f"made-of-data{number}") for number in range(1, 500)), call(500, app="ml"))
    assert len(outbox_tasks()) == 2, "one that sends, and one for all others"
    reads.set()
    await until(lambda: len(net.router._where) == 500)
    await until(lambda: all(queue.cause for (_, app), queue in net.router.queues.items() if app != "ml"))
    assert len(outbox_tasks()) <= 2
    back = net.connect("made-of-data77")
    await net.router.link_up(back)
    await until(lambda: back.messages)
    link.open.set()


async def test_a_link_that_comes_up_while_it_is_seen_that_there_is_none_is_used_at_once(
    net: Net, reads: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PeerQueue, "failed", lambda *_: 1_000.0)
    await net.run("a", event_to("there", 1), end())
    await net.world.quiet()
    link = net.connect()
    net.router.wake(net.router.queue(ML))
    reads.set()
    await until(lambda: link.messages)


async def test_what_was_read_before_a_session_was_over_does_not_count(net: Net, reads: asyncio.Event) -> None:
    """It lacks what the loss brought back, and what came behind that must not overtake it."""
    reads.set()
    first = net.connect()
    await net.run("a", call(1, app="ml"))
    await until(lambda: first.messages and not net.router.queue(ML).pending)
    net.links.up.clear()
    reads.clear()
    net.router._begin_anew(net.router.queue(ML))
    await net.run("b", event_to("there", 2), end())
    link = PlayedLink()
    link.session = "another start of one of the two"
    await net.router.link_up(link)
    net.links.up[ML] = link
    reads.set()
    await until(lambda: len(link.messages) == 2)
    assert [message.kind for message in link.messages] == [Kind.ACTIVITY, Kind.EVENT]


async def test_of_apps_that_were_never_met_a_number_is_waited_for_and_others_are_refused(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_unmet, "MOST_UNMET", 5)
    with structlog.testing.capture_logs() as logged:
        await net.run("a", *(call(number, app=f"made-of-data{number}") for number in range(1, 6)))
        await net.run("b", call(1, app="made-of-data1"), call(2, app="ml"), call(3, app="one-more"))
        failed = (await net.last_turn("b", 2))[1]
        await net.run("c", event_to("there", 4, app="another"), end())
        await net.world.quiet()
    assert failed.task_failed.task_scheduled_id == 3
    details = failed.task_failed.failure
    assert (details.error_type, details.is_non_retriable) == ("TooManyApps", True)
    assert details.error_message.startswith("'one-more' is one app too many: messages wait for 5 apps already")
    assert [one["app"] for one in logged if one["event"] == "message refused"] == ["one-more", "another"]
    assert len(await net.undelivered()) == 1, "one that is listed is never too many"
    assert len(await net.world.store.real.outbound("default", "made-of-data1", 0, 10)) == 2
    assert ("default", "another") not in net.router.queues

    link = net.connect("made-of-data2")
    await net.router.link_up(link)
    await net.run("d", call(1, app="one-more"))
    await until(lambda: ("default", "one-more") in net.router.queues)


async def test_a_result_for_an_app_that_was_not_met_since_the_start_is_never_one_too_many(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_unmet, "MOST_UNMET", 0)
    await answered(net, "away")
    await until(lambda: net.router.queue(("default", "away")).pending)


async def test_what_waits_for_all_apps_without_a_link_is_in_memory_up_to_a_number(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_queue, "MOST_WAITING", 40)
    monkeypatch.setattr(peer_queue, "LEAST_ROOM", 2)
    for app in range(10):
        await net.run(f"a{app}", *(event_to("there", number, app=f"gone{app}") for number in range(1, 21)), end())
        await net.world.quiet()
    assert len(net.router._where) <= 40 + 10 * 2
    assert all(queue.pending for queue in net.router.queues.values())
    link = net.connect("gone9")
    await net.router.link_up(link)
    await until(lambda: len(link.messages) == 20)
    assert _numbers(link.messages, "there") == list(range(1, 21))


async def test_what_the_peer_does_not_take_holds_up_nothing_behind_it_however_much_that_is(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of the store has less than the queue holds when its messages are large."""
    read = net.world.store.outbound

    async def three(namespace: str, app: str, after: int, limit: int) -> list[Reminder]:
        found: list[Reminder] = await read(namespace, app, after, min(limit, 3))
        return found

    monkeypatch.setattr(net.world.store, "outbound", three, raising=False)
    await net.run("a", *(event_to("busy", number) for number in range(1, 8)), end())
    await net.run("b", event_to("free", 8), end())
    await net.router.stop()
    again = Net(net.world, net.hand)
    link = again.connect()
    link.rule = lambda message: BUSY if message.target.id == "busy" else OK
    await again.router.start()
    try:
        await until(lambda: _numbers(link.messages, "free") == [8])
    finally:
        await again.router.stop()


async def test_each_message_is_read_once_however_many_batches_it_takes(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more than fits into a page of the store."""
    monkeypatch.setattr(pages, "PAGE_BYTES", 20_000)
    for number in range(100):
        action = event_to("there", number + 1)
        action.send_event.data.value = "x" * 1_000
        await net.run(f"a{number}", action, end())
    await net.router.stop()
    rows = 0
    outbound, reminder = net.world.store.outbound, net.world.store.reminder

    async def page(*args: Any) -> list[Reminder]:
        nonlocal rows
        found: list[Reminder] = await outbound(*args)
        rows += len(found)
        return found

    async def one(*args: Any) -> Reminder | None:
        nonlocal rows
        rows += 1
        found: Reminder | None = await reminder(*args)
        return found

    monkeypatch.setattr(net.world.store, "outbound", page, raising=False)
    monkeypatch.setattr(net.world.store, "reminder", one, raising=False)
    again = Net(net.world, net.hand)
    link = again.connect()
    await again.router.start()
    try:
        await until(lambda: len(link.messages) == 100)
    finally:
        await again.router.stop()
    assert rows <= 110, rows
    assert len(link.batches) >= 10


async def test_ids_that_were_named_once_leave_nothing_behind(failing_net: Net) -> None:
    """Each costs a queue while something waits for it, and no longer."""
    net = failing_net
    await net.run("a", *(call(number, app=f"typo{number}") for number in range(1, 31)), end())
    await until(lambda: not any(app.startswith("typo") for _, app in net.router.queues))
    assert net.router._where == {}
    await until(lambda: not outbox_tasks())


async def test_the_floor_is_below_every_message_that_may_still_come(net: Net) -> None:
    link = net.connect()
    link.rule = lambda message: BUSY if message.target.id == "busy" else OK
    await net.run("a", event_to("busy", 1), *(event_to("free", number) for number in range(2, 6)), end())
    await until(lambda: len(_numbers(link.messages, "free")) == 4)
    blocked = next(message.id for message in link.messages if message.target.id == "busy")
    await net.run("b", event_to("free", 6), end())
    await until(lambda: 6 in _numbers(link.messages, "free"))
    assert max(link.floors) <= blocked


async def test_the_router_takes_up_what_the_store_holds(net: Net) -> None:
    await net.run("a", call(1, app="ml"), event_to("there", 2))
    await net.router.stop()
    again = Net(net.world, net.hand)
    link = again.connect()
    await again.router.start()
    await until(lambda: len(link.messages) == 2)
    assert {message.kind for message in link.messages} == {Kind.ACTIVITY, Kind.EVENT}
    await again.router.stop()


async def test_a_caller_that_cannot_be_read_ends_nothing_for_the_app_that_it_called(net: Net) -> None:
    link = net.connect()
    link.rule = lambda reminder: Reply(Outcome.DENIED, "no") if reminder.name == "work" else OK
    link.open.clear()
    await net.run("bad", call(1, app="ml"))
    await until(lambda: link.batches)
    load = net.world.store.real.load

    async def damaged(hub: str, instance_id: str) -> State | None:
        if instance_id == "bad":
            raise DamagedError("'bad' cannot be read")
        return await load(hub, instance_id)

    net.world.store.load = damaged  # type: ignore[attr-defined]
    await net.world.quiet()
    net.world.engine.drop(net.world.actor("bad"))
    link.open.set()
    await net.run("good", call(1, "fine", app="ml"))
    await until(lambda: any(reminder.name == "fine" for reminder in link.messages))
    queue = net.router.queues[ML]
    await until(lambda: not queue.pending)
    assert [reminder.name for reminder in await net.undelivered()] == ["work"], "it is found again after a repair"
