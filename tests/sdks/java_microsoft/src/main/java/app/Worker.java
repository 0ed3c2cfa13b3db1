package app;

import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;
import io.grpc.Channel;

/** The worker with all workflows and activities. */
final class Worker {

    private Worker() {
    }

    static DurableTaskGrpcWorker build(Channel channel) {
        return new DurableTaskGrpcWorkerBuilder()
                .grpcChannel(channel)
                .addOrchestration(orchestration("Hello", Workflows::hello))
                .addOrchestration(orchestration("Chain", Workflows::chain))
                .addOrchestration(orchestration("FanOut", Workflows::fanOut))
                .addOrchestration(orchestration("FanIn", Workflows::fanIn))
                .addOrchestration(orchestration("Retry", Workflows::retry))
                .addOrchestration(orchestration("Timer", Workflows::timer))
                .addOrchestration(orchestration("Approval", Workflows::approval))
                .addOrchestration(orchestration("Parent", Workflows::parent))
                .addOrchestration(orchestration("Child", Workflows::child))
                .addOrchestration(orchestration("Count", Workflows::count))
                .addOrchestration(orchestration("Waiting", Workflows::waiting))
                .addOrchestration(orchestration("Guardian", Workflows::guardian))
                .addOrchestration(orchestration("Failing", Workflows::failing))
                .addOrchestration(orchestration("Status", Workflows::status))
                .addOrchestration(orchestration("Payload", Workflows::payload))
                .addOrchestration(orchestration("Clock", Workflows::clock))
                .addOrchestration(orchestration("Detaching", Workflows::detaching))
                .addOrchestration(orchestration("RemoteActivity", Workflows::remoteActivity))
                .addOrchestration(orchestration("Inputs", Workflows::inputs))
                .addOrchestration(orchestration("RemoteChild", Workflows::remoteChild))
                .addOrchestration(orchestration("RoutedChild", Workflows::routedChild))
                .addOrchestration(orchestration("Clearing", Workflows::clearing))
                .addOrchestration(orchestration("Lingering", Workflows::lingering))
                .addActivity(activity("Linger", Activities::linger))
                .addActivity(activity("Where", Activities::where))
                .addActivity(activity("RoutedWhere", Activities::where))
                .addActivity(activity("Greet", Activities::greet))
                .addActivity(activity("PlusOne", Activities::plusOne))
                .addActivity(activity("Square", Activities::square))
                .addActivity(activity("Echo", Activities::echo))
                .addActivity(activity("Fill", Activities::fill))
                .addActivity(activity("Show", Activities::show))
                .addActivity(activity("Flaky", Activities::flaky))
                .addActivity(activity("Fail", Activities::fail))
                .build();
    }

    private static TaskOrchestrationFactory orchestration(String name, TaskOrchestration body) {
        return new TaskOrchestrationFactory() {
            @Override
            public String getName() {
                return name;
            }

            @Override
            public TaskOrchestration create() {
                return body;
            }
        };
    }

    private static TaskActivityFactory activity(String name, TaskActivity body) {
        return new TaskActivityFactory() {
            @Override
            public String getName() {
                return name;
            }

            @Override
            public TaskActivity create() {
                return body;
            }
        };
    }
}
