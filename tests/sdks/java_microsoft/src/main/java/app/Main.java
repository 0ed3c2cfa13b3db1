package app;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.function.Consumer;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The modes of the program: a worker alone, scenarios with worker and client, or both silent until a line comes in. */
public final class Main {

    /** Held here, since the logging of the JDK forgets the settings of a logger that nobody refers to. */
    private static final Logger SDK_LOG = Logger.getLogger("com.microsoft.durabletask");

    private Main() {
    }

    public static void main(String[] args) throws IOException {
        SDK_LOG.setLevel(Level.WARNING);
        ManagedChannel channel = ManagedChannelBuilder
                .forAddress(System.getenv("SIDECAR_HOST"), Integer.parseInt(System.getenv("SIDECAR_PORT")))
                .usePlaintext()
                .build();
        Worker.build(channel).start();
        DurableTaskClient client = new DurableTaskGrpcClientBuilder().grpcChannel(channel).build();
        var player = new Player(Scenarios.all(client));

        List<String> words = List.of(args);
        switch (words.isEmpty() ? "" : words.get(0)) {
            case "serve" -> {
                player.ready();
                onEachLine(line -> { });
            }
            case "run" -> {
                player.ready();
                words.subList(1, words.size()).forEach(player::play);
            }
            case "idle" -> {
                player.ready();
                onEachLine(line -> player.play(line.isEmpty() ? "hello" : line));
            }
            default -> throw new IllegalArgumentException("usage: serve | run SCENARIO... | idle");
        }
        System.exit(0);  // the worker's thread has no end of its own
    }

    private static void onEachLine(Consumer<String> action) throws IOException {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            action.accept(line);
        }
    }
}
