//! The scenarios in which workflows do something.

use std::time::{Duration, Instant, SystemTime};

use dapr::workflow::{FetchOptions, RuntimeStatus};
use dapr_durabletask::client::FetchOptions as FetchFrom;

use crate::client::Client;
use crate::stage::{self, Outcome, Passed, check, environment, equal, new_id, until};
use crate::workflows::{Approval, ChildResult, Count, attempts};

pub async fn hello(client: &mut Client) -> Outcome {
    let before = SystemTime::now() - Duration::from_secs(1);
    let id = client.schedule("hello", "Tokyo").await?;
    let metadata = client.ended(&id).await?;
    equal(metadata.runtime_status, RuntimeStatus::Completed, "status")?;
    equal(&metadata.instance_id, &id, "ID")?;
    equal(metadata.name, "hello", "name")?;
    equal(metadata.serialized_input.as_deref(), Some("\"Tokyo\""), "input")?;
    equal(metadata.serialized_output.as_deref(), Some("\"Hello, Tokyo!\""), "output")?;
    check(metadata.created_at > Some(before.into()), format!("created at {:?}", metadata.created_at))?;
    check(metadata.last_updated_at >= metadata.created_at, format!("updated at {:?}", metadata.last_updated_at))?;

    let bare = client.workflows.fetch_workflow_metadata(&id, FetchOptions::new()).await?;
    equal((bare.serialized_input, bare.serialized_output), (None, None), "payloads that were not asked for")?;
    Ok(Passed::Wholly)
}

pub async fn chain(client: &mut Client) -> Outcome {
    let id = client.schedule("chain", 1).await?;
    equal(client.output::<i64>(&id).await?, 4, "output")?;
    Ok(Passed::Wholly)
}

pub async fn fan_out(client: &mut Client) -> Outcome {
    let id = client.schedule("fan_out", 50).await?;
    equal(client.output::<i64>(&id).await?, 40425, "output")?;
    Ok(Passed::Wholly)
}

pub async fn fan_in(client: &mut Client) -> Outcome {
    let id = client.schedule("fan_in", 150_000).await?;
    equal(client.output::<usize>(&id).await?, 9_000_000, "characters")?;
    Ok(Passed::Wholly)
}

pub async fn retry(client: &mut Client) -> Outcome {
    let id = client.schedule("retry", 2).await?;
    equal(client.output::<u32>(&id).await?, 3, "attempt that succeeded")?;
    let too_often = client.schedule("retry", 9).await?;
    equal(client.ended(&too_often).await?.runtime_status, RuntimeStatus::Failed, "status after three failures")?;
    equal(attempts(&too_often).len(), 3, "attempts")?;
    Ok(Passed::Wholly)
}

pub async fn timer(client: &mut Client) -> Outcome {
    let start = Instant::now();
    let id = client.schedule("timer", ()).await?;
    let moved: i64 = client.output(&id).await?;
    check(start.elapsed() >= Duration::from_secs(1), format!("the timer fired after {:?}", start.elapsed()))?;
    check(moved >= 1000, format!("the clock of the workflow has moved by {moved} ms"))?;
    Ok(Passed::Wholly)
}

pub async fn event(client: &mut Client) -> Outcome {
    let id = client.running("event", ()).await?;
    let approval = || Approval { by: "Zoë".into(), amount: 7 };
    client.raise(&id, "approval", approval()).await?;
    equal(client.output::<Approval>(&id).await?, approval(), "output")?;
    Ok(Passed::Wholly)
}

pub async fn child(client: &mut Client) -> Outcome {
    let child_id = new_id("named-child");
    let id = client.schedule("parent", &child_id).await?;
    let [named, unnamed]: [ChildResult; 2] = client.output(&id).await?;
    equal((&named.id, named.result), (&child_id, 2), "the named child")?;
    equal(unnamed.result, 3, "result of the unnamed child")?;
    check(!unnamed.id.is_empty() && unnamed.id != child_id, format!("ID of the unnamed child: {}", unnamed.id))?;
    for child in [named.id, unnamed.id] {
        let state = client.state(&child).await?;
        equal(state.runtime_status, RuntimeStatus::Completed, "status of the child")?;
        equal(state.parent_instance_id.as_ref(), Some(&id), "parent of the child")?;
    }
    Ok(Passed::Wholly)
}

pub async fn continue_as_new(client: &mut Client) -> Outcome {
    let id = client.schedule("counting", 1).await?;
    client.raise(&id, "kept", "since the first execution").await?;
    client.raise(&id, "go", ()).await?;
    let expected = Count { count: 5, kept: "since the first execution".into() };
    equal(client.output::<Count>(&id).await?, expected, "output")?;
    Ok(Passed::Wholly)
}

