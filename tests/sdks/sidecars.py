"""The sidecars that the programs of the matrix work with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.blackbox.harness import Sidecar
from tests.sdks.programs import OTHER, Beside

HOME = "home"
# An SDK that cannot name an app reaches the other one by these routes of the sidecar at home. `Show` is called there
# in every language; whoever can name the app does so.
ROUTES = [*(f"{kind}:[Rr]outed*={OTHER}" for kind in ("activity", "workflow")), f"activity:Show={OTHER}"]


@contextmanager
def pair(directory: Path, logs: Path) -> Iterator[dict[str, Sidecar]]:
    """Two sidecars that know each other; their data goes, their logs stay."""
    home, other = Sidecar(HOME, directory), Sidecar(OTHER, directory)
    home.peers, other.peers = {OTHER: other.peer_port}, {HOME: home.peer_port}
    home.options = routes()
    with running(home, logs), running(other, logs):
        yield {HOME: home, OTHER: other}


@contextmanager
def running(sidecar: Sidecar, logs: Path) -> Iterator[None]:
    """A sidecar that is gone afterwards."""
    logs.mkdir(parents=True, exist_ok=True)
    sidecar.log = logs / f"sidecar-{sidecar.app}.log"
    with ExitStack() as stack:
        stack.callback(sidecar.kill9)
        sidecar.start()
        yield


def routes() -> list[str]:
    """The options of a sidecar at home."""
    return [word for route in ROUTES for word in ("--route", route)]


def beside(sidecar: Sidecar) -> Beside:
    """Where a program finds the sidecar."""
    return Beside(sidecar.app, sidecar.port, sidecar.http_port)
