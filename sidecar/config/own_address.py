"""Where this machine finds what the sidecar beside it listens on. Imports nothing: a health check must cost nothing."""

HTTP_PORT = 3500


def in_address(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def reached(host: str) -> str:
    """Where this machine finds what listens on a host."""
    return "127.0.0.1" if host in ("", "localhost", "0.0.0.0", "::") else host  # noqa: S104 - asked, not bound
