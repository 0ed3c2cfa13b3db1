"""Read by a Python that has this folder in PYTHONPATH: hides from it what macOS or Windows do not have.

Locks of files are left: only a library takes them, which has its own ways on each platform.
"""

import asyncio.selector_events  # noqa: F401 - from 3.13 on, where sockets can `sendmsg`, it asks `sysconf` how much
import builtins
import enum
import io
import os
import signal
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import Any

MODULES = ("grp", "pwd", "resource", "termios", "uvloop")
FUNCTIONS = ("posix_fallocate", "sysconf", "sched_getaffinity", "getuid", "geteuid", "fchmod")
FOLDERS = ("/proc", "/sys", "/dev/fd")


class Missing(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def without_folders(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any = ".", *more: Any, **options: Any) -> Any:
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(FOLDERS):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return function(path, *more, **options)

    return call


for module in MODULES:
    sys.modules.pop(module, None)
sys.meta_path.insert(0, Missing())
for name in FUNCTIONS:
    delattr(os, name)
if hasattr(os, "process_cpu_count"):  # from 3.13 on; it is this where there is no affinity
    os.process_cpu_count = os.cpu_count
for name in ("listdir", "scandir", "readlink", "stat"):
    setattr(os, name, without_folders(getattr(os, name)))
builtins.open = io.open = without_folders(open)
here = {one.name: one.value for one in signal.Signals if one.name != "SIGHUP"}
signal.Signals = enum.IntEnum("Signals", here)  # type: ignore[misc]
del signal.SIGHUP
