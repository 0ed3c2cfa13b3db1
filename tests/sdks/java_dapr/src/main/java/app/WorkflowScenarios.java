package app;

import static io.dapr.workflows.client.WorkflowRuntimeStatus.COMPLETED;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.FAILED;
import static io.dapr.workflows.client.WorkflowRuntimeStatus.PENDING;

import io.dapr.workflows.client.DaprWorkflowClient;
import io.dapr.workflows.client.NewWorkflowOptions;
import io.dapr.workflows.client.WorkflowState;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;

/** What workflows can do. */
final class WorkflowScenarios {

  private static final int MEBIBYTE = 1024 * 1024;

  private final DaprWorkflowClient client;
  private final Instances instances;

  WorkflowScenarios(DaprWorkflowClient client, Instances instances) {
    this.client = client;
    this.instances = instances;
  }

  void hello() throws TimeoutException {
    Instant before = Instant.now();
    String id = instances.start(Workflows.Hello.class, "Tokyo", "hello");
    WorkflowState started = client.waitForWorkflowStart(id, Instances.PATIENCE, false);
    Check.that(Instances.found(started) && started.getRuntimeStatus() != PENDING, "started: got %s", started);

    WorkflowState state = instances.completed(id);
    Check.equal("output", "Hello, Tokyo!", state.readOutputAs(String.class));
    Check.equal("input", "Tokyo", state.readInputAs(String.class));
    Check.equal("name", Workflows.Hello.class.getCanonicalName(), state.getName());
    Check.equal("ID", id, state.getWorkflowId());
    Check.that(!state.getCreatedAt().isBefore(before.minusMillis(1)), "created at %s, started after %s",
        state.getCreatedAt(), before);
    Check.that(!state.getLastUpdatedAt().isBefore(state.getCreatedAt()), "updated before created: %s", state);
    Check.that(!state.getLastUpdatedAt().isAfter(Instant.now()), "updated in the future: %s", state);
    Check.equal("input if not asked for", "", client.getWorkflowState(id, false).getSerializedInput());
  }

  void chain() throws TimeoutException {
    String id = instances.start(Workflows.Chain.class, 3, "chain");
    Check.equal("output", 17, instances.completed(id).readOutputAs(Integer.class));
  }

  void fanOut() throws TimeoutException {
    String id = instances.start(Workflows.FanOut.class, 50, "fan-out");
    Check.equal("output", 42925, instances.completed(id).readOutputAs(Integer.class));
  }

  void fanIn() throws TimeoutException {
    String id = instances.start(Workflows.FanIn.class, 60_000, "fan-in");
    Check.equal("characters", 3_600_000, instances.completed(id).readOutputAs(Integer.class));
  }

  void retry() throws TimeoutException {
    String id = instances.start(Workflows.Retry.class, null, "retry");
    Check.equal("output", 3, instances.completed(id).readOutputAs(Integer.class));
    Check.equal("attempts", 3, Activities.ATTEMPTS.get(id).size());
  }

  void executionId() throws TimeoutException {
    var found = new ArrayList<String>();
    for (String name : List.of("execution-id-1", "execution-id-2")) {
      String id = instances.start(Workflows.Retry.class, null, name);
      instances.completed(id);
      List<String> ids = Activities.ATTEMPTS.get(id);
      Check.that(ids.size() == 3 && ids.stream().distinct().count() == 1, "IDs of three attempts: %s", ids);
      Check.that(ids.get(0) != null && !ids.get(0).isEmpty(), "no ID: %s", ids);
      found.add(ids.get(0));
    }
    Check.that(!found.get(0).equals(found.get(1)), "two calls have the same ID %s", found.get(0));
  }

  void timer() throws TimeoutException {
    Instant before = Instant.now();
    String id = instances.start(Workflows.Timer.class, 1000L, "timer");
    long moved = instances.completed(id).readOutputAs(Long.class);
    Check.that(moved >= 1000, "the workflow's clock has moved by only %d ms", moved);
    Check.that(Duration.between(before, Instant.now()).toMillis() >= 1000, "it was over too early");
  }

  void event() throws TimeoutException {
    String id = instances.start(Workflows.Approving.class, null, "event");
    client.waitForWorkflowStart(id, Instances.PATIENCE, false);
    client.raiseEvent(id, "approval", new Workflows.Approval("Ada", 2));
    Object[] output = instances.completed(id).readOutputAs(Object[].class);
    Check.equal("output", List.of("Ada", 2, "too late"), List.of(output));
  }

