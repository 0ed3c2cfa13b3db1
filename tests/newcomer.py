"""The way of a newcomer, timed: from an empty environment to an own workflow over two apps, by the README alone.

`python -m tests.newcomer` builds the wheel, puts the three files of the README's example into an empty folder and types
its commands at one terminal, until the workflow has its result; Ctrl-C ends it. What is installed is downloaded before,
so that the time is not that of the network. Ends with 1 if it takes longer than three minutes, or does not work.
"""
# ruff: noqa: T201 - it is a program

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LIMIT = 180.0  # seconds
RESULT = re.compile(r'greeter +│ "HELLO WORLD"')
PLACE = "THE-FOLDER-OF-THIS-README"
_PROMPT = re.compile(r"<(\d+)>\$ $")
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Guide(NamedTuple):
    """What the README says: files to write, by name, and commands to type."""

    files: dict[str, str]
    commands: list[str]


def guide(readme: str) -> Guide:
    """Return what the README says about its small example: blocks with a name, and the commands behind them."""
    (part,) = re.findall(r"\n## A small example with two apps\n(.*?)\n## ", readme, re.DOTALL)
    blocks = re.findall(r"```\w+\n(# (\S+)\n.*?)```", part, re.DOTALL)
    behind = part[part.rindex("```") :].splitlines()
    commands = [line.split("  #")[0].strip() for line in behind if line.startswith("    ")]
    return Guide({name: text for text, name in blocks}, commands)


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
        environ = {**kept, "TERM": "xterm", "PS1": "<$?>$ ", "VIRTUAL_ENV_DISABLE_PROMPT": "1", **variables}
        self.written = ""
        self._pid, self._end = pty.fork()
        if not self._pid:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], environ)  # noqa: S606 - the newcomer's
        self.until(_PROMPT)

    def type(self, keys: str) -> None:
        """Press keys."""
        self.written = ""
        os.write(self._end, keys.encode())

    def until(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Read what is written until a pattern is in it. Raises SystemExit: it never is."""
        end = time.monotonic() + LIMIT
        while (found := pattern.search(self.written)) is None:
            ready, _, _ = select.select([self._end], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                sys.exit(f"in {LIMIT:.0f} s nothing but this has come:\n{self.written}")
            self.written += _CONTROLS.sub("", os.read(self._end, 65536).decode(errors="replace"))
        return found

    def run(self, command: str) -> None:
        """Type a command and wait for its end. Raises SystemExit: it has failed."""
        self.type(f"{command}\n")
        if self.until(_PROMPT)[1] != "0":
            sys.exit(f"`{command}` has failed:\n{self.written}")

    def close(self) -> None:
        """End the shell, and all that it has started."""
        os.kill(self._pid, signal.SIGHUP)
        os.close(self._end)
        os.waitpid(self._pid, 0)


def follow(guide: Guide, folder: Path, variables: Mapping[str, str]) -> list[tuple[str, float]]:
    """Do what a guide says in an empty folder; return the commands with the seconds that each took.

    The last one runs the workflow, and is ended by Ctrl-C once there is the result. Raises SystemExit.
    """
    for name, text in guide.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    terminal, times = Terminal(folder, variables), []
    try:
        for command in guide.commands:
            began = time.monotonic()
            if command is guide.commands[-1]:
                terminal.type(f"{command}\n")
                terminal.until(RESULT)
            else:
                terminal.run(command)
            times.append((command, time.monotonic() - began))
        began = time.monotonic()
        terminal.type("\x03")
        terminal.until(_PROMPT)
        return [*times, ("Ctrl-C", time.monotonic() - began)]
    finally:
        terminal.close()


def main() -> int:
    """Go the whole way and say how long each part took."""
    found = guide((ROOT / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        wheels, folder = base / "wheels", base / "own"
        folder.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(base), str(ROOT)], check=True)
        (wheel,) = base.glob("*.whl")
        wanted = [str(wheel) if one == PLACE else one for one in _installed(found)]
        began = time.monotonic()
        subprocess.run([*pip, "download", "--dest", str(wheels), *wanted], check=True)
        print(f"{time.monotonic() - began:7.1f} s  downloads, which do not count")
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_CACHE_DIR": "1"}
        commands = [one.replace(PLACE, str(wheel)) for one in found.commands]
        times = follow(found._replace(commands=commands), folder, offline)
    for command, seconds in times:
        print(f"{seconds:7.1f} s  {command}")
    total = sum(seconds for _, seconds in times)
    print(f"{total:7.1f} s  in all; allowed are {LIMIT:.0f}")
    return int(total > LIMIT)


def _installed(found: Guide) -> list[str]:
    (line,) = (one for one in found.commands if one.startswith("pip install "))
    return line.removeprefix("pip install ").split()


if __name__ == "__main__":
    sys.exit(main())
