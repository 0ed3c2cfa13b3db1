"""The program for Microsoft's `durabletask`: a worker and a client in one process."""

import os
from collections.abc import Callable, Mapping

import workflows
from basics import Basics
from durabletask.client import TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker, VersioningOptions
from management import Management
from player import Scenario, main


class Microsoft:
    """The SDK's side: how a worker is made, and the scenarios."""

    def __init__(self, client: TaskHubGrpcClient, new_worker: Callable[[], TaskHubGrpcWorker]) -> None:
        self._client = client
        self._new_worker = new_worker
        self._worker: TaskHubGrpcWorker | None = None

    def start_worker(self, rules: VersioningOptions | None = None, *, filtered: bool = False) -> None:
        worker = self._new_worker()
        for orchestrator in workflows.ORCHESTRATORS:
            worker.add_orchestrator(orchestrator)
        for activity in workflows.ACTIVITIES:
            worker.add_activity(activity)
        worker.add_entity(workflows.Tally, "counter")
        if rules:
            worker.use_versioning(rules)
        if filtered:
            worker.use_work_item_filters()
        worker.start()
        self._worker = worker

    def stop_worker(self) -> None:
        if self._worker:
            self._worker.stop()
            self._worker = None

    def scenarios(self) -> Mapping[str, Scenario]:
        return {**Basics(self._client).scenarios(), **Management(self._client, self._new_rules).scenarios()}

    def _new_rules(self, rules: VersioningOptions | None, *, filtered: bool = False) -> None:
        self.stop_worker()
        self.start_worker(rules, filtered=filtered)


def at(address: str) -> Microsoft:
    """The program beside the sidecar at the address."""
    client = TaskHubGrpcClient(host_address=address)
    return Microsoft(client, lambda: TaskHubGrpcWorker(host_address=address))


if __name__ == "__main__":
    main(at(f"{os.environ['SIDECAR_HOST']}:{os.environ['SIDECAR_PORT']}"))
