"""Where the sidecars of other apps are.

In the order of their weight: a static map, a file that is read again when it changes, and a pattern that gives an
address for any app, such as "{app}-sidecar:50002".
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar.config.watched import Watched

Addresses = Mapping[str, tuple[str, ...]]


class Directory:
    """Addresses of peers by app ID, in this sidecar's own namespace.

    `read` returns what is in the file, or raises ValueError, whose text says what is wrong with it.
    """

    def __init__(
        self,
        namespace: str,
        peers: Addresses,
        *,
        pattern: str = "",
        file: Path | None = None,
        read: Callable[[Path], Addresses] = lambda path: {},
    ) -> None:
        self._namespace = namespace
        self._static = dict(peers)
        self._pattern = pattern
        self.file: Watched[Addresses] | None = None
        if file is not None:
            self.file = Watched((file,), lambda: read(file), lambda found: f"{len(found)} apps", first={})

    def addresses(self, namespace: str, app: str) -> tuple[str, ...]:
        """Return "host:port" of an app's sidecars, () when the app is not known."""
        if namespace != self._namespace:
            return ()
        found = self._static.get(app) or self._listed().get(app)
        if found is None and self._pattern:
            found = (self._pattern.replace("{app}", app).replace("{namespace}", namespace),)
        return found or ()

    def apps(self) -> set[str]:
        """Return the app IDs that are listed; a pattern lists none."""
        return {*self._static, *self._listed()}

    def lists(self, app: str) -> bool:
        """Whether an app has an entry of its own."""
        return app in self._static or app in self._listed()

    def _listed(self) -> Addresses:
        """Return what the file says now; one that cannot be read leaves what it said before."""
        return {} if self.file is None else self.file.look()
