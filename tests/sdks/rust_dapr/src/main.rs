//! The scenarios of tests/sdks/README.md with Dapr's workflow SDK for Rust, which finds the sidecar by the environment.
//! What its `WorkflowClient` leaves out (lists, histories, reruns, other apps) is asked with the client below it.

mod basics;
mod client;
mod management;
mod stage;
mod workflows;

use client::Client;
use stage::{Outcome, Passed};

#[tokio::main]
async fn main() -> dapr::workflow::Result<()> {
    let mut client = Client::start().await?;
    stage::run(async |name| play(&mut client, name).await).await;
    client.stop().await
}

async fn play(client: &mut Client, name: &str) -> Outcome {
    match name {
        "hello" => basics::hello(client).await,
        "chain" => basics::chain(client).await,
        "fan-out" => basics::fan_out(client).await,
        "fan-in" => basics::fan_in(client).await,
        "retry" => basics::retry(client).await,
        "timer" => basics::timer(client).await,
        "event" => basics::event(client).await,
        "child" => basics::child(client).await,
        "continue-as-new" => basics::continue_as_new(client).await,
        "failure-details" => basics::failure_details(client).await,
        "custom-status" => basics::custom_status(client).await,
        "payload" => basics::payload(client).await,
        "remote-activity" => basics::remote_activity(client).await,
        "inputs" => basics::inputs(client).await,
        "remote-child" => basics::remote_child(client).await,
        "detached" => basics::detached(client).await,
        "suspend-resume" => management::suspend_resume(client).await,
        "terminate" => management::terminate(client).await,
        "purge" => management::purge(client).await,
        "reuse" => management::reuse(client).await,
        "missing" => management::missing(client).await,
        "list-ids" => management::list_ids(client).await,
        "purge-by-filter" => management::purge_by_filter(client).await,
        "history" => management::history(client).await,
        "rerun" => management::rerun(client).await,
        "scheduled-start" => management::scheduled_start(client).await,
        "version" => management::version(client).await,
        "patch" => management::patch(client).await,
        "early-wait" => management::early_wait(client).await,
        "execution-id" => basics::execution_id(client).await,
        "clear-status" => basics::clear_status(client).await,
        "remote-client" => management::remote_client(client).await,
        "long-history" => management::long_history(client).await,
        "graceful-stop" => management::graceful_stop(client).await,
        "reuse-never" => Ok(Passed::NotOffered("the client has no reuse policy, only IDs that must be unique")),
        "restart-running" => Ok(Passed::NotOffered("the client has no restart")),
        "strict-version" => Ok(Passed::NotOffered("the worker has no version rules")),
        "query" => Ok(Passed::NotOffered("the client has no query")),
        "restart" => Ok(Passed::NotOffered("the client has no restart")),
        "rewind" => Ok(Passed::NotOffered("the client has no rewind")),
        "tags" => Ok(Passed::NotOffered("scheduling has no tags")),
        "entity" | "entity-query" => Ok(Passed::NotOffered("Dapr's workflows have no entities")),
        _ => Ok(Passed::Unknown),
    }
}
