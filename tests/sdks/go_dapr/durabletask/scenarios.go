package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/task"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tests.sdks/go_shared/stage"
)

func scenarios(client *workflow.Client, registry *workflow.Registry, restart func()) stage.Programme {
	c := &caller{client, registry, restart}
	programme := stage.Programme{
		Scenarios: map[string]stage.Scenario{
			"hello":           c.hello,
			"chain":           c.chain,
			"fan-out":         c.fanOut,
			"fan-in":          c.fanIn,
			"retry":           c.retry,
			"timer":           c.timer,
			"event":           c.event,
			"child":           c.child,
			"continue-as-new": c.continueAsNew,
			"suspend-resume":  c.suspendResume,
			"terminate":       c.terminate,
			"purge":           c.purge,
			"failure-details": c.failureDetails,
			"custom-status":   c.customStatus,
			"payload":         c.payload,
			"remote-activity": c.remoteActivity,
			"inputs":          c.inputs,
			"remote-child":    c.remoteChild,
			"reuse":           c.reuse,
			"missing":         c.missing,
			"list-ids":        c.listIDs,
			"history":         c.history,
			"rerun":           c.rerun,
			"scheduled-start": c.scheduledStart,
			"version":         c.version,
			"patch":           c.patch,
			"early-wait":      c.earlyWait,
			"execution-id":    c.executionID,
			"clear-status":    c.clearStatus,
			"graceful-stop":   c.gracefulStop,
		},
		NotOffered: map[string]string{
			"query":           "the client has no query",
			"purge-by-filter": "PurgeWorkflowState takes one ID",
			"restart":         "the client has no restart",
			"rewind":          "the client has no rewind",
			"tags":            "ScheduleWorkflow has no tags",
			"entity":          "Dapr's workflows have no entities",
			"entity-query":    "Dapr's workflows have no entities",
			"reuse-never":     "ScheduleWorkflow has no reuse policy",
			"restart-running": "the client has no restart",
			"strict-version":  "the worker has no version rules",
		},
	}
	newer(c, programme)
	return programme
}

// The client of the scenarios.
type caller struct {
	client   *workflow.Client
	registry *workflow.Registry
	restart  func() // the worker, anew
}

func (c *caller) schedule(s *stage.Stage, name string, options ...workflow.NewWorkflowOptions) string {
	options = append([]workflow.NewWorkflowOptions{workflow.WithInstanceID(stage.NewID(name))}, options...)
	id, err := c.client.ScheduleWorkflow(s, name, options...)
	s.OK(err, "schedule "+name)
	return id
}

// running schedules a workflow and waits until it runs.
func (c *caller) running(s *stage.Stage, name string, options ...workflow.NewWorkflowOptions) string {
	id := c.schedule(s, name, options...)
	_, err := c.client.WaitForWorkflowStart(s, id)
	s.OK(err, "wait for the start of "+name)
	return id
}

func (c *caller) ended(s *stage.Stage, id string) *workflow.WorkflowMetadata {
	metadata, err := c.client.WaitForWorkflowCompletion(s, id)
	s.OK(err, "wait for completion")
	return metadata
}

// output reads the output of a workflow that must complete.
func (c *caller) output(s *stage.Stage, id string, output any) {
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, workflow.StatusCompleted, "status")
	s.OK(json.Unmarshal([]byte(metadata.Output.GetValue()), output), "output")
}

func (c *caller) state(s *stage.Stage, id string) *workflow.WorkflowMetadata {
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
	err := ctx.CallActivity(Greet, workflow.WithActivityInput(name)).Await(&greeting)
	return greeting, err
}

func (c *caller) hello(s *stage.Stage) string {
	before := time.Now()
	id := c.schedule(s, "Hello", workflow.WithInput("Tokyo"))
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, workflow.StatusCompleted, "status")
	s.Equal(metadata.InstanceId, id, "ID")
	s.Equal(metadata.Name, "Hello", "name")
	s.Equal(metadata.Input.GetValue(), `"Tokyo"`, "input")
	s.Equal(metadata.Output.GetValue(), `"Hello, Tokyo!"`, "output")
	s.Check(metadata.CreatedAt.AsTime().After(before.Add(-time.Second)), "created at %v", metadata.CreatedAt.AsTime())
	updatedAt := metadata.LastUpdatedAt.AsTime()
	s.Check(!updatedAt.Before(metadata.CreatedAt.AsTime()), "updated at %v", updatedAt)

	bare, err := c.client.FetchWorkflowMetadata(s, id, workflow.WithFetchPayloads(false))
	s.OK(err, "fetch without payloads")
	s.Equal(bare.Input.GetValue()+bare.Output.GetValue(), "", "payloads that were not asked for")
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
		if err := ctx.CallActivity(AddOne, workflow.WithActivityInput(number)).Await(&number); err != nil {
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
	tasks := make([]workflow.Task, count)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Square, workflow.WithActivityInput(i))
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
	tasks := make([]workflow.Task, 60)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Fill, workflow.WithActivityInput(length))
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

