"""The `sidecar` command: what a person types, and how an error reaches them.

Owns options, output and exit codes. The settings are read in `config`; the work is done in `app`, which only
`sidecar run` imports, because a health check must be cheap.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from sidecar.cli import exits, health, schedule, workflow
from sidecar.cli.exits import Failure
from sidecar.cli.flags import CONFIG_FILE, with_reach, with_settings
from sidecar.cli.forms import Form
from sidecar.config import parsers
from sidecar.config import settings as config
from sidecar.config.run_file import Restart
from sidecar.config.settings import ConfigError, StartError

app = typer.Typer(
    name="sidecar",
    help="Durable workflows that span several apps, for unchanged workflow SDKs: one sidecar an app.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=exits.TEXT,
    pretty_exceptions_enable=False,
)

_store = typer.Typer(help="Check the store of an app, make a backup of it, put one back.", rich_markup_mode=None)
app.add_typer(_store, name="store", no_args_is_help=True)
app.add_typer(workflow.app, name="workflow", no_args_is_help=True)
app.add_typer(schedule.app, name="schedule", no_args_is_help=True)

T = TypeVar("T")
_AnswerForm = Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, by default that of this process, and returns its exit code.

    0 is success; 2 a wrong option, setting or start, after one line on stderr. `exits.py` has the others.
    """
    # What goes wrong in gRPC comes as errors of calls too; its own lines are not in the form of the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app(args=_as_text(sys.argv[1:] if arguments is None else arguments), prog_name="sidecar")
    except SystemExit as ended:
        return int(ended.code or 0)
    except (ConfigError, StartError) as error:
        typer.echo(f"sidecar: {error}", err=True)
        return 2
    except Failure as failure:
        if str(failure):
            typer.echo(f"sidecar: {failure}", err=True)
        return int(failure.code)
    return 0


def _as_text(arguments: Sequence[str]) -> list[str]:
    """Return the arguments read as UTF-8, whatever the locale of the process. Raises ConfigError."""
    try:
        return [os.fsencode(one).decode() for one in arguments]
    except UnicodeError as error:
        raise ConfigError("an argument is not UTF-8 text") from error


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(config.version())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("run", context_settings={"allow_interspersed_args": False})
@with_settings
def _run(
    flags: dict[str, object],
    *,
    run_file: Annotated[
        Path | None,
        typer.Option(
            "--run-file", "-f", metavar="FILE", help="Run the apps of a file such as dapr.yaml, or of a folder."
        ),
    ] = None,
    restart: Annotated[
        Restart, typer.Option("--restart", help="Whether COMMAND and its sidecar are started again when they end.")
    ] = Restart.NO,
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="The app to run.")] = None,
) -> None:
    """Run one sidecar in the foreground, until SIGTERM or Ctrl-C; with COMMAND (behind `--`), the app beside it too.

    With COMMAND or a file, ports that nobody named are free ones, the output has the name of whom it is from, and the
    exit code is the app's.

    Each option is also an environment variable (--app-id: SIDECAR_APP_ID) and a key of the config file
    (app_id; for --peer: peers). A flag beats a variable, and a variable beats the file.
    """
    if command or run_file is not None:
        from sidecar.cli import launch  # noqa: PLC0415 - as below

        raise typer.Exit(
            launch.several(run_file, flags, command) if run_file else launch.one(flags, command or [], restart)
        )
    settings = config.load(flags, os.environ)
    import sidecar.app as sidecar_app  # noqa: PLC0415 - the servers take most of the import time

    raise typer.Exit(sidecar_app.run(settings))


@app.command("health")
def _health(
    config_file: CONFIG_FILE = None,
    http_port: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="Port to ask [default: as configured, or 3500]."),
    ] = None,
) -> None:
    """Ask the sidecar on this machine whether it is ready: exit code 0 if so, else 1."""
    try:
        host, port = config.http_address({"config": config_file, "http_port": http_port}, os.environ)
    except ConfigError as error:
        raise typer.Exit(health.failed(str(error))) from error
    if port == 0:
        raise typer.Exit(health.failed("the HTTP port is 0, any free one: name the real one with --http-port"))
    raise typer.Exit(health.ask(host, port))


@app.command("peers")
@with_reach
def _peers(flags: dict[str, object], *, output: _AnswerForm = Form.SHORT) -> None:
    """Show how it goes with the sidecars of other apps."""
    from sidecar.cli.operate import client, sidecars  # noqa: PLC0415 - gRPC takes most of the import time

    sidecars.peers(client.Client(flags, os.environ), output)


