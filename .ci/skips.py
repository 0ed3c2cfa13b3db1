"""Counts the tests of a run (JUnit XML) and fails if one was skipped that the list does not allow.

usage: skips.py TESTS_XML ALLOWED

ALLOWED has one line a test, `tests.test_module::test_name`, and after a `#` the reason; a `*` stands for
anything.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path


def read_allowed(path: Path) -> list[str]:
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def main(tests_xml: str, allowed_list: str) -> int:
    allowed = read_allowed(Path(allowed_list))
    counts: Counter[str] = Counter()
    forbidden = []
    for case in ET.parse(tests_xml).iter("testcase"):  # noqa: S314 (written by our own test run)
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        outcome = next((tag for tag in ("failure", "error") if case.find(tag) is not None), "passed")
        if skipped is not None:
            outcome = "skipped, as allowed"
            if not any(fnmatchcase(name, one) for one in allowed):
                outcome = "skipped"
                forbidden.append(f"{name}: {skipped.get('message')}")
        counts[outcome] += 1
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "no tests")
    for line in forbidden:
        print(f"skipped, and not in {allowed_list}: {line}")
    return 1 if forbidden or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
