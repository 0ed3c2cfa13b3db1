"""Trees of workflows over several apps: removed as one, and looked at before an ID is used again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Kind, Position
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from tests.edge.peer.test_forward import ask, request
from tests.edge.peer.test_two_sidecars import flow_of
from tests.inprocess.played_apps import ACCEPTED, PlayedApp, creation, state
from tests.inprocess.sidecars import Node, Start, hello
from tests.inprocess.world import COMPLETED, SUSPENDED, Hand, World, child, end, timer, until
from tests.ports import free_port

pytestmark = pytest.mark.slow

FOR_EVER = 1 << 52


def recursive(instance_id: str, *, force: bool = False) -> pb.PurgeInstancesRequest:
    return pb.PurgeInstancesRequest(instance_id=instance_id, recursive=True, force=force)


async def purged(node: Node, instance_id: str, *, force: bool = False) -> int:
    answer = await node.call("PurgeInstances", recursive(instance_id, force=force))
    return pb.PurgeInstancesResponse.FromString(answer).deleted_instance_count


async def exists(node: Node, instance_id: str) -> bool:
    answer = await node.call("GetInstance", pb.GetInstanceRequest(instance_id=instance_id))
    return pb.GetInstanceResponse.FromString(answer).exists


def input_of(events: list[pb.HistoryEvent]) -> str:
    return next(event.execution_started.input.value for event in events if event.HasField("execution_started"))


def making(task: int, instance_id: str, app: str, data: str = "") -> pb.Action:
    action = child(task, instance_id, app)
    action.create_child.input.value = data
    return action


@dataclass
class Apps:
    """Apps a, b and c, each of which knows the others."""

    start: Start
    ports: dict[str, int] = field(default_factory=lambda: {app: free_port() for app in "abc"})
    nodes: dict[str, Node] = field(default_factory=dict)

    async def up(self, app: str, **more: Any) -> Node:
        peers = {other: (f"127.0.0.1:{port}",) for other, port in self.ports.items() if other != app}
        self.nodes[app] = await self.start(app, peer_port=self.ports[app], peers=peers, **more)
        return self.nodes[app]

    def work(self, plans: dict[str, list[pb.Action]]) -> None:
        """Give each app a worker: a workflow does what the plan of its input says, and ends when that has."""

        def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
            return list(flow_of(*plans.get(input_of(events), ()))(events))

        for node in self.nodes.values():
            node.worker(flow)

    async def left(self) -> set[str]:
        """The IDs that are taken anywhere."""
        ids = set()
        for node in self.nodes.values():
            if not node.until.is_set():
                found = pb.ListAllResponse.FromString(await node.call("ListInstanceIDs", pb.ListAllRequest()))
                ids |= set(found.instance_ids)
        return ids


@pytest.fixture
async def apps(start: Start) -> Apps:
    apps = Apps(start)
    for app in "abc":
        await apps.up(app)
    return apps


TREE = {
    "root": [making(1, "b1", "b", "branch"), making(2, "b2", "b", "leaf"), making(3, "a1", "a", "leaf")],
    "branch": [making(1, "c1", "c", "leaf"), making(2, "c2", "c", "back"), making(3, "b3", "b", "leaf")],
    "back": [making(1, "a2", "a", "leaf")],
}
ALL = {"r", "b1", "b2", "b3", "a1", "a2", "c1", "c2"}
WAITING = {
    "root": [making(1, "b1", "b", "branch")],
    "branch": [making(1, "c1", "c", "wait")],
    "wait": [timer(1, FOR_EVER)],
}


# ---------------------------------------------------------------- purge


async def test_a_recursive_purge_removes_the_whole_tree_over_all_apps_and_counts_it(apps: Apps) -> None:
    """M62, M63, M64: through A, B, C and back to A; what is gone already is skipped."""
    apps.work(TREE)
    await apps.nodes["a"].begin("r", data="root")
    assert (await apps.nodes["a"].outcome("r")).status == COMPLETED
    await apps.nodes["a"].begin("other")
    assert await apps.left() == ALL | {"other"}
    assert await purged(apps.nodes["c"], "c1") == 1
    assert await purged(apps.nodes["a"], "r") == len(ALL) - 1
    assert await apps.left() == {"other"}
    assert await purged(apps.nodes["a"], "r") == 0


@pytest.mark.slow
async def test_a_tree_of_wide_fan_out_goes_in_a_few_requests(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    """M64"""
    wide = [making(task, f"b{task}", "b", "leaf") for task in range(450)]
    apps.work({"root": wide})
    a = apps.nodes["a"]
    await a.begin("r", data="root")
    await a.outcome("r", 30.0)
    asked = a.sidecar.services.clients.trees.elsewhere.ask
    requests = []

    async def counted(*given: Any) -> Any:
        requests.append(given[1])
        return await asked(*given)

    monkeypatch.setattr(a.sidecar.services.clients.trees.elsewhere, "ask", counted)
    assert await purged(a, "r") == 451
    assert requests == [False] * 3 + [True] * 3
    assert await apps.left() == set()


@pytest.mark.parametrize("what", ["RUNNING", "SUSPENDED"])
async def test_a_running_child_anywhere_refuses_the_purge_and_nothing_is_removed(apps: Apps, what: str) -> None:
    """M65: the parents have ended, and a grandchild in the third app has not."""
    apps.work(WAITING)
    a, c = apps.nodes["a"], apps.nodes["c"]
    await a.begin("r", data="root")
    await until(lambda: c.workers[0].turns)
    if what == "SUSPENDED":
        await c.call("SuspendInstance", pb.ReasonRequest(instance_id="c1"))
        assert (await state(c, "c1")).status == SUSPENDED
    status, text = await a.refusal("PurgeInstances", recursive("r"))
    assert (status, "'r' is RUNNING" in text) == (StatusCode.FAILED_PRECONDITION, True)
    await a.call("TerminateInstance", pb.TerminateRequest(instance_id="r"))
    status, text = await a.refusal("PurgeInstances", recursive("r"))
    assert (status, "its child workflow 'b1' has not ended" in text) == (StatusCode.FAILED_PRECONDITION, True)
    await apps.nodes["b"].call("TerminateInstance", pb.TerminateRequest(instance_id="b1"))
    status, text = await a.refusal("PurgeInstances", recursive("r"))
    assert (status, "its child workflow 'b1': child workflow 'c1' has not ended" in text) == (
        StatusCode.FAILED_PRECONDITION,
        True,
    )
    assert await apps.left() == {"r", "b1", "c1"}
    await c.call("TerminateInstance", pb.TerminateRequest(instance_id="c1"))
    assert await purged(a, "r") == 3


async def test_by_force_all_that_runs_vanishes_with_its_timers(apps: Apps) -> None:
    """M65"""
    apps.work(WAITING)
    await apps.nodes["a"].begin("r", data="root")
    await until(lambda: apps.nodes["c"].workers[0].turns)
    assert await purged(apps.nodes["a"], "r", force=True) == 3
    assert await apps.left() == set()

    async def at_rest() -> bool:
        stores = [node.sidecar.store for node in apps.nodes.values()]
        return not any([await store.due(1 << 60, (-1, 0), 10) or await store.destinations() for store in stores])

    async with asyncio.timeout(5):
        while not await at_rest():  # noqa: ASYNC110 (the stores have no event for it)
            await asyncio.sleep(0.01)


async def test_the_parent_that_waits_for_a_child_purged_by_force_gets_a_failure(apps: Apps) -> None:
    """M65: of another app, over the removal of the child's own tree."""
    apps.work(WAITING)
    await apps.nodes["a"].begin("r", data="root")
    await until(lambda: apps.nodes["c"].workers[0].turns)
    assert await purged(apps.nodes["b"], "b1", force=True) == 2
    assert "child workflow 'b1' was purged" in (await apps.nodes["a"].outcome("r")).output.value
    assert await purged(apps.nodes["a"], "r") == 1


