package app;

import static com.microsoft.durabletask.OrchestrationRuntimeStatus.COMPLETED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.FAILED;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.RUNNING;
import static com.microsoft.durabletask.OrchestrationRuntimeStatus.TERMINATED;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationStatusQuery;
import com.microsoft.durabletask.OrchestrationStatusQueryResult;
import com.microsoft.durabletask.PurgeInstanceCriteria;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;

/** What a client can do with many instances at once. */
final class BulkScenarios {

    private final DurableTaskClient client;
    private final Instances instances;

    BulkScenarios(DurableTaskClient client, Instances instances) {
        this.client = client;
        this.instances = instances;
    }

    void query() throws TimeoutException {
        Instant from = Instant.now();
        List<String> finished = instances.finished("query", 3);
        Instant between = Instant.now();
        String running = instances.waiting("query-running");

        var query = new OrchestrationStatusQuery().setInstanceIdPrefix(instances.id("query-"));
        Check.equal("all", plus(finished, running), ids(client.queryInstances(query)));
        query.setRuntimeStatusList(List.of(COMPLETED, FAILED));
        Check.equal("finished", finished, ids(client.queryInstances(query)));
        query.setRuntimeStatusList(List.of(RUNNING));
        Check.equal("running", List.of(running), ids(client.queryInstances(query)));

        query = new OrchestrationStatusQuery().setCreatedTimeFrom(from).setCreatedTimeTo(between);
        Check.equal("created before", finished, ids(client.queryInstances(query)));
        query = new OrchestrationStatusQuery().setCreatedTimeFrom(between);
        Check.equal("created after", List.of(running), ids(client.queryInstances(query)));

        query = new OrchestrationStatusQuery().setCreatedTimeFrom(from).setMaxInstanceCount(3);
        Check.equal("in pages of 3", plus(finished, running), inPages(query, 3));
        payloadsOf(finished);
        client.raiseEvent(running, "go", "on");
        instances.completed(running);
    }

    private List<String> inPages(OrchestrationStatusQuery query, int size) {
        var found = new ArrayList<String>();
        String token = null;
        do {
            OrchestrationStatusQueryResult page = client.queryInstances(query.setContinuationToken(token));
            List<String> ids = ids(page);
            Check.that(ids.size() <= size, "a page of %d has %d", size, ids.size());
            found.addAll(ids);
            token = page.getContinuationToken();
        } while (token != null && !token.isEmpty());
        return found.stream().sorted().toList();
    }

    private void payloadsOf(List<String> finished) {
        var query = new OrchestrationStatusQuery().setInstanceIdPrefix(finished.get(0));
        OrchestrationMetadata without = only(client.queryInstances(query));
        Check.equal("input if not asked for", "", without.getSerializedInput());
        Check.equal("output if not asked for", "", without.getSerializedOutput());
        OrchestrationMetadata with = only(client.queryInstances(query.setFetchInputsAndOutputs(true)));
        Check.equal("name", "Hello", with.getName());
        Check.equal("input", "Tokyo", with.readInputAs(String.class));
        Check.equal("output", "Hello, Tokyo!", with.readOutputAs(String.class));
    }

    void purgeByFilter() throws TimeoutException {
        Instant from = Instant.now();
        List<String> finished = instances.finished("purge-by-filter", 3);
        String running = instances.waiting("purge-by-filter-running");
        Instant to = Instant.now();
        String later = instances.finished("purge-by-filter-later", 1).get(0);

        var criteria = new PurgeInstanceCriteria()
                .setCreatedTimeFrom(from)
                .setCreatedTimeTo(to)
                .setRuntimeStatusList(List.of(COMPLETED, FAILED, TERMINATED));
        Check.equal("purged", 3, client.purgeInstances(criteria).getDeletedInstanceCount());
        for (String id : finished) {
            Check.that(!client.getInstanceMetadata(id, false).isInstanceFound(), "%s is still there", id);
        }
        Check.equal("the running one", RUNNING, instances.status(running));
        Check.equal("the later one", COMPLETED, instances.status(later));
        Check.equal("purged again", 0, client.purgeInstances(criteria).getDeletedInstanceCount());
        client.raiseEvent(running, "go", "on");
        instances.completed(running);
    }

    private static List<String> ids(OrchestrationStatusQueryResult result) {
        return result.getOrchestrationState().stream().map(OrchestrationMetadata::getInstanceId).sorted().toList();
    }

    private static OrchestrationMetadata only(OrchestrationStatusQueryResult result) {
        Check.equal("instances with this ID", 1, result.getOrchestrationState().size());
        return result.getOrchestrationState().get(0);
    }

    private static List<String> plus(List<String> ids, String more) {
        return Stream.concat(ids.stream(), Stream.of(more)).sorted().toList();
    }
}
