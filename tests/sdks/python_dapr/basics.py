"""Scenarios of one workflow at a time: what it does, and what its client sees."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import grpc
import versions
import workflows
from dapr.ext.workflow import DaprWorkflowClient, WorkflowState
from player import APP_ID, OTHER_APP, SHOWN, NotOffered, Scenario, early, eventually, holds, new_id, raises, same, until

_NOBODY = "no such instance exists"
_NO_TARGET = "this version cannot name a target app"


class Basics:
    """The scenarios, with the client that they use."""

    def __init__(self, client: DaprWorkflowClient) -> None:
        self.client = client

    def scenarios(self) -> dict[str, Scenario]:
        return {
            "hello": self.hello,
            "chain": lambda: same(self.output(workflows.chain, 1, "chain"), 4, "output"),
            "fan-out": lambda: same(self.output(workflows.fan_out, 50, "fan-out"), 40425, "sum of squares"),
            "fan-in": self.fan_in,
            "retry": self.retry,
            "timer": self.timer,
            "event": self.event,
            "child": self.child,
            "continue-as-new": self.continue_as_new,
            "suspend-resume": self.suspend_resume,
            "terminate": self.terminate,
            "purge": self.purge,
            "failure-details": self.failure_details,
            "custom-status": self.custom_status,
            "payload": self.payload,
            "remote-activity": self.remote_activity,
            "inputs": self.inputs,
            "remote-child": self.remote_child,
            "reuse": self.reuse,
            "missing": self.missing,
            "scheduled-start": self.scheduled_start,
            "early-wait": self.early_wait,
            "clear-status": self.clear_status,
            "remote-client": self.remote_client,
            "graceful-stop": self.graceful_stop,
        }

    # ------------------------------------------------------------ what all use

    def start(self, workflow: Any, value: Any, name: str, **options: Any) -> str:
        return self.client.schedule_new_workflow(workflow, input=value, instance_id=new_id(name), **options)

    def get(self, id_: str) -> WorkflowState:
        state = self.client.get_workflow_state(id_)
        holds(state, f"{id_} does not exist")
        return state

    def status(self, id_: str) -> str:
        return self.get(id_).runtime_status.name

    def until_running(self, id_: str) -> None:
        """Running and known: a child comes into being some time after its parent."""
        until(
            lambda: (state := self.client.get_workflow_state(id_)) and state.runtime_status.name == "RUNNING",
            f"{id_} runs",
        )

    def ended(self, id_: str, status: str = "COMPLETED") -> WorkflowState:
        state = self.client.wait_for_workflow_completion(id_, timeout_in_seconds=20)
        holds(state, f"{id_} does not exist")
        details = state.failure_details
        why = f"{details.error_type}: {details.message}" if details else "no failure"
        same(state.runtime_status.name, status, f"status of {id_} ({why})")
        return state

    def output(self, workflow: Any, value: Any, name: str, **options: Any) -> Any:
        return json.loads(self.ended(self.start(workflow, value, name, **options)).serialized_output)

    # ------------------------------------------------------------ scenarios

    def hello(self) -> None:
        begin = time.time()
        id_ = self.start(workflows.hello, "Tokyo", "hello")
        state = self.ended(id_)
        same(state.serialized_output, '"Hello, Tokyo!"', "output")
        same(state.serialized_input, '"Tokyo"', "input")
        same((state.instance_id, state.name), (id_, "hello"), "ID and name")
        same(state.failure_details, None, "failure")
        created, updated = (_seconds(moment) for moment in (state.created_at, state.last_updated_at))
        holds(begin - 1 <= created <= updated <= time.time() + 1, f"times: {begin}, {created}, {updated}")
        bare = self.client.get_workflow_state(id_, fetch_payloads=False)
        holds(bare, "it is still there")
        same((bare.serialized_input, bare.serialized_output), (None, None), "payloads that were not asked for")

    def fan_in(self) -> str:
        length = 150_000 if versions.LONG_HISTORIES else 60_000
        same(self.output(workflows.fan_in, length, "fan-in"), 60 * length, "characters")
        return "" if versions.LONG_HISTORIES else "3.6 MB: this SDK takes no history above 4 MiB"

    def retry(self) -> None:
        begin = time.monotonic()
        same(self.output(workflows.retried, new_id("attempts"), "retry"), 3, "attempts")
        holds(time.monotonic() - begin >= 0.2, "the retries came before their interval had passed")

    def timer(self) -> None:
        begin = time.monotonic()
        moved = self.output(workflows.sleeper, 1.0, "timer")
        holds(time.monotonic() - begin >= 1.0, "the timer fired too early")
        holds(1.0 <= moved < 10.0, f"the workflow's clock has moved by {moved} s")

    def event(self) -> None:
        id_ = self.start(workflows.two_events, 0.5, "event")
        self.until_running(id_)
        self.client.raise_workflow_event(id_, "first", data={"number": 7, "text": "ü"})
        output = json.loads(self.ended(id_).serialized_output)
        same(output, [{"number": 7, "text": "ü"}, None], "what the workflow received")

    def child(self) -> None:
        id_, wanted = self.start(workflows.parent, new_id("named"), "child"), new_id("named")
        named, unnamed = json.loads(self.ended(id_).serialized_output)
        same(named, [wanted, 2], "the named child's ID and result")
        same(unnamed[1], 11, "the other child's result")
        holds(unnamed[0] not in ("", wanted, id_), f"the other child's ID is {unnamed[0]}")
        for child in (wanted, unnamed[0]):
            same(self.status(child), "COMPLETED", f"status of {child}")

    def continue_as_new(self) -> None:
        id_ = self.start(workflows.count, {"execution": 1, "total": 0}, "continue-as-new")
        for number in range(1, 6):
            self.client.raise_workflow_event(id_, "add", data=number)
        state = self.ended(id_)
        same(json.loads(state.serialized_output), [5, 15], "executions and total")
        same(json.loads(state.serialized_input), {"execution": 5, "total": 10}, "input of the last execution")

    def suspend_resume(self) -> None:
        id_ = self.start(workflows.waiter, "go", "suspend-resume")
        self.until_running(id_)
        self.client.pause_workflow(id_)
        until(lambda: self.status(id_) == "SUSPENDED", "it is suspended")
        self.client.raise_workflow_event(id_, "go", data=1)
        time.sleep(0.5)
        same(self.status(id_), "SUSPENDED", "status after an event")
        self.client.resume_workflow(id_)
        same(self.ended(id_).serialized_output, "1", "the event that came meanwhile")

    def terminate(self) -> None:
        for recursive in (True, False):
            name = f"terminate-{recursive}".lower()
            child = new_id(f"{name}-child")
            id_ = self.start(workflows.guardian, child, name)
            self.until_running(child)
            self.client.terminate_workflow(id_, output={"why": "enough"}, recursive=recursive)
            same(json.loads(self.ended(id_, "TERMINATED").serialized_output), {"why": "enough"}, "output")
            if recursive:
                self.ended(child, "TERMINATED")
            else:
                time.sleep(0.3)
                same(self.status(child), "RUNNING", "the child of a parent terminated alone")
                self.client.terminate_workflow(child)

    def purge(self) -> str:
        id_ = self.start(workflows.parent, new_id("purge-child"), "purge")
        self.ended(id_)
        self.client.purge_workflow(id_)
        same(self.client.get_workflow_state(id_), None, "state afterwards")
        same(self.client.get_workflow_state(new_id("purge-child")), None, "the child's state afterwards")
        self.client.purge_workflow(id_)
        return "this client does not say how many were purged"

    def failure_details(self) -> None:
        caught = self.output(workflows.catches, "not so", "failure-caught")
        same(caught, ["ValueError", "not so"], "what the workflow caught")
        details = self.ended(self.start(workflows.fails, "not so", "failure"), "FAILED").failure_details
        holds(details, "the client sees no failure")
        same(details.error_type, "TaskFailedError", "type of the workflow's failure")
        holds("not so" in details.message, f"message of the workflow's failure: {details.message}")
        holds(details.stack_trace, "no stack trace")

    def custom_status(self) -> None:
        id_ = self.start(workflows.stages, None, "custom-status")
        until(lambda: self.get(id_).serialized_custom_status == "stage 1", "the first status")
        same(self.status(id_), "RUNNING", "status meanwhile")
        self.client.raise_workflow_event(id_, "next")
        same(self.ended(id_).serialized_custom_status, "stage 2", "the last status")

    def payload(self) -> None:
        text = megabyte()
        state = self.ended(self.start(workflows.relay, text, "payload"))
        holds(json.loads(state.serialized_output) == text, "the output differs from the input")
        holds(json.loads(state.serialized_input) == text, "the input that the client sees differs")

    def remote_activity(self) -> None:
        if not versions.CALLS_OTHER_APPS:
            raise NotOffered(_NO_TARGET)
        output = self.output(workflows.remote_activity, OTHER_APP, "remote-activity")
        same(output, [OTHER_APP, APP_ID, "not there"], "where the activities ran, and how the last one failed")

    def inputs(self) -> str:
        same(self.output(workflows.inputs, OTHER_APP, "inputs"), SHOWN, "what it was given")
        return "" if versions.CALLS_OTHER_APPS else f"by a route of the sidecar: {_NO_TARGET}"

    def remote_child(self) -> None:
        if not versions.CALLS_OTHER_APPS:
            raise NotOffered(_NO_TARGET)
        wanted = new_id("remote-named")
        named, unnamed = self.output(workflows.remote_child, {"app": OTHER_APP, "id": wanted}, "remote-child")
        same(named, [wanted, OTHER_APP], "ID and place of the named child")
        same(unnamed[1], OTHER_APP, "place of the other child")
        holds(unnamed[0] and unnamed[0] != wanted, f"the other child's ID is {unnamed[0]}")
        same(self.client.get_workflow_state(wanted), None, "the child, looked for here")

    def reuse(self) -> None:
        id_ = self.start(workflows.waiter, "go", "reuse")
        self.until_running(id_)
        with raises(grpc.RpcError, "a second start") as caught:
            self.start(workflows.waiter, "go", "reuse")
        text = f"an active workflow with ID '{id_}' already exists"
        holds(text in caught[0].details(), f"the second start's error: {caught[0].details()}")
        if policy := versions.reuse_policy("IGNORE"):
            same(self.start(workflows.hello, "Kyoto", "reuse", reuse_id_policy=policy), id_, "ID of an ignored start")
            same(self.get(id_).name, "waiter", "the one that was there stays")
            self.start(workflows.waiter, "on", "reuse", reuse_id_policy=versions.reuse_policy("TERMINATE"))
            until(lambda: self.get(id_).serialized_input == '"on"', "the one that was there is replaced")
            self.client.raise_workflow_event(id_, "on", data=1)
        else:
            self.client.raise_workflow_event(id_, "go", data=1)
        same(self.ended(id_).serialized_output, "1", "output of the first")
        same(self.output(workflows.hello, "Kyoto", "reuse"), "Hello, Kyoto!", "a start under an ID that has ended")

    def missing(self) -> None:
        nobody, client = new_id("nobody"), self.client
        same(client.get_workflow_state(nobody), None, "get")
        for wait in (client.wait_for_workflow_start, client.wait_for_workflow_completion):
            with raises(TimeoutError, "a wait for what may still come"):
                wait(nobody, timeout_in_seconds=1)
        calls = {
            "raise": lambda: client.raise_workflow_event(nobody, "go"),
            "pause": lambda: client.pause_workflow(nobody),
            "resume": lambda: client.resume_workflow(nobody),
            "terminate": lambda: client.terminate_workflow(nobody),
        }
        for name, call in calls.items():
            with raises(grpc.RpcError, name) as caught:
                call()
            same(caught[0].code(), grpc.StatusCode.NOT_FOUND, f"code of {name}")
            holds(_NOBODY in caught[0].details(), f"error of {name}: {caught[0].details()}")

    def scheduled_start(self) -> None:
        begin = time.time()
        start_at = datetime.fromtimestamp(begin + 1.5, UTC)
        id_ = self.start(workflows.started_at, None, "scheduled", start_at=start_at)
        same(self.status(id_), "PENDING", "status at once")
        time.sleep(0.7)
        same(self.status(id_), "PENDING", "status after 0.7 s")
        state = self.client.wait_for_workflow_start(id_, timeout_in_seconds=10)
        same(state.instance_id, id_, "the one that has started")
        waited = json.loads(self.ended(id_).serialized_output) - begin
        holds(1.5 <= waited < 10, f"it started after {waited:.2f} s")

    def early_wait(self) -> None:
        id_ = new_id("early-wait")
        state = early(
            lambda: self.client.wait_for_workflow_completion(id_, timeout_in_seconds=20),
            lambda: self.start(workflows.hello, "early", "early-wait"),
        )
        same(state.serialized_output, '"Hello, early!"', "output that the wait ended with")

    def clear_status(self) -> None:
        id_ = self.start(workflows.clearing, 1, "clear-status")
        for status, event in (("busy", "clear"), ("", "again"), ("busy again", "continue"), ("", "end")):
            until(lambda status=status: self._custom_status(id_) == status, f"status '{status}'")
            self.client.raise_workflow_event(id_, event)
        self.ended(id_)

    def remote_client(self) -> None:
        if not versions.CLIENT_NAMES_APPS:
            raise NotOffered("this version's client cannot name an app")
        there: dict[str, Any] = {"app_id": OTHER_APP}
        id_ = self.start(workflows.waiter, "go", "remote-client", **there)
        same(self.client.wait_for_workflow_start(id_, timeout_in_seconds=10, **there).instance_id, id_, "the start")
        same(self.client.get_workflow_state(id_), None, "it, looked for here")
        self.client.pause_workflow(id_, **there)
        until(lambda: self._status_there(id_) == "SUSPENDED", "it is suspended")
        self.client.resume_workflow(id_, **there)
        self.client.raise_workflow_event(id_, "go", data="from another app", **there)
        state = self.client.wait_for_workflow_completion(id_, timeout_in_seconds=10, **there)
        same(state.serialized_output, '"from another app"', "output")
        self.client.purge_workflow(id_, **there)
        self.start(workflows.waiter, "go", "remote-client", **there)
        self.client.terminate_workflow(id_, **there)
        until(lambda: self._status_there(id_) == "TERMINATED", "it is terminated")

    def graceful_stop(self) -> None:
        id_ = self.start(workflows.lingering, None, "graceful-stop")
        eventually(lambda: self.get(id_).serialized_output == '"done"', grpc.RpcError)

    def _custom_status(self, id_: str) -> str:
        return self.get(id_).serialized_custom_status or ""

    def _status_there(self, id_: str) -> str:
        return self.client.get_workflow_state(id_, app_id=OTHER_APP).runtime_status.name


def megabyte() -> str:
    """A text of 1 MiB in UTF-8, with characters outside ASCII in it."""
    line = "Grüße, 東京 😀 " + "x" * 1000
    size = 1024 * 1024
    text = line * (size // len(line.encode()))
    return text + "x" * (size - len(text.encode()))


def _seconds(moment: datetime) -> float:
    """The SDK's times are in UTC and do not say so."""
    return moment.replace(tzinfo=UTC).timestamp()
