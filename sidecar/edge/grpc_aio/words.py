"""What went wrong with a connection, in plain words: gRPC says it in those of its layers. Pure."""

import re

_WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"Domain name not found|no address.*associated|errors resolving|DNS resolution failed", "no such host"),
        (r"Connection refused", "connection refused: nothing listens there"),
        (r"No route to host|Network is unreachable", "no route to host"),
        (r"http1\.x server|http2 header with status", "it answers as an HTTP server, not as a sidecar's peer port"),
        (r"WRONG_VERSION_NUMBER", "TLS: it does not speak TLS, and this side does"),
        (r"Hostname Verification", "TLS: its certificate is not that of the app that is looked for"),
        (r"BAD_SIGNATURE|CERTIFICATE_VERIFY_FAILED|unable to get local issuer|self.signed",
         "TLS: its certificate is not from the CA that is trusted here"),
        (r"Tls handshake failed|Ssl handshake failed", "TLS: the handshake failed"),
        (r"before receiving SETTINGS|Timeout occurred|handshake timed out|handshaker shutdown",
         "it accepts connections and says nothing: not a sidecar's peer port?"),
        (r"Failed parsing HTTP/2", "what answers is no sidecar's peer port"),
        (r"Socket closed|Connection reset|Broken pipe",
         "it closed the connection: not a sidecar's peer port, or one that wants TLS, or another certificate"),
    )
)  # fmt: skip
_AROUND = re.compile(r"failed to connect to all addresses; last error: \w+: \S+ ")
_OF_CONNECTION = re.compile(
    r"failed to connect to all addresses|errors resolving|DNS resolution|http2 header with status"
)


def plain(details: str) -> str:
    """Return what a call has failed of; what is not about a connection stays as it is."""
    if not _OF_CONNECTION.search(details):
        return details
    known = next((text for pattern, text in _WORDS if pattern.search(details)), None)
    return known or _AROUND.sub("", details)
