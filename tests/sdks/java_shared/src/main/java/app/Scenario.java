package app;

/** What the player plays: a body that throws when something is not as it must be, or the reason why there is none. */
record Scenario(Body body, String detail) {

    @FunctionalInterface
    interface Body {
        void play() throws Exception;
    }

    static Scenario of(Body body) {
        return new Scenario(body, null);
    }

    /** The SDK offers a part of it; `missing` says what it lacks. */
    static Scenario partly(Body body, String missing) {
        return new Scenario(body, missing);
    }

    static Scenario notOffered(String reason) {
        return new Scenario(null, reason);
    }
}
