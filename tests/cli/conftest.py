"""Fixtures: the command as it is typed, and two apps with workflows that have ended, failed, and wait."""

import os
import sys
from collections.abc import Iterator, Sequence

import pytest
import structlog

from sidecar.schema import taskhub_pb2 as pb
from tests.cli.live import Command
from tests.inprocess.sidecars import Node, Start
from tests.inprocess.world import call, child, end

FAILED = 3


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command. The log of the sidecar in this process goes where no command writes."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    for name in [name for name in os.environ if name.startswith("SIDECAR_") or name == "DAPR_API_TOKEN"]:
        monkeypatch.delenv(name)
    yield Command(monkeypatch)
    structlog.configure(**before)


def flow(events: list[pb.HistoryEvent]) -> Sequence[pb.Action]:
    """What the app "orders" runs, by the name of the workflow."""
    begun = next(event.execution_started for event in events if event.HasField("execution_started"))
    kinds = {str(event.WhichOneof("kind")) for event in events}
    raised = [event.event_raised.input.value for event in events if event.HasField("event_raised")]
    if begun.name == "order" and "task_scheduled" not in kinds:
        return [call(1, "score", "ml")]
    if begun.name == "order":
        return [end('"ok"')] if "task_completed" in kinds else []
    if begun.name == "bad" and "execution_rewound" not in kinds and "task_scheduled" not in kinds:
        return [call(1, "break")]
    if begun.name == "bad":
        return [failed()] if "task_failed" in kinds else []
    if begun.name == "stuck" and "task_scheduled" not in kinds:
        return [call(1, "charge", "gone"), child(2, "kid", "ml")]
    return [end(raised[0])] if begun.name == "idle" and raised else []


def failed() -> pb.Action:
    action = end()
    action.complete.status = FAILED
    action.complete.failure.error_type, action.complete.failure.error_message = "Broken", "it\nbroke \x1b[31mred"
    return action


@pytest.fixture
async def shop(start: Start, run: Command) -> Node:
    """App "orders", which calls "ml" and one that is not there; its workflows a, b, c and d are in four states."""
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,), "gone": ("127.0.0.1:1",)})
    orders.worker(flow, {"break": _break})
    ml.worker(lambda events: [], {"score": lambda request: '"9"'})
    for instance_id, name in (("a", "order"), ("b", "bad"), ("c", "stuck"), ("d", "idle")):
        await orders.begin(instance_id, name)
    await orders.outcome("a", 20)
    await orders.outcome("b", 20)
    run.node = orders
    return orders


def _break(request: pb.ActivityRequest) -> str:
    raise ValueError("no such thing")
