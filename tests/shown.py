"""What tests show: the test functions of the sources, and what became of them in a run (JUnit XML)."""

import ast
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_WORST = ("not run", "passed", "skipped", "failed")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Outcome:
    """What became of a test function: the worst of its cases, how many there were, and the faults they injected."""

    result: str = "not run"
    cases: int = 0
    injected: list[str] = field(default_factory=list)


def functions(folder: Path = ROOT / "tests") -> Iterator[tuple[str, Function]]:
    """The test functions below a folder, each with its name as pytest writes it, without importing them."""
    for file in sorted(folder.rglob("test_*.py")):
        for function in ast.parse(file.read_text()).body:
            if isinstance(function, Function) and function.name.startswith("test_"):
                yield f"{file.relative_to(ROOT)}::{function.name}", function


def run(tests: Iterable[str], xml: Path) -> None:
    """Run tests; what became of them is in the file."""
    xml.parent.mkdir(exist_ok=True)
    pytest.main(["-q", f"--junitxml={xml}", *(str(ROOT / test) for test in dict.fromkeys(tests))])


def outcomes(*files: Path) -> dict[str, Outcome]:
    """What became of each test function, in one or more runs."""
    found: dict[str, Outcome] = defaultdict(Outcome)
    for case in (case for xml in files for case in ET.parse(xml).iter("testcase")):  # noqa: S314 (of our own runs)
        module = str(case.get("classname")).replace(".", "/")
        outcome = found[f"{module}.py::{str(case.get('name')).partition('[')[0]}"]
        tags = {child.tag for child in case}
        result = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        outcome.result = max(outcome.result, result, key=_WORST.index)
        outcome.cases += 1
        outcome.injected += [str(each.get("value")) for each in case.iter("property") if each.get("name") == "injected"]
    return found