// --- retry ---

var (
	attempts     = map[string]int{}
	executions   = map[string][]string{} // the IDs of their task executions
	attemptsLock sync.Mutex
)

type shakyInput struct {
	Key      string
	Failures int
}

func Shaky(ctx workflow.ActivityContext) (any, error) {
	var input shakyInput
	if err := ctx.GetInput(&input); err != nil {
		return nil, err
	}
	attemptsLock.Lock()
	defer attemptsLock.Unlock()
	attempts[input.Key]++
	executions[input.Key] = append(executions[input.Key], ctx.GetTaskExecutionID())
	if attempt := attempts[input.Key]; attempt <= input.Failures {
		return nil, fmt.Errorf("attempt %d", attempt)
	}
	return attempts[input.Key], nil
}

func Retry(ctx *workflow.WorkflowContext) (any, error) {
	var failures, attempt int
	if err := ctx.GetInput(&failures); err != nil {
		return nil, err
	}
	policy := &workflow.RetryPolicy{MaxAttempts: 3, InitialRetryInterval: 100 * time.Millisecond, BackoffCoefficient: 2}
	err := ctx.CallActivity(Shaky,
		workflow.WithActivityInput(shakyInput{ctx.ID(), failures}),
		workflow.WithActivityRetryPolicy(policy),
	).Await(&attempt)
	return attempt, err
}

func (c *caller) retry(s *stage.Stage) string {
	var attempt int
	c.output(s, c.schedule(s, "Retry", workflow.WithInput(2)), &attempt)
	s.Equal(attempt, 3, "attempt that succeeded")
	tooOften := c.ended(s, c.schedule(s, "Retry", workflow.WithInput(9)))
	s.Equal(tooOften.RuntimeStatus, workflow.StatusFailed, "status after three failures")
	s.Equal(attempts[tooOften.InstanceId], 3, "attempts")
	return ""
}

// --- execution-id ---

func (c *caller) executionID(s *stage.Stage) string {
	var found []string
	for range 2 {
		var attempt int
		id := c.schedule(s, "Retry", workflow.WithInput(2))
		c.output(s, id, &attempt)
		attemptsLock.Lock()
		ids := executions[id]
		attemptsLock.Unlock()
		s.Equal(len(ids), 3, "attempts")
		s.Check(ids[0] != "" && ids[0] == ids[1] && ids[1] == ids[2], "IDs of three attempts: %q", ids)
		found = append(found, ids[0])
	}
	s.Check(found[0] != found[1], "two calls have the same ID %s", found[0])
	return ""
}

// --- timer ---

func Timer(ctx *workflow.WorkflowContext) (any, error) {
	start := ctx.CurrentTimeUTC()
	if err := ctx.CreateTimer(time.Second, workflow.WithTimerName("a second")).Await(nil); err != nil {
		return nil, err
	}
	return ctx.CurrentTimeUTC().Sub(start), nil
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
	result := childResult{ID: ctx.ID()}
	var number int
	if err := ctx.GetInput(&number); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(AddOne, workflow.WithActivityInput(number)).Await(&result.Result)
	return result, err
}

