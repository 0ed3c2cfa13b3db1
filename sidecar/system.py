"""What only some platforms have, so that nothing else asks where it runs: uvloop, `resource`, groups of processes, …

Each function does the best that can be done where it runs; its docstring says what is missing elsewhere.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")
_BLOCK = bytes(64 * 1024)
_PR_SET_NAME = 15  # of prctl(2)


def _that_exist(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


END_SIGNALS = _that_exist("SIGTERM", "SIGINT", "SIGBREAK")
"""Signals that ask a process to end: SIGBREAK is what a process of another group can send on Windows."""

INTERRUPT_SIGNALS = _that_exist("SIGINT")
"""The signal of Ctrl-C."""

HANGUP_SIGNALS = _that_exist("SIGHUP")
"""The signal of a terminal that goes away, which also has daemons read their files again. Windows has none."""


# --- event loop and signals -----------------------------------------------------------------------------------------


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, on uvloop where that is installed, which it cannot be on Windows."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def on_signals(signals: Iterable[signal.Signals], do: Callable[[signal.Signals], object]) -> None:
    """Have the running loop call a function, outside of the handler, at each of these signals."""
    loop = asyncio.get_running_loop()
    for number in signals:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(do, signal.Signals(number)))


def outlives_terminal() -> bool:
    """Whether whoever started this process has it pass over the end of its terminal, as nohup does."""
    return all(signal.getsignal(number) is signal.SIG_IGN for number in HANGUP_SIGNALS)


def end_with_terminal() -> None:
    """Have the running loop take the end of the terminal for SIGTERM."""
    on_signals(HANGUP_SIGNALS, lambda _: signal.raise_signal(signal.SIGTERM))


def ignore_signals(signals: Iterable[signal.Signals]) -> None:
    """Pass over these signals from here on."""
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


# --- files, sockets, memory -----------------------------------------------------------------------------------------


def most_files() -> int | None:
    """Return how many files this process may have open at once; None where there is no limit, or none to be read."""
    try:
        import resource  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_most_files(most: int) -> None:
    """Let this process have as many files open as it may, at most so many; where it cannot, it stays as it is."""
    try:
        import resource  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    # macOS allows less than its hard limit says.
    with suppress(OSError, ValueError):
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resident_bytes() -> int:
    """Return the bytes that this process has in memory; 0 where the system does not tell, which only Linux does."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError, IndexError):
        return 0


def give_back_memory() -> None:
    """Hand freed memory back to the system, where the C library has a call for it: else it would still count."""
    with suppress(AttributeError, OSError, TypeError):  # Windows has no library of that name: None
        ctypes.CDLL(None).malloc_trim(0)


def allocate(descriptor: int, size: int) -> None:
    """Take so many bytes of the disk for a file that is open for writing. Raises OSError if they are not there."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    # macOS and Windows: what is written has its space, unless it is only promised, as APFS does for zeros.
    os.lseek(descriptor, 0, os.SEEK_SET)
    for at in range(0, size, len(_BLOCK)):
        os.write(descriptor, _BLOCK[: size - at])


def sync(path: Path) -> None:
    """Let the disk have all of a file or directory; on Windows, that of a file alone. Raises OSError."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim_address(listening: socket.socket) -> None:
    """Before a socket is bound: an address in use is refused, one whose last user has ended is not.

    On Windows the option of this name would let two listen on one port.
    """
    if os.name != "nt":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def name_process(name: str) -> None:
    """Give this process a name in the list of processes; where that cannot be done, it stays as it is.

    Linux has 15 bytes for it, and the name counts that the main thread has. The command line is not changed.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


# --- groups of processes --------------------------------------------------------------------------------------------


def own_group() -> dict[str, Any]:
    """Return the options with which `subprocess` starts a process as the first of a group that ends together.

    Its terminal is not that of this process: what is typed there, such as Ctrl-C, goes to this one alone.
    """
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def signal_group(first: int, number: signal.Signals) -> None:
    """Send a signal to all of a group, by the process ID of its first; nothing happens if all have ended.

    Windows has one that asks to end (Ctrl-Break) for all.
    """
    with suppress(OSError):
        if os.name == "nt":
            os.kill(first, getattr(signal, "CTRL_BREAK_EVENT", number))
        else:
            os.killpg(first, number)


def kill_group(first: int) -> None:
    """End all of a group at once, by the process ID of its first; nothing happens if all have ended."""
    if os.name == "nt":
        command = ["taskkill", "/F", "/T", "/PID", str(first)]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - a command of the system
        return
    with suppress(OSError):
        os.killpg(first, signal.SIGKILL)


def group_lives(first: int) -> bool:
    """Whether any of a group is left, by the process ID of its first; on Windows that is not known: no."""
    if os.name == "nt":
        return False
    try:
        os.killpg(first, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of those that have ended and are not yet waited for
        return False
    return True
