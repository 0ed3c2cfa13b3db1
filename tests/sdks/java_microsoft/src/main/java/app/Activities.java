package app;

import com.fasterxml.jackson.databind.JsonNode;
import com.microsoft.durabletask.TaskActivityContext;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** What the workflows let others do. */
final class Activities {

    /** How often "Flaky" has run, by its input. */
    static final Map<String, AtomicInteger> ATTEMPTS = new ConcurrentHashMap<>();

    private Activities() {
    }

    static Object greet(TaskActivityContext context) {
        return "Hello, " + context.getInput(String.class) + "!";
    }

    /** Under two names, of which one goes to the other app by a route of the sidecar. */
    static Object where(TaskActivityContext context) {
        return System.getenv("APP_ID");
    }

    static Object plusOne(TaskActivityContext context) {
        return context.getInput(Integer.class) + 1;
    }

    static Object square(TaskActivityContext context) {
        int number = context.getInput(Integer.class);
        return number * number;
    }

    static Object echo(TaskActivityContext context) {
        return context.getInput(String.class);
    }

    static Object fill(TaskActivityContext context) {
        return "x".repeat(context.getInput(Integer.class));
    }

    /** What it was given, as JSON. */
    static Object show(TaskActivityContext context) {
        return String.valueOf(context.getInput(JsonNode.class));
    }

    /** Succeeds at its third attempt. */
    static Object flaky(TaskActivityContext context) {
        int attempt = ATTEMPTS.computeIfAbsent(context.getInput(String.class), key -> new AtomicInteger())
                .incrementAndGet();
        if (attempt < 3) {
            throw new IllegalStateException("attempt " + attempt);
        }
        return attempt;
    }

    static Object fail(TaskActivityContext context) {
        throw new UnsupportedOperationException(context.getInput(String.class));
    }

    /** Takes its time. */
    static Object linger(TaskActivityContext context) {
        try {
            Thread.sleep(4000);
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
        return "done";
    }
}
