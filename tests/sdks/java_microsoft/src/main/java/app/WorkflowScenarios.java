package app;

import static com.microsoft.durabletask.OrchestrationRuntimeStatus.COMPLETED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.FAILED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.PENDING;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.RUNNING;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;

/** What workflows can do. */
final class WorkflowScenarios {

    private static final int MEBIBYTE = 1024 * 1024;

    private final DurableTaskClient client;
    private final Instances instances;

    WorkflowScenarios(DurableTaskClient client, Instances instances) {
        this.client = client;
        this.instances = instances;
    }

    void hello() throws TimeoutException {
        Instant before = Instant.now();
        String id = instances.start("Hello", "Tokyo", "hello");
        OrchestrationMetadata started = client.waitForInstanceStart(id, Instances.PATIENCE);
        Check.that(started.isInstanceFound() && started.getRuntimeStatus() != PENDING, "started: got %s", started);

        OrchestrationMetadata state = instances.completed(id);
        Check.equal("output", "Hello, Tokyo!", state.readOutputAs(String.class));
        Check.equal("input", "Tokyo", state.readInputAs(String.class));
        Check.equal("name", "Hello", state.getName());
        Check.equal("ID", id, state.getInstanceId());
        Check.that(!state.getCreatedAt().isBefore(before.minusMillis(1)), "created at %s, started after %s",
                state.getCreatedAt(), before);
        Check.that(!state.getLastUpdatedAt().isBefore(state.getCreatedAt()), "updated before created: %s", state);
        Check.that(!state.getLastUpdatedAt().isAfter(Instant.now()), "updated in the future: %s", state);
        Check.equal("input if not asked for", "", client.getInstanceMetadata(id, false).getSerializedInput());
    }

    void chain() throws TimeoutException {
        String id = instances.start("Chain", 3, "chain");
        Check.equal("output", 17, instances.completed(id).readOutputAs(Integer.class));
    }

    void fanOut() throws TimeoutException {
        String id = instances.start("FanOut", 50, "fan-out");
        Check.equal("output", 42925, instances.completed(id).readOutputAs(Integer.class));
    }

    void fanIn() throws TimeoutException {
        String id = instances.start("FanIn", 60_000, "fan-in");
        Check.equal("characters", 3_600_000, instances.completed(id).readOutputAs(Integer.class));
    }

    void retry() throws TimeoutException {
        String id = instances.start("Retry", null, "retry");
        Check.equal("output", 3, instances.completed(id).readOutputAs(Integer.class));
        Check.equal("attempts", 3, Activities.ATTEMPTS.get(id).get());
    }

    void timer() throws TimeoutException {
        Instant before = Instant.now();
        String id = instances.start("Timer", 1000L, "timer");
        long moved = instances.completed(id).readOutputAs(Long.class);
        Check.that(moved >= 1000, "the workflow's clock has moved by only %d ms", moved);
        Check.that(Duration.between(before, Instant.now()).toMillis() >= 1000, "it was over too early");
    }

    void event() throws TimeoutException {
        String id = instances.start("Approval", null, "event");
        client.waitForInstanceStart(id, Instances.PATIENCE);
        client.raiseEvent(id, "approval", new Workflows.Approval("Ada", 2));
        Object[] output = instances.completed(id).readOutputAs(Object[].class);
        Check.equal("output", List.of("Ada", 2, "too late"), List.of(output));
    }

