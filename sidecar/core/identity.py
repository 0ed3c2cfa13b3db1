"""Which app decides, where its calls go, and what a decision may know of the world."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from sidecar.core.ids import Ids
from sidecar.core.model import ActorId


@dataclass(frozen=True, slots=True)
class AppIdentity:
    """Who this sidecar is, and which app a call without a target goes to.

    A route is a kind of call ("workflow" or "activity"), a pattern of its name and an app ID; the first route that
    fits decides. `reuse_ended`: the ID of an instance that has ended may be used again when the client gives no policy.
    `cascade_suspend`: a client's pause reaches the children too. `traces`: executions have spans of their own, below
    which is what they call.
    """

    namespace: str
    app: str
    reuse_ended: bool = True
    routes: tuple[tuple[str, str, str], ...] = ()
    cascade_suspend: bool = False
    traces: bool = False

    def routed(self, kind: str, name: str) -> str:
        """Return the app that a call goes to when it names none."""
        fits = (app for of, pattern, app in self.routes if of == kind and fnmatchcase(name, pattern))
        return next(fits, self.app)

    def workflow(self, hub: str, instance_id: str) -> ActorId:
        """Return the address of an own instance."""
        return ActorId(self.namespace, self.app, "workflow", hub, instance_id)

    def activity(self, hub: str, activity_id: str) -> ActorId:
        """Return the address of an activity that runs here."""
        return ActorId(self.namespace, self.app, "activity", hub, activity_id)

    def entity(self, hub: str, entity_id: str) -> ActorId:
        """Return the address of an own entity."""
        return ActorId(self.namespace, self.app, "entity", hub, entity_id)

    def owns(self, actor: ActorId) -> bool:
        """Whether the actor is one of this app."""
        return actor.app == self.app and actor.namespace == self.namespace


@dataclass(frozen=True, slots=True)
class Context:
    """The app that decides, the time in µs since the Unix epoch, and the source of new IDs.

    A step knows nothing else but the instance and what has arrived for it.
    """

    me: AppIdentity
    now: int
    ids: Ids
