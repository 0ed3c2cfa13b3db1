package app;

import io.dapr.durabletask.DurableTaskClient;
import io.dapr.workflows.client.DaprWorkflowClient;
import java.util.LinkedHashMap;
import java.util.Map;

/** The scenarios by name. */
final class Scenarios {

  private Scenarios() {
  }

  static Map<String, Scenario> all(DaprWorkflowClient client, DurableTaskClient lower) {
    var instances = new Instances(client);
    var workflows = new WorkflowScenarios(client, instances);
    var commands = new CommandScenarios(client, instances);
    var below = new LowerScenarios(lower, instances);
    var all = new LinkedHashMap<String, Scenario>();
    all.put("hello", Scenario.of(workflows::hello));
    all.put("chain", Scenario.of(workflows::chain));
    all.put("fan-out", Scenario.of(workflows::fanOut));
    all.put("fan-in", Scenario.partly(workflows::fanIn, "3.6 MB: this SDK takes no history above 4 MiB"));
    all.put("retry", Scenario.of(workflows::retry));
    all.put("timer", Scenario.of(workflows::timer));
    all.put("event", Scenario.of(workflows::event));
    all.put("child", Scenario.of(workflows::child));
    all.put("continue-as-new", Scenario.of(workflows::continueAsNew));
    all.put("suspend-resume", Scenario.of(commands::suspendResume));
    all.put("terminate", Scenario.partly(commands::terminate, "no option that ends the children too"));
    all.put("purge", Scenario.of(commands::purge));
    all.put("failure-details", Scenario.of(workflows::failureDetails));
    all.put("custom-status", Scenario.partly(below::customStatus, "read by the client below: WorkflowState has none"));
    all.put("payload", Scenario.of(workflows::payload));
    all.put("remote-activity", Scenario.of(workflows::remoteActivity));
    all.put("inputs", Scenario.of(workflows::inputs));
    all.put("remote-child", Scenario.of(workflows::remoteChild));
    all.put("reuse", Scenario.of(commands::reuse));
    all.put("missing", Scenario.of(commands::missing));
    all.put("query", Scenario.partly(below::query, "by the client below; no filter by name"));
    all.put("list-ids", Scenario.notOffered("the client has no list of instance IDs"));
    all.put("purge-by-filter", Scenario.partly(below::purgeByFilter, "by the client below"));
    all.put("history", Scenario.notOffered("the client cannot read a history"));
    all.put("restart", Scenario.partly(below::restart, "by the client below"));
    all.put("rewind", Scenario.notOffered("the client has no rewind"));
    all.put("rerun", Scenario.notOffered("the client cannot rerun from an event"));
    all.put("scheduled-start", Scenario.of(commands::scheduledStart));
    all.put("tags", Scenario.notOffered("NewWorkflowOptions has no tags"));
    all.put("version", Scenario.partly(workflows::version, "the workflow cannot read the version of its start"));
    all.put("entity", Scenario.notOffered("the SDK has no entities"));
    all.put("entity-query", Scenario.notOffered("the SDK has no entities"));
    all.put("detached", Scenario.partly(workflows::detached, "no call of its own: a child that nobody awaits"));
    all.put("patch", Scenario.of(workflows::patch));
    all.put("early-wait", Scenario.of(commands::earlyWait));
    all.put("execution-id", Scenario.of(workflows::executionId));
    all.put("clear-status", Scenario.partly(below::clearStatus, "read by the client below: WorkflowState has none"));
    all.put("remote-client", Scenario.notOffered("the client cannot name an app"));
    all.put("reuse-never", Scenario.notOffered("NewWorkflowOptions has no reuse policy"));
    all.put("restart-running", Scenario.partly(below::restartRunning, "by the client below"));
    all.put("strict-version", Scenario.notOffered("the worker has no version rules"));
    all.put("long-history", Scenario.notOffered("this SDK takes no history above 4 MiB"));
    all.put("graceful-stop", Scenario.of(commands::gracefulStop));
    return all;
  }
}
