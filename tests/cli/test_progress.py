"""A command that takes long says how far it is, and one that does not says nothing."""

import re
import sys
import threading
import time

import pytest

from sidecar.cli import progress
from tests.cli.live import Terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the first sign."""
    for name in ("_FIRST", "_EVERY", "_BAR_AFTER"):
        monkeypatch.setattr(progress, name, 0.01)


@pytest.mark.usefixtures("at_once")
def test_in_a_pipe_a_command_that_takes_long_writes_lines_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal(is_terminal=False)
    monkeypatch.setattr(sys, "stderr", out)
    with progress.progress("the store") as told:
        seen(out, "sidecar: 0 s: the store\n")
        told(0, None, "each reminder")
        seen(out, "sidecar: 0 s: each reminder\n")
        told(2_000, None)
        seen(out, "sidecar: 0 s: each reminder: 2,000\n")
        told(2_000, 30_000)
        seen(out, "sidecar: 0 s: each reminder: 2,000 of 30,000\n")
    assert "\x1b" not in out.written()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("columns", [40, 200])
def test_on_a_terminal_it_shows_a_bar_that_fits_and_goes(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", str(columns))):
        monkeypatch.setenv(name, value)
    with progress.progress("the store") as told:
        seen(terminal, "the store")
        told(0, 10_000, "pages copied")
        seen(terminal, "pages copied")
        told(5_000, 10_000)
        seen(terminal, "5,000 of 10,000")
    written = terminal.written()
    assert written.endswith("\x1b[2K")  # it is gone at the end
    assert max(len(ESCAPE.sub("", line)) for line in re.split(r"[\r\n]", written)) <= columns


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_command_that_is_done_at_once_says_nothing(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> None:
    out = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", out)
    with progress.progress("the store") as told:
        told(1, 1)
    assert out.written() == ""


def seen(out: Terminal, text: str) -> None:
    """Wait until something is written."""
    end = time.monotonic() + 20
    while text not in out.written():
        assert time.monotonic() < end, out.written()
        time.sleep(0.005)
