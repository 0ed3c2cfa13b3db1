"""Why something waits, made real for each reason, and read wherever a person may look: everywhere in the same words.

State, list and tree over gRPC, `sidecar workflow get | list | tree`, and the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import structlog

from sidecar.core.attempts import DeliveryLimit
from sidecar.core.causes import Reason
from sidecar.core.model import Decision, Outcome, Reply
from sidecar.core.workflow import stalls
from sidecar.edge.methods import ADMIN
from sidecar.edge.peer import link, reports
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import cause_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.cli.live import Command
from tests.inprocess.sidecars import Node, Start, get, work_items
from tests.inprocess.world import call, lock, until

pytestmark = pytest.mark.slow

SECONDS = 30.0
Make = Callable[[Start], Awaitable[Node]]


async def nobody(start: Start) -> Node:
    node = await start("orders")
    await node.begin("a")
    return node


async def others(start: Start) -> Node:
    node = await start("orders")
    taken = pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name=name) for name in ("floe", "ship")])
    await work_items(node.channel, pb.GetWorkItemsRequest(filters=taken).SerializeToString())
    await node.begin("a")
    return node


async def asks(start: Start, action: pb.Action, **settings: Any) -> Node:
    """Workflow "a" has asked for one thing."""
    node = await start("orders", **settings)
    node.worker(lambda events: [] if len(events) > 2 else [action])
    await node.begin("a")
    return node


async def unreachable(start: Start) -> Node:
    return await asks(start, call(1, "score", app="gone"), peers={"gone": ("127.0.0.1:1",)})


async def unknown(start: Start) -> Node:
    return await asks(start, call(1, "score", app="nowhere"))


async def not_started(start: Start) -> Node:
    ml = await start("ml")
    return await asks(start, call(1, "score", app="ml"), peers={"ml": (ml.peer_address,)})


async def limited(start: Start) -> Node:
    """Of two activities one is out and is not answered; the limit lets no other out."""
    node = await start("orders", limits={"activity:*": 1})
    worker = node.worker(lambda events: [] if len(events) > 2 else [call(1, "first"), call(2, "second")])
    worker._activity = lambda request, token: asyncio.Event().wait()  # type: ignore[method-assign, assignment]
    await node.begin("a")
    return node


async def suspended(start: Start) -> Node:
    node = await nobody(start)
    await node.call("SuspendInstance", pb.ReasonRequest(instance_id="a"))
    return node


async def stalled(start: Start) -> Node:
    action = pb.Action(id=1)
    action.version_not_available.SetInParent()
    node = await start("orders")
    node.worker(lambda events: [action])
    await node.begin("a")
    return node


async def parked(start: Start) -> Node:
    """As after the loss of its last worker: the loss of a process is in tests/blackbox/test_misbehaving_workers.py."""
    node = await nobody(start)

    def lost(at: Any, state: Any) -> Decision:
        return Decision(stalls.crashed(at, state, "worker 7 was lost", DeliveryLimit(1)), Reply(Outcome.DONE))

    await node.sidecar.engine.submit(("default", "a"), lost)
    return node


async def locked(start: Start) -> Node:
    node = await start("orders")
    node.worker(lambda events: [] if len(events) > 2 else [lock(1, "@counter@k")])
    await node.begin("first")

    def is_locked() -> bool:
        actor = node.sidecar.engine.residents.find(("default", "@counter@k"))
        return actor is not None and actor.state is not None and actor.state.instance.lock is not None

    await until(is_locked, SECONDS)
    await node.begin("a")
    return node


class Case(NamedTuple):
    """What is made so, the reason, and what its text says; `log`: whether a line of the log says it."""

    make: Make
    reason: str
    text: str
    log: bool = True


CASES = [
    Case(nobody, "no-worker", "no worker is connected"),
    Case(
        others,
        "name-not-taken",
        "no connected worker takes workflow 'flow': they take 'floe', 'ship'; was 'floe' meant?",
    ),
    Case(
        unreachable,
        "unreachable",
        "app 'gone' is not connected: 127.0.0.1:1: connection refused: nothing listens there",
    ),
    Case(unknown, "no-address", "the address of app 'nowhere' was not found"),
    Case(not_started, "no-worker", "app 'ml' has it, and says: no worker is connected"),
    Case(limited, "over-limit", "the limit for '*' is reached: 1 at once"),
    Case(suspended, "suspended", "it is suspended"),
    Case(stalled, "stalled", "it is stalled: Version not available"),
    Case(parked, "parked", "it is parked: Worker crashed: 1 deliveries ended with the loss of the worker (worker 7"),
    Case(locked, "locked", "entity '@counter@k' is locked by workflow 'first'", log=False),  # what a lock is there for
]


@pytest.fixture
def lines(run: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The log. What is told only once it has lasted, or with the next heartbeat, comes sooner."""
    monkeypatch.setattr(link, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(reports, "_SHORTEST", 0.0)
    with structlog.testing.capture_logs() as logged:
        yield logged


async def over_grpc(node: Node) -> list[list[cause_pb2.Cause]]:
    """What state, list and tree say."""
    body = await node.call("QueryInstances", pb.QueryInstancesRequest())
    [listed] = [one for one in pb.QueryInstancesResponse.FromString(body).states if one.instance_id == "a"]
    answer = await node.channel.unary(f"{ADMIN}GetTree", admin.GetTreeRequest(instance_id="a").SerializeToString())
    waits = admin.TreeNode.FromString(answer).waits
    return [list((await get(node, "a")).state.causes), list(listed.causes), [one.cause for one in waits]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
async def test_each_reason_is_said_in_the_same_words_wherever_one_looks(
    start: Start, run: Command, lines: list[Any], case: Case
) -> None:
    run.node = node = await case.make(start)
    node.sidecar.dispatch.watch._patience = 1
    found: list[cause_pb2.Cause] = []
    async with asyncio.timeout(SECONDS):
        while not found:
            await asyncio.sleep(0.05)
            said = await over_grpc(node)
            first = [one for one in said[0] if one.reason == case.reason and one.text.startswith(case.text)]
            found = first if all(first and first[0] in one for one in said) else []
    text, advice = found[0].text, found[0].advice
    assert advice
    for view in (["list"], ["get", "a"], ["tree", "a"]):
        written = " ".join((await run("workflow", *view)).out.split())
        assert " ".join(text.split()) in written, view
        assert view == ["list"] or advice in written, view

    def told() -> list[Any]:
        return [line for line in lines if line.get("why") == text]

    if case.log:
        await until(told, SECONDS)
        assert {line.get("advice") for line in told()} == {advice}
        assert len(told()) == 1


def test_the_table_has_each_reason_that_lasts() -> None:
    """Those that are left out last for a moment, or have tests of their own: `too-large` and `given-back`."""
    brief = {Reason.WORKERS_BUSY, Reason.REFUSED_FOR_NOW, Reason.TOO_LARGE, Reason.GIVEN_BACK}
    assert {case.reason for case in CASES} == {*Reason} - brief
