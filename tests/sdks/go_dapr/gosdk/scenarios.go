package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dapr/go-sdk/workflow"
	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tests.sdks/go_shared/stage"
)

func scenarios(client *workflow.Client) stage.Programme {
	c := &caller{client}
	return stage.Programme{
		Scenarios: map[string]stage.Scenario{
			"hello":           c.hello,
			"chain":           c.chain,
			"fan-out":         c.fanOut,
			"fan-in":          c.fanIn,
			"timer":           c.timer,
			"event":           c.event,
			"child":           c.child,
			"continue-as-new": c.continueAsNew,
			"suspend-resume":  c.suspendResume,
			"terminate":       c.terminate,
			"purge":           c.purge,
			"failure-details": c.failureDetails,
			"payload":         c.payload,
			"remote-activity": c.remoteActivity,
			"inputs":          c.inputs,
			"remote-child":    c.remoteChild,
			"reuse":           c.reuse,
			"missing":         c.missing,
			"scheduled-start": c.scheduledStart,
			"early-wait":      c.earlyWait,
			"graceful-stop":   c.gracefulStop,
		},
		NotOffered: map[string]string{
			"retry":           "CallActivity has no retry policy",
			"custom-status":   "the workflow context cannot set it",
			"query":           "the client has no query",
			"list-ids":        "the client has no list of IDs",
			"purge-by-filter": "PurgeWorkflow takes one ID",
			"history":         "the client has no history",
			"restart":         "the client has no restart",
			"rewind":          "the client has no rewind",
			"rerun":           "the client has no rerun",
			"tags":            "ScheduleNewWorkflow has no tags",
			"version":         "ScheduleNewWorkflow has no version",
			"entity":          "Dapr's workflows have no entities",
			"entity-query":    "Dapr's workflows have no entities",
			"detached":        "a workflow can start others only as its children",
			"patch":           "the SDK has no patches",
			"remote-client":   "the client cannot name an app",
			"execution-id":    "activities have no execution ID",
			"clear-status":    "the workflow context cannot set it",
			"reuse-never":     "the client has no reuse policy of its own",
			"restart-running": "the client has no restart",
			"strict-version":  "the worker has no version rules",
			"long-history":    "this SDK takes no history above 4 MiB",
		},
	}
}

const byRoute = "by a route of the sidecar: no call names an app"

// The client of the scenarios.
type caller struct {
	client *workflow.Client
}

func (c *caller) schedule(s *stage.Stage, name string, options ...api.NewOrchestrationOptions) string {
	options = append([]api.NewOrchestrationOptions{workflow.WithInstanceID(stage.NewID(name))}, options...)
	id, err := c.client.ScheduleNewWorkflow(s, name, options...)
	s.OK(err, "schedule "+name)
	return id
}

// running schedules a workflow and waits until it runs.
func (c *caller) running(s *stage.Stage, name string, options ...api.NewOrchestrationOptions) string {
	id := c.schedule(s, name, options...)
	_, err := c.client.WaitForWorkflowStart(s, id)
	s.OK(err, "wait for the start of "+name)
	return id
}

func (c *caller) ended(s *stage.Stage, id string) *workflow.Metadata {
	metadata, err := c.client.WaitForWorkflowCompletion(s, id)
	s.OK(err, "wait for completion")
	return metadata
}

// output reads the output of a workflow that must complete.
func (c *caller) output(s *stage.Stage, id string, output any) {
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, workflow.StatusCompleted, "status")
	s.OK(json.Unmarshal([]byte(metadata.SerializedOutput), output), "output")
}

func (c *caller) state(s *stage.Stage, id string) *workflow.Metadata {
	metadata, err := c.client.FetchWorkflowMetadata(s, id)
	s.OK(err, "fetch metadata")
	return metadata
}

func (c *caller) raise(s *stage.Stage, id string, event string, payload any) {
	s.OK(c.client.RaiseEvent(s, id, event, workflow.WithEventPayload(payload)), "raise "+event)
}

// --- hello ---

func Greet(ctx workflow.ActivityContext) (any, error) {
	var name string
	if err := ctx.GetInput(&name); err != nil {
		return nil, err
	}
	return fmt.Sprintf("Hello, %s!", name), nil
}

func Hello(ctx *workflow.WorkflowContext) (any, error) {
	var name, greeting string
	if err := ctx.GetInput(&name); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Greet, workflow.ActivityInput(name)).Await(&greeting)
	return greeting, err
}

