"""How many turns and activities may be out at once over all workers, by patterns of their names. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

WORKFLOWS, ACTIVITIES = "workflow", "activity"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many items at once of the names that fit the pattern (`*`, `?`, `[..]`), taken together."""

    pattern: str
    most: int


def of(kind: str, settings: Mapping[str, int]) -> tuple[Limit, ...]:
    """Return the limits of a kind of work from settings by `<kind>:<pattern>`."""
    prefix = f"{kind}:"
    found = ((key.removeprefix(prefix), most) for key, most in settings.items() if key.startswith(prefix))
    return tuple(Limit(pattern, most) for pattern, most in found)


class Room:
    """What the limits leave free while work is handed out: items count from when they are taken."""

    def __init__(self, limits: tuple[Limit, ...], out: Iterable[str]) -> None:
        names = Counter(out) if limits else Counter[str]()
        self._left = {limit: limit.most - _matching(limit.pattern, names) for limit in limits}

    def admits(self, name: str) -> bool:
        """Whether one more item of this name may go out."""
        return self.full(name) is None

    def full(self, name: str) -> Limit | None:
        """Return a limit that lets no more item of this name out, or None."""
        fitting = (limit for limit, left in self._left.items() if left <= 0 and fnmatchcase(name, limit.pattern))
        return next(fitting, None)

    def take(self, name: str) -> None:
        """An item of this name goes out."""
        for limit in self._left:
            self._left[limit] -= fnmatchcase(name, limit.pattern)


def _matching(pattern: str, names: Mapping[str, int]) -> int:
    return sum(count for name, count in names.items() if fnmatchcase(name, pattern))
