"""How the room for calls of other apps is shared, so that none of them shuts the others out. Pure."""

from dataclasses import dataclass, field

from sidecar.core.ids import PeerId


@dataclass(slots=True)
class _Held:
    places: int = 0
    size: int = 0  # bytes


@dataclass(slots=True)
class Shares:
    """Places and bytes, which apps hold a part of.

    An app may hold as much as it leaves free: alone it gets half, two that want everything get a third each, and there
    is always as much for one that comes. The first place of an app may be of any size.
    """

    places: int
    size: int
    _free: _Held = field(init=False)
    _held: dict[PeerId, _Held] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._free = _Held(self.places, self.size)

    def has_room(self, peer: PeerId, size: int) -> bool:
        """Whether an app may have one more place, of so many bytes."""
        held = self._held.get(peer)
        if held is None:
            return True
        return held.places < self._free.places and held.size + size <= self._free.size - size

    def held(self, peer: PeerId) -> tuple[int, int]:
        """Return how many places, and how many bytes, an app has."""
        held = self._held.get(peer, _Held())
        return held.places, held.size

    def add(self, peer: PeerId, places: int, size: int) -> None:
        """Take note that an app holds so much more, or less."""
        held = self._held.setdefault(peer, _Held())
        for one, sign in ((held, 1), (self._free, -1)):
            one.places += sign * places
            one.size += sign * size
        if not held.places:
            del self._held[peer]
