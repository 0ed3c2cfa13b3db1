//! The scenarios in which the client asks for more than starts and results.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use dapr::workflow::{EventOptions, FetchOptions, PurgeInstanceFilter, RuntimeStatus, ScheduleOptions, WorkflowError};
use dapr_durabletask::client::{
    FetchOptions as FetchFrom, ListInstanceIdsOptions, NewOrchestrationOptions, PurgeOptions, RaiseEventOptions,
    RerunOptions, ResumeOptions, SuspendOptions, TerminateOptions,
};
use dapr_durabletask::proto_public::history_event::EventType;
use tonic::Code;

use crate::client::Client;
use crate::stage::{Checked, Failure, Outcome, Passed, check, environment, equal, fail, new_id, until, within};
use crate::workflows::PATCH_DEPLOYED;

/// That the call was refused with this code.
fn refused<T>(result: Result<T, WorkflowError>, code: Code, what: &str) -> Checked {
    match result {
        Err(WorkflowError::GrpcError(status)) => equal(status.code(), code, &format!("code of {what}")),
        Err(error) => fail(format!("{what}: {error}")),
        Ok(_) => fail(format!("{what}: it was not refused")),
    }
}

fn not_found<T>(result: Result<T, WorkflowError>, what: &str) -> Checked {
    match result {
        Err(WorkflowError::InstanceNotFound { .. }) => Ok(()),
        Err(error) => fail(format!("{what}: {error}")),
        Ok(_) => fail(format!("{what}: it was found")),
    }
}

pub async fn suspend_resume(client: &mut Client) -> Outcome {
    let id = client.running("waiting", ()).await?;
    client.workflows.suspend_workflow(&id, "a break").await?;
    until("SUSPENDED", async || Ok(client.status(&id).await? == RuntimeStatus::Suspended)).await?;
    client.raise(&id, "end", "later").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    equal(client.status(&id).await?, RuntimeStatus::Suspended, "status after an event")?;
    client.workflows.resume_workflow(&id, "the break is over").await?;
    equal(client.output::<String>(&id).await?, "later", "output")?;
    Ok(Passed::Wholly)
}

/// A workflow with a child, of which both wait.
async fn parent_and_child(client: &mut Client, name: &str) -> Result<(String, String), Failure> {
    let child = new_id(name);
    let parent = client.schedule("waiting_parent", &child).await?;
    until("the child runs", async || {
        let found = client.hub.get_orchestration_state(&child, false).await?;
        Ok(found.is_some_and(|state| state.runtime_status == RuntimeStatus::Running))
    })
    .await?;
    Ok((parent, child))
}

pub async fn terminate(client: &mut Client) -> Outcome {
    let (parent, child) = parent_and_child(client, "ended-child").await?;
    client.hub.terminate_orchestration(&parent, Some("\"enough\"".into()), true).await?;
    let ended = client.ended(&parent).await?;
    equal(ended.runtime_status, RuntimeStatus::Terminated, "status")?;
    equal(ended.serialized_output.as_deref(), Some("\"enough\""), "output")?;
    equal(client.ended(&child).await?.runtime_status, RuntimeStatus::Terminated, "status of the child")?;

    let (parent, child) = parent_and_child(client, "spared-child").await?;
    client.workflows.terminate_workflow(&parent).await?;
    equal(client.ended(&parent).await?.runtime_status, RuntimeStatus::Terminated, "status of the parent")?;
    equal(client.status(&child).await?, RuntimeStatus::Running, "status of the child that was spared")?;
    client.workflows.terminate_workflow(&child).await?;
    Ok(Passed::Wholly)
}

pub async fn purge(client: &mut Client) -> Outcome {
    let id = client.schedule("hello", "purge").await?;
    client.ended(&id).await?;
    client.workflows.purge_workflow_state(&id).await?;
    let found = client.workflows.fetch_workflow_metadata(&id, FetchOptions::new()).await;
    not_found(found, "fetch after the purge")?;
    equal(client.hub.purge_orchestration(&id, false).await?, 0, "instances that a second purge has removed")?;

    let child = new_id("purged-child");
    let id = client.schedule("parent", &child).await?;
    client.ended(&id).await?;
    client.workflows.purge_workflow_state_recursive(&id, true).await?;
    let found = client.workflows.fetch_workflow_metadata(&child, FetchOptions::new()).await;
    not_found(found, "fetch of the child after the purge")?;
    Ok(Passed::Wholly)
}

