"""Which apps cannot be reached, since when and why: logged once when it begins to last, and once when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from sidecar.actors.clock import Clock
from sidecar.core import causes
from sidecar.core.causes import Cause

LASTING = 3_000_000  # microseconds: sidecars that start together meet within that
_MOST_APPS = 2_000  # that something is known of; of more, nothing of those that came first
_MOST_REFUSALS = 100
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Trouble:
    """Since when there is no link, what the last attempts failed of by address, and whether that was logged."""

    since: int
    errors: dict[str, str] = field(default_factory=dict)
    told: bool = False


class Troubles:
    """The troubles of one sidecar, by app ID."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[str, _Trouble] = {}
        self._refusals: set[tuple[str, str]] = set()

    def begin(self, app: str) -> None:
        """Take note that there is no link to an app, from now on."""
        self._of.setdefault(app, _Trouble(self._clock.now()))
        if len(self._of) > _MOST_APPS:
            del self._of[next(iter(self._of))]

    def failed(self, app: str, addresses: Sequence[str], address: str, error: str) -> None:
        """Take note of what the last attempt at one of its addresses failed of."""
        self.begin(app)
        trouble = self._of[app]
        errors = trouble.errors | {address: error}
        trouble.errors = {one: errors[one] for one in addresses if one in errors}
        log.debug("no link", app=app, address=address, error=error)
        if not trouble.told and self._clock.now() - trouble.since >= LASTING:
            trouble.told = True
            cause = self.cause(app)
            log.warning("peer cannot be reached", app=app, why=cause.text, advice=cause.advice)

    def end(self, app: str) -> None:
        """Take note that there is a link."""
        trouble = self._of.pop(app, None)
        self._refusals = {one for one in self._refusals if one[0] != app}
        if trouble is not None and trouble.told:
            seconds = round((self._clock.now() - trouble.since) / 1e6, 1)
            log.info("peer is reached again", app=app, seconds=seconds)

    def forget(self, app: str) -> None:
        """Take note that nothing is known of an app any more: it has no address."""
        self._of.pop(app, None)

    def since(self, app: str) -> int:
        """Return since when there is no link to an app, 0 if that is not known."""
        trouble = self._of.get(app)
        return 0 if trouble is None else trouble.since

    def cause(self, app: str) -> Cause:
        """Say why there is no link to an app that has an address."""
        trouble = self._of.get(app) or _Trouble(0)
        return causes.unreachable(app, trouble.errors, trouble.since)

    def error(self, app: str) -> str:
        """Return what the last attempts failed of, "" if none has."""
        trouble = self._of.get(app)
        return "; ".join(f"{at}: {error}" for at, error in trouble.errors.items()) if trouble else ""

    def refused(self, app: str, peer: str, error: str) -> None:
        """Log that a caller was not let in, once until the app that it says it is gets a link: it calls again."""
        key = (app, error)
        if key not in self._refusals and len(self._refusals) < _MOST_REFUSALS:
            self._refusals.add(key)
            log.warning("peer refused", peer=peer, error=error)
