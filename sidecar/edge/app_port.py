"""All that is served on the app's gRPC port: measured, let in, and on loopback told of."""

from collections.abc import Callable

from sidecar.config import addresses
from sidecar.config.settings import Settings
from sidecar.edge.admin import health
from sidecar.edge.admin.health import Health
from sidecar.edge.admin.reflection import Reflection
from sidecar.edge.client_api.workflows import Workflows
from sidecar.edge.security.admission import Admission
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.taskhub.service import WORK, TaskHub
from sidecar.edge.transport.ports import Handlers, merged


def handlers(
    settings: Settings,
    tokens: ApiTokens,
    taskhub: TaskHub,
    others: Handlers,
    *,
    timed: Callable[[Handlers], Handlers],
    ready: Callable[[], bool],
) -> Handlers:
    """Return the handlers of the port by path: the SDKs' service, what is called by way of it, the others, health."""
    admission = Admission(
        tokens,
        most_bytes=settings.max_message_bytes,
        most_calls=settings.max_calls,
        most_workers=settings.max_workers,
    )
    hub = timed(taskhub.handlers())
    asked = merged(hub, Workflows(hub.unary).handlers(), timed(others))  # what comes by way of the first counts there
    guarded = admission.guarded(asked, answers=taskhub.answers(), workers=[WORK])
    asked_by_all = Health(ready, admission.shows_token).handlers()
    served = merged(guarded, admission.limited(asked_by_all, streams=[health.WATCH]))
    if not addresses.is_loopback(settings.listen_host):
        return served
    told = Reflection([*served.unary, *served.stream, *served.duplex]).handlers()
    return merged(served, admission.guarded(told, answers=(), workers=()))
