"""`sidecar run -- COMMAND` and `sidecar run -f FILE`: puts apps and their sidecars on a terminal."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sidecar.actors.clock import Clock
from sidecar.cli import health
from sidecar.config import run_file
from sidecar.config import settings as config
from sidecar.config.options import BY_FIELD
from sidecar.config.own_address import in_address
from sidecar.config.run_file import Restart, RunApp
from sidecar.config.settings import ConfigError, Settings
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.transport import listening
from sidecar.launch import plan
from sidecar.launch.output import Console
from sidecar.launch.plan import Unit, Wishes
from sidecar.launch.together import Pair, Together

_ONE_EACH = ("app_id", "grpc_port", "http_port", "peer_port")


def one(flags: Mapping[str, object], command: Sequence[str], restart: Restart) -> int:
    """Run an app and its sidecar, and return the app's exit code.

    Raises:
        ConfigError, StartError: as a line for a person.
    """
    app_id = config.load(flags, os.environ).app_id
    app = RunApp(app_id=app_id, directory=Path(), command=tuple(command), restart=restart)
    return _run(plan.units([app], _wishes(flags, {})), [], reads_terminal=True)


def several(file: Path, flags: Mapping[str, object], command: Sequence[str] | None) -> int:
    """Run the apps of a file with their sidecars, and return the exit code. Raises as `one`."""
    if command:
        raise ConfigError(f"{command[0]!r}: with --run-file the commands of the apps stand in the file")
    for name in _ONE_EACH:
        if flags.get(name):
            raise ConfigError(f"{BY_FIELD[name].flag}: with --run-file each app has its own: it stands in the file")
    found = run_file.read(file)
    folder = file if file.is_dir() else file.parent
    # One port for SDKs, not the usual two: an SDK that is not told its port must not find another app's sidecar.
    defaults = {"data_dir": folder / config.DEFAULTS.data_dir, "grpc_port": config.DEFAULTS.grpc_port[:1]}
    unused = [f"not used here: {', '.join(found.unused)}"] if found.unused else []
    return _run(plan.units(found.apps, _wishes(flags, defaults)), unused)


def _wishes(flags: Mapping[str, object], defaults: Mapping[str, object]) -> Wishes:
    return Wishes(
        flags=flags,
        environ=os.environ,
        defaults={"log_format": "console", **defaults},
        is_free=listening.is_free,
        token=_token,
    )


def _token(settings: Settings) -> str:
    return ApiTokens(settings.api_token, settings.api_token_file).newest()


def _run(units: Sequence[Unit], notes: Sequence[str], *, reads_terminal: bool = False) -> int:
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    console = Console(sys.stdout.buffer, sys.stderr.buffer, [unit.name for unit in units], colours=colours)

    async def main() -> int:
        pairs = [Pair(unit, console, Clock()) for unit in units]
        for pair in pairs:
            if pair.app is not None:
                pair.app.reads_terminal = reads_terminal

        def announce() -> None:
            console.say("\n".join([*_banner(pairs), *notes]))

        return await Together(pairs, console, health.why_not, announce).run()

    return asyncio.run(main())


def _banner(pairs: Sequence[Pair]) -> list[str]:
    """Return what a person needs to find all of it."""
    folders = dict.fromkeys(str(pair.unit.settings.data_dir.resolve()) for pair in pairs)
    logs = [f"output of {pair.unit.name}: {file}" for pair in pairs for file in pair.log_files.values()]
    return [
        *(f"{pair.unit.name}: {_addresses(pair.unit.settings)}" for pair in pairs),
        f"data: {', '.join(folders)}",
        *logs,
        "Ctrl-C ends the apps, then the sidecars; a second one ends all at once",
    ]


def _addresses(settings: Settings) -> str:
    host, peers = in_address(settings.listen_host), f"{in_address(settings.peer_host)}:{settings.peer_port}"
    ports = " and ".join(str(port) for port in settings.grpc_port)
    return f"SDKs at {host}:{ports}, http://{host}:{settings.http_port}, other sidecars at {peers}"
