"""Where the sidecars of other apps are.

In the order of their weight: a static map, a file that is read again when it changes, and a pattern that gives an
address for any app, such as "{app}-sidecar:50002".
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from sidecar.config.watched import stamp

Addresses = Mapping[str, tuple[str, ...]]
log = structlog.get_logger(__name__)


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
        self._file = file
        self._read = read
        self._seen: tuple[int, int] | None = None
        self._from_file: Addresses = {}

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

    def _listed(self) -> Addresses:
        """Return what the file says now; one that cannot be read leaves what it said before."""
        if self._file is None:
            return {}
        seen = stamp(self._file)
        if seen != self._seen:
            self._seen = seen
            try:
                self._from_file = self._read(self._file)
                log.info("peers read", file=str(self._file), apps=len(self._from_file))
            except ValueError as error:
                log.warning("the file of peers cannot be read, what it said before stays", error=str(error))
        return self._from_file