pub async fn reuse(client: &mut Client) -> Outcome {
    let id = client.running("waiting", ()).await?;
    let again = ScheduleOptions::new().with_instance_id(&id);
    refused(client.workflows.schedule_workflow("hello", again).await, Code::AlreadyExists, "a second start")?;
    equal(client.status(&id).await?, RuntimeStatus::Running, "status of the first")?;
    client.raise(&id, "end", "now").await?;
    client.ended(&id).await?;

    let unique = NewOrchestrationOptions::new().with_instance_id(&id).with_enforce_unique_instance_id();
    let second = client.hub.schedule_new_orchestration_with_options("hello", unique).await;
    refused(second, Code::AlreadyExists, "a start under the ID of an ended instance that must be unique")?;
    let again = ScheduleOptions::new().with_instance_id(&id).with_input("again");
    client.workflows.schedule_workflow("hello", again).await?;
    equal(client.output::<String>(&id).await?, "Hello, again!", "output of the second")?;
    Ok(Passed::Wholly)
}

pub async fn missing(client: &mut Client) -> Outcome {
    let id = new_id("missing");
    let workflows = &mut client.workflows;
    not_found(workflows.fetch_workflow_metadata(&id, FetchOptions::new()).await, "fetch")?;
    refused(workflows.raise_event(&id, "event", EventOptions::new()).await, Code::NotFound, "raise")?;
    refused(workflows.suspend_workflow(&id, "").await, Code::NotFound, "suspend")?;
    refused(workflows.resume_workflow(&id, "").await, Code::NotFound, "resume")?;
    refused(workflows.terminate_workflow(&id).await, Code::NotFound, "terminate")?;
    Ok(Passed::Wholly)
}

pub async fn list_ids(client: &mut Client) -> Outcome {
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(client.running("waiting", ()).await?);
    }
    for _ in 0..2 {
        let id = client.schedule("hello", "list").await?;
        client.ended(&id).await?;
        expected.push(id);
    }
    let mut found: HashMap<String, u32> = HashMap::new();
    let mut options = ListInstanceIdsOptions::new().with_page_size(2);
    loop {
        let page = client.hub.list_instance_ids(options).await?;
        check(page.instance_ids.len() <= 2, format!("a page of {} IDs", page.instance_ids.len()))?;
        for id in page.instance_ids {
            *found.entry(id).or_default() += 1;
        }
        let Some(token) = page.continuation_token else { break };
        options = ListInstanceIdsOptions::new().with_page_size(2).with_continuation_token(token);
    }
    for id in &expected {
        equal(found.get(id), Some(&1), &format!("how often the list has {id}"))?;
    }
    for id in &expected[..3] {
        client.workflows.terminate_workflow(id).await?;
    }
    Ok(Passed::Wholly)
}

pub async fn purge_by_filter(client: &mut Client) -> Outcome {
    let from = client.schedule("hello", "purge").await?;
    let start = client.ended(&from).await?.created_at.ok_or_else(|| WorkflowError::Other("no time".into()))?;
    let second = client.schedule("hello", "purge").await?;
    client.ended(&second).await?;
    let spared = client.running("waiting", ()).await?;
    let filter = PurgeInstanceFilter::new()
        .with_created_time_from(start)
        .with_created_time_to(chrono::Utc::now() + chrono::Duration::seconds(1))
        .with_runtime_status([RuntimeStatus::Completed]);
    let purged = client.workflows.purge_workflow_state_by_filter(filter, false).await?;
    equal(purged, 2, "instances that were purged")?;
    for id in [from, second] {
        not_found(client.workflows.fetch_workflow_metadata(&id, FetchOptions::new()).await, "fetch after the purge")?;
    }
    equal(client.status(&spared).await?, RuntimeStatus::Running, "status of what was spared")?;
    client.workflows.terminate_workflow(&spared).await?;
    Ok(Passed::Wholly)
}

