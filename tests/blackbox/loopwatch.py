"""Runs a sidecar as `sidecar run` does, on the standard event loop, and measures every callback of the loop.

At the end it writes to the file named by LOOPWATCH: how many callbacks ran, the most CPU time that one took, and the
longest that one took by the clock, each with what it was.
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import uvloop

from sidecar.cli.main import main

_report: dict[str, Any] = {"callbacks": 0, "cpu_ms": 0.0, "cpu_of": "", "wall_ms": 0.0, "wall_of": ""}


def _measured(handle: asyncio.Handle, run: Any) -> None:
    cpu, wall = time.thread_time(), time.perf_counter()
    run(handle)
    cpu, wall = (time.thread_time() - cpu) * 1000, (time.perf_counter() - wall) * 1000
    _report["callbacks"] += 1
    for kind, took in (("cpu", cpu), ("wall", wall)):
        if took > _report[f"{kind}_ms"]:
            _report[f"{kind}_ms"], _report[f"{kind}_of"] = took, repr(handle)[:300]


def _watch() -> None:
    original = asyncio.Handle._run
    asyncio.Handle._run = lambda handle: _measured(handle, original)  # type: ignore[assignment,method-assign]
    uvloop.run = asyncio.run  # type: ignore[assignment]


if __name__ == "__main__":
    _watch()
    code = main()
    Path(os.environ["LOOPWATCH"]).write_text(json.dumps(_report))
    raise SystemExit(code)
