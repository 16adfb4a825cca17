// Command xdsclient is a gRPC client without a proxy, for tests: it calls the
// echo service of a target such as xds:///echo over and over, and prints for
// each call a line: the name of the instance that answered, or "error" and the
// status. GRPC_XDS_BOOTSTRAP_CONFIG says where its control plane is.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // knows targets xds:///

	echov1 "github.com/weirproxy/weir/proto/echo/v1"
)

// pause lies between two calls; a call may take as long as patience.
const (
	pause    = 5 * time.Millisecond
	patience = time.Minute
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "Usage: xdsclient TARGET")
		os.Exit(2)
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintf(os.Stderr, "xdsclient: target %q: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	client := echov1.NewEchoServiceClient(conn)
	for range time.Tick(pause) {
		fmt.Println(call(client))
	}
}

func call(client echov1.EchoServiceClient) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := client.Echo(ctx, &echov1.EchoRequest{})
	if err != nil {
		return fmt.Sprintf("error %s: %s", status.Code(err), status.Convert(err).Message())
	}
	return answer.GetInstance()
}
