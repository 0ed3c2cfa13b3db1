"""Detached workflows and reruns in another app: over a real link, with workers that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, get
from tests.inprocess.world import COMPLETED, call, end


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    ml = await Node.start("ml", tmp_path)
    orders = await Node.start("orders", tmp_path, peers={"ml": (ml.peer_address,)})
    yield orders, ml
    await asyncio.gather(orders.stop(), ml.stop())


def detach(number: int, instance_id: str, app: str = "ml") -> pb.Action:
    wanted = pb.CreateDetached(instance_id=instance_id, name="report", input=StringValue(value='"numbers"'))
    action = pb.Action(id=number, create_detached=wanted)
    action.router.target_app_id = app
    return action


async def history(node: Node, instance_id: str) -> list[pb.HistoryEvent]:
    answer = await node.call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id=instance_id))
    found = pb.Rewind.FromString(answer)  # a list of events under number 1, as the answer is
    return list(found.new_history)


async def appears(node: Node, instance_id: str) -> None:
    for _ in range(500):
        answer = await node.call("GetInstance", pb.GetInstanceRequest(instance_id=instance_id))
        if pb.GetInstanceResponse.FromString(answer).exists:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{instance_id} was not started")


async def test_a_detached_workflow_runs_in_the_other_app_and_outlives_its_caller(nodes: tuple[Node, Node]) -> None:
    """M71, M75, M10: the caller is done without it, and it has no parent."""
    orders, ml = nodes
    orders.worker(lambda events: [detach(1, "r"), end('"done"')])
    await orders.begin("w")
    assert (await orders.outcome("w")).output.value == '"done"'
    before = await history(orders, "w")
    ml.worker(lambda events: [end(f'"{events[1].execution_started.input.value.strip(chr(34))} read"')])
    await appears(ml, "r")
    spawned = await ml.outcome("r")
    assert (spawned.status, spawned.output.value) == (COMPLETED, '"numbers read"')
    assert not spawned.HasField("parent_instance_id")
    assert not spawned.HasField("parent_app_id")
    assert await history(orders, "w") == before
    assert [event.detached_created.instance_id for event in before if event.HasField("detached_created")] == ["r"]


async def test_no_command_to_its_caller_reaches_it(nodes: tuple[Node, Node]) -> None:
    """M60, M66: neither a recursive terminate nor a recursive purge."""
    orders, _ = nodes
    orders.worker(lambda events: [detach(1, "r", "orders")] if events[1].execution_started.name == "flow" else [])
    await orders.begin("w")
    await orders.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="w"))
    await appears(orders, "r")
    await orders.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="r"))
    await orders.call("TerminateInstance", pb.TerminateRequest(instance_id="w", recursive=True))
    await orders.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="w", recursive=True))
    state = pb.GetInstanceResponse.FromString(await orders.call("GetInstance", pb.GetInstanceRequest(instance_id="r")))
    assert (state.exists, state.state.status) == (True, 0)


async def test_an_occupied_id_is_dropped_with_a_warning(
    nodes: tuple[Node, Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """M52."""
    orders, ml = nodes
    await ml.begin("r", data='"occupant"')
    orders.worker(lambda events: [detach(1, "r"), end('"done"')])
    await orders.begin("w")
    assert (await orders.outcome("w")).status == COMPLETED
    said = ""
    for _ in range(500):
        said += capsys.readouterr().out
        if "detached workflow not started" in said:
            break
        await asyncio.sleep(0.02)
    assert "detached workflow not started" in said
    assert "an active workflow with ID 'r' already exists" in said
    request = pb.GetInstanceRequest(instance_id="r", get_inputs_and_outputs=True)
    occupant = pb.GetInstanceResponse.FromString(await ml.call("GetInstance", request)).state
    assert occupant.input.value == '"occupant"'


async def test_a_rerun_that_names_another_app_happens_there(nodes: tuple[Node, Node]) -> None:
    """M69: under a new ID, on the target."""
    orders, ml = nodes

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        done = [event.task_completed.result.value for event in events if event.HasField("task_completed")]
        asked = any(event.HasField("task_scheduled") for event in events)
        return [end(done[0])] if done else [] if asked else [call(1)]

    worker = ml.worker(flow, {"work": lambda request: request.input.value})
    await ml.begin("a")
    assert (await ml.outcome("a")).output.value == "1"
    request = pb.RerunRequest(source_instance_id="a", event_id=1, overwrite_input=True, router={"target_app_id": "ml"})
    request.input.value = "7"
    answer = pb.RerunResponse.FromString(await orders.call("RerunWorkflowFromEvent", request))
    assert (await ml.outcome(answer.new_instance_id)).output.value == "7"
    assert [request.input.value for request in worker.requests] == ["1", "7"]
    assert await orders.call("GetInstance", pb.GetInstanceRequest(instance_id=answer.new_instance_id)) == b""


@pytest.mark.parametrize("app", ["orders", "ml", "n@where"])
async def test_a_result_has_the_execution_id_of_its_call_whoever_made_it(nodes: tuple[Node, Node], app: str) -> None:
    """E.13: of an activity here or in another app, and of a call that the sidecar lets fail."""
    orders = nodes[0]

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        if any(event.HasField("task_scheduled") for event in events):
            return [end()]
        action = call(1, app=app)
        action.schedule_task.slot_5 = b"the key of this call"
        return [action]

    for node in nodes:
        node.worker(flow, {"work": lambda request: "1"})
    await orders.begin("w")
    await orders.outcome("w")
    ends = [event for event in await history(orders, "w") if event.HasField("task_completed")]
    ends += [event for event in await history(orders, "w") if event.HasField("task_failed")]
    keys = [event.task_completed.task_execution_id or event.task_failed.task_execution_id for event in ends]
    assert keys == ["the key of this call"]


async def test_children_may_be_nested_deeper_than_a_short_id_and_back_and_forth_between_apps(
    nodes: tuple[Node, Node],
) -> None:
    """Each level without an ID of its own adds to the ID of its parent: here to more than a client may choose."""
    deepest, top = 60, "x" * 240

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        level = int(events[1].execution_started.input.value)
        done = [event.child_completed.result.value for event in events if event.HasField("child_completed")]
        if done or level == deepest:
            return [end(done[0] if done else f'"{level}"')]
        if any(event.HasField("child_created") for event in events):
            return []
        action = pb.Action(id=1, create_child=pb.CreateChild(name="flow", input=StringValue(value=str(level + 1))))
        action.router.target_app_id = ("ml", "orders")[level % 2]
        return [action]

    for node in nodes:
        node.worker(flow)
    await nodes[0].begin(top, data="0")
    ended = await nodes[0].outcome(top, 30)
    assert (ended.status, ended.output.value, ended.failure.error_message) == (COMPLETED, f'"{deepest}"', "")
    lowest = f"{top}{':0001' * deepest}"
    assert (await get(nodes[0], lowest)).state.parent_app_id.value == "ml"
    purge = pb.PurgeInstancesRequest(instance_id=top, recursive=True)
    answer = pb.PurgeInstancesResponse.FromString(await nodes[0].call("PurgeInstances", purge, 30))
    assert answer.deleted_instance_count == deepest + 1
