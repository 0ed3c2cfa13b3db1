"""Asks the sidecar on this machine whether it is ready, for next to nothing: engines of containers do so for ever.

It imports what a start of Python imports anyway, and `socket`. That is why HTTP is spoken by hand here.
"""

import os
import socket
import sys
from collections.abc import Mapping

from sidecar.config.own_address import HTTP_PORT, in_address, reached

TIMEOUT_SECONDS = 3.0
_MOST_BYTES = 8192
_READY = "204"


def main() -> None:
    """Ask at once, and end the process, if the environment alone says where; else return, for the whole command."""
    address = of_environment(os.environ)
    if address is not None:
        sys.exit(ask(*address))


def of_environment(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Return host and port if no file and nothing unusual has to be read to know them."""
    port = environ.get("SIDECAR_HTTP_PORT") or str(HTTP_PORT)
    if environ.get("SIDECAR_CONFIG") or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        return None
    return reached(environ.get("SIDECAR_LISTEN_HOST", "").strip("[]")), int(port)


def ask(host: str, port: int) -> int:
    """Print whether the sidecar there is ready, and return the exit code: 0 if so, else 1.

    Container engines reserve 2 as the exit code of a health check.
    """
    why = why_not(host, port)
    if why:
        return failed(why)
    print("sidecar: ready")  # noqa: T201 - typer's way costs more than the question
    return 0


def why_not(host: str, port: int) -> str:
    """Return why the sidecar there is not ready, "" if it is."""
    try:
        status, body = _answer(host, port)
    except OSError as error:
        return f"no answer on {host}:{port}: {error.strerror or str(error) or type(error).__name__}"
    return "" if status == _READY else f"not ready: {_reason(body) or f'HTTP status {status}'}"


def failed(text: str) -> int:
    """Print one line on stderr, and return the exit code."""
    print(f"sidecar: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201
    return 1


def _answer(host: str, port: int) -> tuple[str, bytes]:
    """Return status and body. Raises OSError, also for what is no HTTP."""
    # In bytes: with a text the tables of IDNA are loaded.
    with socket.create_connection((host.encode(), port), TIMEOUT_SECONDS) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"GET /v1.0/healthz HTTP/1.1\r\nHost: {in_address(host)}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        received = b""
        while len(received) < _MOST_BYTES and (more := connection.recv(_MOST_BYTES)):
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    version, _, rest = line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise OSError(line[:80] or "it closed the connection without an answer")
    return rest[:3], body


def _reason(body: bytes) -> str:
    import json  # noqa: PLC0415 - only what is not ready has a body

    try:
        content = json.loads(body)
    except ValueError:
        return ""
    return str(content.get("message", "")) if isinstance(content, dict) else ""
