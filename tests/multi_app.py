"""Prints which test shows which statement about multi-app workflows, and its result: `make multi-app`.

A test names the statements that it shows by their numbers in its docstring ("M31", "M4 to M6"). A statement without a
test, or with one that failed or was skipped, ends the run with 1. With files of results (JUnit XML) as arguments it
runs nothing.
"""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

from tests import shown

STATEMENTS = range(1, 95)
_NUMBER = re.compile(r"\bM(\d+)\b(?:\s+to\s+M(\d+)\b)?")


def numbers(text: str) -> set[int]:
    """The statements that a docstring names."""
    found: set[int] = set()
    for first, last in _NUMBER.findall(text):
        found.update(range(int(first), int(last or first) + 1))
    return found & set(STATEMENTS)


def tests_by_statement() -> dict[int, list[str]]:
    """The tests that name each statement."""
    found: dict[int, list[str]] = defaultdict(list)
    for test, function in shown.functions():
        for number in numbers(ast.get_docstring(function) or ""):
            found[number].append(test)
    return found


def main(arguments: list[str]) -> int:
    tests = tests_by_statement()
    results = [Path(each) for each in arguments] or [shown.ROOT / "build" / "multi-app.xml"]
    if not arguments:
        shown.run((test for each in tests.values() for test in each), results[0])
    outcomes = shown.outcomes(*results)
    missing = []
    for number in STATEMENTS:
        found = [outcomes[test].result for test in tests[number]]
        result = next((each for each in found if each != "passed"), "ok") if found else "missing"
        names = ", ".join(test.removeprefix("tests/").replace(".py::", "::") for test in tests[number])
        print(f"M{number:<3} {result:<8} {names}")
        if result != "ok":
            missing.append(f"M{number}")
    text = f"; not: {', '.join(missing)}" if missing else ""
    print(f"\n{len(STATEMENTS) - len(missing)} of {len(STATEMENTS)} statements shown{text}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
