package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tests.sdks/go_shared/stage"
)

func scenarios(hub *client.TaskHubGrpcClient) stage.Programme {
	c := &caller{hub}
	return stage.Programme{
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
			"scheduled-start": c.scheduledStart,
			"early-wait":      c.earlyWait,
			"clear-status":    c.clearStatus,
			"graceful-stop":   c.gracefulStop,
		},
		NotOffered: map[string]string{
			"query":           "the client has no query",
			"list-ids":        "the client has no list of IDs",
			"purge-by-filter": "PurgeOrchestrationState takes one ID",
			"history":         "the client has no history",
			"restart":         "the client has no restart",
			"rewind":          "the client has no rewind",
			"rerun":           "the client has no rerun",
			"tags":            "ScheduleNewOrchestration has no tags",
			"version":         "ScheduleNewOrchestration has no version",
			"entity":          "the SDK has no entities",
			"entity-query":    "the SDK has no entities",
			"detached":        "an orchestration can start others only as its children",
			"patch":           "the SDK has no patches",
			"remote-client":   "the client cannot name an app",
			"execution-id":    "activities have no execution ID",
			"reuse-never":     "its policies say what happens to which statuses",
			"restart-running": "the client has no restart",
			"strict-version":  "the worker has no version rules",
			"long-history":    "this SDK takes no history above 4 MiB",
		},
	}
}

const byRoute = "by a route of the sidecar: no call names an app"

// The client of the scenarios.
type caller struct {
	hub *client.TaskHubGrpcClient
}

func (c *caller) schedule(s *stage.Stage, orchestrator string, options ...api.NewOrchestrationOptions) api.InstanceID {
	withID := api.WithInstanceID(api.InstanceID(stage.NewID(orchestrator)))
	options = append([]api.NewOrchestrationOptions{withID}, options...)
	id, err := c.hub.ScheduleNewOrchestration(s, orchestrator, options...)
	s.OK(err, "schedule "+orchestrator)
	return id
}

// running schedules an orchestration and waits until it runs.
func (c *caller) running(s *stage.Stage, orchestrator string, options ...api.NewOrchestrationOptions) api.InstanceID {
	id := c.schedule(s, orchestrator, options...)
	_, err := c.hub.WaitForOrchestrationStart(s, id)
	s.OK(err, "wait for the start of "+orchestrator)
	return id
}

func (c *caller) ended(s *stage.Stage, id api.InstanceID) *api.OrchestrationMetadata {
	metadata, err := c.hub.WaitForOrchestrationCompletion(s, id)
	s.OK(err, "wait for completion")
	return metadata
}

// output reads the output of an orchestration that must complete.
func (c *caller) output(s *stage.Stage, id api.InstanceID, output any) {
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status")
	s.OK(json.Unmarshal([]byte(metadata.SerializedOutput), output), "output")
}

func (c *caller) state(s *stage.Stage, id api.InstanceID) *api.OrchestrationMetadata {
	metadata, err := c.hub.FetchOrchestrationMetadata(s, id)
	s.OK(err, "fetch metadata")
	return metadata
}

func (c *caller) raise(s *stage.Stage, id api.InstanceID, event string, payload any) {
	s.OK(c.hub.RaiseEvent(s, id, event, api.WithEventPayload(payload)), "raise "+event)
}

// --- hello ---

func Greet(ctx task.ActivityContext) (any, error) {
	var name string
	if err := ctx.GetInput(&name); err != nil {
		return nil, err
	}
	return fmt.Sprintf("Hello, %s!", name), nil
}

func Hello(ctx *task.OrchestrationContext) (any, error) {
	var name, greeting string
	if err := ctx.GetInput(&name); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Greet, task.WithActivityInput(name)).Await(&greeting)
	return greeting, err
}