func (c *caller) hello(s *stage.Stage) string {
	before := time.Now()
	id := c.schedule(s, "Hello", workflow.WithInput("Tokyo"))
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, workflow.StatusCompleted, "status")
	s.Equal(metadata.InstanceID, id, "ID")
	s.Equal(metadata.Name, "Hello", "name")
	s.Equal(metadata.SerializedInput, `"Tokyo"`, "input")
	s.Equal(metadata.SerializedOutput, `"Hello, Tokyo!"`, "output")
	s.Check(metadata.CreatedAt.After(before.Add(-time.Second)), "created at %v", metadata.CreatedAt)
	s.Check(!metadata.LastUpdatedAt.Before(metadata.CreatedAt), "updated at %v", metadata.LastUpdatedAt)

	bare, err := c.client.FetchWorkflowMetadata(s, id, workflow.WithFetchPayloads(false))
	s.OK(err, "fetch without payloads")
	s.Equal(bare.SerializedInput+bare.SerializedOutput, "", "payloads that were not asked for")
	return ""
}

// --- chain, fan-out ---

func AddOne(ctx workflow.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number + 1, err
}

func Square(ctx workflow.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number * number, err
}

func Chain(ctx *workflow.WorkflowContext) (any, error) {
	var number int
	if err := ctx.GetInput(&number); err != nil {
		return nil, err
	}
	for i := 0; i < 3; i++ {
		if err := ctx.CallActivity(AddOne, workflow.ActivityInput(number)).Await(&number); err != nil {
			return nil, err
		}
	}
	return number, nil
}

func FanOut(ctx *workflow.WorkflowContext) (any, error) {
	var count, sum int
	if err := ctx.GetInput(&count); err != nil {
		return nil, err
	}
	tasks := make([]task.Task, count)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Square, workflow.ActivityInput(i))
	}
	for _, t := range tasks {
		var square int
		if err := t.Await(&square); err != nil {
			return nil, err
		}
		sum += square
	}
	return sum, nil
}

func (c *caller) chain(s *stage.Stage) string {
	var output int
	c.output(s, c.schedule(s, "Chain", workflow.WithInput(1)), &output)
	s.Equal(output, 4, "output")
	return ""
}

func (c *caller) fanOut(s *stage.Stage) string {
	var output int
	c.output(s, c.schedule(s, "FanOut", workflow.WithInput(50)), &output)
	s.Equal(output, 40425, "output")
	return ""
}

// --- fan-in ---

func Fill(ctx workflow.ActivityContext) (any, error) {
	var length int
	err := ctx.GetInput(&length)
	return strings.Repeat("x", length), err
}

func FanIn(ctx *workflow.WorkflowContext) (any, error) {
	var length, sum int
	if err := ctx.GetInput(&length); err != nil {
		return nil, err
	}
	tasks := make([]task.Task, 60)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Fill, workflow.ActivityInput(length))
	}
	for _, t := range tasks {
		var text string
		if err := t.Await(&text); err != nil {
			return nil, err
		}
		sum += len(text)
	}
	return sum, nil
}

func (c *caller) fanIn(s *stage.Stage) string {
	var output int
	c.output(s, c.schedule(s, "FanIn", workflow.WithInput(60_000)), &output)
	s.Equal(output, 3_600_000, "characters")
	return "3.6 MB: this SDK takes no history above 4 MiB"
}

// --- timer ---

func Timer(ctx *workflow.WorkflowContext) (any, error) {
	start := ctx.CurrentUTCDateTime()
	if err := ctx.CreateTimer(time.Second).Await(nil); err != nil {
		return nil, err
	}
	return ctx.CurrentUTCDateTime().Sub(start), nil
}

func (c *caller) timer(s *stage.Stage) string {
	start := time.Now()
	var moved time.Duration
	c.output(s, c.schedule(s, "Timer"), &moved)
	s.Check(time.Since(start) >= time.Second, "the timer fired after %v", time.Since(start))
	s.Check(moved >= time.Second, "the workflow's clock moved by %v", moved)
	return ""
}

// --- event ---

type approval struct {
	By     string
	Amount int
}

