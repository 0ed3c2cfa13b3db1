package app;

import static io.dapr.workflows.client.WorkflowRuntimeStatus.COMPLETED;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.RUNNING;

import io.dapr.workflows.Workflow;
import io.dapr.workflows.client.DaprWorkflowClient;
import io.dapr.workflows.client.WorkflowRuntimeStatus;
import io.dapr.workflows.client.WorkflowState;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;

/** The instances of this run. */
final class Instances {

  static final Duration PATIENCE = Duration.ofSeconds(25);

  private final DaprWorkflowClient client;
  private final String run = System.getenv("RUN_ID");

  Instances(DaprWorkflowClient client) {
    this.client = client;
  }

  String id(String scenario) {
    return run + "-" + scenario;
  }

  String start(Class<? extends Workflow> workflow, Object input, String scenario) {
    return client.scheduleNewWorkflow(workflow, input, id(scenario));
  }

  /** Starts an instance that waits for the event "go". */
  String waiting(String scenario) throws TimeoutException {
    String id = start(Workflows.Waiting.class, null, scenario);
    Check.equal("status at start", RUNNING, client.waitForWorkflowStart(id, PATIENCE, false).getRuntimeStatus());
    return id;
  }

  List<String> finished(String scenario, int count) throws TimeoutException {
    var ids = new ArrayList<String>();
    for (int number = 0; number < count; number++) {
      ids.add(start(Workflows.Hello.class, "Tokyo", scenario + "-" + number));
    }
    for (String id : ids) {
      completed(id);
    }
    return ids;
  }

  WorkflowState completed(String id) throws TimeoutException {
    WorkflowState state = client.waitForWorkflowCompletion(id, PATIENCE, true);
    Check.that(found(state), "%s was not found", id);
    Check.that(state.getRuntimeStatus() == COMPLETED, "status of %s: %s, %s", id, state.getRuntimeStatus(),
        state.getFailureDetails().getErrorMessage());
    return state;
  }

  /** Waits until it exists; the state of what does not says RUNNING, as its default. */
  void appears(String id) throws InterruptedException {
    Check.becomes(id + " exists", true, () -> found(client.getWorkflowState(id, false)));
  }

  WorkflowRuntimeStatus status(String id) {
    return client.getWorkflowState(id, false).getRuntimeStatus();
  }

  /** The SDK gives a state without name and ID for what does not exist. */
  static boolean found(WorkflowState state) {
    return !state.getName().isEmpty() || !state.getWorkflowId().isEmpty();
  }
}
