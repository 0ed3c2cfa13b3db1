package app;

import com.microsoft.durabletask.DurableTaskClient;
import java.util.LinkedHashMap;
import java.util.Map;

/** The scenarios by name. */
final class Scenarios {

    private static final String BY_ROUTE = "by a route of the sidecar: TaskOptions cannot name a target app";

    private Scenarios() {
    }

    static Map<String, Scenario> all(DurableTaskClient client) {
        var instances = new Instances(client);
        var workflows = new WorkflowScenarios(client, instances);
        var commands = new CommandScenarios(client, instances);
        var bulk = new BulkScenarios(client, instances);
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
        all.put("custom-status", Scenario.of(workflows::customStatus));
        all.put("payload", Scenario.of(workflows::payload));
        all.put("remote-activity", Scenario.partly(workflows::remoteActivity, BY_ROUTE));
        all.put("inputs", Scenario.partly(workflows::inputs, BY_ROUTE));
        all.put("remote-child", Scenario.partly(workflows::remoteChild, BY_ROUTE));
        all.put("reuse", Scenario.of(commands::reuse));
        all.put("missing", Scenario.of(commands::missing));
        all.put("query", Scenario.partly(bulk::query, "no filter by name: by a prefix of the ID instead"));
        all.put("list-ids", Scenario.notOffered("the client has no list of instance IDs, only queryInstances"));
        all.put("purge-by-filter", Scenario.of(bulk::purgeByFilter));
        all.put("history", Scenario.notOffered("the client cannot read a history"));
        all.put("restart", Scenario.of(commands::restart));
        all.put("rewind", Scenario.notOffered("the client of this version has no rewind"));
        all.put("rerun", Scenario.notOffered("the client cannot rerun from an event"));
        all.put("scheduled-start", Scenario.of(commands::scheduledStart));
        all.put("tags", Scenario.notOffered("NewOrchestrationInstanceOptions has no tags"));
        all.put("version", Scenario.partly(workflows::version, "neither workflow nor worker can read the version"));
        all.put("entity", Scenario.notOffered("this version has no entities"));
        all.put("entity-query", Scenario.notOffered("this version has no entities"));
        all.put("detached", Scenario.partly(workflows::detached, "no call of its own: a child that nobody awaits"));
        all.put("patch", Scenario.notOffered("the context has no patching"));
        all.put("early-wait", Scenario.of(commands::earlyWait));
        all.put("execution-id", Scenario.notOffered("activities have no execution ID"));
        all.put("clear-status", Scenario.of(workflows::clearStatus));
        all.put("remote-client", Scenario.notOffered("the client cannot name an app"));
        all.put("reuse-never", Scenario.notOffered("NewOrchestrationInstanceOptions has no reuse policy"));
        all.put("restart-running", Scenario.of(commands::restartRunning));
        all.put("strict-version", Scenario.notOffered("the worker of this version has no version rules"));
        all.put("long-history", Scenario.notOffered("this SDK takes no history above 4 MiB"));
        all.put("graceful-stop", Scenario.of(commands::gracefulStop));
        return all;
    }
}
