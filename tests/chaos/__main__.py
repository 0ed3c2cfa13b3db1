"""Five apps, three kinds of SDKs, and every few seconds a fault: `make chaos`, or `make chaos SECONDS=60`.

One sidecar is killed with -9, stopped for 5 s, cut off from one peer, or given another certificate; or the stores of
one or two apps are wiped, restored from a backup, rolled back to a snapshot, or lose their log. Afterwards every
workflow that was accepted must have ended with the right output, but those that were accepted after the moment to
which their store went back; in no app a workflow may run or a reminder be left, and no sidecar may have grown.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.blackbox.harness import memory
from tests.blackbox.test_crash import Load, Started, Work, anywhere, begin
from tests.blackbox.test_crash import wrong as not_right
from tests.chaos import clients, stores
from tests.chaos.clients import Client, Loss
from tests.chaos.faults import DAPR, GO, Chaos
from tests.reliability import keep_figures
from tests.sdks.sdks import BUILDS

EVERY_SECONDS, DRAIN_SECONDS = 5.0, 120.0
KEEP_EVERY = 2  # faults: a copy is some 10 s to a minute old when it is put back
PAUSE = 0.4  # between two starts of one app: the machine has work besides
MOST_GROWTH = 1.3
FURTHER = 20


def across(me: str) -> Callable[[random.Random], Work]:
    """Work for an app that names others: chains and fans over apps, nested children, the Go app's activity."""
    peers = [app for app in (*DAPR, "ml", "depot") if app != me]
    (other,) = (app for app in DAPR if app != me)

    def work(chance: random.Random) -> Work:
        n = chance.randint(2, 6)
        first, second = chance.sample(peers, 2)
        rounds = {"app": me, "left": n // 2}
        return chance.choice(
            [
                Work("tour", [first, None, second], [first, me, second]),
                Work("mixed_load", {"app": first, "width": n}, 2 * n * (n - 1)),
                Work("remote_child", {"app": first, "name": "sum_up", "value": {"left": n}}, n * (n + 1)),
                Work("remote_child", {"app": other, "name": "mixed_load", "value": {"app": "ml", "width": n}},
                     2 * n * (n - 1)),
                Work("remote_child", {"app": other, "name": "remote_rounds", "value": rounds}, 4 * (n // 2)),
                Work("remote_child", {"app": other, "name": "gathered", "value": {"app": me, "width": n}}, n * n),
                Work("gathered", {"app": first, "width": n}, n * n),
                Work("remote_rounds", {"app": first, "left": 2}, 8),
                Work("nested", {"home": me, "route": [other, me]}, [[me, me], [other, me], [me, me]]),
                Work("remote_call", {"app": GO, "name": "Where", "value": None}, GO),
                anywhere(chance),
            ]
        )  # fmt: skip

    return work


def suffer(chaos: Chaos, seconds: float) -> tuple[list[Started], Counter[str], list[Loss]]:
    """The load and the faults; returns what was accepted, how often each fault came about, and what was lost."""
    apps = chaos.deployment.apps
    loads = [Client(apps[app], across(app) if app in DAPR else anywhere, n, PAUSE) for n, app in enumerate(apps)]
    faults: Counter[str] = Counter()
    losses: list[Loss] = []
    again = 0
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            if sum(faults.values()) % KEEP_EVERY == 0:
                chaos.keep()
            fault = chaos.one()
            faults[fault.kind] += 1
            losses += fault.losses
            say(f"  {fault.kind} {fault.where}")
            again += sum(load.start_again(loss) for loss in fault.losses for load in loads)
            time.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - began)))
    finally:
        started = [each for load in loads for each in load.stop()]
    say(f"{again} workflows started again after a loss")
    return started, faults, losses


def verdict(chaos: Chaos, started: list[Started], losses: list[Loss], before: dict[str, int]) -> list[str]:
    """What is wrong after the faults."""
    found, gone, refused = clients.verdict(started, losses, DRAIN_SECONDS)
    say(f"{gone} are gone with the time that their store has lost, {refused} could not be started again and say why")
    chance = random.Random(0)
    orders = chaos.deployment.apps["orders"]
    further = not_right([begin(orders, across("orders")(chance), 1_000_000 + n) for n in range(FURTHER)], 30.0)
    say(f"and then {FURTHER} further workflows finish: {'no' if further else 'yes'}")
    found += further
    for app, sidecar in chaos.sidecars.items():
        grown = memory(sidecar) / before[app]
        if grown > MOST_GROWTH:
            found.append(f"{app} has grown to {grown:.2f} of what it was")
    chaos.deployment.end_apps()
    for sidecar in chaos.sidecars.values():
        sidecar.stop()
        found += stores.left_behind(sidecar)
    return found


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="a new folder in which stores and logs stay")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    say(f"chaos for {given.seconds:g} s, seed {seed}")
    BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = given.keep or Path(name)
        directory.mkdir(exist_ok=True)
        chaos = Chaos(directory, seed)
        try:
            chaos.start()
            warm = [Load(app, anywhere, 99 + n, PAUSE) for n, app in enumerate(chaos.deployment.apps.values())]
            time.sleep(10.0)
            found = not_right([each for load in warm for each in load.stop()], 30.0)
            before = {app: memory(sidecar) for app, sidecar in chaos.sidecars.items()}
            started, faults, losses = suffer(chaos, given.seconds)
            say(f"faults {dict(faults)}; {len(started)} workflows accepted")
            found += verdict(chaos, started, losses, before)
        finally:
            chaos.end()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    result = f"{sum(faults.values())} faults in {given.seconds:g} s ({kinds}), {len(started)} workflows accepted"
    keep_figures("chaos", "make chaos", f"{result}, {len(found)} wrong")
    for text in found:
        say(f"WRONG: {text}")
    say("nothing lost, doubled, stuck or left behind" if not found else f"{len(found)} things are wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
