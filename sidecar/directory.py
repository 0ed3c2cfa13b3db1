"""Where the sidecars of other apps are."""

from collections.abc import Iterable, Mapping


class Directory:
    """Addresses of peers by app ID, in this sidecar's own namespace: a static map."""

    def __init__(self, namespace: str, peers: Mapping[str, tuple[str, ...]]) -> None:
        self._namespace = namespace
        self._peers = dict(peers)

    def addresses(self, namespace: str, app: str) -> tuple[str, ...]:
        """Return "host:port" of an app's sidecars, () when the app is not known."""
        return self._peers.get(app, ()) if namespace == self._namespace else ()

    def apps(self) -> Iterable[str]:
        """Return the app IDs that are known."""
        return self._peers.keys()