pub async fn failure_details(client: &mut Client) -> Outcome {
    let careful = client.schedule("paying_carefully", ()).await?;
    let seen: [String; 2] = client.output(&careful).await?;
    equal(seen, ["ActivityError", "no money on 4711"], "type and message that the workflow sees")?;
    let id = client.schedule("paying", ()).await?;
    let metadata = client.ended(&id).await?;
    equal(metadata.runtime_status, RuntimeStatus::Failed, "status")?;
    let details = metadata.failure_details.unwrap_or_else(|| panic!("no failure details of {id}"));
    equal(details.error_type, "OrchestratorError", "type that the client sees")?;
    equal(details.message, "order failed: Task failed: no money on 4711", "message that the client sees")?;
    Ok(Passed::But("the SDK gives each error the same type"))
}

pub async fn custom_status(client: &mut Client) -> Outcome {
    let id = client.schedule("reporting", ()).await?;
    until("half done", async || Ok(client.state(&id).await?.serialized_custom_status.as_deref() == Some("half done")))
        .await?;
    equal(client.status(&id).await?, RuntimeStatus::Running, "status while half done")?;
    client.raise(&id, "on", ()).await?;
    let metadata = client.ended(&id).await?;
    equal(metadata.runtime_status, RuntimeStatus::Completed, "status")?;
    equal(metadata.serialized_custom_status.as_deref(), Some("all done"), "custom status at the end")?;
    Ok(Passed::Wholly)
}

pub async fn payload(client: &mut Client) -> Outcome {
    let unit = "Grüße 世界 🙂\n";
    let text = unit.repeat((1 << 20) / unit.len() + 1);
    let id = client.schedule("echoing", &text).await?;
    check(client.output::<String>(&id).await? == text, "the output is not the input")?;
    let kept = client.state(&id).await?.serialized_input.unwrap_or_default();
    check(serde_json::from_str::<String>(&kept)? == text, "the input is not kept")?;
    Ok(Passed::Wholly)
}

pub async fn remote_activity(client: &mut Client) -> Outcome {
    let id = client.schedule("remote_activity", ()).await?;
    let apps = [environment("APP_ID"), environment("OTHER_APP")];
    equal(client.output::<[String; 2]>(&id).await?, apps, "apps that the activities ran in")?;
    Ok(Passed::Wholly)
}

pub async fn inputs(client: &mut Client) -> Outcome {
    let id = client.schedule("inputs", ()).await?;
    equal(client.output::<Vec<String>>(&id).await?, stage::SHOWN, "what the activity was given")?;
    Ok(Passed::Wholly)
}

pub async fn remote_child(client: &mut Client) -> Outcome {
    let id = client.schedule("remote_child", ()).await?;
    equal(client.output::<String>(&id).await?, format!("child in {}", environment("OTHER_APP")), "output")?;
    Ok(Passed::Wholly)
}

pub async fn detached(client: &mut Client) -> Outcome {
    let (here, there) = (new_id("detached-here"), new_id("detached-there"));
    let id = client.schedule("starting", [&here, &there]).await?;
    equal(client.output::<String>(&id).await?, "started", "output")?;
    let output = client.output::<String>(&here).await?;
    equal(output, format!("detached in {}", environment("APP_ID")), "output of what was started here")?;
    equal(client.state(&here).await?.parent_instance_id, None::<String>, "parent of what was started here")?;

    let from = FetchFrom::new().with_fetch_payloads(true).with_app_id(environment("OTHER_APP"));
    let found = client.hub.wait_for_orchestration_completion_with_options(&there, from, None).await?;
    let output = found.and_then(|metadata| metadata.serialized_output).unwrap_or_default();
    equal(output, format!("\"detached in {}\"", environment("OTHER_APP")), "output of what was started there")?;
    Ok(Passed::Wholly)
}

pub async fn execution_id(client: &mut Client) -> Outcome {
    let mut found = Vec::new();
    for _ in 0..2 {
        let id = client.schedule("retry", 2).await?;
        client.output::<u32>(&id).await?;
        let ids = attempts(&id);
        let same = ids.iter().all(|each| !each.is_empty() && *each == ids[0]);
        check(ids.len() == 3 && same, format!("IDs of three attempts: {ids:?}"))?;
        found.push(ids[0].clone());
    }
    check(found[0] != found[1], format!("two calls have the same ID {}", found[0]))?;
    Ok(Passed::Wholly)
}

pub async fn clear_status(client: &mut Client) -> Outcome {
    let id = client.schedule("clearing", 1).await?;
    for (status, event) in [("busy", "clear"), ("", "again"), ("busy again", "continue"), ("", "end")] {
        until(&format!("status {status:?}"), async || {
            Ok(client.state(&id).await?.serialized_custom_status.unwrap_or_default() == status)
        })
        .await?;
        client.raise(&id, event, ()).await?;
    }
    equal(client.ended(&id).await?.runtime_status, RuntimeStatus::Completed, "status")?;
    Ok(Passed::Wholly)
}
