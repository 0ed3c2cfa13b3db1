"""A command that takes long says so, and one that does not says nothing."""

import time

import pytest

from sidecar.cli.progress import Progress


def test_a_command_that_takes_long_says_on_what(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(first=0.05, every=0.05) as progress:
        progress.at("each reminder")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert lines[-1].startswith("sidecar: 0 s: each reminder")


def test_a_command_that_is_done_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress():
        pass
    assert capsys.readouterr().err == ""
