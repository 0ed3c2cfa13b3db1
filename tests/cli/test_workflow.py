"""`sidecar workflow`, the commands that look: against a live sidecar, in terminals, in a pipe, and as data."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
import yaml

from sidecar.config.parsers import Secret
from sidecar.edge.taskhub import bulk
from tests.cli.live import Command, Ended
from tests.inprocess.sidecars import Node, Start

VIEWS = [
    ["list"],
    ["list", "-o", "wide"],
    ["get", "a"],
    ["get", "b", "-o", "wide"],
    ["get", "c"],
    ["history", "a"],
    ["history", "a", "-o", "wide"],
    ["history", "d"],
    ["tree", "c"],
    ["tree", "kid", "-a", "ml"],
    ["wait", "a"],
]
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


async def settled(read: Callable[[], Awaitable[Ended]], text: str) -> Ended:
    """What a command writes, once it has a text."""
    async with asyncio.timeout(20):
        while text not in " ".join((ended := await read()).out.split()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return ended


async def test_every_view_fits_its_terminal_and_a_pipe_has_the_same_without_colour(
    shop: Node, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(lambda: run("workflow", "list"), "app 'gone' is not connected")
    for view in VIEWS:
        for width in (40, 200):
            ended = await run("workflow", *view, width=width)
            plain = ESCAPE.sub("", ended.out)
            assert ended.code == 0, (view, ended.err)
            assert max(map(len, plain.splitlines())) <= width, (view, width)
            assert "\x1b" not in plain, view
            assert "\x1b[" in ended.out, (view, width)
        piped = await run("workflow", *view)
        assert (piped.code, "\x1b" in piped.out, "…" in piped.out) == (0, False, False), view
        assert not any(line.endswith(" ") for line in piped.out.splitlines()), view
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in (await run("workflow", *view, width=80)).out, view
        monkeypatch.delenv("NO_COLOR")


async def test_a_list_says_name_id_status_age_and_why_each_waits(shop: Node, run: Command) -> None:
    ended = await settled(lambda: run("workflow", "list"), "app 'gone' is not connected")
    head, *rows = ended.out.splitlines()
    assert head.split("  ")[0] == "NAME"
    assert [row.split()[:3] for row in rows] == [
        ["order", "a", "COMPLETED"],
        ["bad", "b", "FAILED"],
        ["stuck", "c", "RUNNING"],
        ["idle", "d", "RUNNING"],
    ]
    assert "127.0.0.1:1: connection refused" in rows[2]


async def test_a_list_is_filtered_by_name_status_and_age(shop: Node, run: Command) -> None:
    async def ids(*filters: str) -> list[str]:
        return [row["instanceID"] for row in (await run("workflow", "list", "-o", "json", *filters)).data]

    assert await ids() == ["a", "b", "c", "d"]
    assert await ids("-w", "order", "-w", "id*") == ["a", "d"]
    assert await ids("-s", "failed,COMPLETED") == ["a", "b"]
    assert await ids("--filter-status", "RUNNING", "--filter-name", "stuck") == ["c"]
    assert await ids("-m", "1h") == ["a", "b", "c", "d"]
    assert await ids("-m", "0s") == []
    assert await ids("--filter-min-age", "1h30m") == []
    assert await ids("--filter-min-age", "2999-01-01") == ["a", "b", "c", "d"]
    assert await ids("--limit", "2") == ["a", "b"]


async def test_a_list_of_many_pages_is_whole_for_programs_and_cut_for_people(
    start: Start, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "LARGEST_PAGE", 7)
    run.node = node = await start("orders")
    await asyncio.gather(*(node.begin(f"w{number}") for number in range(30)))
    assert len((await run("workflow", "list", "-o", "json")).data) == 30
    shown = await run("workflow", "list", "--limit", "10")
    assert (len(shown.out.splitlines()), "these are the oldest 10, and there are more" in shown.err) == (11, True)


async def test_data_has_the_same_keys_always_and_yaml_says_the_same_as_json(shop: Node, run: Command) -> None:
    rows = (await run("workflow", "list", "-o", "json")).data
    assert len({tuple(row) for row in rows}) == 1
    first = rows[0]
    assert (first["namespace"], first["appID"], first["name"]) == ("default", "orders", "order")
    assert (first["instanceID"], first["runtimeStatus"], first["failureMessage"]) == ("a", "COMPLETED", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", first["created"])
    assert rows[1]["failureMessage"] == "it\nbroke \x1b[31mred"
    single = (await run("workflow", "get", "b", "-o", "json")).data
    assert (single["input"], single["failure"]["type"]) == ('"in"', "Broken")
    assert yaml.safe_load((await run("workflow", "get", "b", "-o", "yaml")).out) == single


async def test_get_says_why_a_workflow_waits_since_when_and_what_to_do(shop: Node, run: Command) -> None:
    ended = await settled(lambda: run("workflow", "get", "c"), "app 'gone' is not connected")
    assert re.search(r"waits because +app 'gone' is not connected: .*, for ", ended.out)
    assert re.search(r"what to do +start the sidecar of that app", ended.out)
    causes = (await run("workflow", "get", "c", "-o", "json")).data["causes"]
    assert [cause["reason"] for cause in causes] == ["unreachable"]
    assert set(causes[0]) == {"reason", "text", "since", "appID", "advice"}


async def test_what_workers_wrote_does_no_harm_to_a_terminal(shop: Node, run: Command) -> None:
    for view in (["get", "b"], ["list", "-o", "wide"], ["history", "b", "-o", "wide"]):
        assert r"it\nbroke \x1b[31mred" in ESCAPE.sub("", (await run("workflow", *view, width=200)).out), view


async def test_a_history_is_drawn_with_the_app_that_each_part_ran_in(shop: Node, run: Command) -> None:
    lines = (await run("workflow", "history", "a")).out.splitlines()
    assert lines[0].startswith("a  order  COMPLETED  created ")
    assert [line.split()[:3:2] for line in lines[3:]] == [["orders", lines[3].split()[2]], ["ml", "score"]]
    assert lines[4].split()[:3] == ["ml", "activity", "score"]
    assert len(lines[3].split()[-1]) > len(lines[4].split()[-1]) > 0
    data = (await run("workflow", "history", "a", "-o", "json")).data
    assert [(row["type"], row["appID"], row["name"], row["eventId"]) for row in data] == [
        ("OrchestratorStarted", "orders", "", None),
        ("ExecutionStarted", "orders", "order", None),
        ("TaskScheduled", "ml", "score", 1),
        ("OrchestratorStarted", "orders", "", None),
        ("TaskCompleted", "ml", "", 1),
        ("ExecutionCompleted", "orders", "", 999),
    ]
    assert [row["play"] for row in data] == [1, 1, 1, 2, 2, 2]
    assert (data[4]["payload"], data[1]["payload"]) == ('"9"', '"in"')


async def test_a_tree_says_of_each_part_in_each_app_what_it_waits_for(shop: Node, run: Command) -> None:
    await settled(lambda: run("workflow", "tree", "c"), "kid sub RUNNING in app ml")
    ended = await settled(lambda: run("workflow", "tree", "c"), "app 'gone' is not connected")
    assert "waits for activity charge in app gone: not delivered, for " in ended.out
    assert "→ start the sidecar of that app, or correct its address" in ended.out
    data = (await run("workflow", "tree", "c", "-o", "json")).data
    assert data["waits"][0]["cause"]["reason"] == "unreachable"
    [kid] = data["children"]
    assert (kid["appID"], kid["instanceID"], kid["runtimeStatus"]) == ("ml", "kid", "RUNNING")
    # Of an instance of another app that app is asked.
    assert (await run("workflow", "tree", "kid", "-a", "ml", "-o", "json")).data == kid


async def test_the_app_of_another_sidecar_is_asked_where_it_can_be_and_else_the_error_says_what_to_do(
    shop: Node, run: Command
) -> None:
    await settled(lambda: run("workflow", "tree", "c"), "kid sub")
    assert "in namespace" not in (await run("workflow", "get", "kid", "--app-id", "ml")).out
    assert (await run("workflow", "get", "kid", "--app-id", "ml", "-o", "json")).data["appID"] == "ml"
    rows = (await run("workflow", "list", "-a", "ml", "-o", "json")).data
    assert [(row["appID"], row["instanceID"]) for row in rows] == [("ml", "kid")]
    assert (await run("workflow", "history", "kid", "-a", "ml")).out.startswith("kid  sub  RUNNING")
    assert {row["appID"] for row in (await run("workflow", "history", "kid", "-a", "ml", "-o", "json")).data} == {"ml"}
    forced = await run("workflow", "terminate", "kid", "-a", "ml", "--force")
    assert (forced.code, "ask the sidecar of 'ml' itself: name its port with --grpc-port" in forced.err) == (4, True)
    assert (await run("workflow", "list", "-a", "orders")).code == 0
    missing = await run("workflow", "get", "a", "-a", "ml")
    assert (missing.code, missing.err) == (3, "sidecar: app 'ml' has no workflow 'a': is the app ID right?\n")


async def test_a_sidecar_of_an_older_version_is_not_asked_for_what_it_would_take_for_its_own(
    start: Start, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two it is."""
    ml = await start("ml")
    run.node = await start("orders", peers={"ml": (ml.peer_address,)})
    with monkeypatch.context() as patch:
        patch.setattr("sidecar.edge.admin.status.ROUTER_FIELDS", {"GetInstance": 3})
        own = await run("workflow", "list", "-a", "ml")
    assert (own.code, own.out) == (4, "")
    assert re.search(r"is of version \S+, which does not pass that on: ask the sidecar of 'ml' itself", own.err)
    del ml.sidecar.peers._served.methods["QueryInstances"]  # type: ignore[attr-defined]
    theirs = await run("workflow", "list", "-a", "ml")
    assert (theirs.code, theirs.out) == (4, "")
    assert "the sidecar of app 'ml' does that for its own clients alone" in theirs.err
    assert "ask the sidecar of 'ml' itself: name its port with --grpc-port" in theirs.err