func Parent(ctx *workflow.WorkflowContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	tasks := []workflow.Task{
		ctx.CallChildWorkflow(Child, workflow.WithChildWorkflowInput(1), workflow.WithChildWorkflowInstanceID(childID)),
		ctx.CallChildWorkflow(Child, workflow.WithChildWorkflowInput(2)),
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
		s.Equal(child.ParentInstanceId, id, "parent of child "+result.ID)
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
		ctx.ContinueAsNew(result.Count+1, workflow.WithKeepUnprocessedEvents())
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
	return nil, ctx.CallChildWorkflow(Waiting, workflow.WithChildWorkflowInstanceID(childID)).Await(nil)
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
	err := c.client.TerminateWorkflow(s, id, workflow.WithOutput("enough"), workflow.WithRecursiveTerminate(true))
	s.OK(err, "terminate")
	parent := c.ended(s, id)
	s.Equal(parent.RuntimeStatus, workflow.StatusTerminated, "status")
	s.Equal(parent.Output.GetValue(), `"enough"`, "output")
	s.Equal(c.ended(s, childID).RuntimeStatus, workflow.StatusTerminated, "status of the child")

	other := stage.NewID("spared-child")
	id = c.schedule(s, "WaitingParent", workflow.WithInput(other))
	s.Until("the other child runs", func() bool {
		child, err := c.client.FetchWorkflowMetadata(s, other)
		return err == nil && child.RuntimeStatus == workflow.StatusRunning
	})
	s.OK(c.client.TerminateWorkflow(s, id, workflow.WithRecursiveTerminate(false)), "terminate the parent alone")
	s.Equal(c.ended(s, id).RuntimeStatus, workflow.StatusTerminated, "status of the parent")
	s.Equal(c.state(s, other).RuntimeStatus, workflow.StatusRunning, "status of the child that was spared")
	s.OK(c.client.TerminateWorkflow(s, other), "terminate the child")
	return ""
}

func (c *caller) purge(s *stage.Stage) string {
	id := c.schedule(s, "Hello", workflow.WithInput("purge"))
	c.ended(s, id)
	s.OK(c.client.PurgeWorkflowState(s, id), "purge")
	_, err := c.client.FetchWorkflowMetadata(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch after the purge: %v", err)
	err = c.client.PurgeWorkflowState(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "second purge: %v", err)

	childID := stage.NewID("purged-child")
	id = c.schedule(s, "Parent", workflow.WithInput(childID))
	c.ended(s, id)
	s.OK(c.client.PurgeWorkflowState(s, id, workflow.WithRecursivePurge(true)), "purge with children")
	_, err = c.client.FetchWorkflowMetadata(s, childID)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch of the child after the purge: %v", err)
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

type orderFailed struct{ cause error }

func (e orderFailed) Error() string { return "order failed: " + e.cause.Error() }

func Paying(ctx *workflow.WorkflowContext) (any, error) {
	err := ctx.CallActivity(Declining, workflow.WithActivityInput("4711")).Await(nil)
	return nil, orderFailed{err}
}

func PayingCarefully(ctx *workflow.WorkflowContext) (any, error) {
	err := ctx.CallActivity(Declining, workflow.WithActivityInput("4711")).Await(nil)
	return fmt.Sprint(err), nil
}

func (c *caller) failureDetails(s *stage.Stage) string {
	const seenByWorkflow = "task failed with an error: no money on 4711"
	var seen string
	c.output(s, c.schedule(s, "PayingCarefully"), &seen)
	s.Equal(seen, seenByWorkflow, "what the workflow sees")
	metadata := c.ended(s, c.schedule(s, "Paying"))
	s.Equal(metadata.RuntimeStatus, workflow.StatusFailed, "status")
	s.Equal(metadata.FailureDetails.GetErrorType(), "main.orderFailed", "type that the client sees")
	s.Equal(metadata.FailureDetails.GetErrorMessage(), "order failed: "+seenByWorkflow, "message that the client sees")
	return "the SDK shows no error type to the workflow"
}

// --- custom-status ---

func Reporting(ctx *workflow.WorkflowContext) (any, error) {
	ctx.SetCustomStatus("half done")
	if err := ctx.WaitForExternalEvent("on", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("all done")
	return nil, nil
}

func (c *caller) customStatus(s *stage.Stage) string {
	id := c.schedule(s, "Reporting")
	s.Until("half done", func() bool { return c.state(s, id).CustomStatus.GetValue() == "half done" })
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusRunning, "status while half done")
	c.raise(s, id, "on", nil)
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, workflow.StatusCompleted, "status")
	s.Equal(metadata.CustomStatus.GetValue(), "all done", "custom status at the end")
	return ""
}

// --- clear-status ---

// Clearing has a status, clears it, has one again, and goes on as a new execution without.
func Clearing(ctx *workflow.WorkflowContext) (any, error) {
	var round int
	if err := ctx.GetInput(&round); err != nil {
		return nil, err
	}
	if round == 2 {
		return nil, ctx.WaitForExternalEvent("end", -1).Await(nil)
	}
	ctx.SetCustomStatus("busy")
	if err := ctx.WaitForExternalEvent("clear", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("")
	if err := ctx.WaitForExternalEvent("again", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("busy again")
	if err := ctx.WaitForExternalEvent("continue", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.ContinueAsNew(2)
	return nil, nil
}

func (c *caller) clearStatus(s *stage.Stage) string {
	id := c.schedule(s, "Clearing", workflow.WithInput(1))
	seen := func(status string) {
		s.Until("status '"+status+"'", func() bool { return c.state(s, id).CustomStatus.GetValue() == status })
	}
	seen("busy")
	c.raise(s, id, "clear", nil)
	seen("")
	c.raise(s, id, "again", nil)
	seen("busy again")
	c.raise(s, id, "continue", nil)
	seen("")
	c.raise(s, id, "end", nil)
	s.Equal(c.ended(s, id).RuntimeStatus, workflow.StatusCompleted, "status")
	return ""
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
	err := ctx.CallActivity(Echo, workflow.WithActivityInput(value)).Await(&value)
	return value, err
}

func (c *caller) payload(s *stage.Stage) string {
	const unit = "Grüße 世界 🙂\n"
	text := strings.Repeat(unit, 1<<20/len(unit)+1)
	id := c.schedule(s, "Echoing", workflow.WithInput(text))
	var input, output string
	c.output(s, id, &output)
	s.Check(output == text, "the output is the input")
	s.OK(json.Unmarshal([]byte(c.state(s, id).Input.GetValue()), &input), "input")
	s.Check(input == text, "the input is kept")
	return ""
}

// --- other apps ---

func Where(workflow.ActivityContext) (any, error) {
	return os.Getenv("APP_ID"), nil
}

func RemoteActivity(ctx *workflow.WorkflowContext) (any, error) {
	var here, there string
	if err := ctx.CallActivity(Where).Await(&here); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Where, workflow.WithActivityAppID(os.Getenv("OTHER_APP"))).Await(&there)
	return []string{here, there}, err
}

func RemoteChild(ctx *workflow.WorkflowContext) (any, error) {
	var there string
	err := ctx.CallChildWorkflow(Whereabouts,
		workflow.WithChildWorkflowInput("child"),
		workflow.WithChildWorkflowAppID(os.Getenv("OTHER_APP")),
	).Await(&there)
	return there, err
}

func Whereabouts(ctx *workflow.WorkflowContext) (any, error) {
	var who, where string
	if err := ctx.GetInput(&who); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Where).Await(&where)
	return who + " in " + where, err
}

func (c *caller) remoteActivity(s *stage.Stage) string {
	var output []string
	c.output(s, c.schedule(s, "RemoteActivity"), &output)
	s.Equal(output, []string{os.Getenv("APP_ID"), os.Getenv("OTHER_APP")}, "apps that the activities ran in")
	return ""
}

func (c *caller) remoteChild(s *stage.Stage) string {
	var output string
	c.output(s, c.schedule(s, "RemoteChild"), &output)
	s.Equal(output, "child in "+os.Getenv("OTHER_APP"), "output")
	return ""
}

// --- inputs ---

func Show(ctx workflow.ActivityContext) (any, error) {
	var input json.RawMessage
	if err := ctx.GetInput(&input); err != nil {
		return nil, err
	}
	return stage.Show(input)
}

// Inputs gives an activity there each kind of input, and at last none.
func Inputs(ctx *workflow.WorkflowContext) (any, error) {
	there := workflow.WithActivityAppID(os.Getenv("OTHER_APP"))
	var text string
	var shown []string
	for _, input := range stage.Inputs {
		if err := ctx.CallActivity(Show, workflow.WithActivityInput(input), there).Await(&text); err != nil {
			return nil, err
		}
		shown = append(shown, text)
	}
	err := ctx.CallActivity(Show, there).Await(&text)
	return append(shown, text), err
}

func (c *caller) inputs(s *stage.Stage) string {
	var shown []string
	c.output(s, c.schedule(s, "Inputs"), &shown)
	s.Equal(shown, stage.Shown, "what the activity was given")
	return ""
}

// --- reuse, missing ---

func (c *caller) reuse(s *stage.Stage) string {
	id := c.running(s, "Waiting")
	_, err := c.client.ScheduleWorkflow(s, "Hello", workflow.WithInstanceID(id))
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
			_, err := c.client.ScheduleWorkflow(s, "Hello", workflow.WithInstanceID(id), workflow.WithInput("early"))
			return err
		},
	)
	s.Equal(c.state(s, id).RuntimeStatus, workflow.StatusCompleted, "status after the wait")
	return ""
}

// --- graceful-stop ---

func Linger(ctx workflow.ActivityContext) (any, error) {
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
		return err == nil && metadata.RuntimeStatus == workflow.StatusCompleted && metadata.Output.GetValue() == `"done"`
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

// --- list-ids, history, rerun ---

func (c *caller) listIDs(s *stage.Stage) string {
	var expected []string
	for range 3 {
		expected = append(expected, c.running(s, "Waiting"))
	}
	for range 2 {
		id := c.schedule(s, "Hello", workflow.WithInput("list"))
		c.ended(s, id)
		expected = append(expected, id)
	}
	found := map[string]int{}
	options := []workflow.ListInstanceIDsOptions{workflow.WithListInstanceIDsPageSize(2)}
	for {
		page, err := c.client.ListInstanceIDs(s, options...)
		s.OK(err, "list")
		s.Check(len(page.InstanceIds) <= 2, "a page of %d IDs", len(page.InstanceIds))
		for _, id := range page.InstanceIds {
			found[id]++
		}
		if page.ContinuationToken == nil {
			break
		}
		options = append(options[:1], workflow.WithListInstanceIDsContinuationToken(*page.ContinuationToken))
	}
	for _, id := range expected {
		s.Equal(found[id], 1, "how often the list has "+id)
	}
	for _, id := range expected[:3] {
		s.OK(c.client.TerminateWorkflow(s, id), "terminate")
	}
	return ""
}

func (c *caller) history(s *stage.Stage) string {
	id := c.schedule(s, "Hello", workflow.WithInput("history"))
	c.ended(s, id)
	history, err := c.client.GetInstanceHistory(s, id)
	s.OK(err, "history")
	var seen []string
	for _, event := range history.Events {
		switch {
		case event.GetExecutionStarted() != nil:
			started := event.GetExecutionStarted()
			seen = append(seen, "started "+started.GetName()+" with "+started.GetInput().GetValue())
		case event.GetTaskScheduled() != nil:
			s.Equal(event.GetEventId(), int32(0), "ID of the call")
			scheduled := event.GetTaskScheduled()
			seen = append(seen, "calls "+scheduled.GetName()+" with "+scheduled.GetInput().GetValue())
		case event.GetTaskCompleted() != nil:
			s.Equal(event.GetTaskCompleted().GetTaskScheduledId(), int32(0), "call that the result is for")
			seen = append(seen, "result "+event.GetTaskCompleted().GetResult().GetValue())
		case event.GetExecutionCompleted() != nil:
			seen = append(seen, "completed with "+event.GetExecutionCompleted().GetResult().GetValue())
		}
	}
	s.Equal(seen, []string{
		`started Hello with "history"`, `calls Greet with "history"`, `result "Hello, history!"`,
		`completed with "Hello, history!"`,
	}, "events")
	_, err = c.client.GetInstanceHistory(s, stage.NewID("missing"))
	s.Equal(status.Code(err), codes.NotFound, "code of a history that does not exist")
	return ""
}

func Buying(ctx *workflow.WorkflowContext) (any, error) {
	var first, second int
	if err := ctx.CallActivity(Square, workflow.WithActivityInput(3)).Await(&first); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(AddOne, workflow.WithActivityInput(first)).Await(&second)
	return []int{first, second}, err
}

func (c *caller) rerun(s *stage.Stage) string {
	var output []int
	id := c.schedule(s, "Buying")
	c.output(s, id, &output)
	s.Equal(output, []int{9, 10}, "output of the first run")

	const secondCall = 1
	newOne := stage.NewID("rerun")
	given, err := c.client.RerunWorkflowFromEvent(s, id, secondCall,
		workflow.WithRerunNewInstanceID(newOne), workflow.WithRerunInput(40))
	s.OK(err, "rerun with another input")
	s.Equal(given, newOne, "ID of the rerun")
	c.output(s, newOne, &output)
	s.Equal(output, []int{9, 41}, "output of the rerun with another input")

	given, err = c.client.RerunWorkflowFromEvent(s, id, secondCall)
	s.OK(err, "rerun with the same input")
	s.Check(given != "" && given != id && given != newOne, "the sidecar chose the ID %q", given)
	c.output(s, given, &output)
	s.Equal(output, []int{9, 10}, "output of the rerun with the same input")

	_, err = c.client.RerunWorkflowFromEvent(s, stage.NewID("missing"), secondCall)
	s.Equal(status.Code(err), codes.NotFound, "code for an instance that does not exist")
	_, err = c.client.RerunWorkflowFromEvent(s, id, secondCall, workflow.WithRerunNewInstanceID(newOne))
	s.Equal(status.Code(err), codes.AlreadyExists, "code for a new ID that is taken")
	_, err = c.client.RerunWorkflowFromEvent(s, id, 99)
	s.Equal(status.Code(err), codes.NotFound, "code for an event that does not exist")
	running := c.running(s, "Waiting")
	_, err = c.client.RerunWorkflowFromEvent(s, running, 0)
	s.Equal(status.Code(err), codes.InvalidArgument, "code for an instance that runs")
	s.OK(c.client.TerminateWorkflow(s, running), "terminate")
	return ""
}

// --- version, patch ---

func versionedAs(version string) workflow.Workflow {
	return func(ctx *workflow.WorkflowContext) (any, error) {
		var end string
		err := ctx.WaitForExternalEvent("end", -1).Await(&end)
		return version, err
	}
}

func (c *caller) version(s *stage.Stage) string {
	ends := func(id, version string) {
		c.raise(s, id, "end", "now")
		var output string
		c.output(s, id, &output)
		s.Equal(output, version, "version that ended "+id)
	}
	old := c.running(s, "Versioned")
	other := c.running(s, "Versioned")
	ends(other, "v1")
	s.OK(c.registry.AddVersionedWorkflowN("Versioned", "v2", true, versionedAs("v2")), "deploy v2")
	ends(c.running(s, "Versioned"), "v2")
	ends(old, "v1")
	return "the client cannot ask for a version, the worker's newest is taken"
}

var patchDeployed atomic.Bool

func Shout(ctx workflow.ActivityContext) (any, error) {
	var name string
	err := ctx.GetInput(&name)
	return strings.ToUpper(name), err
}

// Patched greets; once the patch is deployed, it shouts.
func Patched(ctx *workflow.WorkflowContext) (any, error) {
	activity := workflow.Activity(Greet)
	if patchDeployed.Load() && ctx.IsPatched("shout") {
		activity = Shout
	}
	var said string
	if err := ctx.CallActivity(activity, workflow.WithActivityInput("Ada")).Await(&said); err != nil {
		return nil, err
	}
	err := ctx.WaitForExternalEvent("end", -1).Await(nil)
	return said, err
}

func (c *caller) patch(s *stage.Stage) string {
	called := func(id string) func() bool {
		return func() bool {
			history, err := c.client.GetInstanceHistory(s, id)
			s.OK(err, "history")
			for _, event := range history.Events {
				if event.GetTaskCompleted() != nil {
					return true
				}
			}
			return false
		}
	}
	ends := func(id, expected string) {
		c.raise(s, id, "end", nil)
		var output string
		c.output(s, id, &output)
		s.Equal(output, expected, "output of "+id)
	}
	before := c.schedule(s, "Patched")
	s.Until("the activity has run", called(before))
	patchDeployed.Store(true)
	after := c.schedule(s, "Patched")
	s.Until("the patched activity has run", called(after))
	ends(before, "Hello, Ada!")
	ends(after, "ADA")

	patches := func(id string) (recorded []string) {
		history, err := c.client.GetInstanceHistory(s, id)
		s.OK(err, "history")
		for _, event := range history.Events {
			recorded = append(recorded, event.GetWorkflowStarted().GetVersion().GetPatches()...)
		}
		return recorded
	}
	s.Equal(len(patches(before)), 0, "patches of what started before")
	s.Check(slices.Contains(patches(after), "shout"), "patches of what started after: %v", patches(after))
	return ""
}