  void child() throws TimeoutException {
    String id = instances.start(Workflows.Parent.class, null, "child");
    Workflows.Visit[] visits = instances.completed(id).readOutputAs(Workflows.Visit[].class);
    String own = id + "-child";
    Check.equal("first child", new Workflows.Visit(own, "Hello, one!"), visits[0]);
    Check.equal("second child's text", "Hello, two!", visits[1].text());
    String other = visits[1].instanceId();
    Check.that(!other.isEmpty() && !other.equals(own) && !other.equals(id), "second child's ID: %s", other);
    for (Workflows.Visit visit : visits) {
      Check.equal("status of " + visit.instanceId(), COMPLETED, instances.status(visit.instanceId()));
    }
  }

  void continueAsNew() throws TimeoutException, InterruptedException {
    String id = instances.start(Workflows.Count.class, 1, "continue-as-new");
    List<String> notes = IntStream.range(0, Workflows.NOTES).mapToObj(number -> "note " + number).toList();
    for (String note : notes) {
      client.raiseEvent(id, "note", note);
      Thread.sleep(150);
    }
    Workflows.Counted counted = instances.completed(id).readOutputAs(Workflows.Counted.class);
    Check.equal("count", Workflows.EXECUTIONS, counted.count());
    // The SDK collects what it carries over in a set, so the order is lost.
    Check.equal("notes", notes, counted.notes().stream().sorted().toList());
  }

  void failureDetails() throws TimeoutException {
    String id = instances.start(Workflows.Failing.class, null, "failure-details");
    WorkflowState state = client.waitForWorkflowCompletion(id, Instances.PATIENCE, true);
    Check.equal("status", FAILED, state.getRuntimeStatus());
    var details = state.getFailureDetails();
    Check.equal("type", IllegalArgumentException.class.getName(), details.getErrorType());
    Check.equal("message", "java.lang.UnsupportedOperationException said: no such bird", details.getErrorMessage());
    Check.that(details.isCausedBy(IllegalArgumentException.class), "isCausedBy does not know the type");
    String trace = details.getStackTrace();
    Check.that(trace.contains("app.Workflows"), "stack trace: %s", trace);
  }

  void payload() throws TimeoutException {
    String unit = "a\u00e9\u6f22\ud83c\udf88";  // 1, 2, 3 and 4 bytes in UTF-8
    String text = unit.repeat(MEBIBYTE / 10) + "x".repeat(MEBIBYTE % 10);
    Check.equal("bytes", MEBIBYTE, text.getBytes(StandardCharsets.UTF_8).length);
    String id = instances.start(Workflows.Payload.class, text, "payload");
    WorkflowState state = instances.completed(id);
    Check.that(text.equals(state.readOutputAs(String.class)), "the output differs from the input");
    Check.that(text.equals(state.readInputAs(String.class)), "the input differs from what was given");
  }

  void detached() throws TimeoutException, InterruptedException {
    String id = instances.start(Workflows.Detaching.class, null, "detached");
    String detached = instances.completed(id).readOutputAs(String.class);
    instances.appears(detached);
    Check.that(instances.status(detached) != COMPLETED, "the parent has waited for it");
    Check.that(instances.completed(detached).readOutputAs(Long.class) >= 1000, "its timer was too early");
  }

  void version() throws TimeoutException {
    String id = instances.id("version");
    var options = new NewWorkflowOptions().setInstanceId(id).setInput("Tokyo").setVersion("2.1");
    client.scheduleNewWorkflow(Workflows.Hello.class, options);
    Check.equal("output", "Hello, Tokyo!", instances.completed(id).readOutputAs(String.class));

    // The worker's rule: what has no version in its history yet gets the latest one, and keeps it.
    id = client.scheduleNewWorkflow("Versioned", null, instances.id("version-latest"));
    String output = instances.completed(id).readOutputAs(String.class);
    Check.equal("output", "Hello, Tokyo! from the latest version", output);
  }

  void patch() throws TimeoutException {
    String id = instances.start(Workflows.Patched.class, null, "patch");
    Boolean[] patched = instances.completed(id).readOutputAs(Boolean[].class);
    Check.equal("patched", List.of(true, false, true), List.of(patched));
  }

  void remoteActivity() throws TimeoutException {
    String id = instances.start(Workflows.RemoteActivity.class, null, "remote-activity");
    String[] output = instances.completed(id).readOutputAs(String[].class);
    Check.equal("output", List.of("one in home", "two in other"), List.of(output));
  }

  void inputs() throws TimeoutException {
    String id = instances.start(Workflows.Giving.class, null, "inputs");
    String[] shown = instances.completed(id).readOutputAs(String[].class);
    Check.equal("what the activity was given", Inputs.SHOWN, List.of(shown));
  }

  void remoteChild() throws TimeoutException {
    String id = instances.start(Workflows.RemoteChild.class, null, "remote-child");
    Workflows.Visit visit = instances.completed(id).readOutputAs(Workflows.Visit.class);
    Check.equal("output", new Workflows.Visit(id + "-there", "three in other"), visit);
    Check.that(!Instances.found(client.getWorkflowState(visit.instanceId(), false)), "the child is here");
  }
}
