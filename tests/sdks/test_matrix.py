"""The matrix itself, with a program that misbehaves on demand: nothing that goes wrong is taken for a pass."""

import re
import sys
from pathlib import Path

import pytest

from tests.sdks import programs, report, sdks
from tests.sdks.programs import Beside, Line, play
from tests.sdks.report import Column
from tests.sdks.scenarios import SCENARIOS
from tests.sdks.sdks import HERE, Build, NotRunError, builds

PROGRAM = """
import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(ready=True)
for name in sys.argv[2:]:
    if name == "dies": sys.exit("it died")
    if name == "hangs": time.sleep(60)
    if name == "talks": print("hello", flush=True)
    if name == "lies": say(scenario="another", result="pass")
    if name == "wonders": say(scenario=name, result="maybe")
    say(scenario=name, result="not offered" if name == "silent" else "pass", seconds=0.1)
sys.exit("ends" in sys.argv)
"""


def build(tmp_path: Path, **more: object) -> Build:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    values = {"id": "python-test", "package": "none", "version": "1", "language": "Python", "family": "dapr"}
    commands = {
        "tools": (),
        "locks": (),
        "shared": (),
        "prepare": (),
        "run": (sys.executable, str(program)),
        "reason": "",
    }
    return Build(**{**values, **commands, "folder": tmp_path, **more})  # type: ignore[arg-type]


def played(tmp_path: Path, *scenarios: str) -> list[tuple[str, str]]:
    beside = Beside("home", 1, 2)
    lines = play(build(tmp_path), beside, tmp_path / "run.log", scenarios)
    return [(line.result, line.detail.splitlines()[0] if line.detail else "") for line in lines]


def test_the_readme_has_the_same_scenarios_in_the_same_order() -> None:
    text = (HERE / "README.md").read_text()
    table = text[text.index("## Scenarios") :]
    assert tuple(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == SCENARIOS


def test_the_builds_of_all_folders_can_be_read() -> None:
    found = builds()
    assert {each.family for each in found} == {"microsoft", "dapr"}
    for each in found:
        missing = [lock for lock in each.locks if not (each.folder / lock).is_file()]
        missing += [name for name in each.shared if not (each.folder.parent / name).is_dir()]
        assert not missing, f"{each.id} has no {missing}"


def test_what_passes_is_a_pass(tmp_path: Path) -> None:
    assert played(tmp_path, "one", "two") == [("pass", ""), ("pass", "")]


@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        ("dies", "ended with 1 before a line for 'dies'"),
        ("talks", "wrote something else than a JSON object: hello"),
        ("lies", "expected a line for 'lies', got"),
        ("wonders", "expected a line for 'wonders', got"),
        ("silent", "not offered, but it does not say why"),
        ("ends", "the program ended with 1"),
    ],
)
def test_a_program_that_breaks_the_contract_fails_that_scenario_and_plays_the_others(
    tmp_path: Path, scenario: str, why: str
) -> None:
    rest = [] if scenario == "ends" else ["after"]
    before, failed, *after = played(tmp_path, "before", scenario, *rest)
    assert before == ("pass", "")
    assert failed[0] == "fail"
    assert why in failed[1]
    assert after == [("pass", "")] * len(rest)


def test_a_program_that_hangs_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_LINE_SECONDS", 0.5)
    assert played(tmp_path, "hangs", "after") == [
        ("fail", "a line for 'hangs' did not come within 0.5 s"),
        ("pass", ""),
    ]


def test_a_tool_that_is_missing_is_told_from_a_build_that_fails(tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match="no no-such-tool on the path") as caught:
        build(tmp_path, tools=("no-such-tool",)).prepared()
    assert caught.value.missing


@pytest.mark.parametrize("locks", [(), ("program.py",)])
def test_a_build_is_prepared_again_when_a_file_that_it_shares_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sdks, "BUILDS", tmp_path / "builds")
    monkeypatch.setattr(sdks, "LOGS", tmp_path / "logs")
    times, folder, stage = tmp_path / "times", tmp_path / "program", tmp_path / "test_shared" / "deep" / "stage.py"
    folder.mkdir()
    stage.parent.mkdir(parents=True)
    count = (sys.executable, "-c", f"open({str(times)!r}, 'a').write('x')")
    here = build(folder, locks=locks, shared=("test_shared",), prepare=(count,))
    counted = []
    for text in ("one", "one", "two"):
        stage.write_text(text)
        here.prepared()
        counted.append(len(times.read_text()))
    stage.rename(stage.with_name("renamed.py"))
    here.prepared()
    counted.append(len(times.read_text()))
    assert counted == [1, 1, 2, 3]


def test_the_table_shows_what_was_not_played_as_not_run(tmp_path: Path) -> None:
    here = build(tmp_path)
    lines = {"a": Line("a", "pass"), "b": Line("b", "fail", "no"), "c": Line("c", "not offered", "none")}
    text = report.table([Column(here, lines), Column(here, not_run="no tool")], ["a", "b", "c"])
    assert [line.split() for line in text.splitlines()[-4:-1]] == [
        ["a", "ok", "not", "run"],
        ["b", "FAIL", "not", "run"],
        ["c", "\N{EN DASH}", "not", "run"],
    ]
