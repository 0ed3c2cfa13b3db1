"""The command as a process at a real terminal, and the completion of shells."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.cli.live import Command
from tests.inprocess.sidecars import Node
from tests.inprocess.world import until


def at_terminal(arguments: list[str], columns: int, **variables: str) -> tuple[int, str]:
    """Exit code of a command, and what a terminal of so many columns got from it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "sidecar", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ | {"TERM": "xterm"} | variables
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # so ends a terminal that nobody has open
            pass
        os.close(ours)
    return process.returncode, written.decode()


@pytest.mark.slow
async def test_a_real_terminal_has_its_width_and_colours(shop: Node, run: Command) -> None:
    arguments = ["workflow", "list", "--grpc-port", str(shop.ports.grpc[0])]
    code, wide = await asyncio.to_thread(at_terminal, arguments, 200)
    assert (code, "\x1b[31mFAILED" in wide, "NAME" in wide.splitlines()[0]) == (0, True, True)
    code, narrow = await asyncio.to_thread(at_terminal, arguments, 40, NO_COLOR="1")
    assert (code, "\x1b[3" in narrow) == (0, False)
    assert max(map(len, narrow.split("\r\n"))) <= 40


@pytest.mark.slow
async def test_what_is_done_at_once_shows_no_bar(shop: Node, run: Command) -> None:
    arguments = ["workflow", "terminate", "--all", "--grpc-port", str(shop.ports.grpc[0]), "--yes"]
    code, written = await asyncio.to_thread(at_terminal, arguments, 80)
    assert (code, written) == (0, "sidecar: 2 workflows terminated\r\n")


@pytest.mark.slow
def test_shells_complete_commands_and_options() -> None:
    def completed(line: str) -> str:
        environ = os.environ | {"_SIDECAR_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
        command = [sys.executable, "-m", "sidecar"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30).stdout

    for verb in ("resume", "rerun", "restart", "rewind"):
        assert f'"{verb}"' in completed("sidecar workflow re")
    assert '"--filter-status"' in completed("sidecar workflow list --filter")
    assert '"yaml"' in completed("sidecar workflow list -o ")


@pytest.mark.slow
def test_a_shell_that_was_set_up_by_install_completion_completes(tmp_path: Path) -> None:
    environ = os.environ | {"HOME": str(tmp_path), "SIDECAR": f"{Path(sys.executable).parent}/sidecar"}
    script = (
        '"$SIDECAR" --install-completion bash > /dev/null && source ~/.bashrc && complete -p sidecar && '
        'COMP_WORDS=(sidecar workflow sus) COMP_CWORD=2 && _sidecar_completion "$SIDECAR" && echo "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", script]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["complete -o default -F _sidecar_completion sidecar", "suspend"]


def process(*arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sidecar", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, check=False, timeout=60)


@pytest.mark.slow
async def test_names_that_are_no_ascii_work_in_any_locale(shop: Node, run: Command) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    port = ["--grpc-port", str(shop.ports.grpc[0])]
    made = await asyncio.to_thread(process, "workflow", "run", "idle", "-i", "é-日本", *port, **plain)
    assert (made.returncode, made.stdout.decode()) == (0, "é-日本\n")
    shown = await asyncio.to_thread(process, "workflow", "history", "é-日本", *port, **plain)
    assert (shown.returncode, "é-日本  idle" in shown.stdout.decode()) == (0, True)
    wrong = await asyncio.to_thread(process, "workflow", "get", b"\xff", *port)
    assert (wrong.returncode, wrong.stderr) == (2, b"sidecar: an argument is not UTF-8 text\n")


@pytest.mark.slow
async def test_a_wait_ends_with_ctrl_c_and_without_a_traceback(shop: Node, run: Command) -> None:
    """Also if it comes twice."""
    command = [sys.executable, "-m", "sidecar", "workflow", "wait", "d", "--grpc-port", str(shop.ports.grpc[0])]
    process = await asyncio.create_subprocess_exec(
        *command,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    watchers = shop.sidecar.engine.actor(("default", "d")).watchers
    try:
        await until(lambda: watchers, 30)
        process.send_signal(signal.SIGINT)
        await until(lambda: not watchers, 30)
        process.send_signal(signal.SIGINT)
        _, written = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, b"Traceback" in written) == (130, False)