pub async fn history(client: &mut Client) -> Outcome {
    let id = client.schedule("hello", "history").await?;
    client.ended(&id).await?;
    let mut seen = Vec::new();
    for event in client.hub.get_instance_history(&id).await? {
        let shown = |text: Option<String>| text.unwrap_or_default();
        match event.event_type {
            Some(EventType::ExecutionStarted(started)) => {
                seen.push(format!("started {} with {}", started.name, shown(started.input)));
            }
            Some(EventType::TaskScheduled(scheduled)) => {
                equal(event.event_id, 0, "ID of the call")?;
                seen.push(format!("calls {} with {}", scheduled.name, shown(scheduled.input)));
            }
            Some(EventType::TaskCompleted(completed)) => {
                equal(completed.task_scheduled_id, 0, "call that the result is for")?;
                seen.push(format!("result {}", shown(completed.result)));
            }
            Some(EventType::ExecutionCompleted(completed)) => {
                seen.push(format!("completed with {}", shown(completed.result)));
            }
            _ => {}
        }
    }
    let expected = [
        "started hello with \"history\"",
        "calls greet with \"history\"",
        "result \"Hello, history!\"",
        "completed with \"Hello, history!\"",
    ];
    equal(seen, expected, "events")?;
    let none = client.hub.get_instance_history(&new_id("missing")).await;
    refused(none, Code::NotFound, "a history that does not exist")?;
    Ok(Passed::Wholly)
}

pub async fn rerun(client: &mut Client) -> Outcome {
    const SECOND_CALL: u32 = 1;
    let id = client.schedule("buying", ()).await?;
    equal(client.output::<[i64; 2]>(&id).await?, [9, 10], "output of the first run")?;

    let new = new_id("rerun");
    let taken = || RerunOptions::new().with_new_instance_id(&new);
    let options = taken().with_input(Some("40".into()));
    let given = client.hub.rerun_orchestration_from_event(&id, SECOND_CALL, options).await?;
    equal(&given, &new, "ID of the rerun")?;
    equal(client.output::<[i64; 2]>(&new).await?, [9, 41], "output of the rerun with another input")?;

    let given = client.hub.rerun_orchestration_from_event(&id, SECOND_CALL, RerunOptions::new()).await?;
    check(!given.is_empty() && given != id && given != new, format!("the sidecar chose the ID {given:?}"))?;
    equal(client.output::<[i64; 2]>(&given).await?, [9, 10], "output of the rerun with the same input")?;

    let none = RerunOptions::new;
    let result = client.hub.rerun_orchestration_from_event(&new_id("missing"), SECOND_CALL, none()).await;
    refused(result, Code::NotFound, "an instance that does not exist")?;
    let result = client.hub.rerun_orchestration_from_event(&id, SECOND_CALL, taken()).await;
    refused(result, Code::AlreadyExists, "a new ID that is taken")?;
    let result = client.hub.rerun_orchestration_from_event(&id, 99, none()).await;
    refused(result, Code::NotFound, "an event that does not exist")?;
    let running = client.running("waiting", ()).await?;
    let result = client.hub.rerun_orchestration_from_event(&running, 0, none()).await;
    refused(result, Code::InvalidArgument, "an instance that runs")?;
    client.workflows.terminate_workflow(&running).await?;
    Ok(Passed::Wholly)
}

pub async fn scheduled_start(client: &mut Client) -> Outcome {
    let delay = Duration::from_millis(1500);
    let start = Instant::now();
    let options = ScheduleOptions::new().with_input("later").with_start_time(SystemTime::now() + delay);
    let id = client.workflows.schedule_workflow("hello", options).await?;
    equal(client.status(&id).await?, RuntimeStatus::Pending, "status at once")?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    equal(client.status(&id).await?, RuntimeStatus::Pending, "status after 0.7 s")?;
    equal(client.output::<String>(&id).await?, "Hello, later!", "output")?;
    check(start.elapsed() >= delay, "it was done before its time")?;
    Ok(Passed::Wholly)
}

pub async fn version(client: &mut Client) -> Outcome {
    let old = client.running("versioned", ()).await?;
    let other = client.running("versioned", ()).await?;
    ends(client, &other, "v1").await?;
    client.deploy(&["v1", "v2"]).await?;
    let new = client.running("versioned", ()).await?;
    ends(client, &new, "v2").await?;
    ends(client, &old, "v1").await?;
    client.deploy(&["v1"]).await?;
    Ok(Passed::But("the client cannot ask for a version, the worker's newest is taken"))
}

async fn ends(client: &mut Client, id: &str, expected: &str) -> Checked {
    client.raise(id, "end", ()).await?;
    equal(client.output::<String>(id).await?, expected, &format!("output of {id}"))
}

pub async fn patch(client: &mut Client) -> Outcome {
    let before = called(client).await?;
    PATCH_DEPLOYED.store(true, Ordering::Relaxed);
    let after = called(client).await?;
    ends(client, &before, "Hello, Ada!").await?;
    ends(client, &after, "ADA").await?;
    equal(patches(client, &before).await?, Vec::<String>::new(), "patches of what started before")?;
    let recorded = patches(client, &after).await?;
    check(recorded.contains(&"shout".into()), format!("patches of what started after: {recorded:?}"))?;
    Ok(Passed::Wholly)
}

