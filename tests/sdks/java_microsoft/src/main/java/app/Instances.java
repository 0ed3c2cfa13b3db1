package app;

import static com.microsoft.durabletask.OrchestrationRuntimeStatus.COMPLETED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.RUNNING;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;

/** The instances of this run. */
final class Instances {

    static final Duration PATIENCE = Duration.ofSeconds(25);

    private final DurableTaskClient client;
    private final String run = System.getenv("RUN_ID");

    Instances(DurableTaskClient client) {
        this.client = client;
    }

    String id(String scenario) {
        return run + "-" + scenario;
    }

    String start(String name, Object input, String scenario) {
        return client.scheduleNewOrchestrationInstance(name, input, id(scenario));
    }

    /** Starts an instance that waits for the event "go". */
    String waiting(String scenario) throws TimeoutException {
        String id = start("Waiting", null, scenario);
        Check.equal("status at start", RUNNING, client.waitForInstanceStart(id, PATIENCE).getRuntimeStatus());
        return id;
    }

    List<String> finished(String scenario, int count) throws TimeoutException {
        var ids = new ArrayList<String>();
        for (int number = 0; number < count; number++) {
            ids.add(start("Hello", "Tokyo", scenario + "-" + number));
        }
        for (String id : ids) {
            completed(id);
        }
        return ids;
    }

    OrchestrationMetadata completed(String id) throws TimeoutException {
        OrchestrationMetadata state = client.waitForInstanceCompletion(id, PATIENCE, true);
        Check.that(state.isInstanceFound(), "%s was not found", id);
        Check.that(state.getRuntimeStatus() == COMPLETED, "status of %s: %s, %s", id, state.getRuntimeStatus(),
                state.getFailureDetails().getErrorMessage());
        return state;
    }

    /** Waits until it exists; the state of what does not says RUNNING, as its default. */
    void appears(String id) throws InterruptedException {
        Check.becomes(id + " exists", true, () -> client.getInstanceMetadata(id, false).isInstanceFound());
    }

    OrchestrationRuntimeStatus status(String id) {
        return client.getInstanceMetadata(id, false).getRuntimeStatus();
    }
}
