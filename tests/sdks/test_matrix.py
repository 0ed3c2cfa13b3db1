"""The matrix itself, with a program that misbehaves on demand: nothing that goes wrong is taken for a pass."""

import os
import re
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.sdks import newest, pairs, programs, ready, report, sdks
from tests.sdks.programs import Beside, Line, play
from tests.sdks.report import Column
from tests.sdks.scenarios import SCENARIOS
from tests.sdks.sdks import HERE, ROOT, Build, NotRunError, builds

PROGRAM = """
import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(ready=True)
for name in sys.argv[2:]:
    if name == "dies": sys.exit("it died")
    if name == "hangs": time.sleep(60)
    if name == "talks": print("hello", flush=True)
    if name == "lies": say(scenario="another", result="pass")
    if name == "unknown": say(scenario=name, result="fail", detail="this program does not know it")
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
        "passed_over": {},
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
        build(tmp_path, tools=("sh", "no-such-tool")).prepared()
    assert caught.value.missing == {"no-such-tool"}


def test_a_tool_that_is_too_old_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho tool 1.88.0 of 2025\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    here = build(tmp_path, tools=("tool", "tool>=1.88", "tool>=1.9", "tool>=1.89", "tool>=2", "sh>=1"))
    assert here.missing_tools == ["tool>=1.89", "tool>=2", "sh>=1"]
    monkeypatch.setenv("EXCUSED_TOOLS", "other tool")
    assert here.missing_tools == [*here.tools], "it may be there, but is of no use"


@pytest.mark.parametrize(
    ("environment", "missing", "excused"),
    [
        ({}, ["go", "cargo"], True),
        ({}, [], False),
        ({"CI": "true"}, ["cargo"], False),
        ({"CI": "true", "EXCUSED_TOOLS": "cargo rustc"}, ["cargo"], True),
        ({"CI": "true", "EXCUSED_TOOLS": "cargo"}, ["cargo", "go"], False),
        ({"CI": "true", "EXCUSED_TOOLS": "cargo"}, [], False),
    ],
)
def test_ci_excuses_only_the_tools_that_it_names(
    environment: dict[str, str], missing: list[str], excused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "EXCUSED_TOOLS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert NotRunError("why", missing).excused is excused


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


# --- ready builds ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dotnet_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A program whose tool is not on the path, and its source beside what it shares."""
    monkeypatch.setattr(ready, "BUILDS", tmp_path / "builds")
    for name in ("csharp_test/Main.cs", "csharp_test/sdk.json", "csharp_shared/Stage.cs"):
        source = tmp_path / "sdks" / name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(name)
    run = ("env", "SET_UP=plain", "dotnet", "{build}/out/csharp-test.dll")
    more = {"id": "csharp-test-plain", "tools": ("no-such-tool",), "shared": ("csharp_shared",), "run": run}
    return build(tmp_path / "sdks" / "csharp_test", **more)


def build_elsewhere(program: Build) -> Path:
    """A folder of ready builds that were made from the sources as they are."""
    folder = program.folder.parents[1] / "elsewhere"
    folder.mkdir()
    root = program.folder.parent
    sums = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in program.sources]
    (folder / ready.SUMS).write_text("".join(sums))
    made = folder / "csharp-test"
    made.write_text(f"#!{sys.executable}\n{PROGRAM}")
    made.chmod(0o755)
    with tarfile.open(folder / ready.ARCHIVE, "w:xz") as archive:
        archive.add(made, f"./{program.id}/csharp-test")
    return folder


def test_a_ready_build_of_these_sources_stands_in_for_a_tool_that_is_missing(dotnet_program: Build) -> None:
    [taken] = ready.taken([dotnet_program], build_elsewhere(dotnet_program))
    taken.prepared()
    lines = play(taken, Beside("home", 1, 2), dotnet_program.folder.parents[1] / "run.log", ["one"])
    assert taken.run[:2] == ("env", "SET_UP=plain")
    assert [line.result for line in lines] == ["pass"]


def test_a_build_whose_tools_are_here_is_built_from_its_sources(dotnet_program: Build) -> None:
    here = replace(dotnet_program, tools=())
    assert ready.taken([here], build_elsewhere(here)) == [here]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda root: (root / "csharp_test" / "Main.cs").write_text("other"), "csharp_test/Main.cs differs"),
        (lambda root: (root / "csharp_shared" / "Stage.cs").unlink(), "csharp_shared/Stage.cs is not here"),
        (lambda root: (root / "csharp_test" / "More.cs").write_text("more"), "csharp_test/More.cs is only here"),
    ],
)
def test_a_ready_build_of_other_sources_is_refused_with_what_differs(
    dotnet_program: Build, change: Callable[[Path], object], why: str
) -> None:
    folder = build_elsewhere(dotnet_program)
    change(dotnet_program.folder.parent)
    with pytest.raises(NotRunError, match=why) as caught:
        ready.taken([dotnet_program], folder)
    assert not caught.value.missing


