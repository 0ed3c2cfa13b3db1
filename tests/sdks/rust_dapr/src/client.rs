//! The client of the scenarios, with the worker beside it.

use dapr::workflow::{
    EventOptions, FetchOptions, RuntimeStatus, ScheduleOptions, WorkerHandle, WorkflowClient, WorkflowMetadata,
    WorkflowSchedulingClient,
};
use dapr_durabletask::client::TaskHubGrpcClient;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stage::{self, Failure, equal, fail, new_id};
use crate::workflows;

pub struct Client {
    pub workflows: WorkflowSchedulingClient,
    /// The client that the other is made upon, with what it leaves out.
    pub hub: TaskHubGrpcClient,
    worker: WorkerHandle,
}

impl Client {
    pub async fn start() -> dapr::workflow::Result<Self> {
        let (workflows, worker) = start_worker(&["v1"]).await?;
        let hub = TaskHubGrpcClient::new(&stage::environment("DAPR_GRPC_ENDPOINT")).await?;
        Ok(Self { workflows, hub, worker })
    }

    pub async fn stop(self) -> dapr::workflow::Result<()> {
        self.worker.shutdown().await
    }

    /// Another worker takes the place of this one; it has these versions of the workflow `versioned`, the last as its newest.
    pub async fn deploy(&mut self, versions: &[&'static str]) -> dapr::workflow::Result<()> {
        let (_, worker) = start_worker(versions).await?;
        std::mem::replace(&mut self.worker, worker).shutdown().await
    }

    pub async fn schedule(&mut self, name: &str, input: impl Serialize) -> Result<String, Failure> {
        let options = ScheduleOptions::new().with_instance_id(new_id(name)).with_input(input);
        Ok(self.workflows.schedule_workflow(name, options).await?)
    }

    /// Schedules a workflow and waits until it runs.
    pub async fn running(&mut self, name: &str, input: impl Serialize) -> Result<String, Failure> {
        let id = self.schedule(name, input).await?;
        self.workflows.wait_for_workflow_start(&id).await?;
        Ok(id)
    }

    pub async fn ended(&mut self, id: &str) -> Result<WorkflowMetadata, Failure> {
        let payloads = FetchOptions::new().with_fetch_payloads(true);
        Ok(self.workflows.wait_for_workflow_completion_with_options(id, payloads, None).await?)
    }

    /// The output of a workflow that must complete.
    pub async fn output<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, Failure> {
        let metadata = self.ended(id).await?;
        if let Some(details) = metadata.failure_details {
            return fail(format!("{id} failed: {}: {}", details.error_type, details.message));
        }
        equal(metadata.runtime_status, RuntimeStatus::Completed, "status")?;
        Ok(serde_json::from_str(metadata.serialized_output.as_deref().unwrap_or("null"))?)
    }

    pub async fn state(&mut self, id: &str) -> Result<WorkflowMetadata, Failure> {
        let payloads = FetchOptions::new().with_fetch_payloads(true);
        Ok(self.workflows.fetch_workflow_metadata(id, payloads).await?)
    }

    pub async fn status(&mut self, id: &str) -> Result<RuntimeStatus, Failure> {
        Ok(self.state(id).await?.runtime_status)
    }

    pub async fn raise(&mut self, id: &str, event: &str, payload: impl Serialize) -> Result<(), Failure> {
        Ok(self.workflows.raise_event(id, event, EventOptions::new().with_payload(payload)).await?)
    }
}

async fn start_worker(versions: &[&'static str]) -> dapr::workflow::Result<(WorkflowSchedulingClient, WorkerHandle)> {
    let mut client = WorkflowClient::new().await?;
    workflows::register(client.registry_mut(), versions);
    let worker = client.start_worker().await?;
    Ok((client.scheduling_client(), worker))
}
