package app;

import static io.dapr.durabletask.OrchestrationRuntimeStatus.COMPLETED;
import static io.dapr.durabletask.OrchestrationRuntimeStatus.FAILED;
import static io.dapr.durabletask.OrchestrationRuntimeStatus.RUNNING;
import static io.dapr.durabletask.OrchestrationRuntimeStatus.TERMINATED;

import io.dapr.durabletask.DurableTaskClient;
import io.dapr.durabletask.OrchestrationMetadata;
import io.dapr.durabletask.OrchestrationRuntimeStatus;
import io.dapr.durabletask.OrchestrationStatusQuery;
import io.dapr.durabletask.OrchestrationStatusQueryResult;
import io.dapr.durabletask.PurgeInstanceCriteria;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;

/**
 * What only the client below can do, on which DaprWorkflowClient is built: it comes with the SDK, and its classes are
 * public.
 */
final class LowerScenarios {

  private final DurableTaskClient client;
  private final Instances instances;

  LowerScenarios(DurableTaskClient client, Instances instances) {
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
    completed(running);
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
    Check.equal("name", Workflows.Hello.class.getCanonicalName(), with.getName());
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
    Check.equal("the running one", RUNNING, status(running));
    Check.equal("the later one", COMPLETED, status(later));
    Check.equal("purged again", 0, client.purgeInstances(criteria).getDeletedInstanceCount());
    client.raiseEvent(running, "go", "on");
    completed(running);
  }

  void customStatus() throws TimeoutException, InterruptedException {
    String id = instances.start(Workflows.Status.class, null, "custom-status");
    Check.becomes("status while running", "half way",
        () -> client.getInstanceMetadata(id, true).readCustomStatusAs(String.class));
    Check.equal("runtime status", RUNNING, status(id));
    client.raiseEvent(id, "go", "on");
    Check.equal("status at the end", new Workflows.Approval("Ada", 2),
        completed(id).readCustomStatusAs(Workflows.Approval.class));
  }

  void clearStatus() throws TimeoutException, InterruptedException {
    String id = instances.start(Workflows.Clearing.class, 1, "clear-status");
    String[][] steps = {{"busy", "clear"}, {null, "again"}, {"busy again", "continue"}, {null, "end"}};
    for (String[] step : steps) {
      Check.becomes("custom status", step[0], () -> {
        OrchestrationMetadata state = client.getInstanceMetadata(id, true);
        return state.isCustomStatusFetched() ? state.readCustomStatusAs(String.class) : null;
      });
      client.raiseEvent(id, step[1], "on");
    }
    completed(id);
  }

  void restartRunning() throws TimeoutException, InterruptedException {
    String id = instances.waiting("restart-running");
    String fresh = client.restartInstance(id, true);
    Check.that(!fresh.equals(id), "the new ID is the old one");
    Check.becomes("status of the second", RUNNING, () -> status(fresh));
    Check.equal("status of the first", RUNNING, status(id));
    client.raiseEvent(id, "go", "one");
    Check.equal("output of the first", "one", completed(id).readOutputAs(String.class));
    client.raiseEvent(fresh, "go", "two");
    Check.equal("output of the second", "two", completed(fresh).readOutputAs(String.class));
  }

  void restart() throws TimeoutException {
    String id = instances.start(Workflows.Clock.class, "any", "restart");
    OrchestrationMetadata first = completed(id);

    String fresh = client.restartInstance(id, true);
    Check.that(!fresh.equals(id), "the new ID is the old one");
    OrchestrationMetadata second = completed(fresh);
    Check.equal("input under a new ID", "any", second.readInputAs(String.class));
    Check.that(second.getCreatedAt().isAfter(first.getCreatedAt()), "created at %s", second.getCreatedAt());

    Check.equal("ID", id, client.restartInstance(id, false));
    OrchestrationMetadata again = completed(id);
    Check.equal("input under its own ID", "any", again.readInputAs(String.class));
    Check.that(again.getCreatedAt().isAfter(second.getCreatedAt()), "created at %s", again.getCreatedAt());
  }

  private OrchestrationMetadata completed(String id) throws TimeoutException {
    OrchestrationMetadata state = client.waitForInstanceCompletion(id, Instances.PATIENCE, true);
    Check.equal("status of " + id, COMPLETED, state.getRuntimeStatus());
    return state;
  }

  private OrchestrationRuntimeStatus status(String id) {
    return client.getInstanceMetadata(id, false).getRuntimeStatus();
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
