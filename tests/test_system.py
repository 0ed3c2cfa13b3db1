"""What only some platforms have: what is done here, and instead of it elsewhere."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar import system

MIB = 2**20


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("hidden", [[], ["uvloop"]])
def test_a_coroutine_runs_with_and_without_uvloop(monkeypatch: pytest.MonkeyPatch, hidden: list[str]) -> None:
    for module in hidden:
        hide(monkeypatch, module)
    kinds: list[str] = []

    async def main() -> None:
        kinds.append(type(asyncio.get_running_loop()).__module__.split(".")[0])

    system.run(main())
    assert kinds == (["asyncio"] if hidden else ["uvloop"])


async def test_a_signal_calls_in_the_loop() -> None:
    told: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        system.on_signals([signal.SIGUSR1], told.set_result)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await asyncio.wait_for(told, 5) == signal.SIGUSR1
        system.ignore_signals([signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signals_that_a_platform_lacks_are_left_out() -> None:
    assert system.END_SIGNALS == (signal.SIGTERM, signal.SIGINT)
    assert system._that_exist("SIGTERM", "SIGBREAK") == (signal.SIGTERM,)


def test_most_files_is_the_limit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    system.raise_most_files(min(soft, 16))
    assert system.most_files() == soft
    hide(monkeypatch, "resource")
    system.raise_most_files(2 * soft)
    assert system.most_files() is None


def test_this_process_has_some_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert system.resident_bytes() > MIB
    system.give_back_memory()
    monkeypatch.setattr(system, "_STATM", tmp_path / "none")
    assert system.resident_bytes() == 0


@pytest.mark.parametrize("hidden", [False, True])
def test_space_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hidden: bool) -> None:
    if hidden:
        monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "file").open("wb") as file:
        system.allocate(file.fileno(), MIB + 1)
        status = os.fstat(file.fileno())
    assert status.st_size == MIB + 1
    assert status.st_blocks * 512 >= MIB
    system.sync(tmp_path / "file")
    system.sync(tmp_path)


def test_an_address_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
        system.claim_address(second)
        with pytest.raises(OSError, match="in use"):
            second.bind(first.getsockname())


def test_a_group_ends_with_what_its_first_has_started() -> None:
    command = ["sh", "-c", "trap '' TERM; sleep 60 & echo started; wait; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, **system.own_group()) as first:
        assert first.stdout is not None
        first.stdout.readline()
        system.signal_group(first.pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.2)
        assert system.group_lives(first.pid)
        system.kill_group(first.pid)
        assert first.wait(5) == -signal.SIGKILL
        assert first.stdout.read() == b""  # `sleep`, which has it too, is gone
    system.signal_group(first.pid, signal.SIGTERM)
    system.kill_group(first.pid)
    end = time.monotonic() + 5
    while system.group_lives(first.pid) and time.monotonic() < end:
        time.sleep(0.01)


def test_a_process_has_the_name_that_it_gives_itself() -> None:
    ask = "from sidecar import system; system.name_process('named'); print(open('/proc/self/stat').read())"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    assert " (named) " in asked.stdout


def test_a_process_keeps_its_name_where_it_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: None) -> None:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", none)
    system.name_process("named")


def test_who_is_started_by_nohup_outlives_its_terminal() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert not system.outlives_terminal()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert system.outlives_terminal()
    finally:
        signal.signal(signal.SIGHUP, before)
