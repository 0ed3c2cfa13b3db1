"""Why something waits is said by all who show it, in the same words: states, lists, trees, metadata, the log."""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import structlog
from google.protobuf.message import Message

from sidecar.edge.methods import ADMIN as SERVICE
from sidecar.edge.peer import link, reports
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import cause_pb2, peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work import takers
from tests.inprocess.sidecars import Node, PlayedPeer, Start, fields, get, hello, work_items
from tests.inprocess.world import RUNNING, Hand, World, at, call, call_entity, child, lock, until

STALLED = 8
NOBODY = "no worker is connected"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as logged:
        yield logged


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (link.HEARTBEAT_SECONDS, reports._SHORTEST) == (5.0, 1.0)
    monkeypatch.setattr(link, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(reports, "_SHORTEST", 0.0)


class Said(NamedTuple):
    state: list[cause_pb2.Cause]
    listed: list[cause_pb2.Cause]
    tree: list[admin.Wait]


async def said(node: Node, instance_id: str) -> Said:
    """What the state of an instance, a list and its tree say of why it waits."""
    body = await node.call("QueryInstances", pb.QueryInstancesRequest())
    [listed] = [one for one in pb.QueryInstancesResponse.FromString(body).states if one.instance_id == instance_id]
    state = (await get(node, instance_id)).state
    return Said(list(state.causes), list(listed.causes), list((await tree(node, instance_id)).waits))


async def tree(node: Node, instance_id: str) -> admin.TreeNode:
    return admin.TreeNode.FromString(await ask(node, "GetTree", admin.GetTreeRequest(instance_id=instance_id)))


async def ask(node: Node, method: str, request: Message) -> bytes:
    return await node.channel.unary(SERVICE + method, request.SerializeToString(), timeout=10.0)


async def agreed(node: Node, instance_id: str, reason: str, app: str = "") -> cause_pb2.Cause:
    """The cause with this reason, here or at an app, once the state, the list and the tree say it in the same words."""
    async with asyncio.timeout(5.0):
        while True:
            found = await said(node, instance_id)
            in_tree = [one.cause for one in found.tree if one.HasField("cause")]
            causes = [one for one in found.state if (one.reason, one.app_id) == (reason, app)]
            if causes and found.state == found.listed and causes[0] in in_tree:
                return causes[0]
            await asyncio.sleep(0.02)


async def filtered(node: Node, **names: list[str]) -> None:
    """Connect a worker that takes these names alone."""
    filters = pb.WorkItemFilters(
        **{kind: [pb.WorkItemFilter(name=one) for one in taken] for kind, taken in names.items()}
    )
    await work_items(node.channel, pb.GetWorkItemsRequest(filters=filters, max_entities=9).SerializeToString())
    await until(lambda: node.sidecar.dispatch.pool.workers)


async def test_a_workflow_that_no_worker_takes_says_so_and_which_names_are_taken(start: Start) -> None:
    orders = await start("orders")
    await orders.begin("a", "flwo")
    cause = await agreed(orders, "a", "no-worker")
    assert (cause.text, cause.advice) == (NOBODY, "start the app, and see that its SDK connects to its sidecar")
    await filtered(orders, orchestrations=["flow", "other"])
    await until(lambda: orders.sidecar.dispatch.watch._since, 5.0)
    cause = await agreed(orders, "a", "name-not-taken")
    assert cause.text == "no connected worker takes workflow 'flwo': they take 'flow', 'other'; was 'flow' meant?"
    assert cause.since.seconds > 1_700_000_000
    [wait] = (await tree(orders, "a")).waits
    assert (wait.kind, wait.state, wait.error) == ("worker", "queued", cause.text)
    assert wait.since.seconds > 1_700_000_000
    untaken: Any = orders.sidecar.metadata()["untaken"]
    assert [(one["reason"], one["why"]) for one in untaken] == [("name-not-taken", cause.text)]
    assert untaken[0]["since"]


async def test_an_activity_and_an_entity_that_no_worker_takes_are_said_of_the_workflow_that_waits(start: Start) -> None:
    orders = await start("orders")
    worker = orders.worker(lambda events: [] if len(events) > 2 else [call(1, "scroe"), call_entity(2, "@counter@k")])
    await orders.begin("a")
    await until(lambda: worker.turns and not orders.sidecar.dispatch.turns.out)
    await worker.stop()
    await until(lambda: not orders.sidecar.dispatch.pool.workers, 5.0)
    await filtered(orders, orchestrations=["flow"], activities=["score"], entities=["other"])
    cause = await agreed(orders, "a", "name-not-taken")
    texts = [one.text for one in (await said(orders, "a")).state]
    assert cause.text == texts[0] == "no connected worker takes activity 'scroe': they take 'score'; was 'score' meant?"
    assert texts[1].startswith("no connected worker takes entity 'counter': they take 'other'")


async def test_a_suspended_workflow_says_so(start: Start) -> None:
    orders = await start("orders")
    await orders.begin("a")
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="a"))
    cause = await agreed(orders, "a", "suspended")
    assert (cause.text, cause.advice) == ("it is suspended", "resume it")


