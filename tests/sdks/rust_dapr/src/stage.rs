//! What every scenario needs, and the command line that tests/sdks/README.md asks for.

use std::error::Error;
use std::fmt::Debug;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const SCENARIO_TIME: Duration = Duration::from_secs(30);

/// Why a scenario has failed: a check, or an error with its type before it.
pub struct Failure(String);

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(format!("{}: {error}", std::any::type_name::<E>()))
    }
}

/// How a scenario ends if it does not fail.
pub enum Passed {
    Wholly,
    /// What stands beside "pass".
    But(&'static str),
    NotOffered(&'static str),
    /// This program has no such scenario.
    Unknown,
}

pub type Outcome = Result<Passed, Failure>;
pub type Checked = Result<(), Failure>;

pub fn fail<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure(text.into()))
}

pub fn check(condition: bool, text: impl Into<String>) -> Checked {
    if condition { Ok(()) } else { fail(text) }
}

pub fn equal<T: PartialEq<U> + Debug, U: Debug>(actual: T, expected: U, what: &str) -> Checked {
    check(actual == expected, format!("{what}: expected {}, got {}", short(&expected), short(&actual)))
}

fn short(value: &impl Debug) -> String {
    format!("{value:?}").chars().take(200).collect()
}

/// Asks again and again until the condition holds.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> Result<bool, Failure>) -> Checked {
    within(10, what, condition).await
}

/// As `until`, with its own limit in seconds.
pub async fn within(seconds: u64, what: &str, mut condition: impl AsyncFnMut() -> Result<bool, Failure>) -> Checked {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition().await? {
        check(Instant::now() < end, format!("not within {seconds} s: {what}"))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The value of a variable that the matrix sets.
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// An instance ID that no other run uses.
pub fn new_id(name: &str) -> String {
    static IDS: AtomicU32 = AtomicU32::new(0);
    format!("{}-{name}-{}", environment("RUN_ID"), IDS.fetch_add(1, Ordering::Relaxed))
}

/// What the scenario `inputs` gives to an activity, before it gives nothing.
pub fn inputs() -> Vec<Value> {
    vec![json!("text"), json!(7), json!([1, 2]), json!([]), Value::Null, json!({"a": 1})]
}

/// What the activity must have been given then, as JSON.
pub const SHOWN: [&str; 7] = ["\"text\"", "7", "[1,2]", "[]", "null", "{\"a\":1}", "null"];

/// Does what the command line asks for; `play` plays the scenario of a name.
pub async fn run(mut play: impl AsyncFnMut(&str) -> Outcome) {
    say(json!({"ready": true}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|command| command == "run") {
        for name in &arguments[1..] {
            report(name, &mut play).await;
        }
        return;
    }
    let idle = arguments.first().is_some_and(|command| command == "idle");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if idle {
            report(if line.is_empty() { "hello" } else { &line }, &mut play).await;
        }
    }
}

async fn report(name: &str, play: &mut impl AsyncFnMut(&str) -> Outcome) {
    let started = Instant::now();
    let (result, detail) = match tokio::time::timeout(SCENARIO_TIME, play(name)).await {
        Err(_) => ("fail", "timed out".to_string()),
        Ok(Err(Failure(text))) => ("fail", text),
        Ok(Ok(Passed::Wholly)) => ("pass", String::new()),
        Ok(Ok(Passed::But(text))) => ("pass", text.to_string()),
        Ok(Ok(Passed::NotOffered(text))) => ("not offered", text.to_string()),
        Ok(Ok(Passed::Unknown)) => ("fail", "this program does not know it".to_string()),
    };
    let seconds = started.elapsed().as_millis() as f64 / 1000.0;
    say(json!({"scenario": name, "result": result, "detail": detail, "seconds": seconds}));
}

fn say(line: Value) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody reads");
}
