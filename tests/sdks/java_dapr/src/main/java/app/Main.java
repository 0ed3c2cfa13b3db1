package app;

import io.dapr.durabletask.DurableTaskClient;
import io.dapr.durabletask.DurableTaskGrpcClientBuilder;
import io.dapr.workflows.client.DaprWorkflowClient;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.function.Consumer;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * The modes of the program: a worker alone, scenarios with worker and client, or both silent until a line comes in.
 * Where the sidecar is, the SDK reads from the environment itself; only its lower client does not.
 */
public final class Main {

  /** Held here, since the logging of the JDK forgets the settings of a logger that nobody refers to. */
  private static final Logger SDK_LOG = Logger.getLogger("io.dapr.durabletask");

  private Main() {
  }

  public static void main(String[] args) throws IOException {
    SDK_LOG.setLevel(Level.WARNING);
    Worker.build().start(false);
    var client = new DaprWorkflowClient();
    int port = Integer.parseInt(System.getenv("DAPR_GRPC_PORT"));
    DurableTaskClient lower = new DurableTaskGrpcClientBuilder().port(port).build();
    var player = new Player(Scenarios.all(client, lower));

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
    System.exit(0);  // closing the runtime would take a minute: it waits for its stream, which has no end
  }

  private static void onEachLine(Consumer<String> action) throws IOException {
    var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      action.accept(line);
    }
  }
}