async def test_children_that_a_running_workflow_makes_meanwhile_go_too(apps: Apps) -> None:
    """M65: each time a child of its is removed, the workflow makes another one, until it is gone itself."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        if input_of(events) != "root":
            return []
        failures = sum(event.HasField("child_failed") for event in events)
        return [making(failures, f"b{failures}", "b", "wait")]

    a, b = apps.nodes["a"], apps.nodes["b"]
    a.worker(flow)
    b.worker(flow)
    await a.begin("r", data="root")
    await until(lambda: b.workers[0].turns)
    assert await purged(a, "r", force=True) >= 2
    assert await apps.left() == set()


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
async def test_an_app_that_is_not_there_keeps_the_parent_and_is_named(apps: Apps, force: bool) -> None:
    """M62: also by force, also when it is asked by the app in between; a repetition does the rest."""
    apps.work(TREE)
    a, c = apps.nodes["a"], apps.nodes["c"]
    await a.begin("r", data="root")
    await a.outcome("r")
    await c.stop()
    status, text = await a.refusal("PurgeInstances", recursive("r", force=force), 2.0)
    assert (status, "app 'c'" in text) == (StatusCode.UNAVAILABLE, True)
    assert await apps.left() == ALL - {"c1", "c2"}
    await apps.up("c")
    assert await purged(a, "r", force=force) == len(ALL)
    assert await apps.left() == set()


async def test_a_repetition_finishes_what_was_begun(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    """M64: the app in between falls out when the leaves are gone."""
    apps.work(TREE)
    a, b = apps.nodes["a"], apps.nodes["b"]
    await a.begin("r", data="root")
    await a.outcome("r")
    b.sidecar.store.commit, commit = _failing, b.sidecar.store.commit  # type: ignore[method-assign]
    status, _ = await a.refusal("PurgeInstances", recursive("r"))
    assert status is StatusCode.UNAVAILABLE
    b.sidecar.store.commit = commit  # type: ignore[method-assign]
    left = await apps.left()
    assert {"r", "b1", "b2", "b3"} <= left < ALL
    assert await purged(a, "r") == len(left)
    assert await apps.left() == set()


async def _failing(_batch: Any) -> Any:
    raise UnavailableError("the disk is on fire")


async def test_detached_workflows_stay(apps: Apps) -> None:
    """M66: one in another app."""
    detached = pb.Action(id=2, create_detached=pb.CreateDetached(instance_id="d", name="report"))
    detached.router.target_app_id = "b"
    a, b = apps.nodes["a"], apps.nodes["b"]
    a.worker(lambda events: [detached, making(3, "b1", "b"), end()])
    b.worker(lambda events: [end()])
    await a.begin("r")
    await a.outcome("r")
    await until(lambda: len(b.workers[0].turns) == 2)
    await asyncio.gather(b.outcome("d"), b.outcome("b1"))
    assert await purged(a, "r") == 2
    assert await apps.left() == {"d"}


@pytest.mark.slow
async def test_a_child_whose_start_is_under_way_is_waited_for(start: Start) -> None:
    """M62, M65: nobody starts to run when its parent is gone. The parent has ended without waiting for it."""
    apps = Apps(start)
    a = await apps.up("a")
    a.worker(lambda events: [making(1, "b1", "b"), end()])
    await a.begin("r")
    await a.outcome("r")
    status, text = await a.refusal("PurgeInstances", recursive("r"), 1.0)
    assert (status, "app 'b'" in text) == (StatusCode.UNAVAILABLE, True)
    waiting = asyncio.create_task(a.refusal("PurgeInstances", recursive("r")))
    b = await apps.up("b")
    status, text = await waiting
    assert (status, "'b1' has not ended" in text) == (StatusCode.FAILED_PRECONDITION, True)
    assert await purged(a, "r", force=True) == 2
    assert not await exists(b, "b1")


@pytest.mark.slow
async def test_a_purge_of_many_removes_trees_and_keeps_those_that_cannot_be_reached(apps: Apps) -> None:
    """M62, M63: by filter and by IDs; it says that there is more."""
    apps.work({"to b": [making(1, "b1", "b", "leaf")], "to c": [making(1, "c1", "c", "leaf")]})
    a = apps.nodes["a"]
    for instance_id, plan in (("r1", "to b"), ("r2", "to c"), ("r3", "leaf")):
        await a.begin(instance_id, data=plan)
        await a.outcome(instance_id)
    await apps.nodes["c"].stop()

    async def many(seconds: float) -> tuple[int, bool]:
        by_filter = pb.PurgeInstancesRequest(filter=pb.PurgeFilter(), recursive=True)
        answer = pb.PurgeInstancesResponse.FromString(await a.call("PurgeInstances", by_filter, seconds))
        return answer.deleted_instance_count, answer.is_complete.value

    assert await many(2.0) == (3, False)
    assert await apps.left() == {"r2"}
    await apps.up("c")
    assert await many(10.0) == (2, True)


async def test_without_recursion_nobody_else_is_asked(apps: Apps) -> None:
    apps.work(TREE)
    a = apps.nodes["a"]
    await a.begin("r", data="root")
    await a.outcome("r")
    await apps.nodes["b"].stop()
    await a.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="r"))
    assert await apps.left() == {"a1", "a2", "c1", "c2"}


# ---------------------------------------------------------------- an ID that is used again


def start_of(instance_id: str) -> pb.CreateInstanceRequest:
    return pb.CreateInstanceRequest(instance_id=instance_id, name="flow", input=StringValue(value="leaf"))


async def test_an_id_is_free_when_the_whole_tree_of_its_last_instance_has_ended(apps: Apps) -> None:
    """M53: over three apps, with the path to the one that runs; purged is as good as ended."""
    apps.work(WAITING)
    a, b, c = apps.nodes.values()
    await a.begin("r", data="root")
    await until(lambda: c.workers[0].turns)
    await a.call("TerminateInstance", pb.TerminateRequest(instance_id="r"))
    for path, node, last in (("", b, "b1"), ("child workflow 'b1': ", c, "c1")):
        status, text = await a.refusal("StartInstance", start_of("r"))
        assert (
            status,
            f"cannot recreate workflow with ID 'r': {path}child workflow '{last}' has not ended" in text,
        ) == (StatusCode.ALREADY_EXISTS, True)
        await node.call("TerminateInstance", pb.TerminateRequest(instance_id=last))
    assert await purged(c, "c1") == 1
    await a.begin("r", data="leaf")
    assert (await a.outcome("r")).status == COMPLETED


@pytest.mark.slow
async def test_an_id_whose_children_cannot_be_looked_at_is_unavailable(apps: Apps) -> None:
    """M54: within about 5 s, and sooner if the caller waits for less; the app is named."""
    apps.work(TREE)
    a, c = apps.nodes["a"], apps.nodes["c"]
    await a.begin("r", data="root")
    await a.outcome("r")
    await c.stop()
    clock = a.sidecar.engine.clock
    for seconds, most in ((1.0, 1.0), (30.0, 5.5)):
        began = clock.monotonic()
        status, text = await a.refusal("StartInstance", start_of("r"), seconds)
        assert (status, "app 'c'" in text) == (StatusCode.UNAVAILABLE, True)
        assert clock.monotonic() - began < most
    await apps.up("c")
    await a.begin("r", data="leaf")
    assert (await a.outcome("r")).status == COMPLETED


@pytest.mark.slow
@pytest.mark.parametrize("home", ["a", "b"])
async def test_the_start_of_a_child_is_tried_again_until_its_id_can_be_looked_at(apps: Apps, home: str) -> None:
    """M54, M45: asked by a workflow of the same app or of another; it is neither lost nor refused."""
    apps.work({"root": [making(1, "c1", "c", "leaf")], "again": [making(1, "r", "a", "leaf")]})
    a, c, node = apps.nodes["a"], apps.nodes["c"], apps.nodes[home]
    await a.begin("r", data="root")
    before = (await a.outcome("r")).execution_id.value
    await c.stop()
    await node.begin("w", data="again")
    await asyncio.sleep(1.5)
    assert (await state(node, "w")).status == 0
    assert (await state(a, "r")).execution_id.value == before
    await apps.up("c")
    assert (await node.outcome("w")).status == COMPLETED
    made = await a.outcome("r")
    assert (made.parent_instance_id.value, made.status) == ("w", COMPLETED)


@pytest.mark.slow
@pytest.mark.parametrize("home", ["a", "b"])
@pytest.mark.parametrize("down", [False, True])
async def test_an_event_for_a_child_does_not_overtake_its_start(apps: Apps, home: str, down: bool) -> None:
    """M41, M54: the child gets the ID of a workflow that has ended, and what is below that is looked at first."""
    told = pb.Action(id=2, send_event=pb.SendEvent(name="go", instance=pb.WorkflowInstance(instance_id="r")))
    told.router.target_app_id = "a"
    plans = {"root": [making(1, "c1", "c", "leaf")], "again": [making(1, "r", "a", "waits"), told]}

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        kinds = {event.WhichOneof("kind") for event in events}
        done = not kinds.isdisjoint({"event_raised", "child_completed"}) or input_of(events) == "leaf"
        return [end()] if done else [] if "child_created" in kinds else plans.get(input_of(events), [])

    for node in apps.nodes.values():
        node.worker(flow)
    a, node = apps.nodes["a"], apps.nodes[home]
    await a.begin("r", data="root")
    await a.outcome("r")
    if down:
        await apps.nodes["c"].stop()
    await node.begin("w", data="again")
    if down:
        await asyncio.sleep(1.5)
        await apps.up("c")
    assert (await node.outcome("w")).status == COMPLETED
    assert (await a.outcome("r")).parent_instance_id.value == "w"


async def test_other_messages_of_an_app_do_not_wait_for_a_start_that_cannot_be_decided(apps: Apps) -> None:
    """M27"""
    apps.work({"root": [making(1, "c1", "c", "leaf")], "again": [making(1, "r", "a", "leaf")],
               "more": [making(1, "fresh", "a", "leaf")]})  # fmt: skip
    a, b, c = apps.nodes.values()
    await a.begin("r", data="root")
    await a.outcome("r")
    await c.stop()
    await b.begin("w", data="again")
    await asyncio.sleep(0.5)
    await b.begin("v", data="more")
    assert (await b.outcome("v", 3.0)).status == COMPLETED


# ---------------------------------------------------------------- who may ask


@pytest.fixture
async def played(start: Start) -> AsyncIterator[tuple[Node, PlayedApp, PlayedApp]]:
    """Orders, with a policy that denies everything; pay, which has made the child "kid"; and evil."""
    policy = "default: deny\nallow:\n- {caller: pay, workflow: flow, operations: [schedule]}\n"
    orders = await start("orders", policy=policy)
    pay, evil = PlayedApp(orders), PlayedApp(orders)
    for app, name in ((pay, "pay"), (evil, "evil")):
        assert await app.introduce(hello(name, store=f"store of {name}")) == ""
    assert await pay.tell(creation("kid-1")) == [ACCEPTED]
    yield orders, pay, evil
    await asyncio.gather(pay.close(), evil.close())


def about(parent: str = "boss", instance_id: str = "kid", **call: Any) -> peer_pb2.ChildrenRequest:
    made_by = peer_pb2.Call(**{"execution_id": "p-1", "turn": 1, "task_id": 1} | call)
    asked = peer_pb2.Child(parent_id=parent, id=instance_id, call=made_by)
    return peer_pb2.ChildrenRequest(children=[asked], force=True, hops=1)


async def said(app: PlayedApp, number: int, method: str, body: peer_pb2.ChildrenRequest) -> peer_pb2.ChildrenAnswer:
    answer = await ask(app, request(f"{number:032x}", method, body))
    assert answer.status == 0, answer.text
    return peer_pb2.ChildrenAnswer.FromString(answer.body)


async def test_only_the_workflow_that_made_a_child_may_look_at_it_or_remove_it(
    played: tuple[Node, PlayedApp, PlayedApp],
) -> None:
    """M81: another app, workflow or call learns what it would of an instance that does not exist; the policy is not
    asked, since the recorded parent may."""
    orders, pay, evil = played
    nobody = await said(pay, 1, "LookAtChildren", about(instance_id="none"))
    strangers = [(evil, about()), (pay, about("boss2")), (pay, about(execution_id="p-2")), (pay, about(turn=2)),
                 (pay, about(task_id=2)), (pay, about(execution_id="", turn=0, task_id=0))]  # fmt: skip
    for number, (app, wrong) in enumerate(strangers, start=2):
        for offset, method in enumerate(("LookAtChildren", "RemoveChildren")):
            wrong.force = method == "RemoveChildren"
            assert await said(app, 2 * number + offset, method, wrong) == nobody
    assert await exists(orders, "kid")
    gentle = about()
    gentle.force = False
    for number, method in ((50, "LookAtChildren"), (51, "RemoveChildren")):
        assert (await said(pay, number, method, gentle)).running == "child workflow 'kid'"
    assert (await said(pay, 52, "RemoveChildren", about())).removed == 1
    assert (await said(pay, 52, "RemoveChildren", about())).removed == 1, "the same request again has the same answer"
    assert (await said(pay, 53, "RemoveChildren", about())).removed == 0
    assert not await exists(orders, "kid")


async def test_nonsense_about_children_is_refused(played: tuple[Node, PlayedApp, PlayedApp]) -> None:
    _, pay, _ = played
    many = peer_pb2.ChildrenRequest(children=[peer_pb2.Child(id=str(number)) for number in range(201)])
    for number, body in enumerate((b"\x0a\xff", many.SerializeToString())):
        frame = peer_pb2.Frame(request=peer_pb2.Request(id=f"{number:032x}", method="RemoveChildren", body=body))
        answer = await ask(pay, frame)
        assert answer.status == StatusCode.INVALID_ARGUMENT
    odd = about(instance_id="\x00" * 500, turn=-1, task_id=-1)
    assert (await said(pay, 9, "LookAtChildren", odd)).running == ""


ANSWERS = {
    "an error": peer_pb2.Response(status=13, text="boom"),
    "no message": peer_pb2.Response(body=b"\x0a\xff"),
    "a child that was not asked about": peer_pb2.Response(
        body=peer_pb2.ChildrenAnswer(running="x", child=7).SerializeToString()
    ),
    "a text that is none": peer_pb2.Response(body=peer_pb2.ChildrenAnswer(running="x\n\x1b[2J").SerializeToString()),
    "too many": peer_pb2.Response(body=peer_pb2.ChildrenAnswer(removed=1 << 63).SerializeToString()),
    "nothing": None,
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_what_a_peer_answers_harms_nobody(start: Start, what: str) -> None:
    """M62: an app that fails, talks nonsense or is silent has not done its part, and is named."""
    orders = await start("orders")
    pay = PlayedApp(orders)
    assert await pay.introduce(hello("pay", store="store of pay")) == ""
    orders.worker(lambda events: [making(1, "kid", "pay"), end()])
    await orders.begin("r")
    await orders.outcome("r")
    await pay.asked(1)
    refusal = asyncio.create_task(orders.refusal("PurgeInstances", recursive("r"), 1.0))
    frame = await pay.receive()
    assert frame is not None
    answer = ANSWERS[what]
    if answer is not None:
        await pay.send(peer_pb2.Frame(response=peer_pb2.Response(id=frame.request.id, status=answer.status,
                                                                 text=answer.text, body=answer.body)))  # fmt: skip
    status, text = await refusal
    assert (status, "app 'pay'" in text) == (StatusCode.UNAVAILABLE, True)
    assert await exists(orders, "r")
    await pay.close()


async def test_a_tree_that_a_peer_makes_endless_comes_to_an_end(start: Start) -> None:
    """M81: pay says of its child that orders' child is below it, whose child pay's child is, and so on."""
    orders = await start("orders")
    pay = PlayedApp(orders)
    assert await pay.introduce(hello("pay", store="store of pay")) == ""
    orders.worker(lambda events: [making(1, "kid of pay", "pay"), end()])
    assert await pay.tell(creation("kid-1")) == [ACCEPTED]
    await orders.outcome("kid")
    await pay.asked(2)
    asked, body = [], about()
    body.hops, body.reach_milliseconds = 1 << 30, 5_000
    await pay.send(request("a" * 32, "LookAtChildren", body))
    while True:
        frame = await pay.receive()
        assert frame is not None
        if frame.WhichOneof("frame") == "response" and frame.response.id == "a" * 32:
            break
        if frame.WhichOneof("frame") == "request":
            asked.append(frame.request)
            body.hops = peer_pb2.ChildrenRequest.FromString(frame.request.body).hops
            await pay.send(request(f"{len(asked):032x}", "LookAtChildren", body))
        elif frame.WhichOneof("frame") == "response":
            inner = asked[int(frame.response.id, 16) - 1]
            frame.response.id = inner.id
            await pay.send(frame)
    assert len(asked) == 64
    assert frame.response.status == StatusCode.UNAVAILABLE
    await pay.close()


# ---------------------------------------------------------------- orders of older sidecars


async def test_an_older_sidecars_order_removes_the_child_and_all_below_it(
    played: tuple[Node, PlayedApp, PlayedApp], start: Start
) -> None:
    """M92"""
    orders, pay, _ = played
    orders.worker(lambda events: [making(1, "below", "")] if len(events) < 3 and input_of(events) else [])
    await until(lambda: orders.workers[0].turns)
    source = peer_pb2.Actor(namespace="default", app_id="pay", kind="workflow", hub="default", id="boss")
    target = peer_pb2.Actor(namespace="default", app_id="orders", kind="workflow", hub="default", id="kid")
    call = peer_pb2.Call(execution_id="p-1", turn=1, task_id=1)
    await until(lambda: len(orders.workers[0].turns) >= 2)
    for payload, verdict in ((b"", 5), (b"force", ACCEPTED), (b"force", ACCEPTED)):
        order = peer_pb2.Message(kind=Kind.PURGE, target=target, source=source, call=call, payload=payload)
        assert await pay.tell(order) == [verdict]
        assert await exists(orders, "kid") == await exists(orders, "below") == (verdict == 5)


async def test_two_ended_workflows_whose_starts_wait_for_each_other_do_not_wait_for_ever(
    world: World, hand: Hand
) -> None:
    """Each has asked for a child with the ID of the other, and is free when its own has been decided."""
    await world.start("a")
    await world.start("b")
    await hand.turn(2)
    items = {item.instance_id: item for item in hand.turns}
    await asyncio.gather(
        world.complete(items["a"], child(1, "b"), end()), world.complete(items["b"], child(1, "a"), end())
    )
    for _ in range(100):
        world.clock.steady += 0.1  # some patience
        await world.quiet()
        for item in hand.turns[2:]:
            await world.complete(item, end())
    assert await world.store.due(1 << 60, Position(0, 0), 10) == []
