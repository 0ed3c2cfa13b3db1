"""A live sidecar in this process, and the command against it as a person or a script types it."""

import asyncio
import io
import json
import sys
from typing import Any, NamedTuple

import pytest

from sidecar.cli import main
from tests.inprocess.sidecars import Node


class Ended(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Terminal(io.TextIOWrapper):
    """What is written to a terminal, or into a pipe."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def written(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


class Command:
    """Types commands: into a pipe, unless the terminal has a width. Colours are those of xterm."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.node: Node | None = None
        patch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "COLUMNS", "COLORTERM", "FORCE_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)

    async def __call__(self, *arguments: str, width: int = 0, node: Node | None = None, at: bool = True) -> Ended:
        asked = node or self.node
        port = ["--grpc-port", str(asked.ports.grpc[0])] if asked is not None and at else []
        return await asyncio.to_thread(self._run, [*arguments, *port], width)

    def _run(self, arguments: list[str], width: int) -> Ended:
        out, err = Terminal(is_terminal=width > 0), Terminal(is_terminal=False)
        with self._patch.context() as patch:
            if width:
                patch.setenv("COLUMNS", str(width))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main.main(arguments)
        return Ended(code, out.written(), err.written())
