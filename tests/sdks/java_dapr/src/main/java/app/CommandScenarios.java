package app;

import static io.dapr.workflows.client.WorkflowRuntimeStatus.COMPLETED;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.PENDING;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.SUSPENDED;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.TERMINATED;

import io.dapr.workflows.client.DaprWorkflowClient;
import io.dapr.workflows.client.NewWorkflowOptions;
import io.dapr.workflows.client.WorkflowState;
import io.grpc.Status;
import java.time.Instant;
import java.util.concurrent.TimeoutException;

/** What a client can do with one instance. */
final class CommandScenarios {

  private final DaprWorkflowClient client;
  private final Instances instances;

  CommandScenarios(DaprWorkflowClient client, Instances instances) {
    this.client = client;
    this.instances = instances;
  }

  void suspendResume() throws TimeoutException, InterruptedException {
    String id = instances.waiting("suspend-resume");
    client.suspendWorkflow(id, "a pause");
    Check.becomes("status", SUSPENDED, () -> instances.status(id));
    client.raiseEvent(id, "go", "on");
    Thread.sleep(700);
    Check.equal("status after the event", SUSPENDED, instances.status(id));
    client.resumeWorkflow(id, "enough");
    Check.equal("output", "on", instances.completed(id).readOutputAs(String.class));
  }

  void terminate() throws TimeoutException, InterruptedException {
    String id = instances.start(Workflows.Guardian.class, null, "terminate");
    String child = id + "-child";
    instances.appears(child);
    client.terminateWorkflow(id, "enough");
    WorkflowState state = client.waitForWorkflowCompletion(id, Instances.PATIENCE, true);
    Check.equal("status", TERMINATED, state.getRuntimeStatus());
    Check.equal("output", "enough", state.readOutputAs(String.class));
    // As the javadoc says: "no effect on [...] sub-orchestrations that were started by the terminated instance".
    client.raiseEvent(child, "go", "still here");
    Check.equal("output of the child", "still here", instances.completed(child).readOutputAs(String.class));
  }

  void purge() throws TimeoutException {
    String id = instances.start(Workflows.Hello.class, "Tokyo", "purge");
    instances.completed(id);
    Check.equal("purged", true, client.purgeWorkflow(id));
    Check.that(!Instances.found(client.getWorkflowState(id, true)), "it is still there");
    Check.equal("purged again", false, client.purgeWorkflow(id));
  }

  void reuse() throws TimeoutException {
    String id = instances.waiting("reuse");
    Check.refused("the second start", Status.Code.ALREADY_EXISTS,
        () -> instances.start(Workflows.Hello.class, "Tokyo", "reuse"));
    client.raiseEvent(id, "go", "still here");
    Check.equal("output of the first", "still here", instances.completed(id).readOutputAs(String.class));
  }

  void missing() throws TimeoutException {
    String id = instances.id("missing");
    Check.that(!Instances.found(client.getWorkflowState(id, true)), "get has found it");
    Check.equal("purged", false, client.purgeWorkflow(id));
    // The javadoc promises silence for raise and terminate, but the SDK passes on what the sidecar says.
    Check.refused("raise", Status.Code.NOT_FOUND, () -> client.raiseEvent(id, "go", "on"));
    Check.refused("suspend", Status.Code.NOT_FOUND, () -> client.suspendWorkflow(id, "a pause"));
    Check.refused("resume", Status.Code.NOT_FOUND, () -> client.resumeWorkflow(id, "enough"));
    Check.refused("terminate", Status.Code.NOT_FOUND, () -> client.terminateWorkflow(id, "enough"));
  }

  void earlyWait() throws Exception {
    String id = instances.id("early-wait");
    WorkflowState state = Check.early(
        () -> client.waitForWorkflowCompletion(id, Instances.PATIENCE, true),
        () -> instances.start(Workflows.Hello.class, "early", "early-wait"));
    Check.equal("status that the wait ended with", COMPLETED, state.getRuntimeStatus());
    Check.equal("output", "Hello, early!", state.readOutputAs(String.class));
  }

  void gracefulStop() throws InterruptedException {
    String id = instances.start(Workflows.Lingering.class, null, "graceful-stop");
    Check.eventually("done", () -> client.getWorkflowState(id, true).readOutputAs(String.class));
  }

  void scheduledStart() throws TimeoutException, InterruptedException {
    String id = instances.id("scheduled-start");
    Instant due = Instant.now().plusMillis(1500);
    var options = new NewWorkflowOptions().setInstanceId(id).setStartTime(due);
    client.scheduleNewWorkflow(Workflows.Clock.class, options);
    Check.equal("status at once", PENDING, instances.status(id));
    Thread.sleep(700);
    Check.equal("status after 0.7 s", PENDING, instances.status(id));
    Instant began = Instant.ofEpochMilli(instances.completed(id).readOutputAs(Long.class));
    Check.that(!began.isBefore(due.minusMillis(1)), "began at %s, due at %s", began, due);
  }
}
