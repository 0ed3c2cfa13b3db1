"""The story that the examples print, told of a made-up run; the real run is `make demo`."""

import io
import json
from pathlib import Path

import report
from rich.console import Console

Note = report.Note

RUN = [
    Note(100.0, "orders", "place_order starts"),
    Note(101.1, "ml", "score_item lamp"),
    Note(101.2, "ml", "score_item desk"),
    Note(101.3, "ml", report.KILLED),
    Note(102.1, "ml", "score_item chair"),
    Note(102.4, "ml", report.RESTARTED),
    Note(103.5, "ml", "score_item chair"),
    Note(103.6, "ml", "score_item shelf"),
    Note(104.5, "ml", "score_item rug"),
    Note(104.6, "ml", "score_item clock"),
    Note(104.7, "logistics", "ship starts"),
    Note(104.8, "orders", "reserve_stock"),
    Note(104.9, "logistics", "print_label"),
    Note(105.0, "orders", "place_order ends"),
]


def told(result: object, notes: list[report.Note]) -> str:
    console = Console(file=io.StringIO(), width=100)
    report.show(console, notes, result, report.differences(result, notes), 5.0)
    return console.file.getvalue()


def test_a_run_that_went_well_is_told_with_its_crash_and_what_ran_twice() -> None:
    story = told(report.EXPECTED, RUN)
    assert "1.30   │                       ✗ sidecar killed (-9)   │" in story
    assert "3.50   │                       ↻ score_item chair" in story
    assert "Ran again: score_item chair." in story
    assert "The result is right: one workflow, three apps, two SDKs, one crash, 5.0 s." in story
    assert "\x1b" not in story  # no colours where there is no terminal


def test_a_wrong_result_is_not_called_right() -> None:
    story = told(report.EXPECTED | {"total": 3}, RUN)
    assert "total: expected 298, got 3" in story
    assert "The result is right" not in story
    assert "counted" not in story


def test_work_that_is_missing_or_in_the_wrong_app_is_a_difference() -> None:
    assert report.differences(report.EXPECTED, RUN) == []
    assert report.differences(report.EXPECTED, RUN[:-2]) == ["print_label never ran in the app logistics"]
    stray = [*RUN, Note(106.0, "ml", "reserve_stock")]
    assert report.differences(report.EXPECTED, stray) == ["reserve_stock has no business in the app ml"]
    assert report.differences(None, RUN) == ["the result is None, not an object"]


def test_a_line_that_is_still_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    log = tmp_path / "work.jsonl"
    assert report.read_notes(log) == []
    line = json.dumps({"app": "ml", "what": "score_item lamp", "when": 1.0, "pid": 7})
    log.write_text(f'{line}\n{{"app": "or')
    assert report.read_notes(log) == [Note(1.0, "ml", "score_item lamp")]
