"""Runs the tests of multi-app workflows and prints which test shows which statement: `make multi-app`.

A test names the statements that it shows by their numbers in its docstring ("M31", "M4 to M6"). A statement without a
test, or with one that failed or was skipped, ends the run with 1.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

STATEMENTS = range(1, 95)
_NUMBER = re.compile(r"\bM(\d+)\b(?:\s+to\s+M(\d+)\b)?")
_WORST = ("passed", "skipped", "failed")
ROOT = Path(__file__).resolve().parents[1]


def numbers(text: str) -> set[int]:
    """The statements that a docstring names."""
    found: set[int] = set()
    for first, last in _NUMBER.findall(text):
        found.update(range(int(first), int(last or first) + 1))
    return found & set(STATEMENTS)


class Table:
    """A plugin that keeps the tests that name a statement, and their outcomes."""

    def __init__(self) -> None:
        self.tests: dict[int, list[str]] = defaultdict(list)
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            named = numbers(getattr(getattr(item, "function", None), "__doc__", None) or "")
            for number in named:
                self.tests[number].append(item.nodeid)
            if named:
                kept.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.outcomes.get(report.nodeid, "passed")
        self.outcomes[report.nodeid] = max(before, report.outcome, key=_WORST.index)

    def rows(self) -> list[tuple[int, str, str]]:
        """Number, tests and result of each statement."""
        rows = []
        for number in STATEMENTS:
            tests = self.tests.get(number, [])
            results = [self.outcomes.get(test, "not run") for test in tests]
            bad = [result for result in results if result != "passed"]
            rows.append((number, _names(tests), "missing" if not tests else bad[0] if bad else "ok"))
        return rows


def _names(tests: list[str]) -> str:
    """The tests without their parameters, each with its file."""
    short = dict.fromkeys(re.sub(r"\[.*\]$", "", test) for test in tests)
    return ", ".join(name.removeprefix("tests/").replace(".py::", "::") for name in short)


def main(arguments: list[str]) -> int:
    table = Table()
    code = pytest.main([*arguments, "-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[table])
    rows = table.rows()
    print()
    for number, tests, result in rows:
        print(f"M{number:<3} {result:<8} {tests}")
    missing = [f"M{number}" for number, _, result in rows if result != "ok"]
    print(
        f"\n{len(rows) - len(missing)} of {len(rows)} statements shown"
        + (f"; not: {', '.join(missing)}" if missing else "")
    )
    return 1 if missing else int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
