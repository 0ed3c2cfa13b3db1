"""Scenarios of one workflow at a time: what it does, and what its client sees."""

import time
from typing import Any

import grpc
import workflows
from durabletask.client import OrchestrationState, OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy
from player import APP_ID, OTHER_APP, SHOWN, Scenario, early, eventually, holds, new_id, raises, same, until

_BY_ROUTE = "by a route of the sidecar: no call names an app"


class Basics:
    """The scenarios, with the client that they use."""

    def __init__(self, client: TaskHubGrpcClient) -> None:
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
            "inputs": lambda: same(self.output(workflows.inputs, OTHER_APP, "inputs"), SHOWN, "what it was given"),
            "remote-child": self.remote_child,
            "reuse": self.reuse,
            "missing": self.missing,
            "early-wait": self.early_wait,
            "clear-status": self.clear_status,
            "reuse-never": self.reuse_never,
            "graceful-stop": self.graceful_stop,
        }

    # ------------------------------------------------------------ what all use

    def start(self, workflow: Any, value: Any, name: str, **options: Any) -> str:
        return self.client.schedule_new_orchestration(workflow, input=value, instance_id=new_id(name), **options)

    def get(self, id_: str) -> OrchestrationState:
        state = self.client.get_orchestration_state(id_)
        holds(state, f"{id_} does not exist")
        return state

    def status(self, id_: str) -> OrchestrationStatus:
        return self.get(id_).runtime_status

    def until_running(self, id_: str) -> None:
        """Running and known: a child comes into being some time after its parent."""
        until(
            lambda: (
                (state := self.client.get_orchestration_state(id_))
                and state.runtime_status is OrchestrationStatus.RUNNING
            ),
            f"{id_} runs",
        )

    def ended(self, id_: str, status: OrchestrationStatus = OrchestrationStatus.COMPLETED) -> OrchestrationState:
        state = self.client.wait_for_orchestration_completion(id_, timeout=20)
        holds(state, f"{id_} does not exist")
        same(state.runtime_status, status, f"status of {id_} ({state.failure_details})")
        return state

    def output(self, workflow: Any, value: Any, name: str, **options: Any) -> Any:
        return self.ended(self.start(workflow, value, name, **options)).get_output()

    # ------------------------------------------------------------ scenarios

    def hello(self) -> None:
        begin = time.time()
        id_ = self.start(workflows.hello, "Tokyo", "hello")
        state = self.ended(id_)
        same(state.get_output(), "Hello, Tokyo!", "output")
        same(state.get_input(), "Tokyo", "input")
        same((state.instance_id, state.name), (id_, "hello"), "ID and name")
        same(state.failure_details, None, "failure")
        created, updated = (_seconds(moment) for moment in (state.created_at, state.last_updated_at))
        holds(begin - 1 <= created <= updated <= time.time() + 1, f"times: {begin}, {created}, {updated}")
        bare = self.client.get_orchestration_state(id_, fetch_payloads=False)
        holds(bare, "it is still there")
        same((bare.serialized_input, bare.serialized_output), (None, None), "payloads that were not asked for")

    def fan_in(self) -> str:
        same(self.output(workflows.fan_in, 60_000, "fan-in"), 3_600_000, "characters")
        return "3.6 MB: this SDK takes no history above 4 MiB"

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
        self.client.raise_orchestration_event(id_, "first", data={"number": 7, "text": "ü"})
        same(self.ended(id_).get_output(), [{"number": 7, "text": "ü"}, "timed out"], "what the workflow received")
        receiver = self.start(workflows.two_events, 0.5, "event-receiver")
        sender = self.start(workflows.sender, receiver, "event-sender")
        same(self.ended(sender).get_output(), "sent", "the sender's output")
        same(self.ended(receiver).get_output(), [{"from": sender}, "timed out"], "what another workflow sent")

    def child(self) -> None:
        id_, wanted = self.start(workflows.parent, new_id("named"), "child"), new_id("named")
        named, unnamed = self.ended(id_).get_output()
        same(named, [wanted, id_, 2], "the named child's ID, parent and result")
        same(unnamed[1:], [id_, 11], "the other child's parent and result")
        holds(unnamed[0] not in ("", wanted, id_), f"the other child's ID is {unnamed[0]}")
        for child in (wanted, unnamed[0]):
            same(self.status(child), OrchestrationStatus.COMPLETED, f"status of {child}")

    def remote_activity(self) -> str:
        places = self.output(workflows.remote_activity, OTHER_APP, "remote-activity")
        same(places, [APP_ID, OTHER_APP, OTHER_APP], "where the activities ran")
        return "by a route of the sidecar, and by a tag: no call names an app"

    def remote_child(self) -> str:
        wanted = new_id("remote-named")
        same(
            self.output(workflows.remote_child, wanted, "remote-child"),
            [wanted, OTHER_APP],
            "ID and place of the child",
        )
        same(self.client.get_orchestration_state(wanted), None, "the child, looked for here")
        return _BY_ROUTE

    def continue_as_new(self) -> None:
        id_ = self.start(workflows.count, {"execution": 1, "total": 0}, "continue-as-new")
        for number in range(1, 6):
            self.client.raise_orchestration_event(id_, "add", data=number)
        state = self.ended(id_)
        same(state.get_output(), [5, 15], "executions and total")
        same(state.get_input(), {"execution": 5, "total": 10}, "input of the last execution")

    def suspend_resume(self) -> None:
        id_ = self.start(workflows.waiter, "go", "suspend-resume")
        self.until_running(id_)
        self.client.suspend_orchestration(id_, reason="a break")
        until(lambda: self.status(id_) is OrchestrationStatus.SUSPENDED, "it is suspended")
        self.client.raise_orchestration_event(id_, "go", data=1)
        time.sleep(0.5)
        same(self.status(id_), OrchestrationStatus.SUSPENDED, "status after an event")
        self.client.resume_orchestration(id_, reason="on we go")
        same(self.ended(id_).get_output(), 1, "the event that came meanwhile")

    def terminate(self) -> None:
        for recursive in (True, False):
            name = f"terminate-{recursive}".lower()
            child = new_id(f"{name}-child")
            id_ = self.start(workflows.guardian, child, name)
            self.until_running(child)
            self.client.terminate_orchestration(id_, output={"why": "enough"}, recursive=recursive)
            same(self.ended(id_, OrchestrationStatus.TERMINATED).get_output(), {"why": "enough"}, "output")
            if recursive:
                self.ended(child, OrchestrationStatus.TERMINATED)
            else:
                time.sleep(0.3)
                same(self.status(child), OrchestrationStatus.RUNNING, "the child of a parent terminated alone")
                self.client.terminate_orchestration(child)

    def purge(self) -> None:
        id_ = self.start(workflows.hello, "Tokyo", "purge")
        self.ended(id_)
        result = self.client.purge_orchestration(id_)
        same(result.deleted_instance_count, 1, "instances purged")
        holds(result.is_complete in (True, None), "the purge says that it is not complete")
        same(self.client.get_orchestration_state(id_), None, "state afterwards")
        same(self.client.purge_orchestration(id_).deleted_instance_count, 0, "instances purged by a second purge")

    def failure_details(self) -> None:
        same(self.output(workflows.catches, "not so", "failure-caught"), [True, "not so"], "what the workflow caught")
        state = self.ended(self.start(workflows.fails, "not so", "failure"), OrchestrationStatus.FAILED)
        details = state.failure_details
        holds(details, "the client sees no failure")
        holds(details.is_caused_by("TaskFailedError"), f"type of the workflow's failure: {details.error_type}")
        holds("not so" in details.message, f"message of the workflow's failure: {details.message}")
        holds(details.stack_trace, "no stack trace")

    def custom_status(self) -> None:
        id_ = self.start(workflows.stages, None, "custom-status")
        until(lambda: self.get(id_).get_custom_status() == {"stage": 1}, "the first status")
        same(self.status(id_), OrchestrationStatus.RUNNING, "status meanwhile")
        self.client.raise_orchestration_event(id_, "next")
        same(self.ended(id_).get_custom_status(), {"stage": 2}, "the last status")

    def payload(self) -> None:
        text = megabyte()
        state = self.ended(self.start(workflows.relay, text, "payload"))
        holds(state.get_output() == text, "the output differs from the input")
        holds(state.get_input() == text, "the input that the client sees differs")

    def reuse(self) -> None:
        id_ = self.start(workflows.waiter, "go", "reuse")
        self.until_running(id_)
        with raises(grpc.RpcError, "a second start") as caught:
            self.start(workflows.waiter, "go", "reuse")
        same(caught[0].code(), grpc.StatusCode.ALREADY_EXISTS, "code of the second start")
        self.client.raise_orchestration_event(id_, "go")
        self.ended(id_)
        failed = OrchestrationIdReusePolicy(replaceableStatus=[OrchestrationStatus.FAILED.value])
        with raises(grpc.RpcError, "a start that may replace failed ones only") as caught:
            self.start(workflows.hello, "Kyoto", "reuse", reuse_id_policy=failed)
        same(caught[0].code(), grpc.StatusCode.ALREADY_EXISTS, "code of that start")
        done = OrchestrationIdReusePolicy(replaceableStatus=[OrchestrationStatus.COMPLETED.value])
        same(
            self.output(workflows.hello, "Kyoto", "reuse", reuse_id_policy=done), "Hello, Kyoto!", "after a replacement"
        )

    def missing(self) -> None:
        nobody, client = new_id("nobody"), self.client
        same(client.get_orchestration_state(nobody), None, "get")
        for wait in (client.wait_for_orchestration_start, client.wait_for_orchestration_completion):
            with raises(TimeoutError, "a wait for what may still come"):
                wait(nobody, timeout=1)
        calls = {
            "raise": lambda: client.raise_orchestration_event(nobody, "go"),
            "suspend": lambda: client.suspend_orchestration(nobody),
            "resume": lambda: client.resume_orchestration(nobody),
            "terminate": lambda: client.terminate_orchestration(nobody),
        }
        for name, call in calls.items():
            with raises(grpc.RpcError, name) as caught:
                call()
            same(caught[0].code(), grpc.StatusCode.NOT_FOUND, f"code of {name}")

    def early_wait(self) -> None:
        id_ = new_id("early-wait")
        state = early(
            lambda: self.client.wait_for_orchestration_completion(id_, timeout=20),
            lambda: self.start(workflows.hello, "early", "early-wait"),
        )
        same(state.get_output(), "Hello, early!", "output that the wait ended with")

    def clear_status(self) -> None:
        id_ = self.start(workflows.clearing, 1, "clear-status")
        for status, event in (("busy", "clear"), (None, "again"), ("busy again", "continue"), (None, "end")):
            until(lambda status=status: (self.get(id_).get_custom_status() or None) == status, f"status {status}")
            self.client.raise_orchestration_event(id_, event)
        self.ended(id_)

    def reuse_never(self) -> None:
        id_ = self.start(workflows.hello, "Tokyo", "reuse-never")
        self.ended(id_)
        with raises(grpc.RpcError, "a start that may replace nothing") as caught:
            self.start(workflows.hello, "Kyoto", "reuse-never", reuse_id_policy=OrchestrationIdReusePolicy())
        same(caught[0].code(), grpc.StatusCode.ALREADY_EXISTS, "code of that start")
        same(self.get(id_).get_output(), "Hello, Tokyo!", "output of the first")

    def graceful_stop(self) -> None:
        id_ = self.start(workflows.lingering, None, "graceful-stop")
        eventually(lambda: self.get(id_).serialized_output == '"done"', grpc.RpcError)


def megabyte() -> str:
    """A text of 1 MiB in UTF-8, with characters outside ASCII in it."""
    line = "Grüße, 東京 😀 " + "x" * 1000
    size = 1024 * 1024
    text = line * (size // len(line.encode()))
    return text + "x" * (size - len(text.encode()))


def _seconds(moment: Any) -> float:
    """The SDK's times are in UTC and do not say so."""
    return (moment - type(moment)(1970, 1, 1)).total_seconds()
