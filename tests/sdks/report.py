"""What a run of the matrix found: as a table to read, as Markdown, and as JSON."""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.sdks.programs import Line
from tests.sdks.sdks import BUILDS, Build

_MARKS = {"pass": "ok", "not offered": "\N{EN DASH}", "fail": "FAIL", "not built": "not built"}
_NOT_RUN = "not run"
_SHORT = {"C#": ".NET", "JavaScript": "JS", "Python": "Py"}


@dataclass(slots=True)
class Column:
    """One build and what became of it: a line for each scenario, or why it was not run."""

    build: Build
    lines: Mapping[str, Line] = field(default_factory=dict)
    not_run: str = ""
    excused: bool = False

    def mark(self, scenario: str) -> str:
        return mark(self.lines.get(scenario))

    @property
    def failed(self) -> list[Line]:
        return [line for line in self.lines.values() if line.result == "fail"]


def mark(line: Line | None) -> str:
    """What a cell shows."""
    return _MARKS[line.result] if line else _NOT_RUN


def say(text: str) -> None:
    """To whoever reads along."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(columns: Sequence[Column], scenarios: Sequence[str]) -> str:
    """For a terminal: the names of the builds hang above their columns."""
    ids = [column.build.id for column in columns]
    first, width = max(len(name) for name in scenarios), 10
    lines = []
    for number, id_ in enumerate(ids):
        lines.append(" " * first + "  " + "│".ljust(width) * number + id_)
    rows = [_row(name, [column.mark(name) for column in columns], first, width) for name in scenarios]
    counts = [f"{sum(line.result == 'pass' for line in column.lines.values())} ok" for column in columns]
    return "\n".join([*lines, *rows, _row("", counts, first, width)])


def _row(name: str, marks: Sequence[str], first: int, width: int) -> str:
    return name.ljust(first) + "  " + "".join(mark.ljust(width) for mark in marks).rstrip()


def details(columns: Sequence[Column]) -> str:
    """Below the table: what failed and how, what was not run, and why something is not offered."""
    parts = list(_failures(columns))
    if ready := [column.build.id for column in columns if column.build.ready]:
        parts.append(f"\nBuilt elsewhere, of these sources: {', '.join(ready)}")
    reasons: dict[str, list[str]] = {}
    for column in columns:
        for line in column.lines.values():
            if line.result == "not offered":
                reasons.setdefault(f"{line.scenario}: {line.detail}", []).append(column.build.id)
            elif line.result == "pass" and line.detail:
                reasons.setdefault(f"{line.scenario}, in part: {line.detail}", []).append(column.build.id)
    if reasons:
        parts.append("\nNot offered:")
        parts += [f"  {reason} ({', '.join(ids)})" for reason, ids in reasons.items()]
    return "\n".join(parts)


def _failures(columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        if column.not_run:
            yield f"\n{column.build.id} was not run: {column.not_run}"
        for line in column.failed:
            yield f"\nFAIL {column.build.id} {line.scenario} ({line.seconds:.1f} s)"
            yield textwrap.indent(line.detail, "    ")


def title(build: Build) -> str:
    """The build's name in the README: `python-dapr-1.19` is "Dapr Py 1.19"."""
    _, _, *rest = build.id.split("-")
    family = "MS" if build.family == "microsoft" else "Dapr"
    return " ".join([family, _SHORT.get(build.language, build.language), *rest])


def save(columns: Sequence[Column], scenarios: Sequence[str]) -> None:
    """Writes build/sdks/matrix.json and matrix.md."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = [
        {
            "id": column.build.id,
            "package": column.build.package,
            "version": column.build.version,
            "ready": column.build.ready,
            "not_run": column.not_run,
            "scenarios": [line.as_json() for line in column.lines.values()],
        }
        for column in columns
    ]
    (BUILDS / "matrix.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (BUILDS / "matrix.md").write_text(markdown(columns, scenarios))


def markdown(columns: Sequence[Column], scenarios: Sequence[str]) -> str:
    """The table as the README has it: a row for each scenario, and the packages below."""
    rows = ["| | " + " | ".join(title(column.build) for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in scenarios:
        rows.append(f"| `{name}` | " + " | ".join(column.mark(name) for column in columns) + " |")
    rows += ["", "| build | package | |", "|---|---|---|"]
    for column in columns:
        build = column.build
        rows.append(f"| {build.id} | {build.package} {build.version} | {build.reason} |")
    return "\n".join(rows) + "\n"
