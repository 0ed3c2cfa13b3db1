package app;

import com.fasterxml.jackson.databind.JsonNode;
import io.dapr.workflows.WorkflowActivityContext;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;

/** What the workflows let others do. */
final class Activities {

  /** The task execution IDs with which "Flaky" has run, by its input. */
  static final Map<String, List<String>> ATTEMPTS = new ConcurrentHashMap<>();
  /** Whether "Deploy" has run. */
  static final AtomicBoolean DEPLOYED = new AtomicBoolean();

  private Activities() {
  }

  static Object greet(WorkflowActivityContext context) {
    return "Hello, " + context.getInput(String.class) + "!";
  }

  static Object plusOne(WorkflowActivityContext context) {
    return context.getInput(Integer.class) + 1;
  }

  static Object square(WorkflowActivityContext context) {
    int number = context.getInput(Integer.class);
    return number * number;
  }

  static Object echo(WorkflowActivityContext context) {
    return context.getInput(String.class);
  }

  static Object fill(WorkflowActivityContext context) {
    return "x".repeat(context.getInput(Integer.class));
  }

  /** What it was given, as JSON. */
  static Object show(WorkflowActivityContext context) {
    return String.valueOf(context.getInput(JsonNode.class));
  }

  /** Succeeds at its third attempt. */
  static Object flaky(WorkflowActivityContext context) {
    List<String> ids = ATTEMPTS.computeIfAbsent(context.getInput(String.class), key -> new CopyOnWriteArrayList<>());
    ids.add(context.getTaskExecutionId());
    if (ids.size() < 3) {
      throw new IllegalStateException("attempt " + ids.size());
    }
    return ids.size();
  }

  static Object fail(WorkflowActivityContext context) {
    throw new UnsupportedOperationException(context.getInput(String.class));
  }

  /** Says where it ran. */
  static Object where(WorkflowActivityContext context) {
    return context.getInput(String.class) + " in " + System.getenv("APP_ID");
  }

  /** As if a new version of the program had come while the workflow ran. */
  static Object deploy(WorkflowActivityContext context) {
    DEPLOYED.set(true);
    return null;
  }

  /** Takes its time. */
  static Object linger(WorkflowActivityContext context) {
    try {
      Thread.sleep(4000);
    } catch (InterruptedException interrupted) {
      throw new IllegalStateException(interrupted);
    }
    return "done";
  }
}
