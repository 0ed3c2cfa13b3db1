"""All that may be asked of one sidecar, whatever the protocol it is asked in."""

from dataclasses import dataclass

from sidecar.actors.reminders import Reminders
from sidecar.actors.trees import Trees
from sidecar.core.model import Kind
from sidecar.core.policy import Policy
from sidecar.services.access import Access
from sidecar.services.bulk import Queries
from sidecar.services.clients import ClientService
from sidecar.services.entities import EntityService
from sidecar.services.peer_messages import PeerMessages
from sidecar.services.purge import Purging
from sidecar.services.run_again import Administration
from sidecar.services.schedule_steps import Steps
from sidecar.services.schedules import Schedules
from sidecar.services.waiting import Waiting
from sidecar.services.worker_answers import WorkerAnswers
from sidecar.work.dispatch import Dispatch


@dataclass(frozen=True, slots=True)
class Services:
    """The services over one engine, and who may use them."""

    access: Access
    clients: ClientService
    entities: EntityService
    administration: Administration
    purging: Purging
    queries: Queries
    answers: WorkerAnswers
    messages: PeerMessages
    waiting: Waiting
    schedules: Schedules


def build(dispatch: Dispatch, reminders: Reminders, trees: Trees, policy: Policy | None = None) -> Services:
    """Return the services over an engine and its dispatch; `policy` says what other apps may do, None: everything."""
    engine, access = dispatch.engine, Access(policy)
    waiting = Waiting(dispatch, access)
    clients = ClientService(engine, trees, access, waiting)
    purging, steps = Purging(clients), Steps(engine, clients)
    reminders.others[Kind.SCHEDULE] = steps.deliver
    return Services(
        access,
        clients,
        EntityService(clients),
        Administration(clients, reminders),
        purging,
        Queries(engine, purging, waiting, access),
        WorkerAnswers(dispatch, reminders),
        PeerMessages(engine, reminders, access),
        waiting,
        Schedules(steps),
    )
