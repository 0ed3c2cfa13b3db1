"""Many workers that lose their connections in one moment, over TLS, and come back together."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.cli import dev_ca
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.transport.ports import Closed, Refused, Tls
from tests.blackbox.harness import HOST, Sidecar
from tests.blackbox.proxy import Network, Proxy
from tests.blackbox.wire import SERVICE
from tests.conftest import Injected

pytestmark = [pytest.mark.hard, pytest.mark.timeout(300)]

WORKERS, ROUNDS = 200, 10
BACK_SECONDS = 30.0
_PAUSE = 0.2  # of a worker between two tries


async def work(port: int, tls: Tls) -> None:
    """Be a worker that connects again whenever it loses its stream."""
    channel = GrpcChannel(f"{HOST}:{port}", tls=tls, name="localhost")
    try:
        while True:
            stream = channel.duplex(SERVICE + "GetWorkItems")
            try:
                await stream.send(b"")
                while await stream.receive() is not None:
                    pass
            except (Closed, Refused):
                await asyncio.sleep(_PAUSE)
            finally:
                stream.cancel()
    finally:
        await channel.close()


async def connected(sidecar: Sidecar, count: int) -> float:
    """How long it took until so many workers are there."""
    began = time.monotonic()
    async with asyncio.timeout(BACK_SECONDS):
        while (await asyncio.to_thread(sidecar.metadata))["workflows"]["connectedWorkers"] != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.fault(41, "Hundreds of workers that come back over TLS in one moment are all served, the certificate new")
async def test_many_workers_come_back_over_tls_in_one_moment(
    own_sidecar: Sidecar, tmp_path: Path, tell: Callable[[str], None], injected: Injected
) -> None:
    certs = tmp_path / "certs"
    dev_ca.issue(certs, ["orders"], "default", "sidecar.local", 1)
    own_sidecar.options = ["--app-cert", str(certs / "orders.crt"), "--app-key", str(certs / "orders.key")]
    own_sidecar.start()
    pid, network = own_sidecar.pid, Network()
    try:
        proxy = Proxy(network, own_sidecar.port)
        tls = Tls(b"", b"", (certs / "ca.crt").read_bytes())
        fleet = [asyncio.create_task(work(proxy.port, tls)) for _ in range(WORKERS)]
        took = [await connected(own_sidecar, WORKERS)]
        for _ in range(ROUNDS):
            proxy.cut()
            await connected(own_sidecar, 0)
            dev_ca.issue(certs, ["orders"], "default", "sidecar.local", 1)
            proxy.mend()
            took.append(await connected(own_sidecar, WORKERS))
            injected(WORKERS, "workers came back at once")
        for one in fleet:
            one.cancel()
        await asyncio.gather(*fleet, return_exceptions=True)
        await connected(own_sidecar, 0)
    finally:
        network.end()
    tell(f"{WORKERS} workers were back after {min(took):.1f} to {max(took):.1f} s")
    assert own_sidecar.running
    assert own_sidecar.pid == pid
    own_sidecar.stop()
