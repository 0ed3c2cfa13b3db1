"""Asks the access policy: what another app may do here, and what its messages ask for."""

from functools import partial

import structlog

from sidecar.core import activities, events
from sidecar.core.errors import DeniedError
from sidecar.core.model import Instance, Kind, Reminder
from sidecar.core.policy import CallerHistory, Operation, Policy, no_past
from sidecar.core.workflow import propagated_history

log = structlog.get_logger(__name__)


class Access:
    """What other apps may do here; without a policy, everything."""

    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy

    def check(
        self, app: str, operation: Operation, name: str | None, kind: str = "workflow", past: CallerHistory = no_past
    ) -> None:
        """See that the policy lets an app (the own one: "") do that.

        `name` None: there is no such instance. `past` is what the caller has shown of its history.

        Raises:
            DeniedError: it does not.
        """
        if self.policy is None or not app:
            return
        rules = self.policy.fitting(app, kind, name, operation)
        if any(rule.met_by(past) for rule in rules):
            return
        if rules:
            log.warning("denied by the policy: a rule requires what the caller's history lacks", app=app, name=name)
        else:
            rule = {"caller": app, kind: name or "*", "operations": [operation.value]}
            log.warning("denied by the policy", app=app, rule_that_would_allow_it=rule)
        raise DeniedError(f"access denied by workflow access policy: app '{app}' may not {operation.value} that here")

    def shows(self, app: str, name: str) -> bool:
        """Whether the policy lets an app (the own one: "") see a workflow of this name."""
        if self.policy is None or not app:
            return True
        return any(rule.met_by(no_past) for rule in self.policy.fitting(app, "workflow", name, Operation.GET))

    def check_listing(self, app: str) -> None:
        """See that there may be workflows which the policy lets an app see. Raises DeniedError."""
        if self.policy is None or not app:
            return
        if all(rule.requires for rule in self.policy.about(app, "workflow", Operation.GET)):
            self.check(app, Operation.GET, None)

    def allows(self, app: str, operation: Operation, name: str, kind: str) -> bool:
        """Whether the policy may let an app do that, whatever else must have happened before."""
        return self.policy is None or bool(self.policy.fitting(app, kind, name, operation))

    def check_message(self, message: Reminder, app: str) -> None:
        """See that the policy lets an app schedule what a message asks for: by its payload, which is what will run.

        Answers and a parent's commands are not asked about: the open call and the recorded parent allow them. A rewind
        is a command, unless the child is gone and it creates one: that is asked then, by `check_creation`.

        Raises:
            DeniedError: it does not.
            MalformedError: the payload cannot be read.
        """
        schedule = partial(self.check, app, Operation.SCHEDULE)
        if message.kind is Kind.ACTIVITY:
            request = activities.requested(message)
            schedule(request.name, "activity", partial(propagated_history.happened, request.lineage, message.source))
        elif message.kind in (Kind.CREATE, Kind.DETACHED):
            started = events.decode(message.payload).execution_started
            schedule(started.name, past=partial(propagated_history.happened, started.lineage, message.source))

    def check_replacing(self, app: str, existing: Instance) -> None:
        """See that the policy lets an app put another instance in the place of one: to do so is to remove that.

        Raises:
            DeniedError: it does not.
        """
        self.check(app, Operation.PURGE if existing.status.terminal else Operation.TERMINATE, existing.name)

    def check_creation(self, message: Reminder, app: str) -> None:
        """See that the policy lets an app schedule the child that its rewind does not find. Raises as above."""
        self.check(app, Operation.SCHEDULE, events.decode(message.payload).execution_rewound.name.value)
