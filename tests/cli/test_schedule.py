"""`sidecar schedule` against a live sidecar, as a person or a script types it."""

import re
from pathlib import Path

import pytest
import yaml

from tests.cli.live import Command
from tests.inprocess.sidecars import Node, Start
from tests.inprocess.world import end

FILE = """
schedules:
  - id: nightly
    cron: 30 2 * * *
    timeZone: Europe/Berlin
    workflow: report
    input: {days: 1}
    tags: {team: blue}
    overlap: BufferOne
    catchUp: 36h
  - id: hourly
    every: 1h
    offset: 5m
    jitter: 30s
    start: 2026-12-01
    workflow: poll
    version: "2"
    appID: ml
"""
NAMED = "run of schedule 'now' was"


@pytest.fixture
async def orders(start: Start, run: Command) -> Node:
    run.node = await start("orders")
    run.node.worker(lambda events: [end()])
    return run.node


async def test_a_schedule_is_made_shown_changed_and_deleted(orders: Node, run: Command) -> None:
    flags = ["--workflow", "report", "--cron", "@daily", "--cron", "0 12 * * *", "--tag", "a=b", "-x", "1"]
    made = await run("schedule", "create", "daily", *flags)
    assert (made.code, made.out) == (0, "")
    assert "schedule 'daily' of app 'orders' created" in made.err
    again = await run("schedule", "create", "daily", *flags)
    assert (again.code, "a schedule 'daily' exists" in again.err) == (4, True)
    found = (await run("schedule", "get", "daily", "-o", "json")).data
    assert {key: found[key] for key in ("workflow", "cron", "tags", "input")} == {
        "workflow": "report",
        "cron": ["@daily", "0 12 * * *"],
        "tags": {"a": "b"},
        "input": 1,
    }
    assert len(found["status"]["next"]) == 5
    changed = await run("schedule", "update", "daily", "--cron", "", "--every", "2h", "--time-zone", "Asia/Tokyo")
    assert changed.code == 0, changed.err
    found = (await run("schedule", "get", "daily", "-o", "json")).data
    assert ("cron" in found, found["every"], found["tags"]) == (False, "2h", {"a": "b"})
    assert (await run("schedule", "delete", "daily")).code == 0
    gone = await run("schedule", "get", "daily")
    assert (gone.code, "app 'orders' has no schedule 'daily'" in gone.err) == (3, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cron", "99 * * * *"], "is no cron expression"),
        (["--every", "often"], "every: 'often' is no time"),
        (["--every", "1h", "--time-zone", "Mars"], "'Mars' is no time zone"),
        (["--every", "1h", "--overlap", "sometimes"], "no overlap policy"),
        (["--every", "1h", "--app-id", "ml", "--overlap", "skip"], "can only be allow"),
        (["--every", "1h", "--tag", "x"], "is no tag"),
        (["--every", "1h", "--catch-up", "0s"], "catchUp: give 10s at least"),
        ([], "no times"),
    ],
)
async def test_what_may_not_be_is_said_in_a_line(orders: Node, run: Command, flags: list[str], words: str) -> None:
    ended = await run("schedule", "create", "bad", "--workflow", "w", *flags)
    assert ended.code in (2, 4)
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_file_is_applied_after_the_difference_is_shown(orders: Node, run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE)
    dry = await run("schedule", "apply", "-f", str(file), "--dry-run")
    assert "+ nightly" in dry.out
    assert 'input: {"days": 1}' in dry.out
    assert (await run("schedule", "list", "-o", "json")).data == []
    applied = await run("schedule", "apply", "-f", str(file), "--yes")
    assert (applied.code, "2 schedules changed" in applied.err) == (0, True)
    same = await run("schedule", "apply", "-f", str(file), "--yes")
    assert ("2 schedules unchanged" in same.out, "nothing to change" in same.err) == (True, True)
    file.write_text(FILE.replace("30 2 * * *", "0 3 * * *").replace("id: hourly", "id: poll"))
    changed = await run("schedule", "apply", "-f", str(file), "--prune", "--yes", "-o", "json")
    assert [(one["id"], one["change"]) for one in changed.data] == [
        ("nightly", "updated"),
        ("poll", "created"),
        ("hourly", "deleted"),
    ]
    assert [one["id"] for one in (await run("schedule", "list", "-o", "json")).data] == ["nightly", "poll"]


