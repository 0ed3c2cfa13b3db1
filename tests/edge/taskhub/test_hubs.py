"""Task hubs: what the header of a call means, and that nothing of one hub is seen or run in another."""

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import events, names
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import SERVICE, Node, PlayedWorker, Start, fields, get, work_items
from tests.inprocess.world import COMPLETED, call, child, end

OK = (StatusCode.OK, "")


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start sidecars that end with the test."""
    started: list[Node] = []

    async def one(app_id: str = "orders", **settings: Any) -> Node:
        started.append(await Node.start(app_id, tmp_path, **{"task_hubs": "separate"} | settings))
        return started[-1]

    yield one
    for node in started:
        await node.stop()


@pytest.fixture
async def node(start: Start) -> Node:
    return await start()


async def ids(node: Node, method: str = "QueryInstances", **query: Any) -> list[str]:
    if method == "ListInstanceIDs":
        return list(pb.ListAllResponse.FromString(await node.call(method)).instance_ids)
    if method == "ListInstanceIds":
        return list(pb.ListEndedResponse.FromString(await node.call(method)).instance_ids)
    answer = await node.call(method, pb.QueryInstancesRequest(query=pb.InstanceQuery(**query)))
    return [state.instance_id for state in pb.QueryInstancesResponse.FromString(answer).states]


def whole_program(history: list[pb.HistoryEvent]) -> list[pb.Action]:
    """An activity, a child, an event for that child, and the activity's result as the output."""
    started = next(event.execution_started for event in history if event.HasField("execution_started"))
    if started.name == "sub":
        return [end('"sub"')] if any(event.HasField("event_raised") for event in history) else []
    done = [event for event in history if event.HasField("task_completed")]
    children = [event for event in history if event.HasField("child_completed")]
    if done and children:
        return [end(done[0].task_completed.result.value)]
    if any(event.HasField("task_scheduled") for event in history):
        return []
    send = pb.Action(id=3, send_event=pb.SendEvent(name="go", instance={"instance_id": "sub"}))
    return [call(1), child(2, "sub"), send]


def staff(node: Node, label: str) -> PlayedWorker:
    return node.worker(whole_program, {"work": lambda request: f'"by {label}"'})


async def test_each_hub_runs_its_own_workflows_with_its_own_workers(node: Node) -> None:
    """The same IDs in three hubs: turns, activities, children and events stay where they are."""
    hubs = {name: node.of_hub(name) for name in ("blue", "green")} | {"default": node}
    workers = {name: staff(hub, name) for name, hub in hubs.items()}
    for hub in hubs.values():
        await hub.begin("a")
    for name, hub in hubs.items():
        state = await hub.outcome("a")
        assert (state.status, state.output.value) == (COMPLETED, f'"by {name}"')
        assert (await get(hub, "sub")).state.parent_instance_id.value == "a"
    assert {len(worker.requests) for worker in workers.values()} == {1}


async def test_work_waits_for_a_worker_of_its_hub(node: Node) -> None:
    staff(node, "default")
    blue = node.of_hub("blue")
    await blue.begin("a")
    await node.begin("b")
    await node.outcome("b")
    assert (await get(blue, "a")).state.status == 6
    staff(blue, "blue")
    assert (await blue.outcome("a")).output.value == '"by blue"'


async def test_no_call_sees_or_changes_what_is_in_another_hub(node: Node) -> None:
    blue = node.of_hub("blue")
    await blue.begin("a")
    assert not (await get(node, "a")).exists
    for method, request in (
        ("TerminateInstance", pb.TerminateRequest(instance_id="a")),
        ("SuspendInstance", pb.ReasonRequest(instance_id="a")),
        ("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e")),
        ("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="a")),
    ):
        assert (await node.refusal(method, request))[0] is StatusCode.NOT_FOUND, method
    for request in ({"instance_id": "a"}, {"filter": pb.PurgeFilter()}):
        answer = await node.call("PurgeInstances", pb.PurgeInstancesRequest(force=True, **request))  # type: ignore[arg-type]
        assert pb.PurgeInstancesResponse.FromString(answer).deleted_instance_count == 0
    for method in ("QueryInstances", "ListInstanceIDs"):
        assert (await ids(node, method), await ids(blue, method)) == ([], ["a"]), method
    await blue.call("TerminateInstance", pb.TerminateRequest(instance_id="a"))
    assert (await ids(node, "ListInstanceIds"), await ids(blue, "ListInstanceIds")) == ([], ["a"])


async def test_a_query_may_name_its_own_hub_and_finds_nothing_in_another(node: Node) -> None:
    blue = node.of_hub("blue")
    await blue.begin("a")
    assert await ids(blue, task_hub_names=[{"value": "green"}, {"value": "blue"}]) == ["a"]
    assert await ids(node, task_hub_names=[{"value": "blue"}]) == []
    assert await ids(blue, task_hub_names=[{"value": "green"}]) == []


