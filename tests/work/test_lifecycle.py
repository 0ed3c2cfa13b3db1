"""Starts, ends and failures of workflows are logged by a logger of their own, which can be switched off."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sidecar import log
from sidecar.core.model import Changes
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work import lifecycle
from tests.inprocess.world import Hand, World, end, until
from tests.store.builders import instance

FAILED, CONTINUED = 3, 2


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def failing(error: str) -> pb.Action:
    action = end(status=FAILED)
    action.complete.failure.error_type, action.complete.failure.error_message = "ValueError", error
    return action


async def lines_of(world: World, hand: Hand, capsys: pytest.CaptureFixture[str], level: Any) -> list[dict[str, Any]]:
    """What is logged of a workflow that goes on as new and ends, one that fails, and one that is terminated."""
    log.configure("json", "error", app_id="orders", workflows=level)
    for name in ("good", "bad", "stopped"):
        await world.start(name)
    await world.clients.terminate(("default", "stopped"), None, False)
    good, bad = [next(turn for turn in hand.turns if turn.instance_id == name) for name in ("good", "bad")]
    await world.complete(good, end(status=CONTINUED))
    await until(lambda: [turn.instance_id for turn in hand.turns].count("good") == 2)
    world.clock.wall += 1_500_000
    await world.complete(hand.turns[-1], end())
    await world.complete(bad, failing("no such order"))
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_each_start_end_and_failure_is_one_line(
    world: World, hand: Hand, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await lines_of(world, hand, capsys, "info")
    assert [(line["event"], line["instance"], line["level"]) for line in lines] == [
        ("workflow started", "good", "info"),
        ("workflow started", "bad", "info"),
        ("workflow started", "stopped", "info"),
        ("workflow ended", "stopped", "info"),
        ("workflow ended", "good", "info"),
        ("workflow failed", "bad", "warning"),
    ]
    assert {line["workflow"] for line in lines} == {"flow"}
    assert {line["app_id"] for line in lines} == {"orders"}
    assert [line["status"] for line in lines[3:5]] == ["TERMINATED", "COMPLETED"]
    assert (lines[4]["seconds"], lines[5]["error"]) == (1.5, "ValueError: no such order")


@pytest.mark.parametrize(("level", "events"), [("warning", ["workflow failed"]), ("off", [])])
async def test_they_can_be_switched_off_by_themselves(
    world: World, hand: Hand, capsys: pytest.CaptureFixture[str], level: str, events: list[str]
) -> None:
    assert [line["event"] for line in await lines_of(world, hand, capsys, level)] == events


async def test_a_workflow_that_stands_still_is_told_once_and_that_it_goes_on(
    world: World, hand: Hand, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not again for what arrives meanwhile; and one that has ended goes on no more."""
    await world.start("a")
    await world.start("b")
    log.configure("json", "error", app_id="orders", workflows="info")
    for name in "ab":
        await world.clients.suspend(("default", name), "a reason that may be anything")
        await world.clients.raise_event(("default", name), "e", None)
    await world.clients.resume(("default", "a"), None)
    await world.clients.terminate(("default", "b"), None, False)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [(line["event"], line["instance"], line.get("why")) for line in lines]
    assert told == [
        ("workflow waits", "a", "it is suspended"),
        ("workflow waits", "b", "it is suspended"),
        ("workflow goes on", "a", None),
        ("workflow ended", "b", None),
    ]
    assert lines[0]["advice"] == "resume it"


def test_what_stands_still_is_remembered_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_MOST_REMEMBERED", 3)
    told = lifecycle.Standstills()
    for key in range(1, 9):
        told.tell(Changes(key=key, instance=instance(key, suspended=True)))
    assert list(told._told) == [6, 7, 8]
    told.tell(Changes(key=7, purged=True))
    assert list(told._told) == [6, 8]
