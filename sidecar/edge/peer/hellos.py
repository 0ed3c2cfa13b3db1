"""Who may begin a link, before anything of what it says is read: a hello may be as large as any message."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from sidecar.edge.transport.ports import Call, Refused, StatusCode

MOST = 4  # of one app that are being read
log = structlog.get_logger(__name__)


class Hellos:
    """Those that are being read, by the app whose certificate their sender has; without certificates nobody is told."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.reading: Counter[str] = Counter()

    @contextmanager
    def read(self, call: Call, proved: frozenset[str] | None) -> Iterator[None]:
        """See that a peer is an app of this namespace, and has not begun many links at once.

        `proved` are the apps that its certificate is of, None if it needs none.

        Raises:
            Refused: it is not, or it has.
        """
        if proved is None:
            yield
            return
        who = min(proved, default="")
        if not who:
            text = f"the certificate names no app of namespace '{self._namespace}' in this trust domain"
            log.warning("peer refused", peer=call.peer, error=text, names=[*call.identity.uris, *call.identity.dns])
            raise Refused(StatusCode.PERMISSION_DENIED, text)
        if self.reading[who] >= MOST:
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{MOST} links of app '{who}' begin already: try again")
        self.reading[who] += 1
        try:
            yield
        finally:
            self.reading[who] -= 1