async def test_a_token_of_another_hub_is_refused(node: Node) -> None:
    blue = node.of_hub("blue")
    for instance_id in ("a", "b"):
        await blue.begin(instance_id)
    page = pb.ListAllResponse.FromString(await blue.call("ListInstanceIDs", pb.ListAllRequest(page_size=1)))
    again = pb.ListAllRequest(continuation_token=page.continuation_token)
    assert await blue.refusal("ListInstanceIDs", again) == OK
    assert (await node.refusal("ListInstanceIDs", again))[0] is StatusCode.INVALID_ARGUMENT


async def test_an_answer_without_a_token_is_for_the_hub_that_it_came_from(node: Node) -> None:
    """B.5: several SDKs echo no token; the same instance is out in two hubs on one connection."""
    hubs = {name: node.of_hub(name) for name in ("blue", "green")}
    streams = {name: await work_items(hub.channel, metadata=hub.metadata) for name, hub in hubs.items()}
    for hub in hubs.values():
        await hub.begin("a")
    for name, hub in hubs.items():
        assert 1 in fields(await streams[name].receive() or b"")
        await hub.call("CompleteOrchestratorTask", pb.OrchestratorResponse(instance_id="a", actions=[call(1)]))
    for name in hubs:
        assert 2 in fields(await streams[name].receive() or b"")
    answer = pb.ActivityResponse(instance_id="a", task_id=1, result={"value": '"green"'})
    await hubs["green"].call("CompleteActivityTask", answer)
    turn = fields(fields(await streams["green"].receive() or b"")[1][0])
    kinds = [pb.HistoryEvent.FromString(event).WhichOneof("kind") for event in turn[4]]
    assert kinds == ["orchestrator_started", "task_completed"]
    assert len(node.sidecar.dispatch.activities.leases) == 1


async def test_waiting_work_finds_its_hub_again_after_a_restart(start: Start, tmp_path: Path) -> None:
    first = await Node.start("orders", tmp_path, task_hubs="separate")  # it stops in the middle of the test
    await first.of_hub("blue").begin("a")
    stream = await work_items(first.channel, metadata=(("taskhub", "blue"),))
    token = fields(await stream.receive() or b"")[10][0].decode()
    await first.of_hub("blue").call(
        "CompleteOrchestratorTask",
        pb.OrchestratorResponse(instance_id="a", actions=[call(1), child(2, "sub")], completion_token=token),
    )
    stream.cancel()
    await first.stop()
    again = await start()
    other = staff(again, "default")
    await asyncio.sleep(0.1)
    assert (other.turns, other.requests) == ([], [])
    blue = again.of_hub("blue")
    staff(blue, "blue")
    await blue.call("RaiseEvent", pb.RaiseEventRequest(instance_id="sub", name="go"))
    assert (await blue.outcome("a")).output.value == '"by blue"'


