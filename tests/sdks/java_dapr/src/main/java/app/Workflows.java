package app;

import io.dapr.durabletask.FailureDetails;
import io.dapr.durabletask.Task;
import io.dapr.durabletask.TaskCanceledException;
import io.dapr.durabletask.TaskFailedException;
import io.dapr.workflows.Workflow;
import io.dapr.workflows.WorkflowStub;
import io.dapr.workflows.WorkflowTaskOptions;
import io.dapr.workflows.WorkflowTaskRetryPolicy;
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

  private static final String OTHER_APP = System.getenv("OTHER_APP");

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

  public static class Hello implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String name = ctx.getInput(String.class);
        ctx.complete(ctx.callActivity("Greet", name, String.class).await());
      };
    }
  }

  public static class Chain implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        int number = ctx.getInput(Integer.class);
        number = ctx.callActivity("PlusOne", number, Integer.class).await();
        number = ctx.callActivity("Square", number, Integer.class).await();
        number = ctx.callActivity("PlusOne", number, Integer.class).await();
        ctx.complete(number);
      };
    }
  }

  public static class FanOut implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        List<Task<Integer>> tasks = IntStream.rangeClosed(1, ctx.getInput(Integer.class))
            .mapToObj(number -> ctx.callActivity("Square", number, Integer.class))
            .toList();
        List<Integer> squares = ctx.allOf(tasks).await();
        ctx.complete(squares.stream().mapToInt(Integer::intValue).sum());
      };
    }
  }

  /** Sixty results at once. */
  public static class FanIn implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        int length = ctx.getInput(Integer.class);
        List<Task<String>> tasks = IntStream.range(0, 60)
            .mapToObj(number -> ctx.callActivity("Fill", length, String.class))
            .toList();
        ctx.complete(ctx.allOf(tasks).await().stream().mapToInt(String::length).sum());
      };
    }
  }

  public static class Retry implements Workflow {
    @Override
    public WorkflowStub create() {
      var policy = WorkflowTaskRetryPolicy.newBuilder()
          .setMaxNumberOfAttempts(3)
          .setFirstRetryInterval(Duration.ofMillis(100))
          .build();
      return ctx -> {
        var options = new WorkflowTaskOptions(policy);
        ctx.complete(ctx.callActivity("Flaky", ctx.getInstanceId(), options, Integer.class).await());
      };
    }
  }

  /** Returns by how many milliseconds its clock has moved. */
  public static class Timer implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        Instant start = ctx.getCurrentInstant();
        ctx.createTimer(Duration.ofMillis(ctx.getInput(Long.class))).await();
        ctx.complete(Duration.between(start, ctx.getCurrentInstant()).toMillis());
      };
    }
  }

  public static class Approving implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        Approval first = ctx.waitForExternalEvent("approval", Approval.class).await();
        String second;
        try {
          second = ctx.waitForExternalEvent("never", Duration.ofMillis(500), String.class).await();
        } catch (TaskCanceledException late) {
          second = "too late";
        }
        ctx.complete(List.of(first.by(), first.count(), second));
      };
    }
  }

  public static class Parent implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String child = Child.class.getCanonicalName();
        String own = ctx.getInstanceId() + "-child";
        Visit first = ctx.callChildWorkflow(child, "one", own, Visit.class).await();
        Visit second = ctx.callChildWorkflow(child, "two", Visit.class).await();
        ctx.complete(new Visit[] {first, second});
      };
    }
  }

  public static class Child implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String greeting = ctx.callActivity("Greet", ctx.getInput(String.class), String.class).await();
        ctx.complete(new Visit(ctx.getInstanceId(), greeting));
      };
    }
  }

  /** Counts on from its input in one execution after the other; then takes the notes that have come meanwhile. */
  public static class Count implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        int count = ctx.getInput(Integer.class);
        if (count < EXECUTIONS) {
          ctx.createTimer(Duration.ofMillis(100)).await();
          ctx.continueAsNew(ctx.callActivity("PlusOne", count, Integer.class).await());
        }
        var notes = new ArrayList<String>();
        while (notes.size() < NOTES) {
          notes.add(ctx.waitForExternalEvent("note", String.class).await());
        }
        ctx.complete(new Counted(count, notes));
      };
    }
  }

  /** Waits for the event "go" and returns its payload. */
  public static class Waiting implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> ctx.complete(ctx.waitForExternalEvent("go", LONG, String.class).await());
    }
  }

  /** Has a child that waits. */
  public static class Guardian implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String child = ctx.getInstanceId() + "-child";
        ctx.callChildWorkflow(Waiting.class.getCanonicalName(), null, child, String.class).await();
      };
    }
  }

  public static class Failing implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        try {
          ctx.callActivity("Fail", "no such bird").await();
        } catch (TaskFailedException error) {
          FailureDetails details = error.getErrorDetails();
          throw new IllegalArgumentException(details.getErrorType() + " said: " + details.getErrorMessage());
        }
      };
    }
  }

  public static class Status implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        ctx.setCustomStatus("half way");
        ctx.waitForExternalEvent("go", String.class).await();
        ctx.setCustomStatus(new Approval("Ada", 2));
        ctx.complete("done");
      };
    }
  }

  public static class Payload implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> ctx.complete(ctx.callActivity("Echo", ctx.getInput(String.class), String.class).await());
    }
  }

  public static class RemoteActivity implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String here = ctx.callActivity("Where", "one", String.class).await();
        var there = new WorkflowTaskOptions(OTHER_APP);
        String text = ctx.callActivity("Where", "two", there, String.class).await();
        ctx.complete(List.of(here, text));
      };
    }
  }

  /** Gives an activity there each kind of input, and at last none. */
  public static class Giving implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        var there = new WorkflowTaskOptions(OTHER_APP);
        var shown = new ArrayList<String>();
        for (Object input : Inputs.GIVEN) {
          shown.add(ctx.callActivity("Show", input, there, String.class).await());
        }
        shown.add(ctx.callActivity("Show", null, there, String.class).await());
        ctx.complete(shown);
      };
    }
  }

  public static class RemoteChild implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        var there = new WorkflowTaskOptions(OTHER_APP);
        String id = ctx.getInstanceId() + "-there";
        ctx.complete(ctx.callChildWorkflow(Visitor.class.getCanonicalName(), "three", id, there, Visit.class).await());
      };
    }
  }

  public static class Visitor implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String text = ctx.callActivity("Where", ctx.getInput(String.class), String.class).await();
        ctx.complete(new Visit(ctx.getInstanceId(), text));
      };
    }
  }

  /** Returns when it began, in milliseconds since 1970. */
  public static class Clock implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> ctx.complete(ctx.getCurrentInstant().toEpochMilli());
    }
  }

  /** Starts a child under an ID that it returns, and does not wait for it. */
  public static class Detaching implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String id = ctx.getInstanceId() + "-detached";
        ctx.callChildWorkflow(Timer.class.getCanonicalName(), 1000L, id, Long.class);
        ctx.complete(id);
      };
    }
  }

  /** Registered under one name with its successor. */
  public static class FirstVersion implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> ctx.complete("the first version");
    }
  }

  public static class LatestVersion implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        String greeting = ctx.callActivity("Greet", "Tokyo", String.class).await();
        ctx.complete(greeting + " from the latest version");
      };
    }
  }

  /** Has one patch from the start, gets one before code that has already run, and one after it. */
  public static class Patched implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        boolean fromTheStart = ctx.isPatched("from the start");
        boolean tooLate = Activities.DEPLOYED.get() && ctx.isPatched("too late");
        ctx.callActivity("Deploy").await();
        boolean inTime = Activities.DEPLOYED.get() && ctx.isPatched("in time");
        ctx.callActivity("Greet", "Tokyo").await();
        ctx.complete(List.of(fromTheStart, tooLate, inTime));
      };
    }
  }

  /** Has a status, clears it, has one again, and goes on as a new execution without. */
  public static class Clearing implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> {
        if (ctx.getInput(Integer.class) == 2) {
          ctx.waitForExternalEvent("end", String.class).await();
          ctx.complete("done");
          return;
        }
        ctx.setCustomStatus("busy");
        ctx.waitForExternalEvent("clear", String.class).await();
        ctx.setCustomStatus(null);
        ctx.waitForExternalEvent("again", String.class).await();
        ctx.setCustomStatus("busy again");
        ctx.waitForExternalEvent("continue", String.class).await();
        ctx.continueAsNew(2);
      };
    }
  }

  /** Has an activity that takes its time. */
  public static class Lingering implements Workflow {
    @Override
    public WorkflowStub create() {
      return ctx -> ctx.complete(ctx.callActivity("Linger", null, String.class).await());
    }
  }
}
