"""Hostile input over sockets: so many inputs to each method of a real sidecar, its peer port and its HTTP port.

Most are requests that are almost right; a tenth are right requests in wrong frames. Figures go to
`build/figures/fuzz-sockets.json`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from sidecar.core.model import Status as Life
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.methods import TASKHUB as SERVICE
from sidecar.edge.peer import link
from sidecar.edge.transport.ports import Closed, Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.blackbox.harness import Sidecar
from tests.fuzz import frames, http_bytes, mutate, plots, seeds
from tests.fuzz.items import ANSWERS, honestly, item_of
from tests.fuzz.run import ROOT
from tests.fuzz.story import METADATA

FIGURES = ROOT / "build" / "figures" / "fuzz-sockets.json"
HEALTH = "/grpc.health.v1.Health/"
WORK, HISTORY = SERVICE + "GetWorkItems", SERVICE + "StreamInstanceHistory"
_AT_ONCE = 48
_FRAMED = 0.1  # the share that comes in wrong frames
_FURTHER = 20  # workflows that must finish afterwards
MOST_MIB = 700
_WAITS = (f"{SERVICE}WaitForInstanceStart", f"{SERVICE}WaitForInstanceCompletion")
_TRANSPORT = "transport "  # before the statuses that grpc itself answers with to wrong frames


@dataclass
class Tally:
    """What was sent to one method, and the statuses that came back."""

    method: str
    inputs: int = 0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    findings: dict[str, str] = field(default_factory=dict)  # what it is -> an input in hex


class Attack:
    """One sidecar under attack, and an honest worker that keeps it from filling up."""

    def __init__(self, sidecar: Sidecar, inputs: int, seed: int) -> None:
        self.sidecar = sidecar
        self.inputs = inputs
        self.rng = random.Random(seed)
        self.channel = GrpcChannel(f"127.0.0.1:{sidecar.port}")
        self.tallies: list[Tally] = []

    async def run(self) -> None:
        """Attack every method, one after the other."""
        working = asyncio.create_task(self.work())
        for path in [*plots.paths(), HEALTH + "Check"]:
            await self._attack(path, self._unary)
        for path in (WORK, HISTORY, HEALTH + "Watch"):
            await self._attack(path, self._stream)
        await self._attack(link.METHOD, self._link)
        await self._attack("HTTP", self._http)
        await self._further()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await self.channel.close()

    async def _attack(self, path: str, one: Callable[[Tally], Awaitable[None]]) -> None:
        tally = Tally(path)
        self.tallies.append(tally)
        began = time.monotonic()

        async def some() -> None:
            while tally.inputs < self.inputs:
                if path != "HTTP" and self.rng.random() < _FRAMED:
                    await self._framed(tally)
                else:
                    await one(tally)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
        tally.seconds = time.monotonic() - began
        print(f"{path:62} {tally.inputs:6,} {tally.seconds:6.1f} s  {dict(tally.statuses)}", flush=True)
        if not self.sidecar.running:
            raise SystemExit(f"the sidecar ended\n{self.sidecar.log_tail()}")

    # ------------------------------------------------------------ ways to attack

    def _body(self, path: str) -> bytes:
        name = path.rpartition("/")[2]
        if path.startswith(HEALTH):
            body: bytes = seeds.made(health_pb2.HealthCheckRequest, self.rng).SerializeToString()
        else:
            body = plots.request(name, self.rng)
        return mutate.message(body, self.rng, plots.bodies(name)) if self.rng.random() < 0.9 else body

    def _metadata(self) -> list[tuple[str, str | bytes]]:
        given = {key: value for key, value in self.rng.choice(METADATA).items() if key != "user-agent"}
        if self.rng.random() < 0.1:
            size = self.rng.choice((0, 1, 1000, 9000))
            given |= {f"x-{size}": "y" * size, "blob-bin": self.rng.randbytes(size), "taskhub": "€".encode().hex()}
        return [(key, value) for key, value in given.items() if not isinstance(value, str) or value.isprintable()]

    async def _unary(self, tally: Tally) -> None:
        body = self._body(tally.method)
        tally.inputs += 1
        seconds = 0.05 if tally.method in _WAITS else 20.0
        try:
            await self.channel.unary(tally.method, body, self._metadata(), timeout=seconds)
            tally.statuses["OK"] += 1
        except Refused as refused:
            self._count(tally, refused, body, late=tally.method not in _WAITS)

    def _count(self, tally: Tally, refused: Refused, body: bytes, *, late: bool = False) -> None:
        tally.statuses[refused.status.name] += 1
        bad = (StatusCode.UNKNOWN, StatusCode.INTERNAL, *((StatusCode.DEADLINE_EXCEEDED,) if late else ()))
        if refused.status in bad:
            tally.findings.setdefault(f"{refused.status.name}: {refused.message[:200]}", body.hex())

    async def _stream(self, tally: Tally) -> None:
        body = self._body(tally.method)
        tally.inputs += 1
        call = self.channel.duplex(tally.method, self._metadata())
        try:
            await call.send(body)
            await call.done_sending()
            async with asyncio.timeout(0.02):
                while await call.receive() is not None:
                    pass
            tally.statuses["OK"] += 1
        except TimeoutError:
            tally.statuses["OK"] += 1  # it goes on until it is cancelled
        except Refused as refused:
            self._count(tally, refused, body)
        except Closed:
            tally.statuses["CLOSED"] += 1
        finally:
            call.cancel()

    async def _link(self, tally: Tally) -> None:
        """A link with twenty frames; one in five does not even begin as it should."""
        channel = GrpcChannel(f"127.0.0.1:{self.sidecar.peer_port}")
        call = channel.duplex(link.METHOD)
        first = plots.greeting(self.rng).body
        messages = [mutate.message(first, self.rng, [first]) if self.rng.random() < 0.2 else first]
        messages += [plots.frame(self.rng).body for _ in range(20)]
        sent = b""
        try:
            for message in messages:
                sent = mutate.message(message, self.rng, messages) if message is not first else message
                tally.inputs += 1
                await call.send(sent)
            async with asyncio.timeout(0.05):
                while await call.receive() is not None:
                    tally.statuses["frames"] += 1
        except TimeoutError:
            tally.statuses["OK"] += 1
        except Closed:
            with suppress(Closed, Refused):
                await call.receive()
            tally.statuses["CLOSED"] += 1
        except Refused as refused:
            self._count(tally, refused, sent)
        finally:
            call.cancel()
            await channel.close()

    async def _framed(self, tally: Tally) -> None:
        """Requests in HTTP/2 frames as no client of gRPC writes them, several on one connection."""
        port = self.sidecar.peer_port if tally.method == link.METHOD else self.sidecar.port
        body = plots.greeting(self.rng).body if tally.method == link.METHOD else self._body(tally.method)
        count, statuses, failed = await frames.misframed(port, tally.method, body, self.rng)
        tally.inputs += count
        if failed:
            tally.findings.setdefault("INTERNAL in wrong frames", body.hex())
        for status in statuses:
            tally.statuses[_TRANSPORT + status] += 1

    async def _http(self, tally: Tally) -> None:
        data = mutate.text(self.rng.choice(http_bytes.REQUESTS), self.rng, http_bytes.WORDS)
        tally.inputs += 1
        answer = await frames.http(self.sidecar.http_port, data)
        for status in http_bytes.statuses(answer):
            tally.statuses[str(status)] += 1
            if http_bytes.is_wrong(status, data):
                tally.findings.setdefault(f"HTTP {status}", data.hex())

    # ------------------------------------------------------------ honest work

    async def work(self) -> None:
        """Be an honest worker, on a connection of its own."""
        channel = GrpcChannel(f"127.0.0.1:{self.sidecar.port}")
        try:
            while True:
                with suppress(Refused, Closed):
                    await self._work(channel)
                await asyncio.sleep(0.2)
        finally:
            await channel.close()

    async def _work(self, channel: GrpcChannel) -> None:
        call = channel.duplex(WORK, (("x-user-agent", "durabletask-python/1.12"),))
        await call.send(pb.GetWorkItemsRequest(max_orchestrations=50, max_activities=50).SerializeToString())
        await call.done_sending()
        try:
            while (message := await call.receive()) is not None:
                item = item_of("", message)
                if item is not None:
                    with suppress(Refused, DecodeError):
                        await channel.unary(SERVICE + ANSWERS[item.kind], honestly(item), timeout=20.0)
        finally:
            call.cancel()

    async def _further(self) -> None:
        """See that workflows still run to their end."""
        for number in range(_FURTHER):
            name = f"further {number}"
            asked = pb.CreateInstanceRequest(instance_id=name, name="flow").SerializeToString()
            await self.channel.unary(SERVICE + "StartInstance", asked, timeout=20.0)
            get = pb.GetInstanceRequest(instance_id=name).SerializeToString()
            answer = await self.channel.unary(SERVICE + "WaitForInstanceCompletion", get, timeout=60.0)
            status = pb.GetInstanceResponse.FromString(answer).state.status
            if status != Life.COMPLETED:
                raise SystemExit(f"{name} ended with status {status}")


def attack(inputs: int, seed: int, directory: Path) -> tuple[list[Tally], list[str], float]:
    """Run an attack; return the figures, the errors in the log, and the most memory the sidecar had, in MiB."""
    sidecar = Sidecar("orders", directory)
    sidecar.environment["SIDECAR_LOG_LEVEL"] = "warning"
    sidecar.options = ["--unknown-app", "fail"]  # a call for an app that is not there has its answer at once
    sidecar.start()

    async def run() -> list[Tally]:
        under = Attack(sidecar, inputs, seed)  # its channel belongs to the loop
        await under.run()
        return under.tallies

    try:
        tallies = asyncio.run(run())
        status = Path(f"/proc/{sidecar.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        sidecar.stop()
    finally:
        sidecar.kill9()
    errors = {line[:300] for line in sidecar.log.read_text(errors="replace").splitlines() if _bad(line)}
    return tallies, sorted(errors), peak


def _bad(line: str) -> bool:
    """Whether a line of the log says that something was not foreseen; a path that is no UTF-8 ends grpc's server."""
    return ('"level": "error"' in line or "Traceback" in line) and "grpc_server_died" not in line


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sockets", description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000, help="for each method")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        tallies, errors, peak = attack(asked.inputs, asked.seed, Path(directory))
    findings = [f"{one.method}: {wrong}\n    {data}" for one in tallies for wrong, data in one.findings.items()]
    findings += [f"log: {error}" for error in errors]
    findings += [f"{peak:.0f} MiB of memory"] if peak > MOST_MIB else []
    total = sum(one.inputs for one in tallies)
    result = f"{total:,} inputs to {len(tallies)} methods, at least {min(one.inputs for one in tallies):,} to each; "
    result += f"{len(findings)} findings; at most {peak:.0f} MiB; {_FURTHER} further workflows finished"
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    figures = {"command": "make fuzz-sockets", "result": result, "methods": [vars(one) for one in tallies]}
    FIGURES.write_text(json.dumps(figures, indent=1))
    print("\n".join([*findings, result]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
