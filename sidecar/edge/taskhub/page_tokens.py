"""Continuation tokens: where a list goes on. Pure.

A token holds for one call of one hub of one store, also after a backup of that was restored. It names a place, not a
page: whatever comes and goes meanwhile, the list goes on behind it. It is never "0" and never the same twice in a list:
one SDK takes either for the end.
"""

import hmac

from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.store.protocol import BEGINNING, Cursor

_REFUSAL = "the continuation token is not one that this sidecar gave for this call: begin again without a token"
_LONGEST_NUMBER = 19


def issue(store: str, hub: str, call: str, cursor: Cursor) -> str:
    """Return the token for going on behind a place."""
    place = f"{cursor.moment}.{cursor.key}"
    return f"{place}.{_seal(store, hub, call, place)}"


def read(store: str, hub: str, call: str, token: str) -> Cursor:
    """Return the place that a token names; an empty one names the beginning.

    Raises:
        Refused: it was not issued for this call by this sidecar's store.
    """
    if not token:
        return BEGINNING
    place, _, seal = token.rpartition(".")
    moment, _, key = place.partition(".")
    numbers = all(len(number) <= _LONGEST_NUMBER for number in (moment, key))
    if not numbers or not hmac.compare_digest(seal.encode(), _seal(store, hub, call, place).encode()):
        raise Refused(StatusCode.INVALID_ARGUMENT, _REFUSAL)
    return Cursor(int(moment), int(key))


def _seal(store: str, hub: str, call: str, place: str) -> str:
    return hmac.new(store.encode(), "\n".join((hub, call, place)).encode(), "sha256").hexdigest()[:16]
