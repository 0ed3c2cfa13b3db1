"""A history as it is read back (E.15): the apps of its events, the version on each turn, the action that ended it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core import events
from sidecar.edge.taskhub import read_back
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, fields
from tests.inprocess.world import call, child, end


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    ml = await Node.start("ml", tmp_path)
    orders = await Node.start("orders", tmp_path, peers={"ml": (ml.peer_address,)})
    yield orders, ml
    await asyncio.gather(orders.stop(), ml.stop())


def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
    if found[1].execution_started.name == "sub":
        return [end()]
    calls = [call(1), call(2, app="ml"), child(3, "near"), child(4, "far", app="ml")]
    if not any(event.HasField("task_scheduled") for event in found):
        return calls
    done = [event for event in found if event.HasField("task_completed") or event.HasField("child_completed")]
    return [end()] if len(done) == len(calls) else []


async def test_the_apps_of_calls_and_answers_are_there_in_one_app_and_over_two(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        node.worker(flow, {"work": lambda request: "1"})
    await nodes[0].begin("w")
    await nodes[0].outcome("w")
    answer = await nodes[0].call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="w"))
    log = [pb.HistoryEvent.FromString(event) for event in fields(answer)[1]]
    apps = {}
    for event in log:
        router = pb.Router.FromString(event.slot_30)
        kind = event.WhichOneof("kind") or ""
        task = getattr(getattr(event, kind), "task_scheduled_id", event.event_id)
        if kind not in ("orchestrator_started", "execution_started"):
            apps[kind, task] = (router.source_app_id, router.target_app_id)
    assert apps == {
        ("task_scheduled", 1): ("orders", ""),
        ("task_scheduled", 2): ("orders", "ml"),
        ("child_created", 3): ("orders", ""),
        ("child_created", 4): ("orders", "ml"),
        ("task_completed", 1): ("orders", "orders"),
        ("task_completed", 2): ("orders", "ml"),
        ("child_completed", 3): ("orders", "orders"),
        ("child_completed", 4): ("ml", "orders"),
        ("execution_completed", 999): ("orders", ""),
    }


def test_the_version_and_all_patches_so_far_stand_on_each_turn() -> None:
    news = [
        pb.WorkflowVersion(name="2", patches=["a"]),
        pb.WorkflowVersion(),
        pb.WorkflowVersion(patches=["b"]),
        pb.WorkflowVersion(),
    ]
    log = [events.orchestrator_started(at, version) for at, version in enumerate(news)]
    found = [events.decode(event).orchestrator_started.version for event in read_back.shown(log, "orders")]
    assert [(version.name, list(version.patches)) for version in found] == [
        ("2", ["a"]),
        ("2", ["a"]),
        ("2", ["a", "b"]),
        ("2", ["a", "b"]),
    ]


def test_a_turn_of_a_workflow_without_a_version_has_none() -> None:
    log = [events.orchestrator_started(1), events.event_raised(2, "go", None)]
    assert list(read_back.shown(log, "orders")) == log
