"""Runs the tests of faults and writes docs/reliability.md from what they report: `make reliability`.

A test that shows what a fault must not do is marked `@pytest.mark.fault(number, "the promise")` and notes by the
fixture `injected` how often the fault came about; where it does not, its cases are the faults. With files of results
(JUnit XML) as arguments it runs nothing. The long runs (simulation, chaos, fuzzing) leave their figures in
build/figures, which go into the document too.
"""

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests import shown
from tests.shown import Outcome

DOCUMENT = shown.ROOT / "docs" / "reliability.md"
FIGURES = shown.ROOT / "build" / "figures"

FAULTS = {
    1: "The sidecar is killed (`kill -9`) at any point around a commit",
    2: "A worker is killed in the middle of a turn or an activity",
    3: "Both sidecars of a call are killed, at each step of it",
    4: "The machine fails: pages that were not synced are lost",
    5: "The disk is full: at the start, while running, at a checkpoint",
    6: "`fsync` fails, once or for good",
    7: "The file system becomes read-only",
    8: "Another process holds the database locked",
    9: "The database file is damaged, or is not ours",
    10: "Two sidecars on one data directory; a copied store",
    11: "The clock is set forward or back",
    12: "The process is stopped for 30 s and goes on",
    13: "A worker completes the same work 2 to 100 times",
    14: "A worker completes too late",
    15: "A worker completes what it was not given, or on an old history",
    16: "A worker never answers",
    17: "A worker's stream breaks while an activity runs",
    18: "A worker reads its stream slowly, or not at all",
    19: "A connection is dead without having been closed",
    20: "The other app is down at the first call",
    21: "The other app comes and goes",
    22: "The network lets requests through and loses the answers",
    23: "A peer has the wrong app ID, namespace or protocol version",
    24: "A message is too large",
    25: "Malformed and hostile input",
    26: "Thousands of streams and connections; no file descriptor left",
    27: "Clients that send a byte a second, or nothing",
    28: "Work that kills each worker which takes it",
    29: "Results that grow and grow",
    30: "Thousands of reminders due at once after a day of downtime",
    31: "One slow handler",
    32: "Purge, terminate, suspend and reuse of an ID race with the work",
    33: "Bursts of events for a workflow that continues as new",
    34: "Each write to the store may fail",
    35: "A wake-up is lost",
    36: "Upgrade of the store and of one peer before the other; death in a migration",
    37: "All workers leave, and others come",
    38: "SIGTERM under load, twice, and with a full disk",
    39: "Much to remember: sleeping instances, names, waits",
    40: "The event loop is blocked for seconds",
    41: "A token or certificate is wrong, missing, expired or renewed",
    42: "One ID is started many times at once",
    43: "A store is restored, wiped, or goes back with the disk or machine under it",
    44: "Times of schedules come while the sidecar is killed, away, or its clock or store goes back",
}


class Promise(NamedTuple):
    """What a marked test shows: `test` is its path and name, as pytest writes it."""

    fault: int
    text: str
    test: str


def promises() -> Iterator[Promise]:
    """What the marked tests show."""
    for test, function in shown.functions():
        for call in function.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault":
                number, text = (ast.literal_eval(argument) for argument in call.args)
                yield Promise(number, text, test)


def document(found: list[Promise], outcomes: Mapping[str, Outcome]) -> str:
    """The text of docs/reliability.md."""
    rows = ["| fault | promise | test | injected | result |", "| --- | --- | --- | --- | --- |"]
    for number, name in FAULTS.items():
        for one in (each for each in found if each.fault == number):
            file, _, function = one.test.partition("::")
            outcome = outcomes.get(one.test, Outcome())
            injected = "; ".join(dict.fromkeys(outcome.injected)) or _cases(outcome.cases)
            cells = [f"{number}. {name}", one.text, f"[{function}](../{file})", injected, outcome.result]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([HEAD, *rows, "", *_long_runs()])


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _long_runs() -> list[str]:
    figures = [json.loads(file.read_text()) for file in sorted(FIGURES.glob("*.json"))]
    return ["## Long runs", "", *(f"- `{each['command']}`: {each['result']}" for each in figures), ""]


def keep_figures(name: str, command: str, result: str) -> None:
    """Keep what a long run came to, in a sentence, for the document."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.json").write_text(json.dumps({"command": command, "result": result}))


HEAD = """# What faults do to it

Each line names a fault, what the sidecar promises, the test that shows it, and how often the fault came about in the
last run of `make reliability`, which writes this page. A test that injected nothing fails. There is no promise here
without a test.
"""


def main(arguments: list[str]) -> int:
    found = list(promises())
    results = [Path(each) for each in arguments] or [shown.ROOT / "build" / "reliability.xml"]
    if not arguments:
        shown.run((each.test for each in found), results[0])
    outcomes = shown.outcomes(*results)
    DOCUMENT.write_text(document(found, outcomes))
    bad = [each.test for each in found if outcomes[each.test].result != "passed"]
    print("\n".join([*bad, f"{len(found) - len(bad)} of {len(found)} promises kept"]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
