// The scenarios of tests/sdks/README.md with Microsoft's Durable Task SDK for Go.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"strconv"

	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"tests.sdks/go_shared/stage"
)

// The largest message that this program receives, which it tells the sidecar: gRPC's own limit is 4 MiB.
const mostBytes = 16 << 20

func sayMostBytes(ctx context.Context, of *grpc.StreamDesc, connection *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "max-receive-bytes", strconv.Itoa(mostBytes))
	return open(ctx, of, connection, method, options...)
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	address := net.JoinHostPort(os.Getenv("SIDECAR_HOST"), os.Getenv("SIDECAR_PORT"))
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostBytes)), grpc.WithStreamInterceptor(sayMostBytes))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	defer stop()

	hub := client.NewTaskHubGrpcClient(connection, backend.DefaultLogger())
	if err := hub.StartWorkItemListener(ctx, registry()); err != nil {
		log.Fatal(err)
	}
	stage.Run(scenarios(hub))
}

func registry() *task.TaskRegistry {
	r := task.NewTaskRegistry()
	for _, orchestrator := range []task.Orchestrator{
		Hello, Chain, FanOut, FanIn, Retry, Timer, Event, Parent, Child, Counting, Waiting, WaitingParent, Paying,
		PayingCarefully, Reporting, Echoing, RemoteActivity, Inputs, RemoteChild, RoutedChild, Clearing, Lingering,
	} {
		must(r.AddOrchestrator(orchestrator))
	}
	for _, activity := range []task.Activity{
		Greet, AddOne, Square, Fill, Shaky, Declining, Echo, Where, RoutedWhere, Show, Linger,
	} {
		must(r.AddActivity(activity))
	}
	return r
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
