"""The commands about a sidecar itself: its peers, its workers, versions."""

import platform
from importlib import metadata

import typer

from sidecar.actors.clock import Clock
from sidecar.cli import screen
from sidecar.cli.exits import Failure
from sidecar.cli.forms import Form
from sidecar.cli.operate.client import Client, asking
from sidecar.cli.show import sidecars
from sidecar.config import settings as config
from sidecar.schema import admin_pb2 as admin


def status(client: Client) -> admin.GetStatusResponse:
    """Return what a sidecar says of itself. Raises Failure."""

    async def ask(reached: Client) -> admin.GetStatusResponse:
        return reached.status

    return asking(client, ask)


def peers(client: Client, form: Form) -> None:
    """Write how it goes with other apps."""
    status(client)
    rows = client.metadata["peers"]
    if form.is_data:
        screen.write(rows, form)
    elif not rows:
        screen.note(f"app '{client.own.app}' knows no other app: --peer, --peer-file and --peer-pattern name them")
    else:
        screen.show(sidecars.peers(rows, Clock().now(), screen.width()))


def workers(client: Client, form: Form) -> None:
    """Write who is connected, what each takes and has, and the work that nobody takes."""
    status(client)
    found = client.metadata
    if form.is_data:
        screen.write({name: found[name] for name in ("workers", "untaken")}, form)
        return
    if not found["workers"]:
        text = f"no worker is connected to the sidecar of app '{client.own.app}' at {client.address}"
        screen.note(f"{text}: start the app, and see that its SDK connects there")
    screen.show(sidecars.workers(found, Clock().now(), screen.width()))


def versions(client: Client, form: Form) -> None:
    """Write the version of this command, of what it runs on, and of the sidecar that answers, if one does."""
    found = {
        "command": config.version(),
        "python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
        "sidecar": None,
        "appID": None,
    }
    try:
        answer = status(client)
        found |= {"sidecar": answer.version, "appID": answer.app_id}
    except Failure as failure:
        screen.note(str(failure))
    if form.is_data:
        screen.write(found, form)
        return
    running = f"{found['sidecar']} (app '{found['appID']}')" if found["sidecar"] else "not running"
    for name, value in (("command", found["command"]), ("sidecar", running), ("Python", found["python"])):
        typer.echo(f"{name}: {value}")
