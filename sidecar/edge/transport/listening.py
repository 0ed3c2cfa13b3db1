"""Where a sidecar listens: which addresses a host stands for, how ports are bound there, and what is said of them."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sidecar import system
from sidecar.config import addresses
from sidecar.config.settings import Settings, StartError
from sidecar.edge.transport.ports import AddressInUse, Server, Tls

LOOPBACK = ("127.0.0.1", "::1")
_NAMES_BOTH = ("localhost", "127.0.0.1")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a sidecar listens."""

    grpc: list[int]
    http: int
    peer: int


def both_loopbacks(host: str) -> bool:
    """Whether a host stands for both loopback addresses: SDKs look at either."""
    return host.lower() in _NAMES_BOTH


async def listen(server: Server, host: str, port: int, tls: Callable[[], Tls] | None = None) -> int:
    """Bind a server, and return the port. On localhost both addresses get it; without IPv6 the first alone.

    Raises:
        StartError: the port is taken, or the host is not this machine's.
    """
    if not both_loopbacks(host):
        return await _listen(server, host, port, tls)
    bound = await _listen(server, LOOPBACK[0], port, tls)
    if _has_ipv6():
        await _listen(server, LOOPBACK[1], bound, tls)
    else:
        log.info("no IPv6 on this machine: listening on 127.0.0.1 only", port=bound)
    return bound


async def _listen(server: Server, host: str, port: int, tls: Callable[[], Tls] | None) -> int:
    try:
        probe(host, port)
        return await server.listen(host, port, tls)
    except OSError as error:
        raise StartError(f"{error}: stop what listens there, or choose another port") from error


def is_free(host: str, port: int) -> bool:
    """Whether a port can be listened on at a host; of localhost, at both addresses."""
    try:
        for one in LOOPBACK if both_loopbacks(host) and _has_ipv6() else (host,):
            probe(one, port)
    except OSError:
        return False
    return True


def probe(host: str, port: int) -> None:
    """Find out that an address is taken before the transport does: it would say so in lines of its own.

    Raises:
        AddressInUse: it cannot be had; the text says why.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            system.claim_address(probe)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise AddressInUse(f"cannot listen on {host}:{port}: {reason}") from error


def _has_ipv6() -> bool:
    try:
        probe(LOOPBACK[1], 0)
    except OSError:
        return False
    return True


def announce(settings: Settings, ports: Ports) -> None:
    """Say in the log where the sidecar listens, and what is not guarded."""
    if settings.insecure_peers:
        log.warning("peers are not authenticated: --insecure-peers lets anybody who reaches the peer port in")
    if settings.insecure_listen and not (settings.api_token or settings.api_token_file):
        log.warning("callers are not authenticated: --insecure-listen lets anybody who reaches the app's ports in")
    elif not addresses.is_loopback(settings.listen_host) and not (settings.api_token or settings.api_token_file):
        log.warning("TLS shows callers whom they reach, not who they are: give a token too, or anybody may call")
    log.info(
        "ready",
        namespace=settings.namespace,
        listen_host=settings.listen_host,
        grpc_ports=ports.grpc,
        http_port=ports.http,
        peer=f"{settings.peer_host}:{ports.peer}",
        data_dir=str(settings.data_dir),
    )