async def test_wait_ends_with_the_workflow_and_its_exit_code_says_how(shop: Node, run: Command) -> None:
    assert [(await run("workflow", "wait", one)).code for one in ("a", "b")] == [0, 1]
    waiting = asyncio.create_task(run("workflow", "wait", "d", "-o", "json"))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert (await run("workflow", "raise-event", "d/go", "-x", '"paid"')).code == 0
    ended = await waiting
    assert (ended.code, ended.data["output"]) == (0, '"paid"')
    assert (await run("workflow", "wait", "c", "--start")).code == 0


async def test_wait_that_is_over_says_what_the_workflow_waits_for(shop: Node, run: Command) -> None:
    await settled(lambda: run("workflow", "list"), "app 'gone' is not connected")
    ended = await run("workflow", "wait", "c", "--timeout", "300ms")
    assert (ended.code, ended.out) == (6, "")
    assert re.match(r"sidecar: workflow 'c' is RUNNING after 300 ms: it waits because app 'gone' is not", ended.err)
    assert (await run("workflow", "wait", "nobody", "--timeout", "9s")).code == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list", "-s", "DONE"], "--filter-status: 'DONE' is no status: give one of RUNNING, COMPLETED"),
        (["list", "-m", "yesterday"], "--filter-max-age: 'yesterday' is no moment: give a time such as 90s"),
        (["run", "x", "-s", "soon"], "--start-time: 'soon' is no moment"),
        (["run", "x", "--tag", "colour"], "--tag: 'colour' is no tag: give KEY=VALUE"),
        (["wait", "x", "--timeout", "soon"], "'soon' is no time"),
        (["raise-event", "x"], "'x' is not ID/EVENT"),
        (["suspend"], "no workflow is named: give their IDs, or --all"),
        (["purge", "x", "--all"], "give IDs, or --all with filters, and not both"),
        (["resume", "x", "-w", "y"], "a filter goes with --all"),
        (["list", "--app-cert", "x.crt", "--grpc-port", "0"], "the gRPC port is 0"),
        (["list", "--grpc-port", "x"], "--grpc-port: 'x' is not a port"),
    ],
)
async def test_what_is_typed_wrong_ends_with_exit_code_2_and_what_to_write(
    start: Start, run: Command, arguments: list[str], text: str
) -> None:
    run.node = await start("orders")
    ended = await run("workflow", *arguments, at="--grpc-port" not in arguments)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err


async def test_a_sidecar_that_is_not_there_is_exit_code_5_and_says_how_to_name_it(run: Command) -> None:
    ended = await run("workflow", "list", "--grpc-port", "1")
    assert ended.code == 5
    assert "no sidecar answers at 127.0.0.1:1 (connection refused: nothing listens there)" in ended.err
    assert "start it with `sidecar run`, or name its port with --grpc-port" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_token_is_taken_from_where_the_other_commands_take_it(
    start: Start, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.node = await start("orders", api_token=Secret("canary"))
    ended = await run("workflow", "list")
    assert (ended.code, "give it by --api-token-file, or in SIDECAR_API_TOKEN" in ended.err) == (
        5,
        True,
    )
    monkeypatch.setenv("DAPR_API_TOKEN", "canary")
    ended = await run("workflow", "list")
    assert (ended.code, ended.err) == (0, "sidecar: app 'orders' has no workflows\n")
