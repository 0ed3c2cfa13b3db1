"""Why workflows wait, the way out, and a workflow with its children over all its apps: real sidecars."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.edge.admin import inspection as admin_module
from sidecar.edge.methods import ADMIN as SERVICE
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, Start, work_items
from tests.inprocess.world import COMPLETED, call, child, end, until
from tests.ports import free_port


async def ask(node: Node, method: str, request: Message) -> bytes:
    return await node.channel.unary(SERVICE + method, request.SerializeToString(), timeout=10.0)


async def waiting(node: Node, **request: Any) -> list[admin.WaitingCall]:
    answer = await ask(node, "ListWaiting", admin.ListWaitingRequest(**request))
    return list(admin.ListWaitingResponse.FromString(answer).calls)


async def tree(node: Node, instance_id: str, depth: int = 0) -> admin.TreeNode:
    answer = await ask(node, "GetTree", admin.GetTreeRequest(instance_id=instance_id, depth=depth))
    return admin.TreeNode.FromString(answer)


def asking(*actions: pb.Action) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that asks for these at once, and ends with all answers or the types and texts of failures."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        found = []
        for event in events:
            kind = event.WhichOneof("kind")
            if kind in ("task_completed", "child_completed"):
                found.append(getattr(event, kind).result.value)
            if kind in ("task_failed", "child_failed"):
                failure = getattr(event, kind).failure
                found.append(f"{failure.error_type}: {failure.error_message}")
        if len(found) == len(actions):
            return [end(", ".join(found))]
        return [] if found else list(actions)

    return flow


async def shown(node: Node, count: int) -> list[admin.WaitingCall]:
    async with asyncio.timeout(5.0):
        while len(found := await waiting(node)) < count:  # noqa: ASYNC110 (asked over the wire)
            await asyncio.sleep(0.02)
    return found


async def test_calls_that_wait_are_shown_with_the_app_the_attempts_and_the_last_error(start: Start) -> None:
    ml = await start("ml")
    ghost = f"127.0.0.1:{free_port()}"
    orders = await start("orders", peers={"ml": (ml.peer_address,), "ghost": (ghost,)})
    orders.worker(asking(call(1, "score", app="ml"), call(2, "haunt", app="ghost"), child(3, "c", app="nobody")))
    await orders.begin("a")
    await shown(orders, 3)
    await until(lambda: all(queue.failures for (_, app), queue in orders.sidecar.outbox.queues.items() if app != "ml"))
    await until(lambda: not orders.sidecar.outbox.queues["default", "ml"].pending)
    score, haunt, created = await waiting(orders)
    assert [(one.instance_id, one.task_id, one.kind, one.app_id) for one in (score, haunt, created)] == [
        ("a", 1, "activity", "ml"),
        ("a", 2, "activity", "ghost"),
        ("a", 3, "child", "nobody"),
    ]
    assert (score.delivered, score.error, score.attempts) == (True, "", 0)
    assert not haunt.delivered
    assert haunt.error == f"app 'ghost' is not connected: {ghost}: connection refused: nothing listens there"
    assert created.error == "the address of app 'nobody' was not found"
    assert min(haunt.attempts, created.attempts) > 0
    assert haunt.since.seconds > 1_700_000_000
    assert [one.id for one in await waiting(orders, app_id="ghost")] == [haunt.id]
    assert [one.id for one in await waiting(orders, after=score.id, limit=1)] == [haunt.id]


async def test_a_call_that_waits_can_be_made_to_fail_with_a_reason(start: Start) -> None:
    orders = await start("orders")
    orders.worker(asking(call(1, "score", app="mistyped"), child(2, "c", app="mistyped")))
    await orders.begin("a")
    for one in await shown(orders, 2):
        await ask(orders, "FailCall", admin.FailCallRequest(id=one.id, reason=f"no such app for {one.kind}"))
    assert await waiting(orders) == []
    state = await orders.outcome("a")
    assert state.status == COMPLETED
    assert state.output.value == ", ".join(
        f"CallFailedByOperator: {text}" for text in ("no such app for activity", "no such app for child")
    )


async def test_an_activity_that_was_delivered_is_taken_back_when_its_call_is_made_to_fail(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(asking(call(1, "score", app="ml")))
    await orders.begin("a")
    await until(lambda: len(ml.sidecar.dispatch.pool.activities) == 1)
    [one] = await shown(orders, 1)
    await ask(orders, "FailCall", admin.FailCallRequest(id=one.id, reason="enough"))
    assert (await orders.outcome("a")).output.value == "CallFailedByOperator: enough"
    await until(lambda: len(ml.sidecar.dispatch.pool.activities) == 0)


async def test_what_does_not_wait_cannot_be_made_to_fail(start: Start) -> None:
    orders = await start("orders")
    with pytest.raises(Refused, match="no call 77 waits") as refused:
        await ask(orders, "FailCall", admin.FailCallRequest(id=77, reason="x"))
    assert refused.value.status is StatusCode.NOT_FOUND
    with pytest.raises(Refused, match="say why"):
        await ask(orders, "FailCall", admin.FailCallRequest(id=77))


async def test_an_app_is_tried_at_once_when_a_person_says_so(start: Start) -> None:
    port = free_port()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    orders.worker(asking(call(1, "score", app="ml")))
    await orders.begin("a")
    queue = orders.sidecar.outbox.queues
    await until(lambda: ("default", "ml") in queue and queue["default", "ml"].failures > 3)
    ml = await start("ml", peer_port=port)
    ml.worker(activities={"score": lambda request: '"7"'})
    answer = admin.RetryResponse.FromString(await ask(orders, "Retry", admin.RetryRequest()))
    assert list(answer.app_ids) == ["ml"]
    async with asyncio.timeout(2.0):
        assert (await orders.outcome("a")).output.value == '"7"'


@pytest.mark.slow
async def test_a_tree_follows_a_workflow_over_its_apps_with_what_each_part_waits_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admin_module._PEER_SECONDS == 3.0
    monkeypatch.setattr(admin_module, "_PEER_SECONDS", 0.5)
    ml = await start("ml")
    ghost = f"127.0.0.1:{free_port()}"
    orders = await start("orders", peers={"ml": (ml.peer_address,), "ghost": (ghost,)})

    def home(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        root = events[1].execution_started.instance.instance_id == "root"
        remote = [child(1, "c1", app="ml"), child(2, "c2", app="ghost"), child(3, "c3"), call(4, "score", app="ghost")]
        return remote if root else [pb.Action(id=1, create_timer=pb.CreateTimer(fire_at=in_a_day()))]

    orders.worker(home)
    ml.worker(lambda events: [call(1, "score"), pb.Action(id=2, create_timer=pb.CreateTimer(fire_at=in_a_day()))])
    await orders.begin("root")
    async with asyncio.timeout(20.0):
        while True:
            found = await tree(orders, "root")
            if (
                len(found.children) == 3
                and [one.kind for one in found.children[0].waits] == ["activity", "timer"]
                and [one.kind for one in found.children[2].waits] == ["timer"]
            ):
                break
            await asyncio.sleep(0.05)
    assert (found.app_id, found.instance_id, found.status, found.error) == ("orders", "root", "RUNNING", "")
    assert [(one.kind, one.name, one.app_id, one.state) for one in found.waits] == [
        ("child", "sub", "ml", "delivered"),
        ("child", "sub", "ghost", "not delivered"),
        ("child", "sub", "orders", "started"),
        ("activity", "score", "ghost", "not delivered"),
    ]
    assert found.waits[3].error == f"app 'ghost' is not connected: {ghost}: connection refused: nothing listens there"
    there, lost, here = found.children
    assert (there.app_id, there.instance_id, there.status) == ("ml", "c1", "RUNNING")
    assert [(one.kind, one.name) for one in there.waits] == [("activity", "score"), ("timer", "")]
    assert (lost.app_id, lost.instance_id, lost.status) == ("ghost", "c2", "")
    assert "app 'ghost' could not be reached" in lost.error
    assert (here.app_id, here.instance_id, [one.kind for one in here.waits]) == ("orders", "c3", ["timer"])
    assert not (await tree(orders, "root", depth=1)).children


def in_a_day() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    stamp.seconds += 86_400
    return stamp


async def test_a_part_of_the_tree_that_another_app_does_not_show_says_so(start: Start) -> None:
    ml = await start("ml", policy="allow: [{caller: orders, workflow: '*', operations: [schedule]}]")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(lambda events: [child(1, "c", app="ml")])
    await orders.begin("a")
    await until(lambda: not (queue := orders.sidecar.outbox.queues.get(("default", "ml"))) or not queue.pending)
    async with asyncio.timeout(5.0):
        while not (found := await tree(orders, "a")).children:  # noqa: ASYNC110 (asked over the wire)
            await asyncio.sleep(0.05)
    assert found.children[0].error == "access denied by workflow access policy: app 'orders' may not get that here"


async def test_the_tree_of_an_instance_that_does_not_exist_is_not_found(start: Start) -> None:
    orders = await start("orders")
    with pytest.raises(Refused, match="no such instance exists"):
        await tree(orders, "none")


async def test_what_waits_for_a_worker_that_takes_its_name_says_so(start: Start) -> None:
    orders = await start("orders")
    await orders.begin("a")
    await until(lambda: len(orders.sidecar.dispatch.pool.turns) == 1)
    assert [(one.kind, one.error) for one in (await tree(orders, "a")).waits] == [("worker", "no worker is connected")]
    request = pb.GetWorkItemsRequest(filters=pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name="other")]))
    await work_items(orders.channel, request.SerializeToString())
    await until(lambda: orders.sidecar.dispatch.pool.workers)
    [wait] = (await tree(orders, "a")).waits
    assert (wait.state, wait.error) == ("queued", "no connected worker takes workflow 'flow': they take 'other'")


async def test_an_operator_ends_a_workflow_whose_turn_no_worker_can_receive(start: Start) -> None:
    """A client is refused that while it is stalled, and only a purge by force was left."""
    node = await start("orders")
    await node.begin("big", data='"' + "x" * (5 * 1024 * 1024) + '"')
    stream = await work_items(node.channel)
    status, text = StatusCode.OK, ""
    async with asyncio.timeout(10.0):
        while "stalled" not in text:
            status, text = await node.refusal("RaiseEvent", pb.RaiseEventRequest(instance_id="big", name="go"))
            await asyncio.sleep(0.05)
    assert (status, "Terminate of the admin service" in text) == (StatusCode.FAILED_PRECONDITION, True)
    assert (await node.refusal("TerminateInstance", pb.TerminateRequest(instance_id="big")))[0] != StatusCode.OK
    with pytest.raises(Refused, match="say why"):
        await ask(node, "Terminate", admin.TerminateRequest(instance_id="big"))
    await ask(node, "Terminate", admin.TerminateRequest(instance_id="big", reason="it is too large"))
    state = await node.outcome("big")
    assert (state.status, state.output.value) == (5, '"it is too large"')
    await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="big"))
    stream.cancel()