def test_ready_builds_that_are_named_must_be_there(dotnet_program: Build, tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match="no ready builds"):
        ready.taken([dotnet_program], tmp_path / "nowhere")
    folder = build_elsewhere(dotnet_program)
    (folder / ready.ARCHIVE).unlink()
    with pytest.raises(NotRunError, match="no ready builds"):
        ready.taken([dotnet_program], folder)


def test_a_scenario_that_only_a_ready_build_may_not_know_is_not_built(tmp_path: Path) -> None:
    here, beside, log = build(tmp_path), Beside("home", 1, 2), tmp_path / "run.log"
    [built] = play(here, beside, log, ["unknown"])
    [made_elsewhere] = play(replace(here, ready=True), beside, log, ["unknown"])
    assert [built.result, made_elsewhere.result] == ["fail", "not built"]
    column = Column(here, {"unknown": made_elsewhere})
    assert (column.mark("unknown"), column.failed) == ("not built", [])


# --- newer versions --------------------------------------------------------------------------------------------------


def test_of_each_package_the_newest_version_that_is_tested_is_compared(tmp_path: Path) -> None:
    versions = (("a", "v1.9.0"), ("a", "v1.10.0"), ("a + b", "1.2.0 + 0.4.1"))
    found = [build(tmp_path, package=package, version=version) for package, version in versions]
    assert [(pin.package, pin.version) for pin in newest.pins(found)] == [("a", "1.10.0"), ("b", "0.4.1")]


@pytest.mark.parametrize(
    ("language", "said", "version"),
    [
        ("Python", "sdk (1.12.0)\nAvailable versions: 1.12.0, 1.9.0\n  LATEST:    1.13.0", "1.12.0"),
        ("JavaScript", "0.4.0\n", "0.4.0"),
        ("Go", "sdk v0.14.0\n", "0.14.0"),
        ("Rust", "sdk #workflow\nversion: 0.20.0\nrust-version: 1.88.0\n", "0.20.0"),
        ("Java", "[INFO]   of:other .......... 1.0 -> 2.0\n[INFO]   sdk .......... 1.17.1 -> 1.18.1\n", "1.18.1"),
        ("Java", "[INFO] No dependencies in Dependencies have newer versions.\n", None),
        ("C#", '{"packages": [{"version": "1.9.0"}, {"version": "1.28.0"}, {"version": "1.29.0-rc.1"}]}', "1.28.0"),
        ("Go", "go: module sdk: reading the list: 403 Forbidden", None),
    ],
)
def test_the_newest_version_is_read_from_what_the_client_of_a_registry_says(
    language: str, said: str, version: str | None, tmp_path: Path
) -> None:
    assert newest.served(newest.Pin("sdk", "1.0", build(tmp_path, language=language)), said) == version


@pytest.mark.parametrize(
    ("version", "text", "fault"),
    [
        ("1.10.1", "1.10.0 is tested, and 1.10.1 is served", True),
        ("1.11.0", "1.10.0 is tested; 1.11.0 is not: it is broken", False),
        ("1.9.9", "1.10.0, and nothing newer is served", False),
        (None, "1.10.0, and nothing newer is served", False),
    ],
)
def test_a_newer_version_is_a_fault_unless_it_is_passed_over(
    version: str | None, text: str, fault: bool, tmp_path: Path
) -> None:
    pin = newest.Pin("sdk", "1.10.0", build(tmp_path, passed_over={"1.11.0": "it is broken"}))
    assert newest.verdict(pin, version) == (text, fault)


def test_each_language_of_the_matrix_has_a_registry_to_ask() -> None:
    assert all(pin.command for pin in newest.pins(builds()))


# --- pairs, and the README --------------------------------------------------------------------------------------------


def test_pairs_are_of_one_build_for_each_language_and_family_and_say_what_they_leave_out(tmp_path: Path) -> None:
    found = [
        build(tmp_path, id=id_, family=family) for id_, family in (("a", "dapr"), ("b", "dapr"), ("c", "microsoft"))
    ]
    chosen = pairs.one_of_each(found)
    assert [each.id for each in chosen.played] == ["a", "c"]
    lines = {("a", "c"): Line("inputs", "fail", "[1] for 1"), ("c", "a"): Line("inputs", "pass")}
    text = pairs.table(["a", "c"], lines) + pairs.details(lines, chosen.left_out)
    assert [line.split() for line in text.splitlines()[2:4]] == [["a", "not", "run", "FAIL"], ["c", "ok", "not", "run"]]
    assert "1 of 4 pairs" in text
    assert "FAIL a calls c\n    [1] for 1" in text
    assert "b: a stands for it" in text


def test_the_table_of_the_readme_has_every_build_and_every_scenario() -> None:
    text = (ROOT / "README.md").read_text()
    header, _, *rows = text[text.index("| | Dapr") :].split("\n\n")[0].splitlines()
    assert header.strip("| ").split(" | ") == [report.title(each) for each in builds()]
    assert [row.split("`")[1] for row in rows] == list(SCENARIOS)
    assert {len(row.split("|")) - 3 for row in rows} == {len(builds())}
