"""`sidecar workflow`, the commands that change something: of one workflow, of several, of all that a filter finds."""

import asyncio
import re

import pytest

from sidecar.cli.operate import changes
from tests.cli.conftest import _break, flow
from tests.cli.live import Command
from tests.inprocess.sidecars import Node, Start, get
from tests.inprocess.world import COMPLETED, RUNNING, SUSPENDED, TERMINATED, child, end


async def status(node: Node, instance_id: str) -> int:
    return (await get(node, instance_id)).state.status


async def test_run_starts_a_workflow_and_prints_its_id_alone(shop: Node, run: Command) -> None:
    ended = await run("workflow", "run", "idle", "-x", '{"n": 1}', "--tag", "colour=red", "--version", "2")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "workflow 'idle' started in app 'orders'" in ended.err
    state = (await get(shop, ended.out.strip())).state
    assert (state.input.value, dict(state.tags), state.version.value) == ('{"n": 1}', {"colour": "red"}, "2")
    assert (await run("workflow", "run", "idle", "-i", "mine", "-o", "json")).data["instanceID"] == "mine"
    again = await run("workflow", "run", "idle", "-i", "mine")
    assert (again.code, again.out) == (4, "")
    assert "already exists" in again.err


async def test_run_may_start_later_wait_for_the_end_and_start_in_another_app(shop: Node, run: Command) -> None:
    await run("workflow", "run", "order", "-i", "later", "-s", "1h")
    scheduled = (await run("workflow", "get", "later", "-o", "json")).data["scheduledStart"]
    assert re.search(r"scheduled +\S+ \S+ \(in 59 min", (await run("workflow", "get", "later")).out), scheduled
    ended = await run("workflow", "run", "order", "--wait", "--timeout", "20s", "-o", "json")
    assert (ended.code, ended.data["output"]) == (0, '"ok"')
    assert (await run("workflow", "run", "bad", "--wait")).code == 1
    there = await run("workflow", "run", "sub", "-i", "there", "--app-id", "ml")
    assert (there.code, "started in app 'ml'" in there.err) == (0, True)
    assert (await run("workflow", "get", "there", "-a", "ml", "-o", "json")).data["name"] == "sub"


async def test_one_workflow_is_suspended_resumed_told_and_terminated(shop: Node, run: Command) -> None:
    assert (
        await run("workflow", "suspend", "d", "-r", "lunch")
    ).err == "sidecar: workflow 'd' of app 'orders' suspended\n"
    assert await status(shop, "d") == SUSPENDED
    assert "what to do     resume it" in (await run("workflow", "get", "d")).out
    assert (await run("workflow", "resume", "d")).code == 0
    assert await status(shop, "d") == RUNNING
    assert (await run("workflow", "raise-event", "d/go", "-x", "7")).code == 0
    assert (await shop.outcome("d")).output.value == "7"
    assert (await run("workflow", "terminate", "c", "-o", '"enough"')).code == 0
    assert (await shop.outcome("c")).output.value == '"enough"'
    ended = await run("workflow", "suspend", "nobody")
    assert (ended.code, ended.out) == (3, "")
    assert "nobody" in ended.err


async def test_commands_to_a_workflow_of_another_app_are_passed_on(shop: Node, run: Command) -> None:
    await run("workflow", "run", "sub", "-i", "there", "-a", "ml")
    for verb, word in (("suspend", "SUSPENDED"), ("resume", "RUNNING"), ("terminate", "TERMINATED")):
        assert (await run("workflow", verb, "there", "-a", "ml")).code == 0
        assert (await run("workflow", "get", "there", "-a", "ml", "-o", "json")).data["runtimeStatus"] == word
    assert (await run("workflow", "purge", "there", "-a", "ml")).code == 0
    assert (await run("workflow", "get", "there", "-a", "ml")).code == 3


async def test_what_has_ended_in_another_app_runs_again_there(start: Start, run: Command) -> None:
    ml = await start("ml")
    run.node = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(flow, {"break": _break})
    await ml.begin("b", "bad")
    await ml.outcome("b", 20)
    assert (await run("workflow", "rewind", "b", "-a", "ml")).err == "sidecar: workflow 'b' of app 'ml' rewound\n"
    assert (await ml.outcome("b", 20)).status == 3
    assert (await run("workflow", "restart", "b", "-a", "ml")).out == "b\n"
    await ml.outcome("b", 20)
    fresh = (await run("workflow", "restart", "--all", "-a", "ml", "--new-instance-id")).out.strip()
    assert (await get(ml, fresh)).state.name == "bad"


async def test_of_several_each_is_done_and_those_that_are_refused_are_named(shop: Node, run: Command) -> None:
    ended = await run("workflow", "suspend", "c", "nobody", "d")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "sidecar: 2 workflows suspended",
        "sidecar: nobody: app 'orders' has no workflow 'nobody': `sidecar workflow list` shows those of its own app",
        "sidecar: 1 workflow refused",
    ]
    assert [await status(shop, one) for one in "cd"] == [SUSPENDED, SUSPENDED]