async def test_who_has_locked_an_entity_is_said_to_those_who_wait_for_it(start: Start) -> None:
    orders = await start("orders")
    orders.worker(lambda events: [] if len(events) > 2 else [lock(1, "@counter@k")])
    await orders.begin("first")
    await until(lambda: (actor := orders.sidecar.engine.residents.find(("default", "@counter@k")))
                and actor.state and actor.state.instance.lock)  # fmt: skip
    await orders.begin("second")
    cause = await agreed(orders, "second", "locked")
    assert cause.text == "entity '@counter@k' is locked by workflow 'first'"
    assert not [one for one in (await said(orders, "first")).state if one.reason == "locked"]


async def test_an_app_that_is_not_started_says_so_to_those_who_wait_for_it(
    start: Start, lines: list[Any], fast: None
) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(lambda events: [] if len(events) > 2 else [call(1, "score", app="ml"), child(2, "kid", app="ml")])
    await orders.begin("a")
    cause = await agreed(orders, "a", "no-worker", "ml")
    assert (cause.app_id, cause.text) == ("ml", f"app 'ml' has it, and says: {NOBODY}")
    found = await said(orders, "a")
    assert [(one.kind, one.state, one.cause.text) for one in found.tree[:2]] == [
        ("activity", "delivered", cause.text),
        ("child", "delivered", cause.text),
    ]
    body = await ask(orders, "ListWaiting", admin.ListWaitingRequest())
    waiting = admin.ListWaitingResponse.FromString(body).calls
    assert [(one.delivered, one.error, one.cause.reason) for one in waiting] == [(True, cause.text, "no-worker")] * 2
    [peer] = orders.sidecar._peers()
    assert [one["why"] for one in peer["says"]] == [cause.text] * 2  # type: ignore[attr-defined]

    def told() -> list[Any]:
        return [line for line in lines if line["event"].startswith("work waits") and line.get("app") == "ml"]

    assert [(line["event"], line["why"]) for line in told()] == [("work waits at another app", cause.text)]
    ml.worker(lambda events: [], {"score": lambda request: '"7"'})
    await until(lambda: len(told()) == 2, 5.0)
    assert told()[1]["event"] == "work waits no longer at another app"
    await until(lambda: not orders.sidecar.services.waiting.reports.of(("default", "ml")))


async def test_what_an_app_has_is_known_after_a_restart_of_the_one_that_waits(start: Start, fast: None) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(lambda events: [call(1, "score", app="ml")])
    await orders.begin("a")
    await agreed(orders, "a", "no-worker", "ml")
    await orders.stop()
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await until(lambda: orders.sidecar.services.waiting.reports.of(("default", "ml")), 5.0)


async def test_an_app_is_shown_only_names_that_it_may_schedule(start: Start, fast: None) -> None:
    ml = await start("ml", policy="allow: [{caller: orders, activity: 's*', operations: [schedule]}]")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await filtered(ml, activities=["score", "secret", "hidden"])
    orders.worker(lambda events: [call(1, "scroe", app="ml")])
    await orders.begin("a")
    cause = await agreed(orders, "a", "name-not-taken", "ml")
    assert "they take 'score', 'secret'; was 'score' meant?" in cause.text
    evil = PlayedPeer(ml)
    assert await evil.introduce(hello()) == ""
    await evil.send(peer_pb2.Frame(why=peer_pb2.Lanes(lanes=[peer_pb2.Lane(kind="activity", name="scroe")])))
    while (frame := await evil.receive()) is not None and frame.WhichOneof("frame") != "because":
        pass
    assert frame is not None
    assert not frame.because.lanes
    await evil.close()


