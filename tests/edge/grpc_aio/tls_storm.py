"""A server of its own process with TLS, and many clients that shake hands with it in the same moment.

python -m tests.edge.grpc_aio.tls_storm DIRECTORY CLIENTS SECONDS   with `--mutual` clients show a certificate, with
`--renew` that of the server is another every two seconds. Prints how many handshakes there were, and how many tries
they took; a death of the process is what the caller looks for.
"""

import argparse
import asyncio
import ssl
import sys
from pathlib import Path

from sidecar.cli import dev_ca
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.security.certificates import Certificates, Files
from sidecar.edge.transport.ports import Handlers

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_PATIENCE = 20.0


def issue(directory: Path) -> None:
    dev_ca.issue(directory, ["orders"], "default", "storm.test", 1)


def trusting(directory: Path, mutual: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if mutual:
        context.load_cert_chain(directory / "orders.crt", directory / "orders.key")
    return context


async def shake(port: int, context: ssl.SSLContext) -> int:
    """Connect, and wait until the server speaks HTTP/2; again when it closes, as SDKs do. Returns how often."""
    begun, tries = asyncio.get_running_loop().time(), 0
    async with asyncio.timeout(_PATIENCE):
        while True:
            tries += 1
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                writer.write(_PREFACE)
                await reader.readexactly(9)
            except (ConnectionResetError, asyncio.IncompleteReadError) as error:
                after = asyncio.get_running_loop().time() - begun
                print(f"try {tries} was closed by the server after {after:.3f} s: {error!r}", file=sys.stderr)  # noqa: T201
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return tries


async def storm(directory: Path, clients: int, seconds: float, mutual: bool, renew: bool) -> tuple[int, int]:
    files = Files(directory / "orders.crt", directory / "orders.key", directory / "ca.crt" if mutual else None)
    server = GrpcServer(Handlers())
    port = await server.listen("127.0.0.1", 0, Certificates(files).pem)
    await server.start()
    context, loop, shaken, tries = trusting(directory, mutual), asyncio.get_running_loop(), 0, 0
    end = renewal = loop.time()
    end += seconds
    while not shaken or loop.time() < end:
        if renew and loop.time() >= renewal + 2.0:
            renewal = loop.time()
            issue(directory)
        tries += sum(await asyncio.gather(*(shake(port, context) for _ in range(clients))))
        shaken += clients
    await server.stop(0.0)
    return shaken, tries


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--mutual", action="store_true")
    parser.add_argument("--renew", action="store_true")
    given = parser.parse_args()
    issue(given.directory)
    print(*asyncio.run(storm(given.directory, given.clients, given.seconds, given.mutual, given.renew)))  # noqa: T201


if __name__ == "__main__":
    main()
