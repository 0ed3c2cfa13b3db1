//go:build !old

package main

import (
	"os"

	"github.com/dapr/durabletask-go/workflow"

	"tests.sdks/go_shared/stage"
)

// newer adds what older versions do not offer.
func newer(c *caller, programme stage.Programme) {
	programme.Scenarios["detached"] = c.detached
	programme.Scenarios["remote-client"] = c.remoteClient
	programme.Scenarios["long-history"] = c.longHistory
}

func registerNewer(r *workflow.Registry) {
	must(r.AddWorkflow(Starting))
	must(r.AddWorkflow(Filling))
}

// --- detached ---

// Starting starts a workflow here and one there, under the IDs that it is given, and waits for neither.
func Starting(ctx *workflow.WorkflowContext) (any, error) {
	var ids []string
	if err := ctx.GetInput(&ids); err != nil {
		return nil, err
	}
	input := workflow.WithDetachedWorkflowInput("detached")
	if _, err := ctx.ScheduleNewWorkflow(Whereabouts, workflow.WithDetachedWorkflowInstanceID(ids[0]), input); err != nil {
		return nil, err
	}
	_, err := ctx.ScheduleNewWorkflow(Whereabouts, workflow.WithDetachedWorkflowInstanceID(ids[1]), input,
		workflow.WithDetachedWorkflowAppID(os.Getenv("OTHER_APP")))
	return "started", err
}

func (c *caller) detached(s *stage.Stage) string {
	here, there := stage.NewID("detached-here"), stage.NewID("detached-there")
	var output string
	c.output(s, c.schedule(s, "Starting", workflow.WithInput([]string{here, there})), &output)
	s.Equal(output, "started", "output")
	c.output(s, here, &output)
	s.Equal(output, "detached in "+os.Getenv("APP_ID"), "output of what was started here")
	s.Equal(c.state(s, here).ParentInstanceId, "", "parent of what was started here")
	other := workflow.WithFetchAppID(os.Getenv("OTHER_APP"))
	s.Until("it is known there", func() bool {
		_, err := c.client.FetchWorkflowMetadata(s, there, other)
		return err == nil
	})
	metadata, err := c.client.WaitForWorkflowCompletion(s, there, other)
	s.OK(err, "wait for what was started there")
	s.Equal(metadata.Output.GetValue(), `"detached in `+os.Getenv("OTHER_APP")+`"`, "output of what was started there")
	return ""
}

// --- remote-client ---

func (c *caller) remoteClient(s *stage.Stage) string {
	app := os.Getenv("OTHER_APP")
	from := workflow.WithFetchAppID(app)
	state := func(id string) *workflow.WorkflowMetadata {
		metadata, err := c.client.FetchWorkflowMetadata(s, id, from)
		s.OK(err, "fetch")
		return metadata
	}
	id := c.schedule(s, "Waiting", workflow.WithAppID(app))
	_, err := c.client.WaitForWorkflowStart(s, id, from)
	s.OK(err, "wait for the start")
	_, err = c.client.FetchWorkflowMetadata(s, id)
	s.Check(err != nil, "it is here too")
	s.OK(c.client.SuspendWorkflow(s, id, "a break", workflow.WithSuspendAppID(app)), "suspend")
	s.Until("SUSPENDED", func() bool { return state(id).RuntimeStatus == workflow.StatusSuspended })
	s.OK(c.client.ResumeWorkflow(s, id, "go on", workflow.WithResumeAppID(app)), "resume")
	payload := workflow.WithEventPayload("from another app")
	s.OK(c.client.RaiseEvent(s, id, "end", payload, workflow.WithRaiseEventAppID(app)), "raise")
	metadata, err := c.client.WaitForWorkflowCompletion(s, id, from)
	s.OK(err, "wait for completion")
	s.Equal(metadata.Output.GetValue(), `"from another app"`, "output")
	s.OK(c.client.PurgeWorkflowState(s, id, workflow.WithPurgeAppID(app)), "purge")

	id = c.schedule(s, "Waiting", workflow.WithAppID(app))
	s.OK(c.client.TerminateWorkflow(s, id, workflow.WithTerminateAppID(app)), "terminate")
	s.Until("TERMINATED", func() bool { return state(id).RuntimeStatus == workflow.StatusTerminated })
	return ""
}

// --- long-history ---

// Filling asks one after the other for 40 texts of 150,000 characters, and then waits for an event.
func Filling(ctx *workflow.WorkflowContext) (any, error) {
	sum := 0
	for range 40 {
		var text string
		if err := ctx.CallActivity(Fill, workflow.WithActivityInput(150_000)).Await(&text); err != nil {
			return nil, err
		}
		sum += len(text)
	}
	ctx.SetCustomStatus("filled")
	return sum, ctx.WaitForExternalEvent("end", -1).Await(nil)
}

func (c *caller) longHistory(s *stage.Stage) string {
	id := c.schedule(s, "Filling")
	s.Eventually("its history is long", func() bool { return c.state(s, id).CustomStatus.GetValue() == "filled" })
	c.restart()
	c.raise(s, id, "end", nil)
	var characters int
	c.output(s, id, &characters)
	s.Equal(characters, 6_000_000, "characters")
	return ""
}
