"""The deployment with a proxy between each two sidecars and certificates for all of them, and what befalls it."""

import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.blackbox.harness import ROOT, Deployment, Sidecar
from tests.blackbox.proxy import Network, Proxy
from tests.chaos import stores
from tests.chaos.clients import Loss
from tests.chaos.stores import Kept
from tests.sdks.programs import Beside, Program
from tests.sdks.sdks import LOGS, builds

DAPR, MICROSOFT, GO = ("orders", "stock"), ("ml", "depot"), "ship"
APPS = (*DAPR, *MICROSOFT, GO)
GO_BUILD = "go-dapr"
FAULT_SECONDS = 5.0
KEPT = 3  # copies of a store, of which any may be put back
OF_STORES = ("wipe", "restore", "rollback", "lost log")


class Fault(NamedTuple):
    """What was brought about, where, and what was lost by it."""

    kind: str
    where: str
    losses: tuple[Loss, ...] = ()


class Chaos:
    """The deployment, and the faults."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network()
        self.deployment = Deployment(directory, APPS)
        self.sidecars = self.deployment.sidecars
        self.proxies: dict[tuple[str, str], Proxy] = {}
        self.programs: list[Program] = []
        self.certificates = directory / "certificates"
        self.folder = directory / "kept"
        self.folder.mkdir()
        self.backups: dict[str, list[Kept]] = defaultdict(list)
        self.snapshots: dict[str, list[Kept]] = defaultdict(list)
        self._of_processes = {"kill": self._kill, "stop": self._stop, "cut": self._cut, "renew": self._renew}
        for app, sidecar in self.sidecars.items():
            sidecar.data = directory / f"data-{app}"
            sidecar.options += ["--peer-ca", str(self.certificates / "ca.crt")]
            for kind in ("cert", "key"):
                file = self.certificates / f"{app}.{'crt' if kind == 'cert' else kind}"
                sidecar.options += [f"--peer-{kind}", str(file)]
            for other in self.sidecars.values():
                if other is not sidecar:
                    proxy = self.proxies[app, other.app] = Proxy(self.network, other.peer_port)
                    sidecar.peers[other.app] = proxy.port
        # The Microsoft SDK names no app: its sidecar routes.
        self.sidecars["ml"].options += ["--route", "activity:double=depot"]

    def start(self) -> None:
        self._issue(*APPS)
        for sidecar in self.sidecars.values():
            sidecar.start()
        for name in DAPR:
            self.deployment.app(name, "dapr").start_process()
        for name in MICROSOFT:
            self.deployment.app(name, "microsoft").start_process()
        build = next(build for build in builds() if build.id == GO_BUILD)
        build.prepared()
        ship = self.sidecars[GO]
        program = Program(build, Beside(GO, ship.port, ship.http_port), "chaos", LOGS / "chaos-go.log", ["serve"])
        self.programs.append(program)
        program.ready()

    def end(self) -> None:
        for program in self.programs:
            program.kill()
        self.deployment.end()
        self.network.end()

    def keep(self) -> None:
        """Make a backup of the store of one app, and a snapshot of that of another."""
        for make, copies in ((stores.back_up, self.backups), (stores.snapshot, self.snapshots)):
            sidecar = self.chance.choice(list(self.sidecars.values()))
            kept = copies[sidecar.app]
            kept.append(make(sidecar, self.folder))
            del kept[:-KEPT]

    def one(self) -> Fault:
        """Bring one fault about, and end it."""
        if self.chance.random() < 0.5:
            kind, befall = self.chance.choice(list(self._of_processes.items()))
            return Fault(kind, befall(self.chance.choice(list(self.sidecars.values()))))
        return self._lose(self.chance.choice(OF_STORES), self.chance.sample(APPS, self.chance.choice([1, 1, 2])))

    def _kill(self, sidecar: Sidecar) -> str:
        sidecar.kill9()
        time.sleep(self.chance.uniform(0, 2))
        sidecar.start()
        return sidecar.app

    def _stop(self, sidecar: Sidecar) -> str:
        sidecar.signal(signal.SIGSTOP)
        time.sleep(FAULT_SECONDS)
        sidecar.signal(signal.SIGCONT)
        return sidecar.app

    def _cut(self, sidecar: Sidecar) -> str:
        peer = self.chance.choice([app for app in APPS if app != sidecar.app])
        pair = [self.proxies[sidecar.app, peer], self.proxies[peer, sidecar.app]]
        for proxy in pair:
            proxy.cut()
        time.sleep(FAULT_SECONDS)
        for proxy in pair:
            proxy.mend()
        return f"{sidecar.app} {peer}"

    def _renew(self, sidecar: Sidecar) -> str:
        """Renew a certificate, and end the links to the app: the new one is used for the next."""
        self._issue(sidecar.app)
        for (_, to), proxy in self.proxies.items():
            if to == sidecar.app:
                proxy.cut()
                proxy.mend()
        return sidecar.app

    def _issue(self, *apps: str) -> None:
        line = [sys.executable, "-m", "sidecar", "dev-ca", "--out", str(self.certificates), *apps]
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def _lose(self, kind: str, apps: list[str]) -> Fault:
        """Let the stores of one or two apps lose time while they are down together."""
        sidecars = [self.sidecars[app] for app in apps]
        for sidecar in sidecars:
            # A sidecar that ends in good order leaves no log.
            sidecar.kill9() if kind == "lost log" or self.chance.random() < 0.5 else sidecar.stop()
        until = time.time()
        moments = {sidecar.app: self._put_back(kind, sidecar) for sidecar in sidecars}
        for sidecar in self.chance.sample(sidecars, len(sidecars)):
            time.sleep(self.chance.uniform(0, 1))
            sidecar.start()
        losses = tuple(Loss(app, moment, until) for app, moment in moments.items() if moment is not None)
        return Fault(kind if losses else "kill", " ".join(apps), losses)

    def _put_back(self, kind: str, sidecar: Sidecar) -> float | None:
        """Let a store lose time as the kind says; return the moment to which it went back, None if it did not."""
        copies = {"restore": self.backups, "rollback": self.snapshots}.get(kind)
        if copies is not None:
            if not copies[sidecar.app]:
                return None
            kept = self.chance.choice(copies[sidecar.app])
            (stores.restore if kind == "restore" else stores.roll_back)(sidecar, kept)
            return kept.moment
        if kind == "lost log":
            return stores.lose_log(sidecar)
        stores.wipe(sidecar)
        return stores.NEVER
