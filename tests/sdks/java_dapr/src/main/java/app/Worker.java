package app;

import io.dapr.workflows.runtime.WorkflowRuntime;
import io.dapr.workflows.runtime.WorkflowRuntimeBuilder;

/** The worker with all workflows and activities. */
final class Worker {

  private Worker() {
  }

  static WorkflowRuntime build() {
    return new WorkflowRuntimeBuilder()
        .registerWorkflow(Workflows.Hello.class)
        .registerWorkflow(Workflows.Chain.class)
        .registerWorkflow(Workflows.FanOut.class)
        .registerWorkflow(Workflows.FanIn.class)
        .registerWorkflow(Workflows.Retry.class)
        .registerWorkflow(Workflows.Timer.class)
        .registerWorkflow(Workflows.Approving.class)
        .registerWorkflow(Workflows.Parent.class)
        .registerWorkflow(Workflows.Child.class)
        .registerWorkflow(Workflows.Count.class)
        .registerWorkflow(Workflows.Waiting.class)
        .registerWorkflow(Workflows.Guardian.class)
        .registerWorkflow(Workflows.Failing.class)
        .registerWorkflow(Workflows.Status.class)
        .registerWorkflow(Workflows.Payload.class)
        .registerWorkflow(Workflows.RemoteActivity.class)
        .registerWorkflow(Workflows.Giving.class)
        .registerWorkflow(Workflows.RemoteChild.class)
        .registerWorkflow(Workflows.Visitor.class)
        .registerWorkflow(Workflows.Clock.class)
        .registerWorkflow(Workflows.Detaching.class)
        .registerWorkflow(Workflows.Patched.class)
        .registerWorkflow(Workflows.Clearing.class)
        .registerWorkflow(Workflows.Lingering.class)
        .registerWorkflow("Versioned", Workflows.FirstVersion.class, "v1", false)
        .registerWorkflow("Versioned", Workflows.LatestVersion.class, "v2", true)
        .registerActivity("Greet", Activities::greet)
        .registerActivity("PlusOne", Activities::plusOne)
        .registerActivity("Square", Activities::square)
        .registerActivity("Echo", Activities::echo)
        .registerActivity("Fill", Activities::fill)
        .registerActivity("Show", Activities::show)
        .registerActivity("Flaky", Activities::flaky)
        .registerActivity("Fail", Activities::fail)
        .registerActivity("Where", Activities::where)
        .registerActivity("Deploy", Activities::deploy)
        .registerActivity("Linger", Activities::linger)
        .build();
  }
}
