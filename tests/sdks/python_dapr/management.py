"""Scenarios over many workflows, over their past, and over versions of their code."""

import json
import time
from collections.abc import Callable, Collection

import grpc
import versions
import workflows
from basics import Basics
from dapr.ext.workflow import DaprWorkflowClient
from player import NotOffered, Scenario, holds, new_id, raises, same, until

# Starts the worker anew, with these of the named versions.
Deploy = Callable[[Collection[str]], None]
_NO_MANAGEMENT = "this version's client has no such call"
_REASONS = {
    "query": "this SDK has no query, only a list of IDs",
    "purge-by-filter": "this SDK purges by ID only",
    "restart": "this SDK has no restart",
    "rewind": "this SDK has rerun from an event, and no rewind",
    "tags": "this SDK has no tags",
    "entity": "this SDK has no entities",
    "entity-query": "this SDK has no entities",
    "detached": "this SDK can start a workflow from a client only",
    "execution-id": "this SDK does not tell activities their execution ID",
    "reuse-never": "this SDK has no policy that names statuses to replace",
    "restart-running": "this SDK has no restart",
    "strict-version": "this SDK has no version rules",
}


class Management:
    """The scenarios, with the client that they use."""

    def __init__(self, client: DaprWorkflowClient, deploy: Deploy) -> None:
        self.client = client
        self.basics = Basics(client)
        self._deploy = deploy

    def scenarios(self) -> dict[str, Scenario]:
        offered: dict[str, Scenario] = {
            "list-ids": self.list_ids,
            "history": self.history,
            "rerun": self.rerun,
            "version": self.version,
            "patch": self.patch,
            "long-history": self.long_history,
        }
        return {**offered, **{name: _not_offered(reason) for name, reason in _REASONS.items()}}

    def list_ids(self) -> None:
        _managed()
        done = [self.basics.start(workflows.hello, "Tokyo", f"list-{number}") for number in range(3)]
        for id_ in done:
            self.basics.ended(id_)
        running = self.basics.start(workflows.waiter, "go", "list-running")
        ids, token = [], None
        while True:
            page = self.client.list_workflow_instance_ids(page_size=2, continuation_token=token)
            holds(len(page.instance_ids) <= 2, "a page has more than was asked for")
            ids += page.instance_ids
            token = page.continuation_token
            if not token:
                break
        same(len(ids), len(set(ids)), "IDs that are listed twice")
        same(sorted(id_ for id_ in ids if id_.startswith(new_id("list-"))), sorted([*done, running]), "in pages")
        same(sorted(self.client.iter_workflow_instance_ids()), sorted(ids), "with the iterator")
        self.client.terminate_workflow(running)

    def history(self) -> None:
        _managed()
        id_ = self.basics.start(workflows.catches, "not so", "history")
        self.basics.ended(id_)
        events = self.client.get_workflow_history(id_)
        kinds = [event.event_type.name for event in events]
        wanted = ["EXECUTION_STARTED", "TASK_SCHEDULED", "TASK_FAILED", "EXECUTION_COMPLETED"]
        same([kind for kind in kinds if kind in wanted], wanted, f"the order in {kinds}")
        by_kind = dict(zip(kinds, events, strict=True))
        same((by_kind["EXECUTION_STARTED"].name, by_kind["TASK_SCHEDULED"].name), ("catches", "refuse"), "names")
        same(by_kind["TASK_FAILED"].task_scheduled_id, by_kind["TASK_SCHEDULED"].event_id, "what failed")
        same(by_kind["TASK_FAILED"].failure_details.message, "not so", "how it failed")
        same([event.is_rerunnable for event in events if event.is_rerunnable], [True], "what it can be rerun from")
        with raises(grpc.RpcError, "the history of nobody") as caught:
            self.client.get_workflow_history(new_id("nobody"))
        same(caught[0].code(), grpc.StatusCode.NOT_FOUND, "code of that")

    def rerun(self) -> None:
        _managed()
        key = new_id("rerun")
        self.basics.start(workflows.counting_chain, {"key": key, "value": 1}, "rerun")
        self.basics.ended(key)
        second = [event for event in self.client.get_workflow_history(key) if event.is_rerunnable][1].event_id
        again = self.client.rerun_workflow_from_event(key, second, new_instance_id=f"{key}-again")
        same(again, f"{key}-again", "the ID that was asked for")
        same(self.basics.ended(again).serialized_output, "4", "output with the old input")
        other = {"key": key, "value": 10}
        changed = self.client.rerun_workflow_from_event(key, second, input=other)
        holds(changed not in ("", key, again), f"the ID that was not asked for is '{changed}'")
        same(self.basics.ended(changed).serialized_output, "12", "output with another input")
        runs = {value: workflows.attempts[f"{key} {value}"] for value in (1, 2, 3, 10, 11)}
        same(runs, {1: 1, 2: 2, 3: 2, 10: 1, 11: 1}, "how often the activities ran, by their input")
        same(self.basics.get(key).serialized_output, "4", "the source, untouched")
        running = self.basics.start(workflows.waiter, "go", "rerun-running")
        self._refused(grpc.StatusCode.NOT_FOUND, new_id("nobody"), second)
        self._refused(grpc.StatusCode.NOT_FOUND, key, 99)
        self._refused(grpc.StatusCode.INVALID_ARGUMENT, running, 1)
        self._refused(grpc.StatusCode.ALREADY_EXISTS, key, second, again)
        self.client.terminate_workflow(running)

    def version(self) -> str:
        if not versions.NAMES_VERSIONS:
            raise NotOffered("this version of the SDK has no versions of workflows")
        try:
            self._deploy(["v1"])
            first, third = (self._greeter(f"version-{number}") for number in (1, 3))
            self._deploy(["v1", "v2"])
            second = self._greeter("version-2")
            same((self._greeted(first), self._greeted(second)), ("version 1", "version 2"), "before and after")
            self._deploy(["v2"])
            self.client.raise_workflow_event(third, "go")
            until(lambda: self.basics.status(third) == "STALLED", "what has no code is stalled")
            self._deploy(["v1", "v2"])
            same(json.loads(self.basics.ended(third).serialized_output), "version 1", "what has its code again")
        finally:
            self._deploy([])
        return "versions are named by the worker; a start cannot name one"

    def patch(self) -> None:
        if not versions.PATCHES:
            raise NotOffered("this version of the SDK has no patching")
        workflows.Deployment.patched = False
        try:
            before = self._at_first("patch-before")
            workflows.Deployment.patched = True
            after, undone = self._at_first("patch-after"), self._at_first("patch-undone")
            same(self._ways(before), ["old", "old"], "what had begun without the patch")
            same(self._ways(after), ["new", "new"], "what began with it")
            workflows.Deployment.patched = False
            self.client.raise_workflow_event(undone, "first")
            until(lambda: self.basics.status(undone) == "STALLED", "what began with it and lost it is stalled")
            workflows.Deployment.patched = True
            self._deploy([])
            until(lambda: self._taken(undone, "second"), "it goes on by itself when the code is back")
            output = json.loads(self.basics.ended(undone).serialized_output)
            same(output, ["new", "new"], "what has the patch again")
        finally:
            workflows.Deployment.patched = False

    def long_history(self) -> None:
        if not versions.LONG_HISTORIES:
            raise NotOffered("this version takes no history above 4 MiB")
        id_ = self.basics.start(workflows.filling, None, "long-history")
        until(lambda: "filled" in (self.basics.get(id_).serialized_custom_status or ""), "its history is long", 25)
        self._deploy([])
        self.client.raise_workflow_event(id_, "end")
        same(self.basics.ended(id_).serialized_output, "6000000", "characters")

    # ------------------------------------------------------------ helpers

    def _refused(self, code: grpc.StatusCode, id_: str, event: int, new: str | None = None) -> None:
        with raises(grpc.RpcError, f"a rerun of {id_} from {event}") as caught:
            self.client.rerun_workflow_from_event(id_, event, new_instance_id=new)
        same(caught[0].code(), code, f"code of a rerun of {id_} from {event} ({caught[0].details()})")

    def _greeter(self, name: str) -> str:
        """Started, and past its first turn: what has not begun takes the version that is newest when it does."""
        id_ = self.basics.start("greeter" if versions.MANAGES else _named("greeter"), None, name)
        self.basics.until_running(id_)
        time.sleep(0.3)
        return id_

    def _greeted(self, id_: str) -> str:
        self.client.raise_workflow_event(id_, "go")
        return json.loads(self.basics.ended(id_).serialized_output)

    def _at_first(self, name: str) -> str:
        """Started, and waiting for its first event."""
        id_ = self.basics.start(workflows.patched, None, name)
        self.basics.until_running(id_)
        time.sleep(0.3)
        return id_

    def _taken(self, id_: str, event: str) -> bool:
        """Raises an event, which is refused while the workflow is stalled."""
        try:
            self.client.raise_workflow_event(id_, event)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.FAILED_PRECONDITION, "code of an event for a stalled workflow")
            return False
        return True

    def _ways(self, id_: str) -> list[str]:
        self.client.raise_workflow_event(id_, "first")
        self.client.raise_workflow_event(id_, "second")
        return json.loads(self.basics.ended(id_).serialized_output)


def _named(name: str) -> Callable[..., None]:
    """Older clients take a workflow's name from its function."""

    def workflow() -> None: ...

    workflow.__name__ = name
    return workflow


def _managed() -> None:
    if not versions.MANAGES:
        raise NotOffered(_NO_MANAGEMENT)


def _not_offered(reason: str) -> Scenario:
    def play() -> None:
        raise NotOffered(reason)

    return play