func (c *caller) hello(s *stage.Stage) string {
	before := time.Now()
	id := c.schedule(s, "Hello", api.WithInput("Tokyo"))
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status")
	s.Equal(metadata.InstanceID, id, "ID")
	s.Equal(metadata.Name, "Hello", "name")
	s.Equal(metadata.SerializedInput, `"Tokyo"`, "input")
	s.Equal(metadata.SerializedOutput, `"Hello, Tokyo!"`, "output")
	s.Check(metadata.CreatedAt.After(before.Add(-time.Second)), "created at %v", metadata.CreatedAt)
	s.Check(!metadata.LastUpdatedAt.Before(metadata.CreatedAt), "updated at %v", metadata.LastUpdatedAt)

	bare, err := c.hub.FetchOrchestrationMetadata(s, id, api.WithFetchPayloads(false))
	s.OK(err, "fetch without payloads")
	s.Equal(bare.SerializedInput+bare.SerializedOutput, "", "payloads that were not asked for")
	return ""
}

// --- chain, fan-out ---

func AddOne(ctx task.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number + 1, err
}

func Square(ctx task.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number * number, err
}

func Chain(ctx *task.OrchestrationContext) (any, error) {
	var number int
	if err := ctx.GetInput(&number); err != nil {
		return nil, err
	}
	for i := 0; i < 3; i++ {
		if err := ctx.CallActivity(AddOne, task.WithActivityInput(number)).Await(&number); err != nil {
			return nil, err
		}
	}
	return number, nil
}

func FanOut(ctx *task.OrchestrationContext) (any, error) {
	var count, sum int
	if err := ctx.GetInput(&count); err != nil {
		return nil, err
	}
	tasks := make([]task.Task, count)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Square, task.WithActivityInput(i))
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
	c.output(s, c.schedule(s, "Chain", api.WithInput(1)), &output)
	s.Equal(output, 4, "output")
	return ""
}

func (c *caller) fanOut(s *stage.Stage) string {
	var output int
	c.output(s, c.schedule(s, "FanOut", api.WithInput(50)), &output)
	s.Equal(output, 40425, "output")
	return ""
}

// --- fan-in ---

func Fill(ctx task.ActivityContext) (any, error) {
	var length int
	err := ctx.GetInput(&length)
	return strings.Repeat("x", length), err
}

func FanIn(ctx *task.OrchestrationContext) (any, error) {
	var length, sum int
	if err := ctx.GetInput(&length); err != nil {
		return nil, err
	}
	tasks := make([]task.Task, 60)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Fill, task.WithActivityInput(length))
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
	c.output(s, c.schedule(s, "FanIn", api.WithInput(150_000)), &output)
	s.Equal(output, 9_000_000, "characters")
	return ""
}

// --- retry ---

var (
	attempts     = map[string]int{}
	attemptsLock sync.Mutex
)

type shakyInput struct {
	Key      string
	Failures int
}

func Shaky(ctx task.ActivityContext) (any, error) {
	var input shakyInput
	if err := ctx.GetInput(&input); err != nil {
		return nil, err
	}
	attemptsLock.Lock()
	defer attemptsLock.Unlock()
	attempts[input.Key]++
	if attempt := attempts[input.Key]; attempt <= input.Failures {
		return nil, fmt.Errorf("attempt %d", attempt)
	}
	return attempts[input.Key], nil
}

func Retry(ctx *task.OrchestrationContext) (any, error) {
	var failures, attempt int
	if err := ctx.GetInput(&failures); err != nil {
		return nil, err
	}
	policy := &task.RetryPolicy{MaxAttempts: 3, InitialRetryInterval: 100 * time.Millisecond, BackoffCoefficient: 2}
	err := ctx.CallActivity(Shaky,
		task.WithActivityInput(shakyInput{string(ctx.ID), failures}),
		task.WithActivityRetryPolicy(policy),
	).Await(&attempt)
	return attempt, err
}

func (c *caller) retry(s *stage.Stage) string {
	var attempt int
	c.output(s, c.schedule(s, "Retry", api.WithInput(2)), &attempt)
	s.Equal(attempt, 3, "attempt that succeeded")
	tooOften := c.ended(s, c.schedule(s, "Retry", api.WithInput(9)))
	s.Equal(tooOften.RuntimeStatus, api.RUNTIME_STATUS_FAILED, "status after three failures")
	s.Equal(attempts[string(tooOften.InstanceID)], 3, "attempts")
	return ""
}

// --- timer ---

func Timer(ctx *task.OrchestrationContext) (any, error) {
	start := ctx.CurrentTimeUtc
	if err := ctx.CreateTimer(time.Second).Await(nil); err != nil {
		return nil, err
	}
	return ctx.CurrentTimeUtc.Sub(start), nil
}

