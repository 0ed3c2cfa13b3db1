"""The end of a message that its app does not take: in the log, and told to whoever waits for what it brings."""

import structlog

from sidecar.actors.engine import Engine
from sidecar.core import events, undeliverable
from sidecar.core.delivery import arrive
from sidecar.core.model import Changes, Kind, Outcome, Reminder, Reply
from sidecar.peers.limits import Limit, size_of
from sidecar.store.protocol import DamagedError, UnavailableError

_WHAT = {Kind.RESULT: "the result", Kind.ACTIVITY: "the call", Kind.CREATE: "the call", Kind.EVENT: "the event"}
_FAILURES = {Outcome.DENIED: "WorkflowAccessPolicyDenied"}
log = structlog.get_logger(__name__)


def note(reminder: Reminder, why: str) -> None:
    """Say in the log that a message was not taken, or not as it was."""
    app, source, target = reminder.target.app, reminder.source.id, reminder.target.id
    log.warning("message refused", app=app, kind=reminder.kind.name, source=source, target=target, why=why)


def as_sent(reminder: Reminder, limit: Limit, now: int) -> tuple[Reminder | None, str]:
    """Return what is sent of a reminder over a link, and why it is not the whole of it; None: nothing can be."""
    size = size_of(reminder)
    if size <= limit.room:
        return reminder, ""
    why = limit.refusal(_WHAT.get(reminder.kind, "the message"), size)
    smaller = undeliverable.smaller(reminder, why, now)
    if smaller is not None:
        note(reminder, why)
    return smaller, why


async def annul(engine: Engine, call: int, withdrawal: int) -> None:
    """Drop a call that has not left and what takes it back: nobody has heard of either, and nobody waits."""
    try:
        await engine.commit(Changes(dropped=(call, withdrawal)))
    except UnavailableError:
        engine.effects.store_failed()  # both are read again


async def one_too_many(engine: Engine, reminder: Reminder, most: int) -> None:
    """End a message to an app that was never met, since what has been named waits for as many as may be."""
    app = reminder.target.app
    text = f"'{app}' is one app too many: messages wait for {most} apps already that this sidecar has never met"
    advice = "see which with `sidecar peers`; is an app ID made of data? `--unknown-app fail` refuses those not listed"
    try:
        await end(engine, reminder, Reply(Outcome.INVALID, f"{text}: {advice}"), "TooManyApps")
    except UnavailableError:
        engine.effects.store_failed()  # it is read again


async def end(engine: Engine, reminder: Reminder, reply: Reply, failure: str = "") -> None:
    """Take a refusal that will not change; `failure` is the type of the error with which a call fails.

    Raises:
        UnavailableError: the store failed.
    """
    note(reminder, reply.text)
    if undeliverable.is_call(reminder):
        kind = failure or _FAILURES.get(reply.outcome, f"Remote{reply.outcome.name.capitalize()}")
        details = events.failure(kind, reply.text, retriable=False)
        arrival = undeliverable.failed_call(reminder, details, engine.clock.now())
        try:
            await engine.submit((reminder.source.hub, reminder.source.id), lambda at, state: arrive(at, state, arrival))
        except DamagedError:  # the engine has said it; the message stays stored, for when its caller is mended
            return
    elif reply.outcome is not Outcome.MISSING:
        await engine.commit(undeliverable.given_up(engine.context(), reminder, reply.text))
        return
    await engine.commit(Changes(dropped=(reminder.id,)))
