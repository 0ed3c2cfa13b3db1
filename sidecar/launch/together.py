"""Several apps and their sidecars at once: up in order, watched, and down in order, whatever ends them."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar import system
from sidecar.actors.clock import Clock
from sidecar.config import own_address
from sidecar.config.run_file import Destination
from sidecar.config.settings import StartError
from sidecar.launch import output
from sidecar.launch.kept import Kept, in_words
from sidecar.launch.output import Console, Emit
from sidecar.launch.plan import Unit

APP_SECONDS = 10.0  # that an app has for its end
_SIDECAR_SECONDS = 10.0  # that a sidecar has beyond its drain time-out
_LOOK_SECONDS = 0.05
_TELL_SECONDS = 10.0
_LOST_SIDECAR = 1  # exit code

WhyNot = Callable[[str, int], str]
"""Why the sidecar at a host and an HTTP port is not ready, "" if it is. May block for a moment."""


class Pair:
    """The two processes of a unit."""

    def __init__(self, unit: Unit, console: Console, clock: Clock) -> None:
        logs = _LogFiles(unit, clock)
        self.unit = unit
        errors = logs.emit("sidecar", unit.sidecar_log, console.of_sidecar(unit.name))
        name = f"the sidecar of {unit.name}"
        self.sidecar = Kept(name, unit.sidecar, (errors, errors), console.say, clock)
        self.app: Kept | None = None
        if unit.app is not None:
            emits = [logs.emit("app", unit.app_log, console.of_app(unit.name, error=error)) for error in (False, True)]
            self.app = Kept(unit.name, unit.app, (emits[0], emits[1]), console.say, clock)
            self.app.restart = unit.restart
        self.log_files = logs.files

    @property
    def grace(self) -> float:
        """Seconds that the sidecar has for its end."""
        return self.unit.settings.drain_timeout + _SIDECAR_SECONDS


class _LogFiles:
    """The files that the output of a unit goes to, if it goes to files: new ones at each start, beside the data."""

    def __init__(self, unit: Unit, clock: Clock) -> None:
        self.files: dict[str, Path] = {}
        self._unit, self._at = unit, clock.now() // 1_000_000

    def emit(self, kind: str, where: Destination, console: Emit) -> Emit:
        if where is Destination.CONSOLE:
            return console
        folder = self._unit.settings.data_dir / "logs"
        file = self.files.setdefault(kind, folder / f"{self._unit.name}_{kind}_{self._at}.log")
        try:
            write = output.to_file(file)
        except OSError as error:
            raise StartError(f"cannot write {file}: {error.strerror or error}") from error
        return write if where is Destination.FILE else output.both(write, console)


class Together:
    """Runs pairs once. Made inside the running loop."""

    def __init__(self, pairs: Sequence[Pair], console: Console, why_not: WhyNot, announce: Callable[[], None]) -> None:
        """`announce` is called when all sidecars are ready, before the apps are started."""
        self._pairs = pairs
        self._console = console
        self._why_not = why_not
        self._announce = announce
        self._asked = asyncio.Event()
        self._how = signal.SIGTERM
        self._codes: dict[str, int] = {}  # of those that have ended by themselves
        self._sidecars: dict[str, asyncio.Task[int]] = {}
        self._apps: dict[str, asyncio.Task[int]] = {}
        console.gone = self._asked.set

    async def run(self) -> int:
        """Run all until every app has ended, or a signal comes; return the exit code.

        That is the app's if there is one, else that of the first in order which failed, else 0.

        Raises:
            StartError: a sidecar could not start.
        """
        system.on_signals((*system.END_SIGNALS, *system.HANGUP_SIGNALS), self._signalled)
        work = asyncio.create_task(self._work(), name="work")
        asked = asyncio.create_task(self._asked.wait(), name="asked to end")
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            asked.cancel()
            await self._end()
            await asyncio.wait({work})
            # One more must not cut the end short, and change the exit code.
            system.ignore_signals((*system.END_SIGNALS, *system.HANGUP_SIGNALS))
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error
        return self._exit_code()

    def _signalled(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            for pair in self._pairs:
                for process in (pair.app, pair.sidecar):
                    if process is not None:
                        process.kill()
        self._how = signal.SIGINT if number is signal.SIGINT else signal.SIGTERM
        self._asked.set()

    # ------------------------------------------------------------ up

    async def _work(self) -> None:
        for pair in self._pairs:
            self._sidecars[pair.unit.name] = asyncio.create_task(pair.sidecar.run(), name=pair.sidecar.name)
        for pair in self._pairs:
            await self._until_ready(pair)
            pair.sidecar.restart = pair.unit.restart
        self._announce()
        for pair in self._pairs:
            if pair.app is not None:
                self._apps[pair.unit.name] = asyncio.create_task(pair.app.run(), name=pair.app.name)
        await asyncio.gather(*(self._until_over(pair) for pair in self._pairs))

    async def _until_ready(self, pair: Pair) -> None:
        settings = pair.unit.settings
        running, waited = self._sidecars[pair.unit.name], 0.0
        while not running.done():
            why = await asyncio.to_thread(self._why_not, own_address.reached(settings.listen_host), settings.http_port)
            if not why:
                return
            await asyncio.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            if waited >= _TELL_SECONDS:
                self._console.say(f"{pair.sidecar.name} is not ready yet: {why}")
                waited = 0.0
        raise StartError(f"{pair.sidecar.name} could not start: {in_words(running.result())}; its last line says why")

    async def _until_over(self, pair: Pair) -> None:
        """Return when an app has ended for good; one without a sidecar is of no use and is ended."""
        sidecar = self._sidecars[pair.unit.name]
        app = self._apps.get(pair.unit.name, sidecar)
        await asyncio.wait({app, sidecar}, return_when=asyncio.FIRST_COMPLETED)
        if pair.app is not None and app.done():
            self._codes[pair.unit.name] = app.result()
            return
        self._codes[pair.unit.name] = _LOST_SIDECAR
        if pair.app is not None:
            self._console.say(f"{pair.unit.name} is ended: it has no sidecar")
            await pair.app.end(signal.SIGTERM, APP_SECONDS)

    # ------------------------------------------------------------ down

    async def _end(self) -> None:
        """End the apps, and then the sidecars: what an app still answers is taken."""
        apps = [pair.app for pair in self._pairs if pair.app is not None and pair.unit.name in self._apps]
        await asyncio.gather(*(app.end(self._how, APP_SECONDS) for app in apps))
        sidecars = [pair for pair in self._pairs if pair.unit.name in self._sidecars]
        await asyncio.gather(*(pair.sidecar.end(signal.SIGTERM, pair.grace) for pair in sidecars))
        await asyncio.gather(*self._apps.values(), *self._sidecars.values())

    def _exit_code(self) -> int:
        alone = self._apps if len(self._pairs) == 1 else {}
        codes = {name: task.result() for name, task in alone.items()} | self._codes
        return next((codes[pair.unit.name] for pair in self._pairs if codes.get(pair.unit.name)), 0)
