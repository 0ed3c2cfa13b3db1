"""Tells the story of the example to a person: who did what, when and how often, and if the result is right.

Used by `demo.py` on a laptop and by `customer.py` in containers. It knows the story (the three apps and the
order) but starts nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.json import JSON
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

COLOURS = {"orders": "cyan", "ml": "magenta", "logistics": "yellow"}

SCORES = {"lamp": 34, "desk": 58, "chair": 89, "shelf": 19, "rug": 44, "clock": 54}
EXPECTED = {
    "order": "o-1001",
    "scores": SCORES,
    "total": 298,
    "shipment": {"reservation": "6 items reserved", "label": "LABEL-O-1001"},
}
WORK = [
    ("orders", "place_order"),
    *(("ml", f"score_item {item}") for item in SCORES),
    ("logistics", "ship"),
    ("orders", "reserve_stock"),
    ("logistics", "print_label"),
]

KILLED, RESTARTED = "sidecar killed (-9)", "sidecar is back"


@dataclass(frozen=True, order=True)
class Note:
    """One line of the log: at a time (seconds since 1970), an app did something."""

    when: float
    app: str
    what: str

    @property
    def work(self) -> str:
        """The piece of work this note is about; none for an end, and for what the demo did to a sidecar."""
        if self.what in (KILLED, RESTARTED) or self.what.endswith(" ends"):
            return ""
        return self.what.removesuffix(" starts")


def read_notes(log: Path) -> list[Note]:
    """What the apps have noted so far, in the order of time."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be half written
    return sorted(Note(entry["when"], entry["app"], entry["what"]) for entry in entries)


def count_runs(notes: Iterable[Note]) -> Counter[tuple[str, str]]:
    """How often each piece of work ran, by app and name."""
    return Counter((note.app, note.work) for note in notes if note.work)


def differences(result: object, notes: Iterable[Note]) -> list[str]:
    """What is wrong with the result or with the work that led to it; empty if all is right."""
    if not isinstance(result, dict):
        return [f"the result is {result!r}, not an object"]
    wrong = [
        f"{key}: expected {EXPECTED.get(key)!r}, got {result.get(key)!r}"
        for key in sorted(EXPECTED.keys() | result.keys())
        if EXPECTED.get(key) != result.get(key)
    ]
    runs = count_runs(notes)
    wrong += [f"{work} never ran in the app {app}" for app, work in WORK if (app, work) not in runs]
    wrong += [f"{work} has no business in the app {app}" for app, work in sorted(runs.keys() - set(WORK))]
    return wrong


def timeline(notes: Sequence[Note]) -> Table:
    """One lane an app, one row a note; the lane of an app whose sidecar is down is dotted."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("time", justify="right", min_width=5, style="dim")
    for app, colour in COLOURS.items():
        table.add_column(Text(app, style=f"bold {colour}"), min_width=len(f"✗ {KILLED}"), no_wrap=True)
    down: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for note in notes:
        if note.what == KILLED:
            down.add(note.app)
        elif note.what == RESTARTED:
            down.discard(note.app)
        again = bool(note.work) and (note.app, note.what) in seen
        seen.add((note.app, note.what))
        lanes = [_event(note, again) if app == note.app else _lane(app, app in down) for app in COLOURS]
        table.add_row(f"{note.when - notes[0].when:.2f}", *lanes)
    return table


def _event(note: Note, again: bool) -> Text:
    if note.what == KILLED:
        return Text(f"✗ {note.what}", style="bold red")
    if note.what == RESTARTED:
        return Text(f"✓ {note.what}", style="bold green")
    return Text(f"{'↻' if again else '●'} {note.what}", style=COLOURS[note.app])


def _lane(app: str, down: bool) -> Text:
    return Text("┊" if down else "│", style="red" if down else f"dim {COLOURS[app]}")


def how_often(notes: Iterable[Note]) -> Table:
    """How often each piece of work ran: at least once, and around a crash perhaps once more."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("app", "work", "ran"):
        table.add_column(heading)
    for (app, work), times in count_runs(notes).items():
        ran = Text({1: "once", 2: "twice"}.get(times, f"{times} times"), style="bold" if times > 1 else "")
        table.add_row(Text(app, style=COLOURS.get(app, "")), work, ran)
    return table


def remark(notes: Iterable[Note], right: bool) -> str:
    """What ran more than once, and why, in a sentence."""
    repeated = [work for (_, work), times in count_runs(notes).items() if times > 1]
    if not repeated:
        return "Nothing had to run twice."
    counted = " The workflow has counted each result once." if right else ""
    return (
        f"↻ Ran again: {', '.join(repeated)}. The result had not been stored when the sidecar died, so the "
        f"work was handed out once more.{counted}"
    )


def show(console: Console, notes: Sequence[Note], result: object, wrong: Sequence[str], seconds: float) -> None:
    """Print the whole story: the time line, how often what ran, and the result or what is wrong with it."""
    console.print(Text("\nWho did what, and when\n", style="bold"), timeline(notes))
    console.print(Text("How often it ran\n", style="bold"), how_often(notes), remark(notes, not wrong), "")
    colour = "red" if wrong else "green"
    body: list[JSON | Text] = [JSON.from_data(result, indent=2)]
    body += [Text(f"✗ {line}", style="bold red") for line in wrong]
    panel = Panel(Group(*body), title="The result", title_align="left", border_style=colour, expand=False)
    console.print(panel)
    if wrong:
        console.print("✗ The result is not right.", style="bold red")
        return
    crash = "one crash" if any(note.what == KILLED for note in notes) else "no crash"
    verdict = f"✓ The result is right: one workflow, three apps, two SDKs, {crash}, {seconds:.1f} s."
    console.print(verdict, style="bold green")