async def test_what_an_app_says_unasked_or_in_unknown_words_is_not_kept(start: Start, fast: None) -> None:
    orders = await start("orders")
    orders.worker(lambda events: [call(1, "score", app="evil")])
    await orders.begin("a")
    evil = PlayedPeer(orders)
    assert await evil.introduce(hello()) == ""
    while (frame := await evil.receive()) is not None and frame.WhichOneof("frame") != "batch":
        pass
    assert frame is not None
    answer = peer_pb2.Answer(id=frame.batch.messages[0].id)
    await evil.send(peer_pb2.Frame(answers=peer_pb2.Answers(sequence=frame.batch.sequence, answers=[answer])))
    while (frame := await evil.receive()) is not None and frame.WhichOneof("frame") != "why":
        pass
    assert frame is not None
    assert [(lane.kind, lane.name) for lane in frame.why.lanes] == [("activity", "score")]

    def lane(name: str, reason: str) -> peer_pb2.Lane:
        cause = cause_pb2.Cause(reason=reason, text="\nforged " + "x" * 5_000)
        return peer_pb2.Lane(kind="activity", name=name, cause=cause)

    lanes = [lane("score", "no-such-reason"), lane("other", "no-worker")]
    await evil.send(peer_pb2.Frame(because=peer_pb2.Lanes(lanes=lanes)))
    await evil.send(peer_pb2.Frame(because=peer_pb2.Lanes(lanes=[lane("score", "no-worker")])))
    cause = await agreed(orders, "a", "no-worker", "evil")
    assert [one.text for one in orders.sidecar.services.waiting.reports.of(("default", "evil"))] == [cause.text]
    assert "\n" not in cause.text
    assert len(cause.text) < 1_100
    await evil.close()


async def test_microsofts_clients_read_why_a_workflow_is_stalled_in_its_failure_and_its_history(start: Start) -> None:
    """They know no such status, and the custom status is the user's."""
    orders = await start("orders")
    unknown = pb.Action(id=1)
    unknown.version_not_available.SetInParent()
    orders.worker(lambda events: [unknown])
    await orders.begin("a")
    cause = await agreed(orders, "a", "stalled")
    assert cause.text.startswith("it is stalled: Version not available")
    microsoft = orders.as_sdk("durabletask-python")
    state = (await get(microsoft, "a")).state
    assert (state.status, state.HasField("custom_status")) == (RUNNING, False)
    assert state.failure.error_type == "WorkflowStalled"
    assert state.failure.error_message == f"{cause.text}; {cause.advice}"
    of_dapr = (await get(orders, "a")).state
    assert (of_dapr.status, of_dapr.HasField("failure")) == (STALLED, False)
    assert await read_history(microsoft, for_a_turn=False) == ["stalled: Version not available: "]
    assert await read_history(microsoft, for_a_turn=True) == []


async def read_history(node: Node, *, for_a_turn: bool) -> list[str]:
    """The texts of the events that only say something, in the history of the instance "a"."""
    request = pb.GetInstanceHistoryRequest(instance_id="a", for_work_item_processing=for_a_turn)
    stream = node.channel.duplex("/TaskHubSidecarService/StreamInstanceHistory", node.metadata)
    await stream.send(request.SerializeToString())
    await stream.done_sending()
    found = []
    while (chunk := await stream.receive()) is not None:
        events = fields(chunk).get(1, [])
        found += [fields(value)[1][0] for event in events for value in fields(event).get(18, [])]
    return [fields(text)[1][0].decode() for text in found]


async def test_calls_that_are_alike_are_looked_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may ask for the state of a workflow with a thousand calls every second."""
    hand = Hand(activities=1)
    world.dispatch.add_worker(hand.worker)
    await world.start("a")
    await world.complete(await hand.turn(1), *(call(task) for task in range(1, 301)))
    looked: list[str] = []
    cause = takers.cause
    monkeypatch.setattr(takers, "cause", lambda pool, kind, *rest: looked.append(kind) or cause(pool, kind, *rest))
    view = await world.clients.view(at("a"), False)
    assert view is not None
    assert [one.reason for one in view.causes] == ["workers-busy"]
    assert looked == ["activity"]
