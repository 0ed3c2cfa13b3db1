package app;

import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** What the scenario "inputs" gives to an activity, before it gives nothing, and what that must show. */
final class Inputs {

    static final List<Object> GIVEN = Arrays.asList("text", 7, List.of(1, 2), List.of(), null, Map.of("a", 1));
    static final List<String> SHOWN = List.of("\"text\"", "7", "[1,2]", "[]", "null", "{\"a\":1}", "null");

    private Inputs() {
    }
}
