package app;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Plays scenarios and prints one JSON object a line. */
final class Player {

    private static final Duration LIMIT = Duration.ofSeconds(30);

    private final Map<String, Scenario> scenarios;
    private final ObjectMapper json = new ObjectMapper();
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    /** One thread for each, so that one that hangs does not keep the next from being played. */
    private final ExecutorService threads = Executors.newCachedThreadPool(task -> {
        var thread = new Thread(task, "scenario");
        thread.setDaemon(true);
        return thread;
    });

    Player(Map<String, Scenario> scenarios) {
        this.scenarios = scenarios;
    }

    void ready() {
        print(Map.of("ready", true));
    }

    void play(String name) {
        long start = System.nanoTime();
        var scenario = scenarios.getOrDefault(name, Scenario.of(() -> {
            throw new Check.Failure("this program does not know it");
        }));
        var line = new LinkedHashMap<String, Object>();
        line.put("scenario", name);
        if (scenario.body() == null) {
            line.put("result", "not offered");
            line.put("detail", scenario.detail());
        } else {
            String wrong = run(scenario.body());
            line.put("result", wrong == null ? "pass" : "fail");
            if (wrong != null || scenario.detail() != null) {
                line.put("detail", wrong != null ? wrong : scenario.detail());
            }
            line.put("seconds", Math.round((System.nanoTime() - start) / 1e7) / 100.0);
        }
        print(line);
    }

    /** What was wrong, or null. */
    private String run(Scenario.Body body) {
        var playing = threads.submit(() -> {
            body.play();
            return null;
        });
        try {
            playing.get(LIMIT.toMillis(), TimeUnit.MILLISECONDS);
            return null;
        } catch (TimeoutException late) {
            playing.cancel(true);
            return "timed out";
        } catch (ExecutionException failed) {
            Throwable cause = failed.getCause();
            if (cause instanceof Check.Failure) {
                return cause.getMessage();
            }
            cause.printStackTrace();
            return cause.getClass().getSimpleName() + ": " + cause.getMessage();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            return "interrupted";
        }
    }

    private void print(Map<String, Object> line) {
        try {
            out.println(json.writeValueAsString(line));
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
