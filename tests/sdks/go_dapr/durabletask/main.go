// The scenarios of tests/sdks/README.md with Dapr's workflow SDK for Go: the client of the go-sdk finds and dials the
// sidecar by the environment, the workflows are those of durabletask-go.
package main

import (
	"context"
	"log"

	"github.com/dapr/durabletask-go/workflow"
	dapr "github.com/dapr/go-sdk/client"

	"tests.sdks/go_shared/stage"
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	dapr.SetLogger(log.Default()) // standard output is for the results
	sidecar, err := dapr.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer sidecar.Close()
	defer stop()

	client := workflow.NewClient(sidecar.GrpcClientConn())
	registry := newRegistry()
	working, end := context.WithCancel(ctx)
	must(client.StartWorker(working, registry))
	stage.Run(scenarios(client, registry, func() {
		end()
		working, end = context.WithCancel(ctx)
		must(client.StartWorker(working, registry))
	}))
}

func newRegistry() *workflow.Registry {
	r := workflow.NewRegistry()
	for _, w := range []workflow.Workflow{
		Hello, Chain, FanOut, FanIn, Retry, Timer, Event, Parent, Child, Counting, Waiting, WaitingParent, Paying,
		PayingCarefully, Reporting, Echoing, RemoteActivity, Inputs, RemoteChild, Whereabouts, Buying, Patched, Clearing,
		Lingering,
	} {
		must(r.AddWorkflow(w))
	}
	registerNewer(r)
	must(r.AddVersionedWorkflowN("Versioned", "v1", true, versionedAs("v1")))
	for _, activity := range []workflow.Activity{Greet, AddOne, Square, Fill, Shaky, Declining, Echo, Where, Show, Shout, Linger} {
		must(r.AddActivity(activity))
	}
	return r
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