func (c *caller) timer(s *stage.Stage) string {
	start := time.Now()
	var moved time.Duration
	c.output(s, c.schedule(s, "Timer"), &moved)
	s.Check(time.Since(start) >= time.Second, "the timer fired after %v", time.Since(start))
	s.Check(moved >= time.Second, "the orchestration's clock moved by %v", moved)
	return ""
}

// --- event ---

type approval struct {
	By     string
	Amount int
}

func Event(ctx *task.OrchestrationContext) (any, error) {
	var got approval
	if err := ctx.WaitForSingleEvent("approval", -1).Await(&got); err != nil {
		return nil, err
	}
	err := ctx.WaitForSingleEvent("never", 300*time.Millisecond).Await(nil)
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

func Child(ctx *task.OrchestrationContext) (any, error) {
	result := childResult{ID: string(ctx.ID)}
	var number int
	if err := ctx.GetInput(&number); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(AddOne, task.WithActivityInput(number)).Await(&result.Result)
	return result, err
}

func Parent(ctx *task.OrchestrationContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	tasks := []task.Task{
		ctx.CallSubOrchestrator(Child, task.WithSubOrchestratorInput(1), task.WithSubOrchestrationInstanceID(childID)),
		ctx.CallSubOrchestrator(Child, task.WithSubOrchestratorInput(2)),
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
	id := c.schedule(s, "Parent", api.WithInput(childID))
	var results []childResult
	c.output(s, id, &results)
	s.Equal(results[0], childResult{childID, 2}, "the named child")
	s.Equal(results[1].Result, 3, "result of the unnamed child")
	s.Check(results[1].ID != "" && results[1].ID != childID, "ID of the unnamed child: %q", results[1].ID)
	for _, result := range results {
		child := c.state(s, api.InstanceID(result.ID))
		s.Equal(child.RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status of child "+result.ID)
	}
	return ""
}

// --- continue-as-new ---

type countResult struct {
	Count int
	Kept  string
}

func Counting(ctx *task.OrchestrationContext) (any, error) {
	var result countResult
	if err := ctx.GetInput(&result.Count); err != nil {
		return nil, err
	}
	if result.Count == 1 {
		if err := ctx.WaitForSingleEvent("go", -1).Await(nil); err != nil {
			return nil, err
		}
	}
	if result.Count < 5 {
		ctx.ContinueAsNew(result.Count+1, task.WithKeepUnprocessedEvents())
		return nil, nil
	}
	err := ctx.WaitForSingleEvent("kept", -1).Await(&result.Kept)
	return result, err
}

func (c *caller) continueAsNew(s *stage.Stage) string {
	id := c.schedule(s, "Counting", api.WithInput(1))
	c.raise(s, id, "kept", "since the first execution")
	c.raise(s, id, "go", nil)
	var result countResult
	c.output(s, id, &result)
	s.Equal(result, countResult{5, "since the first execution"}, "output")
	return ""
}

// --- suspend-resume, terminate, purge ---

func Waiting(ctx *task.OrchestrationContext) (any, error) {
	var payload string
	err := ctx.WaitForSingleEvent("end", -1).Await(&payload)
	return payload, err
}

func WaitingParent(ctx *task.OrchestrationContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	return nil, ctx.CallSubOrchestrator(Waiting, task.WithSubOrchestrationInstanceID(childID)).Await(nil)
}

func (c *caller) suspendResume(s *stage.Stage) string {
	id := c.running(s, "Waiting")
	s.OK(c.hub.SuspendOrchestration(s, id, "a break"), "suspend")
	suspended := func() bool { return c.state(s, id).RuntimeStatus == api.RUNTIME_STATUS_SUSPENDED }
	s.Until("SUSPENDED", suspended)
	c.raise(s, id, "end", "later")
	time.Sleep(500 * time.Millisecond)
	s.Check(suspended(), "still SUSPENDED after an event")
	s.OK(c.hub.ResumeOrchestration(s, id, "the break is over"), "resume")
	var output string
	c.output(s, id, &output)
	s.Equal(output, "later", "output")
	return ""
}

func (c *caller) terminate(s *stage.Stage) string {
	childID := api.InstanceID(stage.NewID("ended-child"))
	id := c.schedule(s, "WaitingParent", api.WithInput(childID))
	s.Until("the child runs", func() bool {
		child, err := c.hub.FetchOrchestrationMetadata(s, childID)
		return err == nil && child.RuntimeStatus == api.RUNTIME_STATUS_RUNNING
	})
	s.OK(c.hub.TerminateOrchestration(s, id, api.WithOutput("enough"), api.WithRecursiveTerminate(true)), "terminate")
	parent := c.ended(s, id)
	s.Equal(parent.RuntimeStatus, api.RUNTIME_STATUS_TERMINATED, "status")
	s.Equal(parent.SerializedOutput, `"enough"`, "output")
	s.Equal(c.ended(s, childID).RuntimeStatus, api.RUNTIME_STATUS_TERMINATED, "status of the child")

	other := api.InstanceID(stage.NewID("spared-child"))
	id = c.schedule(s, "WaitingParent", api.WithInput(other))
	s.Until("the other child runs", func() bool {
		child, err := c.hub.FetchOrchestrationMetadata(s, other)
		return err == nil && child.RuntimeStatus == api.RUNTIME_STATUS_RUNNING
	})
	s.OK(c.hub.TerminateOrchestration(s, id, api.WithRecursiveTerminate(false)), "terminate the parent alone")
	s.Equal(c.ended(s, id).RuntimeStatus, api.RUNTIME_STATUS_TERMINATED, "status of the parent")
	s.Equal(c.state(s, other).RuntimeStatus, api.RUNTIME_STATUS_RUNNING, "status of the child that was spared")
	s.OK(c.hub.TerminateOrchestration(s, other), "terminate the child")
	return ""
}

func (c *caller) purge(s *stage.Stage) string {
	id := c.schedule(s, "Hello", api.WithInput("purge"))
	c.ended(s, id)
	s.OK(c.hub.PurgeOrchestrationState(s, id), "purge")
	_, err := c.hub.FetchOrchestrationMetadata(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch after the purge: %v", err)
	err = c.hub.PurgeOrchestrationState(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "second purge: %v", err)
	return ""
}

// --- failure-details ---

type cardDeclined struct{ card string }

func (e cardDeclined) Error() string { return "no money on " + e.card }

func Declining(ctx task.ActivityContext) (any, error) {
	var card string
	if err := ctx.GetInput(&card); err != nil {
		return nil, err
	}
	return nil, cardDeclined{card}
}

func Paying(ctx *task.OrchestrationContext) (any, error) {
	return nil, ctx.CallActivity(Declining, task.WithActivityInput("4711")).Await(nil)
}

func PayingCarefully(ctx *task.OrchestrationContext) (any, error) {
	err := ctx.CallActivity(Declining, task.WithActivityInput("4711")).Await(nil)
	return fmt.Sprint(err), nil
}

func (c *caller) failureDetails(s *stage.Stage) string {
	var seen string
	c.output(s, c.schedule(s, "PayingCarefully"), &seen)
	s.Equal(seen, "task failed with an error: no money on 4711", "what the orchestration sees")
	s.Equal(c.ended(s, c.schedule(s, "Paying")).RuntimeStatus, api.RUNTIME_STATUS_FAILED, "status")
	return "the SDK shows no error type to the orchestration and no failure details to the client"
}

// --- custom-status ---

func Reporting(ctx *task.OrchestrationContext) (any, error) {
	ctx.SetCustomStatus("half done")
	if err := ctx.WaitForSingleEvent("on", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("all done")
	return nil, nil
}

func (c *caller) customStatus(s *stage.Stage) string {
	id := c.schedule(s, "Reporting")
	s.Until("half done", func() bool { return c.state(s, id).SerializedCustomStatus == "half done" })
	s.Equal(c.state(s, id).RuntimeStatus, api.RUNTIME_STATUS_RUNNING, "status while half done")
	c.raise(s, id, "on", nil)
	metadata := c.ended(s, id)
	s.Equal(metadata.RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status")
	s.Equal(metadata.SerializedCustomStatus, "all done", "custom status at the end")
	return ""
}

// --- clear-status ---

// Clearing has a status, clears it, has one again, and goes on as a new execution without.
func Clearing(ctx *task.OrchestrationContext) (any, error) {
	var round int
	if err := ctx.GetInput(&round); err != nil {
		return nil, err
	}
	if round == 2 {
		return nil, ctx.WaitForSingleEvent("end", -1).Await(nil)
	}
	ctx.SetCustomStatus("busy")
	if err := ctx.WaitForSingleEvent("clear", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("")
	if err := ctx.WaitForSingleEvent("again", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("busy again")
	if err := ctx.WaitForSingleEvent("continue", -1).Await(nil); err != nil {
		return nil, err
	}
	ctx.ContinueAsNew(2)
	return nil, nil
}

func (c *caller) clearStatus(s *stage.Stage) string {
	id := c.schedule(s, "Clearing", api.WithInput(1))
	seen := func(status string) {
		s.Until("status '"+status+"'", func() bool { return c.state(s, id).SerializedCustomStatus == status })
	}
	seen("busy")
	c.raise(s, id, "clear", nil)
	seen("")
	c.raise(s, id, "again", nil)
	seen("busy again")
	c.raise(s, id, "continue", nil)
	seen("")
	c.raise(s, id, "end", nil)
	s.Equal(c.ended(s, id).RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status")
	return ""
}

// --- payload ---

func Echo(ctx task.ActivityContext) (any, error) {
	var value string
	err := ctx.GetInput(&value)
	return value, err
}

func Echoing(ctx *task.OrchestrationContext) (any, error) {
	var value string
	if err := ctx.GetInput(&value); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(Echo, task.WithActivityInput(value)).Await(&value)
	return value, err
}

func (c *caller) payload(s *stage.Stage) string {
	const unit = "Grüße 世界 🙂\n"
	text := strings.Repeat(unit, 1<<20/len(unit)+1)
	id := c.schedule(s, "Echoing", api.WithInput(text))
	var input, output string
	c.output(s, id, &output)
	s.Check(output == text, "the output is the input")
	s.OK(json.Unmarshal([]byte(c.state(s, id).SerializedInput), &input), "input")
	s.Check(input == text, "the input is kept")
	return ""
}

// --- other apps: names that begin with "Routed" go there by a route of the sidecar ---

func Where(task.ActivityContext) (any, error) {
	return os.Getenv("APP_ID"), nil
}

func RoutedWhere(task.ActivityContext) (any, error) {
	return os.Getenv("APP_ID"), nil
}

func RemoteActivity(ctx *task.OrchestrationContext) (any, error) {
	var here, there string
	if err := ctx.CallActivity(Where).Await(&here); err != nil {
		return nil, err
	}
	err := ctx.CallActivity(RoutedWhere).Await(&there)
	return []string{here, there}, err
}

func RemoteChild(ctx *task.OrchestrationContext) (any, error) {
	var childID string
	if err := ctx.GetInput(&childID); err != nil {
		return nil, err
	}
	var visit []string
	err := ctx.CallSubOrchestrator(RoutedChild, task.WithSubOrchestrationInstanceID(childID)).Await(&visit)
	return visit, err
}

func RoutedChild(ctx *task.OrchestrationContext) (any, error) {
	var where string
	err := ctx.CallActivity(Where).Await(&where)
	return []string{string(ctx.ID), where}, err
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
	c.output(s, c.schedule(s, "RemoteChild", api.WithInput(childID)), &visit)
	s.Equal(visit, []string{childID, os.Getenv("OTHER_APP")}, "ID and app of the child")
	_, err := c.hub.FetchOrchestrationMetadata(s, api.InstanceID(childID))
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "the child, looked for here: %v", err)
	return byRoute
}

// --- inputs ---

func Show(ctx task.ActivityContext) (any, error) {
	var input json.RawMessage
	if err := ctx.GetInput(&input); err != nil {
		return nil, err
	}
	return stage.Show(input)
}

// Inputs gives an activity there, by a route, each kind of input, and at last none.
func Inputs(ctx *task.OrchestrationContext) (any, error) {
	var text string
	var shown []string
	for _, input := range stage.Inputs {
		if err := ctx.CallActivity(Show, task.WithActivityInput(input)).Await(&text); err != nil {
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
	again := func(id api.InstanceID, action api.CreateOrchestrationAction) error {
		policy := &api.OrchestrationIdReusePolicy{
			Action:          action,
			OperationStatus: []api.OrchestrationStatus{api.RUNTIME_STATUS_RUNNING},
		}
		_, err := c.hub.ScheduleNewOrchestration(s, "Hello",
			api.WithInstanceID(id), api.WithInput("reuse"), api.WithOrchestrationIdReusePolicy(policy))
		return err
	}
	id := c.running(s, "Waiting")
	_, err := c.hub.ScheduleNewOrchestration(s, "Hello", api.WithInstanceID(id))
	s.Equal(status.Code(err), codes.AlreadyExists, "code without a policy")
	s.OK(again(id, api.REUSE_ID_ACTION_IGNORE), "start with the action IGNORE")
	s.Equal(c.state(s, id).Name, "Waiting", "name after IGNORE")
	s.OK(again(id, api.REUSE_ID_ACTION_TERMINATE), "start with the action TERMINATE")
	s.Equal(c.ended(s, id).SerializedOutput, `"Hello, reuse!"`, "output after TERMINATE")

	id = c.running(s, "Waiting")
	s.Equal(status.Code(again(id, api.REUSE_ID_ACTION_ERROR)), codes.AlreadyExists, "code with the action ERROR")
	s.OK(c.hub.TerminateOrchestration(s, id), "terminate")
	return ""
}

func (c *caller) missing(s *stage.Stage) string {
	id := api.InstanceID(stage.NewID("missing"))
	_, err := c.hub.FetchOrchestrationMetadata(s, id)
	s.Check(errors.Is(err, api.ErrInstanceNotFound), "fetch: %v", err)
	s.Equal(status.Code(c.hub.RaiseEvent(s, id, "event")), codes.NotFound, "code of raise")
	s.Equal(status.Code(c.hub.SuspendOrchestration(s, id, "")), codes.NotFound, "code of suspend")
	s.Equal(status.Code(c.hub.ResumeOrchestration(s, id, "")), codes.NotFound, "code of resume")
	s.Equal(status.Code(c.hub.TerminateOrchestration(s, id)), codes.NotFound, "code of terminate")
	return ""
}

// --- early-wait ---

func (c *caller) earlyWait(s *stage.Stage) string {
	id := api.InstanceID(stage.NewID("early"))
	s.Early(
		func() error { _, err := c.hub.WaitForOrchestrationCompletion(s, id); return err },
		func() error {
			_, err := c.hub.ScheduleNewOrchestration(s, "Hello", api.WithInstanceID(id), api.WithInput("early"))
			return err
		},
	)
	s.Equal(c.state(s, id).RuntimeStatus, api.RUNTIME_STATUS_COMPLETED, "status after the wait")
	return ""
}

// --- graceful-stop ---

func Linger(ctx task.ActivityContext) (any, error) {
	time.Sleep(stage.LingerTime)
	return "done", nil
}

func Lingering(ctx *task.OrchestrationContext) (any, error) {
	var done string
	err := ctx.CallActivity(Linger).Await(&done)
	return done, err
}

func (c *caller) gracefulStop(s *stage.Stage) string {
	id := c.schedule(s, "Lingering")
	s.Eventually("it has ended", func() bool {
		metadata, err := c.hub.FetchOrchestrationMetadata(s, id)
		return err == nil && metadata.RuntimeStatus == api.RUNTIME_STATUS_COMPLETED && metadata.SerializedOutput == `"done"`
	})
	return ""
}

// --- scheduled-start ---

func (c *caller) scheduledStart(s *stage.Stage) string {
	startAt := time.Now().Add(1500 * time.Millisecond)
	id := c.schedule(s, "Hello", api.WithInput("later"), api.WithStartTime(startAt))
	s.Equal(c.state(s, id).RuntimeStatus, api.RUNTIME_STATUS_PENDING, "status at once")
	time.Sleep(700 * time.Millisecond)
	s.Equal(c.state(s, id).RuntimeStatus, api.RUNTIME_STATUS_PENDING, "status after 0.7 s")
	var output string
	c.output(s, id, &output)
	s.Equal(output, "Hello, later!", "output")
	s.Check(!time.Now().Before(startAt), "not before the time")
	return ""
}
