"""How a command reaches a sidecar of this machine or another: over its gRPC port, as its settings say."""

from pathlib import Path

from sidecar.config import addresses
from sidecar.config.own_address import in_address, reached
from sidecar.config.parsers import Secret
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.security.api_tokens import HEADER, ApiTokens
from sidecar.edge.transport.ports import Metadata, Tls

HOW = "--listen-host, --app-cert and its token; with TLS GRPC_DEFAULT_SSL_ROOTS_FILE_PATH may name the CA"
_ANYBODY = Tls(b"", b"", None)  # no certificate of its own; the CAs of the system or of the variable are trusted
_MOST_BYTES = 2**30  # of an answer: a history comes in one


def channel(listen_host: str, port: int, certificate: Path | None) -> GrpcChannel:
    """Open a connection to where a sidecar listens; with a certificate its ports speak TLS."""
    host = reached(listen_host)
    tls, name = (None, "") if certificate is None else (_ANYBODY, _tls_name(host))
    return GrpcChannel(f"{in_address(host)}:{port}", tls=tls, name=name, max_receive_bytes=_MOST_BYTES)


def credentials(token: Secret | None, file: Path | None) -> Metadata:
    """Return what a call shows. Raises StartError: the file cannot be used."""
    newest = ApiTokens(token if file is None else None, file).newest()
    return ((HEADER, newest),) if newest else ()


def _tls_name(host: str) -> str:
    return "localhost" if addresses.is_loopback(host) else host
