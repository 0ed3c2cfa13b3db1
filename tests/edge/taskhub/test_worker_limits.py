"""How much a worker receives at once: what its SDK is known for, what the operator says, what it says itself."""

from typing import Any

import pytest

from sidecar.edge.transport.ports import Refused, StatusCode
from tests.edge.peer.test_two_sidecars import flow_of
from tests.inprocess.sidecars import Node, Start, work_items
from tests.inprocess.world import COMPLETED, call, until

MIB = 1024 * 1024
AS_GO = ("x-user-agent", "durabletask-go/0.7")


async def outcome_of_a_large_turn(node: Node, metadata: tuple[tuple[str, str], ...]) -> int:
    """The status of a workflow whose history outgrows 4 MiB by the results of two activities."""
    view = node.as_sdk(AS_GO[1])
    view.metadata = metadata
    view.worker(flow_of(call(1, "large"), call(2, "large")), {"large": lambda request: "x" * (5 * MIB // 2)})
    await node.begin("a")
    return (await node.outcome("a")).status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told"),
    [({"worker_receive_bytes": 16 * MIB}, ()), ({}, (("max-receive-bytes", str(16 * MIB)),))],
    ids=["the operator says it", "the worker says it"],
)
async def test_a_worker_that_receives_more_than_its_sdk_does_by_itself_runs_larger_turns(
    start: Start, settings: dict[str, Any], told: tuple[tuple[str, str], ...]
) -> None:
    node = await start("orders", **settings)
    assert await outcome_of_a_large_turn(node, (AS_GO, *told)) == COMPLETED


async def test_a_worker_that_says_nonsense_is_told_so(start: Start) -> None:
    node = await start("orders")
    stream = await work_items(node.channel, metadata=(AS_GO, ("max-receive-bytes", "much")))
    with pytest.raises(Refused, match="max-receive-bytes: 'much' is no number of bytes from 65536") as refused:
        await stream.receive()
    assert refused.value.status is StatusCode.INVALID_ARGUMENT


async def test_histories_that_come_near_the_limit_are_in_the_metadata(start: Start) -> None:
    node = await start("orders", worker_receive_bytes=128 * 1024)
    view = node.as_sdk(AS_GO[1])
    view.worker(lambda events: [call(len(events), "part")] if len(events) < 40 else [], {"part": lambda _: "x" * 9_000})
    await node.begin("a")
    await until(lambda: node.sidecar.metadata()["largeHistories"], 10.0)
    shown: Any = node.sidecar.metadata()["largeHistories"]
    assert [(one["hub"], one["instance"]) for one in shown] == [("default", "a")]
    assert shown[0]["bytes"] > 0.75 * shown[0]["limit"]
