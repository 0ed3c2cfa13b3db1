"""Runs a sidecar as `daprd`: what the tools look for in a process, in its log and in the list of peers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from sidecar import app, log, system
from sidecar.app import Sidecar
from sidecar.config import settings as config
from sidecar.config.own_address import in_address, reached
from sidecar.config.settings import ConfigError, Settings, StartError
from sidecar.config.watched import Watched
from sidecar.core.policy import Policy
from sidecar.daprd import configuration, documents, policies, translation
from sidecar.daprd.configuration import Wish
from sidecar.daprd.flags import Given
from sidecar.daprd.neighbours import Neighbours
from sidecar.edge.http.surface import HttpSurface
from sidecar.edge.transport.listening import Ports
from sidecar.telemetry import telemetry

NAME = "daprd"
_HOME = ".workflow-sidecar"  # not Dapr's own folder, which its tools remove
_logger = structlog.get_logger(__name__)


def run(given: Given, environ: Mapping[str, str]) -> int:
    """Run a sidecar until it is asked to end; return the exit code.

    Raises:
        ConfigError, StartError: it cannot start; one line that says why.
    """
    # The tools know a daprd by this, and a script that is run through `env` has the name of its interpreter.
    system.name_process(NAME)
    try:
        by_flags = translation.of_flags(given)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    home = _home()
    weaker = translation.of_machine(environ, home)
    _log_early(by_flags, weaker, environ)
    weaker |= _sendable(configuration.read(given.texts("config"), environ))
    settings = translation.with_message_size(given, translation.settings(by_flags, weaker, environ, home))
    _neighbours(settings).make()
    return app.run(settings, _policy(given, settings), _Beside(settings, given).serving)


def _neighbours(settings: Settings) -> Neighbours:
    assert settings.peer_file is not None  # noqa: S101 - a daprd always has one
    return Neighbours(settings.peer_file, settings.app_id)


def _home() -> Path:
    try:
        return Path.home() / _HOME
    except RuntimeError as error:
        raise StartError(f"the user has no home folder for the data: set HOME ({error})") from error


def _log_early(by_flags: translation.Wishes, weaker: translation.Wishes, environ: Mapping[str, str]) -> None:
    """Let what is said while files are read look as the rest will."""
    names = ("app_id", "log_format", "log_level")
    flags = {name: by_flags[name].raw for name in names if name in by_flags}
    if "SIDECAR_LOG_FORMAT" not in environ:
        flags.setdefault("log_format", weaker["log_format"].raw)
    found = config.some(names, flags, environ)
    log.configure(found["log_format"], found["log_level"], app_id=found["app_id"])


def _sendable(wishes: translation.Wishes) -> dict[str, Wish]:
    """Do without the traces that Dapr's configuration names, as that of `dapr init` does, where they cannot be sent."""
    traces = {name for name in wishes if name.startswith("trace_")}
    if traces and not telemetry.can_export():
        _logger.info("traces are not sent: that takes an extra of the package", extra="multiapp-workflow-sidecar[otel]")
        return {name: wish for name, wish in wishes.items() if name not in traces}
    return dict(wishes)


def _policy(given: Given, settings: Settings) -> Watched[Policy] | None:
    """Return the policy among the resources.

    Raises:
        ConfigError: a resource is wrong, or there is another policy too.
    """
    files = documents.in_folders([*given.texts("resources-path"), *given.texts("components-path")])
    found = policies.watched(files, settings.app_id, settings.namespace)
    if found is not None and settings.policy is not None:
        raise ConfigError(f"two access policies: that of the resources, and {settings.policy}: keep one of them")
    return found


class _Beside:
    """What a daprd does beside its sidecar."""

    def __init__(self, settings: Settings, given: Given) -> None:
        """Raises ConfigError if a flag that is read here is wrong."""
        self._settings = settings
        self._unknown = given.unknown
        self._metrics_port = translation.metrics_port(given)
        self._stays = system.outlives_terminal()

    @asynccontextmanager
    async def serving(self, sidecar: Sidecar, ports: Ports) -> AsyncIterator[None]:
        """Be found by other sidecars and by tools while it serves."""
        # A terminal that goes away takes the app with it; its sidecar would hold the store against the next one.
        if not self._stays:
            system.end_with_terminal()
        if self._unknown:
            _logger.warning("flags that are not known here are read past", flags=list(self._unknown))
        async with self._metrics(sidecar), self._entry(ports):
            yield

    @asynccontextmanager
    async def _metrics(self, sidecar: Sidecar) -> AsyncIterator[None]:
        """Show metrics on a port of their own too, where Dapr's are looked for."""
        settings = self._settings
        shown = HttpSurface(sidecar, sidecar.trust.tokens, open_to_all=settings.insecure_listen)
        if self._metrics_port is not None:
            await shown.start(settings.listen_host, self._metrics_port, "--metrics-port")
        try:
            yield
        finally:
            await shown.stop()

    @asynccontextmanager
    async def _entry(self, ports: Ports) -> AsyncIterator[None]:
        """Be in the list of peers."""
        address = f"{in_address(reached(self._settings.peer_host))}:{ports.peer}"
        neighbours = _neighbours(self._settings)
        await asyncio.to_thread(neighbours.enter, address)
        # Containers of tests wait for these words.
        _logger.info("Internal gRPC server is running", address=address)
        try:
            yield
        finally:
            try:
                await asyncio.to_thread(neighbours.leave, address)
            except StartError as error:
                _logger.warning("the entry in the list of peers stays, which does no harm", error=str(error))