async def test_other_apps_reach_the_default_hub_and_their_answers_the_hub_that_asked(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    wrong = ml.of_hub("blue").worker(lambda history: [], {"work": lambda request: '"wrong"'})
    ml.worker(lambda history: [end('"child"')], {"work": lambda request: '"right"'})

    def flow(history: list[pb.HistoryEvent]) -> list[pb.Action]:
        results = [event.task_completed.result.value for event in history if event.HasField("task_completed")]
        results += [event.child_completed.result.value for event in history if event.HasField("child_completed")]
        return [end("".join(sorted(results)))] if len(results) == 2 else [call(1, app="ml"), child(2, "c", app="ml")]

    blue = orders.of_hub("blue")
    blue.worker(flow)
    await blue.begin("a")
    assert (await blue.outcome("a")).output.value == '"child""right"'
    assert (wrong.requests, wrong.turns) == ([], [])
    assert (await get(ml, "c")).exists


# ---------------------------------------------------------------- which hubs there are


@pytest.mark.parametrize("hub", ["", "a b", "-a", "x" * 65, "a/b"])
async def test_a_hub_that_cannot_be_is_refused_by_name(node: Node, hub: str) -> None:
    status, text = await node.of_hub(hub).refusal("QueryInstances")
    assert status is StatusCode.INVALID_ARGUMENT
    assert repr(hub)[:60] in text
    assert names.invalid_hub("a-B_9.x") is None


async def test_by_default_the_header_means_nothing(start: Start) -> None:
    node = await start(task_hubs="ignore")
    await node.of_hub("any thing").begin("a")
    assert await ids(node) == await ids(node.of_hub("green"), task_hub_names=[{"value": "what"}]) == ["a"]
    staff(node.of_hub("blue"), "blue")
    assert (await node.outcome("a")).output.value == '"by blue"'


async def test_only_hubs_of_the_list_and_the_default_one_are_served(start: Start) -> None:
    node = await start(task_hubs=("blue",))
    for hub in (node.of_hub("blue"), node.of_hub("default"), node):
        assert await hub.refusal("QueryInstances") == OK
    red = node.of_hub("red")
    for method in ("Hello", "QueryInstances", "CompleteOrchestratorTask"):
        status, text = await red.refusal(method)
        assert (status, "'red'" in text) == (StatusCode.PERMISSION_DENIED, True), method
    elsewhere = pb.GetInstanceRequest(instance_id="a", router={"target_app_id": "ml"})
    assert (await red.refusal("GetInstance", elsewhere))[0] is StatusCode.PERMISSION_DENIED
    streams = node.channel.duplex(SERVICE + "GetWorkItems", red.metadata)
    await streams.send(b"")
    with pytest.raises(Exception, match=r"PERMISSION_DENIED.*'red'"):
        await streams.receive()


# ---------------------------------------------------------------- making and removing hubs


async def test_a_hub_is_there_before_it_is_created(node: Node) -> None:
    await node.begin("a")
    assert await node.of_hub("blue").refusal("CreateTaskHub") == OK
    assert await node.refusal("CreateTaskHub") == OK
    assert await ids(node) == ["a"]


async def test_a_hub_is_not_deleted_unless_the_settings_allow_it(node: Node) -> None:
    await node.begin("a")
    for method, request in (
        ("DeleteTaskHub", b""),
        ("CreateTaskHub", pb.CreateTaskHubRequest(recreate_if_exists=True)),
    ):
        status, text = await node.refusal(method, request)
        assert (status, "--allow-hub-deletion" in text) == (StatusCode.PERMISSION_DENIED, True)
    assert await ids(node) == ["a"]


@pytest.mark.parametrize("how", ["DeleteTaskHub", "CreateTaskHub"])
@pytest.mark.slow
async def test_a_hub_is_deleted_with_all_that_is_in_it_and_nothing_else(start: Start, how: str) -> None:
    node = await start(allow_hub_deletion=True)
    blue = node.of_hub("blue")
    for hub in (node, blue):
        await hub.begin("a")
        for number in range(120):
            await hub.begin(f"n{number}")
    await blue.call("TerminateInstance", pb.TerminateRequest(instance_id="a"))
    later = pb.CreateInstanceRequest(instance_id="later", name="flow")
    later.scheduled_start.CopyFrom(events.timestamp(node.sidecar.engine.clock.now() + 10**9))
    await blue.call("StartInstance", later)
    request = pb.CreateTaskHubRequest(recreate_if_exists=True) if how == "CreateTaskHub" else b""
    assert await blue.refusal(how, request) == OK
    assert (await ids(blue), len(await ids(node, max_instance_count=1_000))) == ([], 121)
    assert node.sidecar.dispatch.timers.pop_due(2**62) == []
    await blue.begin("a")
    assert await ids(blue) == ["a"]


# ---------------------------------------------------------------- the packages of Microsoft's scheduler


SCHEDULER = (
    ("workerid", "host,4711,6f9619ff"),
    ("x-user-agent", "durabletask-dotnet/1.28.0"),
)


@pytest.mark.parametrize("setting", ["ignore", "separate"])
@pytest.mark.parametrize("hub", ["default", "MyHub"])
async def test_the_packages_of_the_scheduler_find_here_what_they_look_for(start: Start, setting: str, hub: str) -> None:
    """What a connection string of theirs sends with every call, of a client and of a worker, changes nothing else."""
    node = await start(task_hubs=setting)
    scheduler = copy.copy(node)
    scheduler.metadata = (("taskhub", hub), *SCHEDULER)
    request = pb.GetWorkItemsRequest(
        max_orchestrations=10,
        max_activities=10,
        max_entities=10,
        microsoft_capabilities=[1],
        filters=pb.WorkItemFilters(orchestrations=[{"name": "FLOW"}], entities=[{"name": "Counter"}]),
    )
    stream = await work_items(node.channel, request.SerializeToString(), scheduler.metadata)
    await scheduler.call("Hello")
    waiting = asyncio.create_task(scheduler.outcome("a"))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "it waits for an instance that is not there yet"
    await scheduler.begin("a")
    item = fields(await stream.receive() or b"")
    assert 5 in fields(item[1][0]), "it is told how entities are spoken to"
    response = pb.OrchestratorResponse(instance_id="a", completion_token=item[10][0].decode(), actions=[end()])
    await scheduler.call("CompleteOrchestratorTask", response)
    assert (await waiting).status == COMPLETED
    assert (await get(node, "a")).exists == (setting == "ignore" or hub == "default")
    await scheduler.call("SignalEntity", pb.SignalEntityRequest(instance_id="@counter@c", name="add"))
    async with asyncio.timeout(5.0):
        while set(fields(await stream.receive() or b"")) <= {4}:
            pass  # a ping
    stream.cancel()