    void child() throws TimeoutException {
        String id = instances.start("Parent", null, "child");
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

    void remoteActivity() throws TimeoutException {
        String id = instances.start("RemoteActivity", null, "remote-activity");
        String[] places = instances.completed(id).readOutputAs(String[].class);
        Check.equal("places", List.of(System.getenv("APP_ID"), System.getenv("OTHER_APP")), List.of(places));
    }

    void inputs() throws TimeoutException {
        String id = instances.start("Inputs", null, "inputs");
        String[] shown = instances.completed(id).readOutputAs(String[].class);
        Check.equal("what the activity was given", Inputs.SHOWN, List.of(shown));
    }

    void remoteChild() throws TimeoutException {
        String id = instances.start("RemoteChild", null, "remote-child");
        Workflows.Visit visit = instances.completed(id).readOutputAs(Workflows.Visit.class);
        Check.equal("output", new Workflows.Visit(id + "-there", System.getenv("OTHER_APP")), visit);
        Check.that(!client.getInstanceMetadata(id + "-there", false).isInstanceFound(), "the child is here");
    }

    void continueAsNew() throws TimeoutException, InterruptedException {
        String id = instances.start("Count", 1, "continue-as-new");
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
        String id = instances.start("Failing", null, "failure-details");
        OrchestrationMetadata state = client.waitForInstanceCompletion(id, Instances.PATIENCE, true);
        Check.equal("status", FAILED, state.getRuntimeStatus());
        var details = state.getFailureDetails();
        Check.equal("type", IllegalArgumentException.class.getName(), details.getErrorType());
        Check.equal("message", "java.lang.UnsupportedOperationException said: no such bird", details.getErrorMessage());
        Check.that(details.isCausedBy(IllegalArgumentException.class), "isCausedBy does not know the type");
        String trace = details.getStackTrace();
        Check.that(trace.contains("app.Workflows.failing"), "stack trace: %s", trace);
    }

    void customStatus() throws TimeoutException, InterruptedException {
        String id = instances.start("Status", null, "custom-status");
        Check.becomes("status while running", "half way",
                () -> client.getInstanceMetadata(id, true).readCustomStatusAs(String.class));
        Check.equal("runtime status", RUNNING, instances.status(id));
        client.raiseEvent(id, "go", "on");
        Check.equal("status at the end", new Workflows.Approval("Ada", 2),
                instances.completed(id).readCustomStatusAs(Workflows.Approval.class));
    }

    void clearStatus() throws TimeoutException, InterruptedException {
        String id = instances.start("Clearing", 1, "clear-status");
        String[][] steps = {{"busy", "clear"}, {null, "again"}, {"busy again", "continue"}, {null, "end"}};
        for (String[] step : steps) {
            Check.becomes("custom status", step[0], () -> {
                OrchestrationMetadata state = client.getInstanceMetadata(id, true);
                return state.isCustomStatusFetched() ? state.readCustomStatusAs(String.class) : null;
            });
            client.raiseEvent(id, step[1], "on");
        }
        instances.completed(id);
    }

    void payload() throws TimeoutException {
        String unit = "a\u00e9\u6f22\ud83c\udf88";  // 1, 2, 3 and 4 bytes in UTF-8
        String text = unit.repeat(MEBIBYTE / 10) + "x".repeat(MEBIBYTE % 10);
        Check.equal("bytes", MEBIBYTE, text.getBytes(StandardCharsets.UTF_8).length);
        String id = instances.start("Payload", text, "payload");
        OrchestrationMetadata state = instances.completed(id);
        Check.that(text.equals(state.readOutputAs(String.class)), "the output differs from the input");
        Check.that(text.equals(state.readInputAs(String.class)), "the input differs from what was given");
    }

    void version() throws TimeoutException {
        String id = instances.id("version");
        var options = new NewOrchestrationInstanceOptions().setInstanceId(id).setInput("Tokyo").setVersion("2.1");
        client.scheduleNewOrchestrationInstance("Hello", options);
        Check.equal("output", "Hello, Tokyo!", instances.completed(id).readOutputAs(String.class));
    }

    void detached() throws TimeoutException, InterruptedException {
        String id = instances.start("Detaching", null, "detached");
        String detached = instances.completed(id).readOutputAs(String.class);
        instances.appears(detached);
        Check.that(instances.status(detached) != COMPLETED, "the parent has waited for it");
        Check.that(instances.completed(detached).readOutputAs(Long.class) >= 1000, "its timer was too early");
    }
}