/// An instance of `patched` whose activity has run.
async fn called(client: &mut Client) -> Result<String, Failure> {
    let id = client.schedule("patched", ()).await?;
    until("the activity has run", async || {
        let events = client.hub.get_instance_history(&id).await?;
        Ok(events.iter().any(|event| matches!(event.event_type, Some(EventType::TaskCompleted(_)))))
    })
    .await?;
    Ok(id)
}

async fn patches(client: &mut Client, id: &str) -> Result<Vec<String>, Failure> {
    let mut recorded = Vec::new();
    for event in client.hub.get_instance_history(id).await? {
        if let Some(EventType::WorkflowStarted(started)) = event.event_type {
            recorded.extend(started.version.unwrap_or_default().patches);
        }
    }
    Ok(recorded)
}

pub async fn early_wait(client: &mut Client) -> Outcome {
    let id = new_id("early");
    let (mut workflows, early) = (client.workflows.clone(), id.clone());
    let waiting = tokio::spawn(async move { workflows.wait_for_workflow_completion(&early).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    check(!waiting.is_finished(), "the wait ended before there was anything")?;
    let options = ScheduleOptions::new().with_instance_id(&id).with_input("early");
    client.workflows.schedule_workflow("hello", options).await?;
    equal(waiting.await??.runtime_status, RuntimeStatus::Completed, "status that the wait ended with")?;
    Ok(Passed::Wholly)
}

pub async fn remote_client(client: &mut Client) -> Outcome {
    let app = environment("OTHER_APP");
    let from = || FetchFrom::new().with_fetch_payloads(true).with_app_id(&app);
    let hub = &mut client.hub;
    let id = new_id("remote-client");
    let start = || NewOrchestrationOptions::new().with_instance_id(&id).with_app_id(&app);
    hub.schedule_new_orchestration_with_options("waiting", start()).await?;
    hub.wait_for_orchestration_start_with_options(&id, from(), None).await?;
    check(hub.get_orchestration_state(&id, false).await?.is_none(), "it is here too")?;
    hub.suspend_orchestration_with_options(&id, SuspendOptions::new().with_app_id(&app)).await?;
    let mut reached = async |status| {
        until(&format!("{status}"), async || {
            let found = hub.get_orchestration_state_with_options(&id, from()).await?;
            Ok(found.is_some_and(|state| state.runtime_status == status))
        })
        .await
    };
    reached(RuntimeStatus::Suspended).await?;
    hub.resume_orchestration_with_options(&id, ResumeOptions::new().with_app_id(&app)).await?;
    let event = RaiseEventOptions::new().with_data("\"from another app\"").with_app_id(&app);
    hub.raise_orchestration_event_with_options(&id, "end", event).await?;
    let ended = hub.wait_for_orchestration_completion_with_options(&id, from(), None).await?;
    let output = ended.and_then(|state| state.serialized_output);
    equal(output.as_deref(), Some("\"from another app\""), "output")?;
    let purged = hub.purge_orchestration_with_options(&id, PurgeOptions::new().with_app_id(&app)).await?;
    equal(purged, 1, "instances that were purged")?;

    hub.schedule_new_orchestration_with_options("waiting", start()).await?;
    hub.terminate_orchestration_with_options(&id, TerminateOptions::new().with_app_id(&app)).await?;
    let ended = hub.wait_for_orchestration_completion_with_options(&id, from(), None).await?;
    equal(ended.map(|state| state.runtime_status), Some(RuntimeStatus::Terminated), "status")?;
    Ok(Passed::Wholly)
}

pub async fn long_history(client: &mut Client) -> Outcome {
    let id = client.schedule("filling", ()).await?;
    within(25, "its history is long", async || {
        Ok(client.state(&id).await?.serialized_custom_status.as_deref() == Some("filled"))
    })
    .await?;
    client.deploy(&["v1"]).await?;
    client.raise(&id, "end", ()).await?;
    equal(client.output::<usize>(&id).await?, 6_000_000, "characters")?;
    Ok(Passed::Wholly)
}

pub async fn graceful_stop(client: &mut Client) -> Outcome {
    let id = client.schedule("lingering", ()).await?;
    loop {
        if let Ok(state) = client.state(&id).await
            && state.runtime_status == RuntimeStatus::Completed
        {
            equal(state.serialized_output.as_deref(), Some("\"done\""), "output")?;
            return Ok(Passed::Wholly);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