async def test_all_that_a_filter_finds_are_changed(shop: Node, run: Command) -> None:
    for number in range(45):
        await shop.begin(f"i{number}", "idle")
    ended = await run("workflow", "suspend", "--all", "-w", "idle")
    assert (ended.code, ended.err) == (0, "sidecar: 46 workflows suspended\n")
    assert await status(shop, "c") == RUNNING
    assert (
        await run("workflow", "resume", "--all", "-s", "SUSPENDED", "--yes")
    ).err == "sidecar: 46 workflows resumed\n"
    ended = await run("workflow", "raise-event", "go", "--all", "-w", "id*", "-x", "1")
    assert (ended.code, ended.err) == (0, "sidecar: 46 workflows got event 'go'\n")
    assert (await shop.outcome("i44")).status == COMPLETED
    assert (await run("workflow", "terminate", "--all", "-s", "RUNNING", "-w", "stuck")).code == 0
    assert await status(shop, "c") == TERMINATED


async def test_purge_takes_one_several_or_all_that_have_ended(
    shop: Node, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_PURGED_AT_ONCE", 7)
    assert (await run("workflow", "purge", "a")).err == "sidecar: workflow 'a' of app 'orders' purged\n"
    running = await run("workflow", "purge", "d")
    assert (running.code, running.out) == (4, "")
    for number in range(30):
        await shop.begin(f"e{number}", "order")
    await asyncio.gather(*(shop.outcome(f"e{number}", 30) for number in range(30)))
    assert (
        await run("workflow", "purge", "--all-older-than", "24h")
    ).err == "sidecar: 0 workflows purged, children included\n"
    some = await run("workflow", "purge", "--all-older-than", "0s", "--all-filter-status", "FAILED")
    assert some.err == "sidecar: 1 workflow purged, children included\n"
    assert (await run("workflow", "purge", "--all")).err == "sidecar: 30 workflows purged, children included\n"
    assert [row["instanceID"] for row in (await run("workflow", "list", "-o", "json")).data] == ["c", "d"]
    assert (await run("workflow", "purge", "d", "--force")).code == 0
    assert (await run("workflow", "get", "d")).code == 3
    assert (await run("workflow", "purge", "d")).code == 3


@pytest.mark.slow
async def test_what_has_an_app_that_cannot_be_reached_is_kept_and_said(start: Start, run: Command) -> None:
    """The purge goes on with the others, and its exit code says that some are left."""
    run.node = node = await start("orders", peers={"gone": ("127.0.0.1:1",)})

    def flow(events: list[object]) -> list[object]:
        return [end('"done"')] if len(events) > 4 else [child(1, "kid", "gone")]

    await node.begin("parent")
    node.worker(flow)  # type: ignore[arg-type]
    await asyncio.sleep(0.3)
    await run("workflow", "terminate", "parent", "--no-recursive")
    await node.outcome("parent")
    ended = await run("workflow", "purge", "--all")
    assert ended.code == 1
    assert (
        "some are kept: an app that has children of theirs could not be reached: `sidecar peers` shows which"
        in ended.err
    )


async def test_what_has_ended_runs_again(shop: Node, run: Command) -> None:
    again = await run("workflow", "rerun", "a", "-e", "1", "--new-instance-id", "a2", "-x", "5")
    assert (again.code, again.out) == (0, "a2\n")
    assert (await shop.outcome("a2", 20)).status == COMPLETED
    fresh = await run("workflow", "restart", "a", "--new-instance-id")
    assert fresh.code == 0
    assert (await shop.outcome(fresh.out.strip(), 20)).status == COMPLETED
    assert (await run("workflow", "restart", "a")).out == "a\n"
    assert (await run("workflow", "rewind", "b", "-r", "mended")).code == 0
    assert (await shop.outcome("b", 20)).status == 3
    running = await run("workflow", "rewind", "d")
    assert (running.code, running.out) == (4, "")


async def test_many_are_changed_only_when_a_person_has_said_so(
    shop: Node, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.cli.screen.is_asked_by_a_person", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda text, err: bool(asked.append(text)))
    ended = await run("workflow", "terminate", "--all", "-w", "idle")
    assert (ended.code, ended.err) == (1, "sidecar: nothing was done\n")
    assert asked == ["Terminate 1 workflow of app 'orders'?"]
    assert await status(shop, "d") == RUNNING
    assert (await run("workflow", "terminate", "--all", "-w", "idle", "--yes")).code == 0
    assert (await run("workflow", "resume", "--all", "-w", "nothing")).err == "sidecar: 0 workflows resumed\n"
