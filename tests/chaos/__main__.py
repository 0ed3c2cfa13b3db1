"""Five apps, three kinds of SDKs, and every few seconds a fault: `make chaos`, or `make chaos SECONDS=60`.

One sidecar is killed with -9, stopped for 5 s, or cut off from one peer. Afterwards every workflow that was accepted
must have ended with the right output, no reminder may be left behind, and no sidecar may have grown.
"""

import argparse
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.blackbox.harness import Deployment, Sidecar, memory
from tests.blackbox.proxy import Network, Proxy
from tests.blackbox.test_crash import Load, Started, Work, anywhere, begin, wrong
from tests.reliability import keep_figures
from tests.sdks.programs import Beside, Program
from tests.sdks.sdks import BUILDS, LOGS, builds

DAPR, MICROSOFT, GO = ("orders", "stock"), ("ml", "depot"), "ship"
APPS = (*DAPR, *MICROSOFT, GO)
GO_BUILD = "go-dapr"
EVERY_SECONDS, FAULT_SECONDS, DRAIN_SECONDS = 5.0, 5.0, 120.0
PAUSE = 0.4  # between two starts of one app: the machine has work besides
MOST_GROWTH = 1.3
FURTHER = 20


class Fault(NamedTuple):
    kind: str
    app: str
    peer: str = ""


def across(chance: random.Random) -> Work:
    """Work for an app that names others: chains and fans over apps, nested children, the Go app's activity."""
    n = chance.randint(2, 6)
    others = chance.sample(["stock", "ml", "depot"], 2)
    return chance.choice(
        [
            Work("tour", [others[0], None, others[1]], [others[0], "orders", others[1]]),
            Work("mixed_load", {"app": others[0], "width": n}, 2 * n * (n - 1)),
            Work("remote_child", {"app": others[0], "name": "sum_up", "value": {"left": n}}, n * (n + 1)),
            Work("remote_child", {"app": "stock", "name": "mixed_load", "value": {"app": "ml", "width": n}},
                 2 * n * (n - 1)),
            Work("remote_call", {"app": GO, "name": "Where", "value": None}, GO),
            anywhere(chance),
        ]
    )  # fmt: skip


class Chaos:
    """The deployment with a proxy between each two sidecars, and the faults."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network()
        self.deployment = Deployment(directory, APPS)
        self.sidecars = self.deployment.sidecars
        self.proxies: dict[tuple[str, str], Proxy] = {}
        self.programs: list[Program] = []
        for app, sidecar in self.sidecars.items():
            for other in self.sidecars.values():
                if other is not sidecar:
                    proxy = self.proxies[app, other.app] = Proxy(self.network, other.peer_port)
                    sidecar.peers[other.app] = proxy.port
        # The Microsoft SDK names no app: its sidecar routes.
        self.sidecars["ml"].options += ["--route", "activity:double=depot"]

    def start(self) -> None:
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

    def one(self) -> Fault:
        """Brings one fault about, and ends it."""
        sidecar = self.chance.choice(list(self.sidecars.values()))
        kind = self.chance.choice(["kill", "stop", "cut"])
        began = time.monotonic()
        if kind == "kill":
            sidecar.kill9()
            time.sleep(self.chance.uniform(0, 2))
            sidecar.start()
            return Fault(kind, sidecar.app)
        if kind == "stop":
            sidecar.signal(signal.SIGSTOP)
            time.sleep(FAULT_SECONDS)
            sidecar.signal(signal.SIGCONT)
            return Fault(kind, sidecar.app)
        peer = self.chance.choice([app for app in APPS if app != sidecar.app])
        pair = [self.proxies[sidecar.app, peer], self.proxies[peer, sidecar.app]]
        for proxy in pair:
            proxy.cut()
        time.sleep(max(0.0, FAULT_SECONDS - (time.monotonic() - began)))
        for proxy in pair:
            proxy.mend()
        return Fault(kind, sidecar.app, peer)

    def end(self) -> None:
        for program in self.programs:
            program.kill()
        self.deployment.end()
        self.network.end()


def left_behind(sidecar: Sidecar) -> int:
    """Reminders in the database of a sidecar that has ended."""
    (file,) = sidecar.data.glob(f"*.{sidecar.app}.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("SELECT count(*) FROM reminders").fetchone()[0]
        return found


def suffer(chaos: Chaos, seconds: float) -> tuple[list[Started], Counter[str]]:
    """The load and the faults; returns what was accepted and how often each fault came about."""
    apps = chaos.deployment.apps
    loads = [Load(apps[app], across if app == "orders" else anywhere, n, PAUSE) for n, app in enumerate(apps)]
    faults: Counter[str] = Counter()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            fault = chaos.one()
            faults[fault.kind] += 1
            say(f"  {fault.kind} {fault.app} {fault.peer}")
            time.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - began)))
    finally:
        started = [each for load in loads for each in load.stop()]
    return started, faults


def verdict(chaos: Chaos, started: list[Started], before: dict[str, int]) -> list[str]:
    """What is wrong after the faults."""
    found = wrong(started, DRAIN_SECONDS)
    chance = random.Random(0)
    orders = chaos.deployment.apps["orders"]
    further = [begin(orders, across(chance), 1_000_000 + n) for n in range(FURTHER)]
    found += wrong(further, 30.0)
    say(f"and then {FURTHER} further workflows finish: {'no' if found else 'yes'}")
    for app, sidecar in chaos.sidecars.items():
        grown = memory(sidecar) / before[app]
        if grown > MOST_GROWTH:
            found.append(f"{app} has grown to {grown:.2f} of what it was")
    chaos.deployment.end_apps()
    for app, sidecar in chaos.sidecars.items():
        sidecar.stop()
        if left_behind(sidecar):
            found.append(f"{app} has {left_behind(sidecar)} reminders left")
    return found


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    say(f"chaos for {given.seconds:g} s, seed {seed}")
    BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        chaos = Chaos(Path(name), seed)
        try:
            chaos.start()
            warm = [Load(app, anywhere, 99 + n, PAUSE) for n, app in enumerate(chaos.deployment.apps.values())]
            time.sleep(10.0)
            started = [each for load in warm for each in load.stop()]
            found = wrong(started, 30.0)
            before = {app: memory(sidecar) for app, sidecar in chaos.sidecars.items()}
            more, faults = suffer(chaos, given.seconds)
            say(f"faults {dict(faults)}; {len(more)} workflows accepted")
            found += verdict(chaos, more, before)
        finally:
            chaos.end()
    result = f"{sum(faults.values())} faults in {given.seconds:g} s, {len(more)} workflows accepted, {len(found)} wrong"
    keep_figures("chaos", "make chaos", result)
    for text in found:
        say(f"WRONG: {text}")
    say("nothing lost, doubled, stuck or left behind" if not found else f"{len(found)} things are wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