async def test_what_is_shown_as_data_can_be_applied_again_and_is_the_same(
    orders: Node, run: Command, tmp_path: Path
) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE)
    await run("schedule", "apply", "-f", str(file), "--yes")
    await run(
        "schedule", "create", "text", "--workflow", "w", "--every", "90s", "-x", "not json", "--end", "2100-01-01"
    )
    shown = [
        yaml.safe_load((await run("schedule", "get", one, "-o", "yaml")).out) for one in ("nightly", "hourly", "text")
    ]
    file.write_text(yaml.safe_dump({"schedules": shown}))
    assert "3 schedules unchanged" in (await run("schedule", "apply", "-f", str(file), "--yes")).out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- id: a\n  workflow: w\n  every: 1h\n  crons: x", "schedule 1 ('a'): 'crons' is no key of a schedule"),
        ("schedules: 3", "it must have one key"),
        ("x: [", "not valid YAML"),
        ("- id: a\n  tags: [x]", "tags are a mapping"),
        ("- 3", "schedule 1: a schedule is a mapping"),
        ("- id: 3", "id: '3' is no text"),
    ],
)
async def test_a_file_that_is_wrong_changes_nothing(
    orders: Node, run: Command, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(text)
    ended = await run("schedule", "apply", "-f", str(file), "--yes")
    assert (ended.code, words in ended.err) == (2, True), ended.err


async def test_one_wrong_schedule_of_a_file_keeps_out_the_others(orders: Node, run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE + "  - {id: bad, workflow: w, cron: nonsense}\n")
    ended = await run("schedule", "apply", "-f", str(file), "--yes")
    assert (ended.code, "schedule 'bad'" in ended.err) == (4, True), ended.err
    assert (await run("schedule", "list", "-o", "json")).data == []


async def test_a_trigger_starts_a_run_whose_end_is_seen(orders: Node, run: Command) -> None:
    await run("schedule", "create", "now", "--workflow", "flow", "--every", "1h")
    assert (await run("schedule", "pause", "now", "-r", "holidays")).code == 0
    started = await run("schedule", "trigger", "now")
    assert started.out.startswith("now-20")
    await orders.outcome(started.out.strip())
    shown = await run("schedule", "get", "now")
    for words in ("PAUSED", "holidays", "trigger", "COMPLETED", started.out.strip()):
        assert words in shown.out
    assert (await run("schedule", "resume", "now")).code == 0
    assert "ACTIVE" in (await run("schedule", "list")).out


async def test_a_trigger_that_starts_nothing_says_why(start: Start, run: Command) -> None:
    run.node = await start("idle")
    await run("schedule", "create", "now", "--workflow", "flow", "--every", "1h")
    await run("schedule", "trigger", "now")
    skipped = await run("schedule", "trigger", "now")
    assert (skipped.code, f"{NAMED} started now: a run is active" in skipped.err) == (1, True)
    assert (await run("schedule", "trigger", "now", "--overlap", "allow")).code == 0


async def test_a_range_of_the_past_is_filled_in(orders: Node, run: Command) -> None:
    await run("schedule", "create", "fill", "--workflow", "flow", "--every", "24h", "--overlap", "allow")
    ended = await run("schedule", "backfill", "fill", "--from", "2026-11-01", "--to", "2026-11-03")
    assert ended.code == 0, ended.err
    await orders.outcome("fill-2026-11-03T00:00:00Z")
    assert (await run("schedule", "get", "fill", "-o", "json")).data["status"]["started"] == 3
    wrong = await run("schedule", "backfill", "fill", "--from", "2026-11-03", "--to", "2026-11-01")
    assert (wrong.code, "before its end" in wrong.err) == (4, True)


async def test_lists_fit_their_terminal_and_say_the_same_in_a_pipe(orders: Node, run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE)
    await run("schedule", "apply", "-f", str(file), "--yes")
    for view in (["list"], ["list", "-o", "wide"], ["get", "nightly"], ["get", "hourly", "-o", "wide"]):
        for width in (40, 200):
            ended = await run("schedule", *view, width=width)
            assert ended.code == 0, ended.err
            plain = re.sub(r"\x1b\[[0-9;]*m", "", ended.out)
            assert max(map(len, plain.splitlines())) <= width, (view, width)
        assert "\x1b" not in (await run("schedule", *view)).out
    assert "30 2 * * * (Europe/Berlin)" in (await run("schedule", "list")).out
    wide = (await run("schedule", "list", "-o", "wide")).out.splitlines()
    assert ["queue-one" in wide[2], "orders" in wide[2], "allow" in wide[1], " ml " in wide[1]] == [True] * 4
