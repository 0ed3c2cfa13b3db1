//go:build old

package main

import (
	"github.com/dapr/durabletask-go/workflow"

	"tests.sdks/go_shared/stage"
)

// newer says what this version does not offer.
func newer(_ *caller, programme stage.Programme) {
	programme.NotOffered["detached"] = "in this version a workflow can start others only as its children"
	programme.NotOffered["remote-client"] = "in this version the client cannot name an app"
	programme.NotOffered["long-history"] = "this version takes no history above 4 MiB"
}

func registerNewer(*workflow.Registry) {}
