package app;

import com.microsoft.durabletask.FailureDetails;
import com.microsoft.durabletask.RetryPolicy;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskCanceledException;
import com.microsoft.durabletask.TaskFailedException;
import com.microsoft.durabletask.TaskOptions;
import com.microsoft.durabletask.TaskOrchestrationContext;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** The workflows of the scenarios. */
final class Workflows {

    static final Duration LONG = Duration.ofMinutes(10);
    static final int EXECUTIONS = 5;
    static final int NOTES = 3;

    /** An event's payload. */
    record Approval(String by, int count) {
    }

    /** What a child returns. */
    record Visit(String instanceId, String text) {
    }

    record Counted(int count, List<String> notes) {
    }

    private Workflows() {
    }

    static void hello(TaskOrchestrationContext context) {
        String name = context.getInput(String.class);
        context.complete(context.callActivity("Greet", name, String.class).await());
    }

    static void chain(TaskOrchestrationContext context) {
        int number = context.getInput(Integer.class);
        number = context.callActivity("PlusOne", number, Integer.class).await();
        number = context.callActivity("Square", number, Integer.class).await();
        number = context.callActivity("PlusOne", number, Integer.class).await();
        context.complete(number);
    }

    static void fanOut(TaskOrchestrationContext context) {
        List<Task<Integer>> tasks = IntStream.rangeClosed(1, context.getInput(Integer.class))
                .mapToObj(number -> context.callActivity("Square", number, Integer.class))
                .toList();
        List<Integer> squares = context.allOf(tasks).await();
        context.complete(squares.stream().mapToInt(Integer::intValue).sum());
    }

    /** Sixty results at once. */
    static void fanIn(TaskOrchestrationContext context) {
        int length = context.getInput(Integer.class);
        List<Task<String>> tasks = IntStream.range(0, 60)
                .mapToObj(number -> context.callActivity("Fill", length, String.class))
                .toList();
        context.complete(context.allOf(tasks).await().stream().mapToInt(String::length).sum());
    }

    static void retry(TaskOrchestrationContext context) {
        var options = new TaskOptions(new RetryPolicy(3, Duration.ofMillis(100)));
        context.complete(context.callActivity("Flaky", context.getInstanceId(), options, Integer.class).await());
    }

    /** Returns by how many milliseconds its clock has moved. */
    static void timer(TaskOrchestrationContext context) {
        Instant start = context.getCurrentInstant();
        context.createTimer(Duration.ofMillis(context.getInput(Long.class))).await();
        context.complete(Duration.between(start, context.getCurrentInstant()).toMillis());
    }

    static void approval(TaskOrchestrationContext context) {
        Approval first = context.waitForExternalEvent("approval", Approval.class).await();
        String second;
        try {
            second = context.waitForExternalEvent("never", Duration.ofMillis(500), String.class).await();
        } catch (TaskCanceledException late) {
            second = "too late";
        }
        context.complete(List.of(first.by(), first.count(), second));
    }

    static void parent(TaskOrchestrationContext context) {
        String own = context.getInstanceId() + "-child";
        Visit first = context.callSubOrchestrator("Child", "one", own, Visit.class).await();
        Visit second = context.callSubOrchestrator("Child", "two", Visit.class).await();
        context.complete(new Visit[] {first, second});
    }

    static void child(TaskOrchestrationContext context) {
        String greeting = context.callActivity("Greet", context.getInput(String.class), String.class).await();
        context.complete(new Visit(context.getInstanceId(), greeting));
    }

    static void remoteActivity(TaskOrchestrationContext context) {
        String here = context.callActivity("Where", null, String.class).await();
        String there = context.callActivity("RoutedWhere", null, String.class).await();
        context.complete(List.of(here, there));
    }

    /** Gives an activity there, by a route, each kind of input, and at last none. */
    static void inputs(TaskOrchestrationContext context) {
        var shown = new ArrayList<String>();
        for (Object input : Inputs.GIVEN) {
            shown.add(context.callActivity("Show", input, String.class).await());
        }
        shown.add(context.callActivity("Show", String.class).await());
        context.complete(shown);
    }

    static void remoteChild(TaskOrchestrationContext context) {
        String id = context.getInstanceId() + "-there";
        context.complete(context.callSubOrchestrator("RoutedChild", null, id, Visit.class).await());
    }

    /** A child that goes to the other app by a route of the sidecar. */
    static void routedChild(TaskOrchestrationContext context) {
        context.complete(new Visit(context.getInstanceId(), context.callActivity("Where", null, String.class).await()));
    }

    /** Counts on from its input in one execution after the other; then takes the notes that have come meanwhile. */
    static void count(TaskOrchestrationContext context) {
        int count = context.getInput(Integer.class);
        if (count < EXECUTIONS) {
            context.createTimer(Duration.ofMillis(100)).await();
            context.continueAsNew(context.callActivity("PlusOne", count, Integer.class).await());
        }
        var notes = new ArrayList<String>();
        while (notes.size() < NOTES) {
            notes.add(context.waitForExternalEvent("note", String.class).await());
        }
        context.complete(new Counted(count, notes));
    }

    /** Waits for the event "go" and returns its payload. */
    static void waiting(TaskOrchestrationContext context) {
        context.complete(context.waitForExternalEvent("go", LONG, String.class).await());
    }

    /** Has a child that waits. */
    static void guardian(TaskOrchestrationContext context) {
        context.callSubOrchestrator("Waiting", null, context.getInstanceId() + "-child", String.class).await();
    }

    static void failing(TaskOrchestrationContext context) {
        try {
            context.callActivity("Fail", "no such bird").await();
        } catch (TaskFailedException error) {
            FailureDetails details = error.getErrorDetails();
            throw new IllegalArgumentException(details.getErrorType() + " said: " + details.getErrorMessage());
        }
    }

    static void status(TaskOrchestrationContext context) {
        context.setCustomStatus("half way");
        context.waitForExternalEvent("go", String.class).await();
        context.setCustomStatus(new Approval("Ada", 2));
        context.complete("done");
    }

    static void payload(TaskOrchestrationContext context) {
        context.complete(context.callActivity("Echo", context.getInput(String.class), String.class).await());
    }

    /** Returns when it began, in milliseconds since 1970. */
    static void clock(TaskOrchestrationContext context) {
        context.complete(context.getCurrentInstant().toEpochMilli());
    }

    /** Starts a child under an ID that it returns, and does not wait for it. */
    static void detaching(TaskOrchestrationContext context) {
        String id = context.getInstanceId() + "-detached";
        context.callSubOrchestrator("Timer", 1000L, id, Long.class);
        context.complete(id);
    }

    /** Has a status, clears it, has one again, and goes on as a new execution without. */
    static void clearing(TaskOrchestrationContext context) {
        if (context.getInput(Integer.class) == 2) {
            context.waitForExternalEvent("end", String.class).await();
            context.complete("done");
            return;
        }
        context.setCustomStatus("busy");
        context.waitForExternalEvent("clear", String.class).await();
        context.clearCustomStatus();
        context.waitForExternalEvent("again", String.class).await();
        context.setCustomStatus("busy again");
        context.waitForExternalEvent("continue", String.class).await();
        context.continueAsNew(2);
    }

    /** Has an activity that takes its time. */
    static void lingering(TaskOrchestrationContext context) {
        context.complete(context.callActivity("Linger", null, String.class).await());
    }
}
