package app;

import static com.microsoft.durabletask.OrchestrationRuntimeStatus.COMPLETED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.PENDING;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.RUNNING;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.SUSPENDED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.TERMINATED;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import io.grpc.Status;
import java.time.Instant;
import java.util.concurrent.TimeoutException;

/** What a client can do with one instance. */
final class CommandScenarios {

    private final DurableTaskClient client;
    private final Instances instances;

    CommandScenarios(DurableTaskClient client, Instances instances) {
        this.client = client;
        this.instances = instances;
    }

    void suspendResume() throws TimeoutException, InterruptedException {
        String id = instances.waiting("suspend-resume");
        client.suspendInstance(id, "a pause");
        Check.becomes("status", SUSPENDED, () -> instances.status(id));
        client.raiseEvent(id, "go", "on");
        Thread.sleep(700);
        Check.equal("status after the event", SUSPENDED, instances.status(id));
        client.resumeInstance(id, "enough");
        Check.equal("output", "on", instances.completed(id).readOutputAs(String.class));
    }

    void terminate() throws TimeoutException, InterruptedException {
        String id = instances.start("Guardian", null, "terminate");
        String child = id + "-child";
        instances.appears(child);
        client.terminate(id, "enough");
        OrchestrationMetadata state = client.waitForInstanceCompletion(id, Instances.PATIENCE, true);
        Check.equal("status", TERMINATED, state.getRuntimeStatus());
        Check.equal("output", "enough", state.readOutputAs(String.class));
        // As the javadoc says: "no effect on [...] sub-orchestrations that were started by the terminated instance".
        client.raiseEvent(child, "go", "still here");
        Check.equal("output of the child", "still here", instances.completed(child).readOutputAs(String.class));
    }

    void purge() throws TimeoutException {
        String id = instances.start("Hello", "Tokyo", "purge");
        instances.completed(id);
        Check.equal("purged", 1, client.purgeInstance(id).getDeletedInstanceCount());
        Check.that(!client.getInstanceMetadata(id, true).isInstanceFound(), "it is still there");
        Check.equal("purged again", 0, client.purgeInstance(id).getDeletedInstanceCount());
    }

    void reuse() throws TimeoutException {
        String id = instances.waiting("reuse");
        Check.refused("the second start", Status.Code.ALREADY_EXISTS, () -> instances.start("Hello", "Tokyo", "reuse"));
        client.raiseEvent(id, "go", "still here");
        Check.equal("output of the first", "still here", instances.completed(id).readOutputAs(String.class));
    }

    void missing() throws TimeoutException {
        String id = instances.id("missing");
        Check.that(!client.getInstanceMetadata(id, true).isInstanceFound(), "get has found it");
        Check.equal("purged", 0, client.purgeInstance(id).getDeletedInstanceCount());
        // The javadoc promises silence for raise and terminate, but the SDK passes on what the sidecar says.
        Check.refused("raise", Status.Code.NOT_FOUND, () -> client.raiseEvent(id, "go", "on"));
        Check.refused("suspend", Status.Code.NOT_FOUND, () -> client.suspendInstance(id));
        Check.refused("resume", Status.Code.NOT_FOUND, () -> client.resumeInstance(id));
        Check.refused("terminate", Status.Code.NOT_FOUND, () -> client.terminate(id, "enough"));
        try {
            client.restartInstance(id, true);
            throw new Check.Failure("restart was not refused");
        } catch (IllegalArgumentException expected) {
            Check.that(expected.getMessage().contains(id), "restart said: %s", expected.getMessage());
        }
    }

    void earlyWait() throws Exception {
        String id = instances.id("early-wait");
        OrchestrationMetadata state = Check.early(
                () -> client.waitForInstanceCompletion(id, Instances.PATIENCE, true),
                () -> instances.start("Hello", "early", "early-wait"));
        Check.equal("status that the wait ended with", COMPLETED, state.getRuntimeStatus());
        Check.equal("output", "Hello, early!", state.readOutputAs(String.class));
    }

    void gracefulStop() throws InterruptedException {
        String id = instances.start("Lingering", null, "graceful-stop");
        Check.eventually("done", () -> client.getInstanceMetadata(id, true).readOutputAs(String.class));
    }

    void restartRunning() throws TimeoutException, InterruptedException {
        String id = instances.waiting("restart-running");
        String fresh = client.restartInstance(id, true);
        Check.that(!fresh.equals(id), "the new ID is the old one");
        Check.becomes("status of the second", RUNNING, () -> instances.status(fresh));
        Check.equal("status of the first", RUNNING, instances.status(id));
        client.raiseEvent(id, "go", "one");
        Check.equal("output of the first", "one", instances.completed(id).readOutputAs(String.class));
        client.raiseEvent(fresh, "go", "two");
        Check.equal("output of the second", "two", instances.completed(fresh).readOutputAs(String.class));
    }

    void scheduledStart() throws TimeoutException, InterruptedException {
        String id = instances.id("scheduled-start");
        Instant due = Instant.now().plusMillis(1500);
        var options = new NewOrchestrationInstanceOptions().setInstanceId(id).setStartTime(due);
        client.scheduleNewOrchestrationInstance("Clock", options);
        Check.equal("status at once", PENDING, instances.status(id));
        Thread.sleep(700);
        Check.equal("status after 0.7 s", PENDING, instances.status(id));
        Instant began = Instant.ofEpochMilli(instances.completed(id).readOutputAs(Long.class));
        Check.that(!began.isBefore(due.minusMillis(1)), "began at %s, due at %s", began, due);
    }

    void restart() throws TimeoutException {
        String id = instances.start("Clock", "any", "restart");
        OrchestrationMetadata first = instances.completed(id);

        String fresh = client.restartInstance(id, true);
        Check.that(!fresh.equals(id), "the new ID is the old one");
        OrchestrationMetadata second = instances.completed(fresh);
        Check.equal("input under a new ID", "any", second.readInputAs(String.class));
        Check.that(second.getCreatedAt().isAfter(first.getCreatedAt()), "created at %s", second.getCreatedAt());

        Check.equal("ID", id, client.restartInstance(id, false));
        OrchestrationMetadata again = instances.completed(id);
        Check.equal("input under its own ID", "any", again.readInputAs(String.class));
        Check.that(again.getCreatedAt().isAfter(second.getCreatedAt()), "created at %s", again.getCreatedAt());
    }
}
