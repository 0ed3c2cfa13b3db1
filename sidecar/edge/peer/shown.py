"""How it goes with other apps, as metadata shows it."""

from sidecar.core import events
from sidecar.edge.peer.links import Peers, PeerState
from sidecar.peers.outbox import Outbox
from sidecar.services.waiting import Reports
from sidecar.work import takers


def rows(peers: Peers, outbox: Outbox, reports: Reports) -> list[dict[str, object]]:
    """Return a row for each other app: those that are known, and those that something waits for."""
    waiting = {app: len(queue.pending) for (_, app), queue in outbox.queues.items()}
    states = peers.states()
    known = {state.app for state in states}
    states += [PeerState(app, (), False, 0, "") for app in sorted(waiting) if app not in known]
    namespace = outbox.engine.me.namespace
    return [
        {
            "appId": state.app,
            "addresses": list(state.addresses),
            "state": "connected" if state.connected else "connecting" if state.addresses else "no address",
            "since": events.timestamp(state.since).ToJsonString() if state.since else None,
            "waiting": waiting.get(state.app, 0),
            "error": state.error,
            "says": [takers.shown(cause) for cause in reports.of((namespace, state.app))],
        }
        for state in states
    ]