func Event(ctx *workflow.WorkflowContext) (any, error) {
	var got approval
	if err := ctx.WaitForExternalEvent("approval", -1).Await(&got); err != nil {
		return nil, err
	}
	err := ctx.WaitForExternalEvent("never", 300*time.Millisecond).Await(nil)
	if !errors.Is(err, task.ErrTaskCanceled) {
		return nil, fmt.Errorf("the second wait ended with %w", err)
	}
	return got, nil
}

func (c *caller) event(s *stage.Stage) string {
	id := c.running(s, "Event")
	c.raise(s, id, "approval", approval{"Zoë", 7})
	var got approval
	c.output(s, id, &got)
	s.Equal(got, approval{"Zoë", 7}, "output")
	return ""
}

// --- child ---

type childResult struct {
	ID     string
	Result int
}

func Child(ctx *workflow.WorkflowContext) (any, error) {
	result := childResult{ID: ctx.InstanceID()}
	var number int
	if err := ctx.GetInput(&number); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(AddOne, workflow.ActivityInput(number)).Await(&result.Result)
	return result, err
}

func Parent(ctx *workflow.WorkflowContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	tasks := []task.Task{
		ctx.CallChildWorkflow(Child, workflow.ChildWorkflowInput(1), workflow.ChildWorkflowInstanceID(childID)),
		ctx.CallChildWorkflow(Child, workflow.ChildWorkflowInput(2)),
	}
	results := make([]childResult, len(tasks))
	for i, t := range tasks {
		if err := t.Await(&results[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (c *caller) child(s *stage.Stage) string {
	childID := stage.NewID("named-child")
	id := c.schedule(s, "Parent", workflow.WithInput(childID))
	var results []childResult
	c.output(s, id, &results)
	s.Equal(results[0], childResult{childID, 2}, "the named child")
	s.Equal(results[1].Result, 3, "result of the unnamed child")
	s.Check(results[1].ID != "" && results[1].ID != childID, "ID of the unnamed child: %q", results[1].ID)
	for _, result := range results {
		child := c.state(s, result.ID)
		s.Equal(child.RuntimeStatus, workflow.StatusCompleted, "status of child "+result.ID)
	}
	return ""
}

// --- continue-as-new ---

type countResult struct {
	Count int
	Kept  string
}

func Counting(ctx *workflow.WorkflowContext) (any, error) {
	var result countResult
	if err := ctx.GetInput(&result.Count); err != nil {
		return nil, err
	}
	if result.Count == 1 {
		if err := ctx.WaitForExternalEvent("go", -1).Await(nil); err != nil {
			return nil, err
		}
	}
	if result.Count < 5 {
		ctx.ContinueAsNew(result.Count+1, true)
		return nil, nil
	}
	err := ctx.WaitForExternalEvent("kept", -1).Await(&result.Kept)
	return result, err
}

func (c *caller) continueAsNew(s *stage.Stage) string {
	id := c.schedule(s, "Counting", workflow.WithInput(1))
	c.raise(s, id, "kept", "since the first execution")
	c.raise(s, id, "go", nil)
	var result countResult
	c.output(s, id, &result)
	s.Equal(result, countResult{5, "since the first execution"}, "output")
	return ""
}

// --- suspend-resume, terminate, purge ---

func Waiting(ctx *workflow.WorkflowContext) (any, error) {
	var payload string
	err := ctx.WaitForExternalEvent("end", -1).Await(&payload)
	return payload, err
}

func WaitingParent(ctx *workflow.WorkflowContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	return nil, ctx.CallChildWorkflow(Waiting, workflow.ChildWorkflowInstanceID(childID)).Await(nil)
}

func (c *caller) suspendResume(s *stage.Stage) string {
	id := c.running(s, "Waiting")
	s.OK(c.client.SuspendWorkflow(s, id, "a break"), "suspend")
	suspended := func() bool { return c.state(s, id).RuntimeStatus == workflow.StatusSuspended }
	s.Until("SUSPENDED", suspended)
	c.raise(s, id, "end", "later")
	time.Sleep(500 * time.Millisecond)
	s.Check(suspended(), "still SUSPENDED after an event")
	s.OK(c.client.ResumeWorkflow(s, id, "the break is over"), "resume")
	var output string
	c.output(s, id, &output)
	s.Equal(output, "later", "output")
	return ""
}

func (c *caller) terminate(s *stage.Stage) string {
	childID := stage.NewID("ended-child")
	id := c.schedule(s, "WaitingParent", workflow.WithInput(childID))
	s.Until("the child runs", func() bool {
		child, err := c.client.FetchWorkflowMetadata(s, childID)
		return err == nil && child.RuntimeStatus == workflow.StatusRunning
	})
	s.OK(c.client.TerminateWorkflow(s, id, workflow.WithOutput("enough")), "terminate")
	parent := c.ended(s, id)
	s.Equal(parent.RuntimeStatus, workflow.StatusTerminated, "status")
	s.Equal(parent.SerializedOutput, `"enough"`, "output")
	s.Equal(c.ended(s, childID).RuntimeStatus, workflow.StatusTerminated, "status of the child")
	return "children are ended always"
}

func (c *caller) purge(s *stage.Stage) string {
	id := c.schedule(s, "Hello", workflow.WithInput("purge"))
	c.ended(s, id)
	s.OK(c.client.PurgeWorkflow(s, id), "purge")
	_, err := c.client.FetchWorkflowMetadata(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch after the purge: %v", err)
	err = c.client.PurgeWorkflow(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "second purge: %v", err)
	return ""
}

// --- failure-details ---

type cardDeclined struct{ card string }

func (e cardDeclined) Error() string { return "no money on " + e.card }

func Declining(ctx workflow.ActivityContext) (any, error) {
	var card string
	if err := ctx.GetInput(&card); err != nil {
		return nil, err
	}
	return nil, cardDeclined{card}
}

func Paying(ctx *workflow.WorkflowContext) (any, error) {
	return nil, ctx.CallActivity(Declining, workflow.ActivityInput("4711")).Await(nil)
}

func PayingCarefully(ctx *workflow.WorkflowContext) (any, error) {
	err := ctx.CallActivity(Declining, workflow.ActivityInput("4711")).Await(nil)
	return fmt.Sprint(err), nil
}

func (c *caller) failureDetails(s *stage.Stage) string {
	var seen string
	c.output(s, c.schedule(s, "PayingCarefully"), &seen)
	s.Equal(seen, "task failed with an error: no money on 4711", "what the workflow sees")
	s.Equal(c.ended(s, c.schedule(s, "Paying")).RuntimeStatus, workflow.StatusFailed, "status")
	return "the SDK shows no error type to the workflow and no failure details to the client"
}

// --- payload ---

func Echo(ctx workflow.ActivityContext) (any, error) {
	var value string
	err := ctx.GetInput(&value)
	return value, err
}

func Echoing(ctx *workflow.WorkflowContext) (any, error) {
	var value string
	if err := ctx.GetInput(&value); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Echo, workflow.ActivityInput(value)).Await(&value)
	return value, err
}

func (c *caller) payload(s *stage.Stage) string {
	const unit = "Grüße 世界 🙂\n"
	text := strings.Repeat(unit, 1<<20/len(unit)+1)
	id := c.schedule(s, "Echoing", workflow.WithInput(text))
	var input, output string
	c.output(s, id, &output)
	s.Check(output == text, "the output is the input")
	s.OK(json.Unmarshal([]byte(c.state(s, id).SerializedInput), &input), "input")
	s.Check(input == text, "the input is kept")
	return ""
}

// --- other apps: names that begin with "Routed" go there by a route of the sidecar ---

func Where(workflow.ActivityContext) (any, error) {
	return os.Getenv("APP_ID"), nil
}

func RoutedWhere(workflow.ActivityContext) (any, error) {
	return os.Getenv("APP_ID"), nil
}

func RemoteActivity(ctx *workflow.WorkflowContext) (any, error) {
	var here, there string
	if err := ctx.CallActivity(Where).Await(&here); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(RoutedWhere).Await(&there)
	return []string{here, there}, err
}

func RemoteChild(ctx *workflow.WorkflowContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	var visit []string
	err := ctx.CallChildWorkflow(RoutedChild, workflow.ChildWorkflowInstanceID(childID)).Await(&visit)
	return visit, err
}

func RoutedChild(ctx *workflow.WorkflowContext) (any, error) {
	var where string
	err := ctx.CallActivity(Where).Await(&where)
	return []string{ctx.InstanceID(), where}, err
}

func (c *caller) remoteActivity(s *stage.Stage) string {
	var places []string
	c.output(s, c.schedule(s, "RemoteActivity"), &places)
	s.Equal(places, []string{os.Getenv("APP_ID"), os.Getenv("OTHER_APP")}, "apps that the activities ran in")
	return byRoute
}

func (c *caller) remoteChild(s *stage.Stage) string {
	childID := stage.NewID("remote-child")
	var visit []string
	c.output(s, c.schedule(s, "RemoteChild", workflow.WithInput(childID)), &visit)
	s.Equal(visit, []string{childID, os.Getenv("OTHER_APP")}, "ID and app of the child")
	_, err := c.client.FetchWorkflowMetadata(s, childID)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "the child, looked for here: %v", err)
	return byRoute
}

// --- inputs ---

func Show(ctx workflow.ActivityContext) (any, error) {
	var input json.RawMessage
	if err := ctx.GetInput(&input); err != nil {
		return nil, err
	}
	return stage.Show(input)
}

// Inputs gives an activity there, by a route, each kind of input, and at last none.
func Inputs(ctx *workflow.WorkflowContext) (any, error) {
	var text string
	var shown []string
	for _, input := range stage.Inputs {
		if err := ctx.CallActivity(Show, workflow.ActivityInput(input)).Await(&text); err != nil {
			return nil, err
		}
		shown = append(shown, text)
	}
	err := ctx.CallActivity(Show).Await(&text)
	return append(shown, text), err
}

func (c *caller) inputs(s *stage.Stage) string {
	var shown []string
	c.output(s, c.schedule(s, "Inputs"), &shown)
	s.Equal(shown, stage.Shown, "what the activity was given")
	return byRoute
}

// --- reuse, missing ---

func (c *caller) reuse(s *stage.Stage) string {
	id := c.running(s, "Waiting")
	_, err := c.client.ScheduleNewWorkflow(s, "Hello", workflow.WithInstanceID(id))
	s.Equal(status.Code(err), codes.AlreadyExists, "code")
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusRunning, "status of the first")
	s.OK(c.client.TerminateWorkflow(s, id), "terminate")
	return ""
}

func (c *caller) missing(s *stage.Stage) string {
	id := stage.NewID("missing")
	_, err := c.client.FetchWorkflowMetadata(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch: %v", err)
	s.Equal(status.Code(c.client.RaiseEvent(s, id, "event")), codes.NotFound, "code of raise")
	s.Equal(status.Code(c.client.SuspendWorkflow(s, id, "")), codes.NotFound, "code of suspend")
	s.Equal(status.Code(c.client.ResumeWorkflow(s, id, "")), codes.NotFound, "code of resume")
	s.Equal(status.Code(c.client.TerminateWorkflow(s, id)), codes.NotFound, "code of terminate")
	return ""
}

// --- early-wait ---

func (c *caller) earlyWait(s *stage.Stage) string {
	id := stage.NewID("early")
	s.Early(
		func() error { _, err := c.client.WaitForWorkflowCompletion(s, id); return err },
		func() error {
			_, err := c.client.ScheduleNewWorkflow(s, "Hello", workflow.WithInstanceID(id), workflow.WithInput("early"))
			return err
		},
	)
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusCompleted, "status after the wait")
	return ""
}

// --- graceful-stop ---

func Linger(workflow.ActivityContext) (any, error) {
	time.Sleep(stage.LingerTime)
	return "done", nil
}

func Lingering(ctx *workflow.WorkflowContext) (any, error) {
	var done string
	err := ctx.CallActivity(Linger).Await(&done)
	return done, err
}

func (c *caller) gracefulStop(s *stage.Stage) string {
	id := c.schedule(s, "Lingering")
	s.Eventually("it has ended", func() bool {
		metadata, err := c.client.FetchWorkflowMetadata(s, id)
		return err == nil && metadata.RuntimeStatus == workflow.StatusCompleted && metadata.SerializedOutput == `"done"`
	})
	return ""
}

// --- scheduled-start ---

func (c *caller) scheduledStart(s *stage.Stage) string {
	startAt := time.Now().Add(1500 * time.Millisecond)
	id := c.schedule(s, "Hello", workflow.WithInput("later"), workflow.WithStartTime(startAt))
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusPending, "status at once")
	time.Sleep(700 * time.Millisecond)
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusPending, "status after 0.7 s")
	var output string
	c.output(s, id, &output)
	s.Equal(output, "Hello, later!", "output")
	s.Check(!time.Now().Before(startAt), "not before the time")
	return ""
}
