"""How each SDK says that its worker does not know a name: the failures are those that were seen when they ran."""

import pytest

from sidecar.core.model import Status
from sidecar.edge.dialects.unknown_names import of_batch, of_turn, unknown_name
from sidecar.schema import taskhub_pb2 as pb

SEEN = [
    ("ActivityTaskNotFound", "No activity task named 'Pay' was found.", "Pay"),
    ("OrchestratorTaskNotFound", "No orchestrator task named 'Pay' was found.", "Pay"),
    ("EntityTaskNotFound", "No entity task named 'pay' was found.", "pay"),
    ("ActivityNotFoundException", "Activity 'Pay' not found", "Pay"),
    ("WorkflowNotFound", "Workflow 'Pay' is not registered in this app.", "Pay"),
    ("TaskActivityNotRegistered", "no task activity named 'Pay' was registered", "Pay"),
    ("*errors.errorString", "workflow named 'Pay' is not registered", "Pay"),
    ("*errors.errorString", "orchestrator named 'Pay' is not registered", "Pay"),
    ("java.lang.IllegalStateException", "No activity task named 'Pay' is registered.", "Pay"),
    ("java.lang.IllegalStateException", "No factory found for orchestrator: app.Pay", "app.Pay"),
    (
        "java.lang.NullPointerException",
        'Cannot invoke "com.microsoft.durabletask.TaskOrchestrationFactory.create()" because "factory" is null',
        "",
    ),
    ("OrchestratorNotRegisteredError", "Orchestrator 'Pay' does not exist.", "Pay"),
    ("ActivityNotRegisteredError", "Activity function 'Pay' is not registered.", "Pay"),
    ("OrchestratorNotRegisteredError", "A 'Pay' orchestrator was not registered.", "Pay"),
    ("durabletask.worker.OrchestratorNotRegisteredError", "A 'Pay' orchestrator was not registered.", "Pay"),
    ("durabletask.worker.ActivityNotRegisteredError", "Activity function named 'Pay' was not registered!", "Pay"),
    ("durabletask.worker.EntityNotRegisteredError", "Entity function named 'it's' was not registered!", "it's"),
]
OTHERS = [
    ("*errors.errorString", "the orchestrator named 'Pay' is not registered here"),
    ("java.lang.IllegalStateException", "No activity task is left"),
    ("java.lang.NullPointerException", 'Cannot invoke "String.length()" because "name" is null'),
    ("TaskFailedException", "Task 'Pay' (#0) failed: No activity task named 'Pay' was found."),
    ("ValueError", "Activity function 'Pay' is not registered."),
    ("WorkflowNotFound", "no name"),
    ("", ""),
]


@pytest.mark.parametrize(("kind", "text", "name"), SEEN)
def test_a_name_that_a_worker_does_not_know_is_told_from_its_failure(kind: str, text: str, name: str) -> None:
    failure = pb.FailureDetails(error_type=kind, error_message=text)
    assert unknown_name(failure) == name
    action = pb.Action(complete=pb.Complete(status=Status.FAILED, failure=failure))
    assert of_turn(pb.OrchestratorResponse(actions=[action])) == name
    failed = pb.OperationResult(failure=pb.OperationFailure(failure=failure))
    assert of_batch(pb.EntityBatchResult(results=[failed, failed])) == name
    assert of_batch(pb.EntityBatchResult(failure=failure)) == name


@pytest.mark.parametrize(("kind", "text"), OTHERS)
def test_other_failures_are_none_of_these(kind: str, text: str) -> None:
    assert unknown_name(pb.FailureDetails(error_type=kind, error_message=text)) is None


def test_an_entity_that_ran_an_operation_is_known() -> None:
    kind, text, _ = SEEN[2]
    failed = pb.OperationResult(
        failure=pb.OperationFailure(failure=pb.FailureDetails(error_type=kind, error_message=text))
    )
    ran = pb.OperationResult(success=pb.OperationSuccess())
    assert of_batch(pb.EntityBatchResult(results=[ran, failed])) is None
    assert of_batch(pb.EntityBatchResult()) is None
    assert of_turn(pb.OrchestratorResponse(actions=[pb.Action()])) is None
