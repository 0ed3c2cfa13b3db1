// The scenarios of tests/sdks/README.md with the workflow package of Dapr's go-sdk, which finds the sidecar by the
// environment.
package main

import (
	"log"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/workflow"

	"tests.sdks/go_shared/stage"
)

func main() {
	dapr.SetLogger(log.Default()) // standard output is for the results
	worker, err := workflow.NewWorker()
	must(err)
	for _, w := range []workflow.Workflow{
		Hello, Chain, FanOut, FanIn, Timer, Event, Parent, Child, Counting, Waiting, WaitingParent, Paying,
		PayingCarefully, Echoing, RemoteActivity, Inputs, RemoteChild, RoutedChild, Lingering,
	} {
		must(worker.RegisterWorkflow(w))
	}
	for _, activity := range []workflow.Activity{
		Greet, AddOne, Square, Fill, Declining, Echo, Where, RoutedWhere, Show, Linger,
	} {
		must(worker.RegisterActivity(activity))
	}
	must(worker.Start())
	client, err := workflow.NewClient()
	must(err)
	stage.Run(scenarios(client))
	must(worker.Shutdown())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
