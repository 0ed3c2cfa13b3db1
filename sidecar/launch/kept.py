"""One process, its output and its end; started again where that is wanted."""

import asyncio
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable

from sidecar import system
from sidecar.actors.clock import Clock
from sidecar.config.run_file import Restart
from sidecar.launch.output import Emit, Lines
from sidecar.launch.plan import Command

NOT_STARTED = 127  # as a shell has it
_LOOK_SECONDS = 0.03
_CTRL_C_SECONDS = 3.0
_LEFT_OVER_SECONDS = 2.0  # for what a process has started and left behind
_OUTPUT_SECONDS = 1.0  # for output of who has left the group
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LONG_RUN = 60.0  # seconds after which a process counts as one that works
_CHUNK = 64 * 1024


class Kept:
    """A process under a name. `run` it once; `restart` may change meanwhile."""

    def __init__(
        self, name: str, command: Command, emits: tuple[Emit, Emit], say: Callable[[str], None], clock: Clock
    ) -> None:
        """`emits` take the lines of its output and of its errors; `say` takes what a person should know of it."""
        self.name = name
        self.restart = Restart.NO
        self.reads_terminal = False
        self._command = command
        self._emits = emits
        self._say = say
        self._clock = clock
        self._process: Process | None = None
        self._ending = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> int:
        """Run it until it has ended for good, and return its exit code: 128 and the number for a signal."""
        pause = _FIRST_PAUSE
        try:
            while True:
                began = self._clock.monotonic()
                code = await self._once()
                if self._ending.is_set():
                    return code
                again = self.restart is Restart.ALWAYS or (self.restart is Restart.ON_FAILURE and code != 0)
                if self._clock.monotonic() - began > _LONG_RUN:
                    pause = _FIRST_PAUSE
                after = f": it starts again in {pause:g} s" if again else ""
                self._say(f"{self.name} has ended, {in_words(code)}{after}")
                if not again or await self._ends_within(pause):
                    return code
                pause = min(_LONGEST_PAUSE, 2 * pause)
        finally:
            self._over.set()

    async def end(self, how: signal.Signals, grace: float) -> None:
        """End it for good: all of its group gets the signal, and what is left after `grace` seconds is killed.

        `how` is SIGTERM or SIGINT, which is followed by SIGTERM.
        """
        self._ending.set()
        # Some take Ctrl-C for the end of one of their threads; after a while they are asked as a supervisor asks.
        patience = min(_CTRL_C_SECONDS, grace) if how is signal.SIGINT else 0.0
        if patience and await self._over_after(how, patience):
            return
        if not await self._over_after(signal.SIGTERM, grace - patience):
            self._say(f"{self.name} has not ended within {grace:g} s and is killed")
            self.kill()
            await self._over.wait()

    async def _over_after(self, number: signal.Signals, seconds: float) -> bool:
        """Send a signal to all of its group; return whether it is over within a time."""
        if self._process is not None:
            system.signal_group(self._process.pid, number)
        try:
            async with asyncio.timeout(seconds):
                return await self._over.wait()
        except TimeoutError:
            return False

    def kill(self) -> None:
        """End it for good and at once."""
        self._ending.set()
        if self._process is not None:
            system.kill_group(self._process.pid)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._ending.wait()
        except TimeoutError:
            return False

    async def _once(self) -> int:
        command = self._command
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *command.arguments,
                cwd=command.directory,
                env=command.environment,
                stdin=None if self.reads_terminal else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                **system.own_group(),
            )
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            self._say(f"{self.name} cannot be started: {command.arguments[0]}: {why}")
            return NOT_STARTED
        if self._ending.is_set():  # it was asked to end while it was being made
            system.kill_group(process.pid)
        pumps = [
            asyncio.create_task(_pump(*pair))
            for pair in zip((process.stdout, process.stderr), self._emits, strict=True)
        ]
        # Looked at: to wait for it would, in some versions of Python, last as long as anybody has its output open.
        while process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await _clear(process.pid)
        _, late = await asyncio.wait(pumps, timeout=_OUTPUT_SECONDS)
        for pump in late:
            pump.cancel()
        self._process = None
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


async def _pump(stream: asyncio.StreamReader | None, emit: Emit) -> None:
    lines = Lines(emit)
    try:
        while stream is not None and (data := await stream.read(_CHUNK)):
            lines.feed(data)
    finally:
        lines.end()


async def _clear(first: int) -> None:
    """End what is left of a group whose first process has ended."""
    left = _LEFT_OVER_SECONDS
    if system.group_lives(first):
        system.signal_group(first, signal.SIGTERM)
    while system.group_lives(first) and left > 0:
        await asyncio.sleep(_LOOK_SECONDS)
        left -= _LOOK_SECONDS
    if left <= 0:
        system.kill_group(first)


def in_words(code: int) -> str:
    """Return an exit code as a person would say it."""
    number = code - 128
    if number in {one.value for one in signal.Signals}:
        return f"by {signal.Signals(number).name} (exit code {code})"
    return f"exit code {code}"
