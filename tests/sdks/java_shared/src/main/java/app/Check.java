package app;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.time.Instant;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.function.Supplier;

/** Compares what is with what must be. */
final class Check {

    /** Something is not as it must be. */
    static final class Failure extends RuntimeException {
        private static final long serialVersionUID = 1;

        Failure(String message) {
            super(message);
        }
    }

    private static final Duration PATIENCE = Duration.ofSeconds(10);
    private static final Duration PAUSE = Duration.ofMillis(20);

    private Check() {
    }

    static void equal(String what, Object expected, Object actual) {
        that(Objects.equals(expected, actual), "%s: expected %s, got %s", what, shown(expected), shown(actual));
    }

    static void that(boolean holds, String otherwise, Object... values) {
        if (!holds) {
            throw new Failure(String.format(otherwise, values));
        }
    }

    /** Asks again and again until the answer is the expected one. */
    static void becomes(String what, Object expected, Supplier<Object> ask) throws InterruptedException {
        Instant end = Instant.now().plus(PATIENCE);
        Object actual = ask.get();
        while (!Objects.equals(expected, actual) && Instant.now().isBefore(end)) {
            Thread.sleep(PAUSE.toMillis());
            actual = ask.get();
        }
        equal(what, expected, actual);
    }

    /** Asks until the answer is the expected one, as long as the scenario may take; what fails meanwhile is asked again. */
    static void eventually(Object expected, Supplier<Object> ask) throws InterruptedException {
        Object actual = null;
        while (!Objects.equals(expected, actual)) {
            Thread.sleep(100);
            try {
                actual = ask.get();
            } catch (RuntimeException passing) {
                actual = null;
            }
        }
    }

    /** Begins a wait half a second before what it waits for, and returns what it gives. */
    static <T> T early(Callable<T> wait, Runnable begin) throws Exception {
        var waiting = new FutureTask<T>(wait);
        var thread = new Thread(waiting, "early");
        thread.setDaemon(true);
        thread.start();
        Thread.sleep(500);
        that(!waiting.isDone(), "the wait ended before there was anything");
        begin.run();
        return waiting.get();
    }

    /** The SDK passes gRPC's errors on as they are. */
    static void refused(String what, Status.Code expected, Runnable call) {
        try {
            call.run();
        } catch (StatusRuntimeException error) {
            equal("status of " + what, expected, error.getStatus().getCode());
            return;
        }
        throw new Failure(what + " was not refused");
    }

    private static String shown(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 80 ? text : text.substring(0, 80) + "... (" + text.length() + " characters)";
    }
}
