//! The workflows and activities of the scenarios.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use dapr::workflow::{
    ActivityContext, ActivityContextExt, ActivityOptions, Registry, RegistryExt, Result, RetryPolicy,
    SubWorkflowOptions, WorkflowContext, WorkflowContextExt, WorkflowError, when_all,
};
use dapr_durabletask::task::DetachedWorkflowOptions;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stage::{environment, inputs};

pub type Output = Result<Option<String>>;

/// Once it is set, the workflow `patched` is of its newer form.
pub static PATCH_DEPLOYED: AtomicBool = AtomicBool::new(false);

/// The task execution IDs with which the activity `shaky` was called for an instance.
static ATTEMPTS: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

pub fn register(registry: &mut Registry, versions: &[&'static str]) {
    registry.add_workflow("hello", hello);
    registry.add_workflow("chain", chain);
    registry.add_workflow("fan_out", fan_out);
    registry.add_workflow("fan_in", fan_in);
    registry.add_workflow("retry", retry);
    registry.add_workflow("timer", timer);
    registry.add_workflow("event", event);
    registry.add_workflow("parent", parent);
    registry.add_workflow("child", child);
    registry.add_workflow("counting", counting);
    registry.add_workflow("waiting", waiting);
    registry.add_workflow("waiting_parent", waiting_parent);
    registry.add_workflow("paying", paying);
    registry.add_workflow("paying_carefully", paying_carefully);
    registry.add_workflow("reporting", reporting);
    registry.add_workflow("echoing", echoing);
    registry.add_workflow("remote_activity", remote_activity);
    registry.add_workflow("inputs", giving);
    registry.add_workflow("remote_child", remote_child);
    registry.add_workflow("whereabouts", whereabouts);
    registry.add_workflow("starting", starting);
    registry.add_workflow("buying", buying);
    registry.add_workflow("patched", patched);
    registry.add_workflow("clearing", clearing);
    registry.add_workflow("filling", filling);
    registry.add_workflow("lingering", lingering);
    for (place, &version) in versions.iter().enumerate() {
        let named = move |ctx| versioned(ctx, version);
        if place + 1 == versions.len() {
            registry.add_latest_orchestrator("versioned", version, named);
        } else {
            registry.add_versioned_orchestrator("versioned", version, named);
        }
    }
    registry.add_activity("greet", greet);
    registry.add_activity("add_one", add_one);
    registry.add_activity("square", square);
    registry.add_activity("fill", fill);
    registry.add_activity("shaky", shaky);
    registry.add_activity("declining", declining);
    registry.add_activity("echo", echo);
    registry.add_activity("where", whereof);
    registry.add_activity("Show", show);
    registry.add_activity("shout", shout);
    registry.add_activity("linger", linger);
}

/// The task execution ID of each call of the activity `shaky` for the instance.
pub fn attempts(id: &str) -> Vec<String> {
    ATTEMPTS.lock().unwrap().get(id).cloned().unwrap_or_default()
}

fn json(value: impl Serialize) -> Output {
    Ok(Some(serde_json::to_string(&value)?))
}

fn read<T: DeserializeOwned>(output: Option<String>) -> Result<T> {
    Ok(serde_json::from_str(output.as_deref().unwrap_or("null"))?)
}

// --- activities ---

async fn greet(ctx: ActivityContext, input: Option<String>) -> Output {
    let name: String = ctx.get_input(input.as_deref())?;
    json(format!("Hello, {name}!"))
}

async fn add_one(ctx: ActivityContext, input: Option<String>) -> Output {
    json(ctx.get_input::<i64>(input.as_deref())? + 1)
}

async fn square(ctx: ActivityContext, input: Option<String>) -> Output {
    json(ctx.get_input::<i64>(input.as_deref())?.pow(2))
}

async fn fill(ctx: ActivityContext, input: Option<String>) -> Output {
    json("x".repeat(ctx.get_input(input.as_deref())?))
}

#[derive(Serialize, Deserialize)]
struct Shaky {
    key: String,
    failures: u32,
}

async fn shaky(ctx: ActivityContext, input: Option<String>) -> Output {
    let Shaky { key, failures } = ctx.get_input(input.as_deref())?;
    let mut attempts = ATTEMPTS.lock().unwrap();
    let ids = attempts.entry(key).or_default();
    ids.push(ctx.task_execution_id().to_string());
    if ids.len() as u32 <= failures {
        return Err(WorkflowError::Other(format!("attempt {}", ids.len())));
    }
    json(ids.len())
}

async fn declining(ctx: ActivityContext, input: Option<String>) -> Output {
    let card: String = ctx.get_input(input.as_deref())?;
    Err(WorkflowError::Other(format!("no money on {card}")))
}

async fn echo(_: ActivityContext, input: Option<String>) -> Output {
    Ok(input)
}

async fn whereof(_: ActivityContext, _: Option<String>) -> Output {
    json(environment("APP_ID"))
}

/// What it was given, as JSON without spaces.
async fn show(ctx: ActivityContext, input: Option<String>) -> Output {
    json(ctx.get_input::<Value>(input.as_deref())?.to_string())
}

async fn shout(ctx: ActivityContext, input: Option<String>) -> Output {
    json(ctx.get_input::<String>(input.as_deref())?.to_uppercase())
}

async fn linger(_: ActivityContext, _: Option<String>) -> Output {
    tokio::time::sleep(Duration::from_secs(4)).await;
    json("done")
}

// --- workflows ---

async fn hello(ctx: WorkflowContext) -> Output {
    let name: String = ctx.get_input_typed()?;
    json(ctx.call_activity_typed::<String, _>("greet", name).await?)
}

async fn chain(ctx: WorkflowContext) -> Output {
    let mut number: i64 = ctx.get_input_typed()?;
    for _ in 0..3 {
        number = ctx.call_activity_typed("add_one", number).await?;
    }
    json(number)
}

async fn fan_out(ctx: WorkflowContext) -> Output {
    let count: i64 = ctx.get_input_typed()?;
    let tasks = (0..count).map(|number| ctx.call_activity("square", number)).collect();
    let mut sum = 0;
    for square in when_all(tasks).await? {
        sum += read::<i64>(square)?;
    }
    json(sum)
}

async fn fan_in(ctx: WorkflowContext) -> Output {
    let length: usize = ctx.get_input_typed()?;
    let tasks = (0..60).map(|_| ctx.call_activity("fill", length)).collect();
    let mut sum = 0;
    for text in when_all(tasks).await? {
        sum += read::<String>(text)?.len();
    }
    json(sum)
}

async fn retry(ctx: WorkflowContext) -> Output {
    let input = Shaky { key: ctx.instance_id().to_string(), failures: ctx.get_input_typed()? };
    let policy = RetryPolicy::new(3, Duration::from_millis(100)).with_backoff_coefficient(2.0);
    let options = ActivityOptions::new().with_input(input).with_retry_policy(policy);
    json(ctx.call_activity_with_options_typed::<u32>("shaky", options).await?)
}

/// The milliseconds by which its clock has moved.
async fn timer(ctx: WorkflowContext) -> Output {
    let start = ctx.current_utc_datetime();
    ctx.create_timer(Duration::from_secs(1)).await?;
    json((ctx.current_utc_datetime() - start).num_milliseconds())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub amount: i32,
}

async fn event(ctx: WorkflowContext) -> Output {
    let got: Approval = ctx.wait_for_external_event_typed("approval", None).await?;
    let second = ctx.wait_for_external_event_typed::<Value>("never", Some(Duration::from_millis(300)));
    match second.await {
        Err(WorkflowError::Timeout) => json(got),
        other => Err(WorkflowError::Other(format!("the second wait ended with {other:?}"))),
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildResult {
    pub id: String,
    pub result: i64,
}

async fn child(ctx: WorkflowContext) -> Output {
    let number: i64 = ctx.get_input_typed()?;
    let result = ctx.call_activity_typed("add_one", number).await?;
    json(ChildResult { id: ctx.instance_id().to_string(), result })
}

async fn parent(ctx: WorkflowContext) -> Output {
    let child_id: String = ctx.get_input_typed()?;
    let options = SubWorkflowOptions::new().with_input(1).with_instance_id(child_id);
    let named = ctx.call_sub_workflow_with_options_typed::<ChildResult>("child", options);
    let unnamed = ctx.call_sub_workflow_typed::<ChildResult, _>("child", 2);
    let (named, unnamed) = futures::join!(named, unnamed);
    json([named?, unnamed?])
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub count: i32,
    pub kept: String,
}

async fn counting(ctx: WorkflowContext) -> Output {
    let count: i32 = ctx.get_input_typed()?;
    if count == 1 {
        ctx.wait_for_external_event("go").await?;
    }
    if count < 5 {
        ctx.continue_as_new(count + 1, true);
        return Ok(None);
    }
    json(Count { count, kept: ctx.wait_for_external_event_typed("kept", None).await? })
}

async fn waiting(ctx: WorkflowContext) -> Output {
    json(ctx.wait_for_external_event_typed::<Value>("end", None).await?)
}

async fn waiting_parent(ctx: WorkflowContext) -> Output {
    let child_id: String = ctx.get_input_typed()?;
    let options = SubWorkflowOptions::new().with_instance_id(child_id);
    json(ctx.call_sub_workflow_with_options_typed::<Value>("waiting", options).await?)
}

async fn paying(ctx: WorkflowContext) -> Output {
    match ctx.call_activity("declining", "4711").await {
        Err(error) => Err(WorkflowError::Other(format!("order failed: {error}"))),
        Ok(_) => json("paid"),
    }
}

/// The type and message of the error that it has seen.
async fn paying_carefully(ctx: WorkflowContext) -> Output {
    match ctx.call_activity("declining", "4711").await {
        Err(WorkflowError::TaskFailed { failure_details: Some(details), .. }) => {
            json([details.error_type, details.message])
        }
        other => Err(WorkflowError::Other(format!("the activity ended with {other:?}"))),
    }
}

async fn reporting(ctx: WorkflowContext) -> Output {
    ctx.set_custom_status("half done");
    ctx.wait_for_external_event("on").await?;
    ctx.set_custom_status("all done");
    Ok(None)
}

async fn echoing(ctx: WorkflowContext) -> Output {
    let text: String = ctx.get_input_typed()?;
    json(ctx.call_activity_typed::<String, _>("echo", text).await?)
}

async fn remote_activity(ctx: WorkflowContext) -> Output {
    let here: String = ctx.call_activity_typed("where", ()).await?;
    let there = ctx.call_activity_with_app_id("where", (), &environment("OTHER_APP")).await?;
    json([here, read(there)?])
}

async fn giving(ctx: WorkflowContext) -> Output {
    let other = environment("OTHER_APP");
    let mut shown: Vec<String> = Vec::new();
    for input in inputs().into_iter().map(Some).chain([None]) {
        let text = ctx.call_activity_with_app_id("Show", input, &other).await?;
        shown.push(read(text)?);
    }
    json(shown)
}

async fn remote_child(ctx: WorkflowContext) -> Output {
    let options = SubWorkflowOptions::new().with_input("child").with_app_id(environment("OTHER_APP"));
    json(ctx.call_sub_workflow_with_options_typed::<String>("whereabouts", options).await?)
}

async fn whereabouts(ctx: WorkflowContext) -> Output {
    let who: String = ctx.get_input_typed()?;
    let place: String = ctx.call_activity_typed("where", ()).await?;
    json(format!("{who} in {place}"))
}

/// Starts `whereabouts` here and there under the IDs that it is given, and waits for neither.
async fn starting(ctx: WorkflowContext) -> Output {
    let [here, there]: [String; 2] = ctx.get_input_typed()?;
    let options = DetachedWorkflowOptions::new().with_instance_id(here);
    ctx.schedule_new_detached_workflow("whereabouts", "detached", options)?;
    let options = DetachedWorkflowOptions::new().with_instance_id(there).with_app_id(environment("OTHER_APP"));
    ctx.schedule_new_detached_workflow("whereabouts", "detached", options)?;
    json("started")
}

async fn buying(ctx: WorkflowContext) -> Output {
    let first: i64 = ctx.call_activity_typed("square", 3).await?;
    let second: i64 = ctx.call_activity_typed("add_one", first).await?;
    json([first, second])
}

async fn versioned(ctx: WorkflowContext, version: &'static str) -> Output {
    ctx.wait_for_external_event("end").await?;
    json(version)
}

/// Greets; once the patch is deployed, it shouts.
async fn patched(ctx: WorkflowContext) -> Output {
    let shouts = PATCH_DEPLOYED.load(Ordering::Relaxed) && ctx.is_patched("shout");
    let activity = if shouts { "shout" } else { "greet" };
    let said: String = ctx.call_activity_typed(activity, "Ada").await?;
    ctx.wait_for_external_event("end").await?;
    json(said)
}

/// Has a status, clears it, has one again, and goes on as a new execution without.
async fn clearing(ctx: WorkflowContext) -> Output {
    if ctx.get_input_typed::<i32>()? == 2 {
        return ctx.wait_for_external_event("end").await;
    }
    ctx.set_custom_status("busy");
    ctx.wait_for_external_event("clear").await?;
    ctx.set_custom_status("");
    ctx.wait_for_external_event("again").await?;
    ctx.set_custom_status("busy again");
    ctx.wait_for_external_event("continue").await?;
    ctx.continue_as_new(2, false);
    Ok(None)
}

/// Asks one after the other for 40 texts of 150,000 characters, and then waits for an event.
async fn filling(ctx: WorkflowContext) -> Output {
    let mut sum = 0;
    for _ in 0..40 {
        sum += ctx.call_activity_typed::<String, _>("fill", 150_000).await?.len();
    }
    ctx.set_custom_status("filled");
    ctx.wait_for_external_event("end").await?;
    json(sum)
}

async fn lingering(ctx: WorkflowContext) -> Output {
    json(ctx.call_activity_typed::<String, _>("linger", ()).await?)
}