@app.command("workers")
@with_reach
def _workers(flags: dict[str, object], *, output: _AnswerForm = Form.SHORT) -> None:
    """Show who is connected, and what it takes.

    And what each has, and the work that none of them takes.
    """
    from sidecar.cli.operate import client, sidecars  # noqa: PLC0415 - as above

    sidecars.workers(client.Client(flags, os.environ), output)


@app.command("version")
@with_reach
def _version(flags: dict[str, object], *, output: _AnswerForm = Form.SHORT) -> None:
    """Print the versions of command and sidecar."""
    from sidecar.cli.operate import client, sidecars  # noqa: PLC0415 - as above

    sidecars.versions(client.Client(flags, os.environ), output)


@app.command("doctor")
@with_settings
def _doctor(flags: dict[str, object], *, output: _AnswerForm = Form.SHORT) -> None:
    """Check all that a sidecar needs.

    Configuration, ports, peers, certificates and when they end, clock, disk, versions, workers: each finding says what
    to do. Exit code 1 if something is wrong.
    """
    from sidecar.cli.operate import doctor  # noqa: PLC0415 - as above

    doctor.check(flags, os.environ, output)


@app.command("config")
@with_settings
def _config(flags: dict[str, object], *, output: _AnswerForm = Form.SHORT) -> None:
    """Print every setting and where its value comes from, without starting anything."""
    resolved = config.resolve(flags, os.environ)
    from sidecar.cli import screen  # noqa: PLC0415 - it draws, which few commands do
    from sidecar.cli.show import settings as shown  # noqa: PLC0415 - as above

    if output.is_data:
        screen.write(shown.data(resolved), output)
    else:
        screen.show(shown.listed(resolved, screen.width()))


@_store.command("check")
@with_settings
def _check(flags: dict[str, object]) -> None:
    """Read all of an app's store and say what is wrong with it: exit code 0 if nothing is, else 1.

    A sidecar that runs does it beside its work, on a copy: there must be space for that.
    """
    settings = config.load(flags, os.environ)
    from sidecar.cli import store  # noqa: PLC0415 - gRPC takes most of the import time

    found = _done(lambda: store.check(settings))
    for line in found:
        typer.echo(f"sidecar: {line}", err=True)
    if found:
        raise typer.Exit(1)
    typer.echo("sidecar: the store is whole")


@_store.command("backup")
@with_settings
def _backup(
    flags: dict[str, object],
    *,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the file [default: app and time].")] = "",
) -> None:
    """Make a checked copy of an app's store in the folder backups of its data directory, while it serves or not."""
    settings = config.load(flags, os.environ)
    from sidecar.cli import store  # noqa: PLC0415 - gRPC takes most of the import time

    made = _done(lambda: store.backup(settings, name))
    typer.echo(f"sidecar: {made.path}, {made.bytes} bytes")


@_store.command("restore")
@with_settings
def _restore(
    flags: dict[str, object], *, file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")]
) -> None:
    """Put a backup in the place of an app's store. The sidecar must be stopped; the old store is kept.

    Other apps are told at the next connection that work since the backup may be gone, and send theirs again.
    """
    settings = config.load(flags, os.environ)
    from sidecar.cli import store  # noqa: PLC0415 - gRPC takes most of the import time

    kept = _done(lambda: store.restore(settings, file))
    typer.echo("sidecar: the backup is in place" + (f"; the old store is {kept}" if kept else ""))


def _done(work: Callable[[], T]) -> T:
    """Do something with a store. If it cannot be done, the command ends with the reason."""
    from sidecar.store.protocol import CopyError  # noqa: PLC0415 - as above

    try:
        return work()
    except CopyError as error:
        raise StartError(" ".join(str(error).split())) from error


@app.command("dev-ca")
def _dev_ca(
    apps: Annotated[list[str], typer.Argument(metavar="APP...", help="IDs of the apps.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("certs"),
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Namespace of the apps.")] = "default",
    trust_domain: Annotated[
        str, typer.Option(metavar="NAME", help="Trust domain in the SPIFFE IDs.")
    ] = "sidecar.local",
    days: Annotated[int, typer.Option(min=1, max=825, help="How long the apps' certificates live.")] = 90,
) -> None:
    """Make certificates for peer links in development: a CA, unless DIR has one, and one certificate an app.

    Give each sidecar --peer-cert DIR/APP.crt --peer-key DIR/APP.key --peer-ca DIR/ca.crt, and nobody ca.key.
    """
    from sidecar.cli import dev_ca  # noqa: PLC0415 - the cryptography takes most of the import time

    try:
        names, of = [parsers.certified_name(name) for name in apps], parsers.certified_name(namespace)
        written = dev_ca.issue(out, names, of, parsers.trust_domain(trust_domain), days)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for file in written:
        typer.echo(str(file))
