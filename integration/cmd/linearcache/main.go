// Command linearcache is go-control-plane's xDS server with its LinearCache of
// endpoints. The benchmarks run it beside discovery, with what discovery hands
// out; it is no part of the product. What it serves comes by POST.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"time"

	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/daemon"
)

func main() {
	os.Exit(daemon.Main("linearcache", func(ctx context.Context) error { return run(ctx, os.Args[1:]) }))
}

// run serves until ctx ends.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("linearcache", flag.ContinueOnError)
	readyFile := flags.String("ready-file", "", "`path` of a JSON file of the bound addresses")
	if err := flags.Parse(args); err != nil {
		return err
	}
	streams, err := daemon.Listen("127.0.0.1:0", "loopback")
	if err != nil {
		return err
	}
	defer streams.Close()
	admin, err := daemon.Listen("127.0.0.1:0", "loopback")
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := daemon.WriteReadyFile(*readyFile, map[string]string{"xds": streams.Addr().String(), "admin": admin.Addr().String()}); err != nil {
		return err
	}
	f := face{cache.NewLinearCache(resource.EndpointType)}
	grpcServer := grpc.NewServer()
	discoverypb.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(ctx, f.cache, nil))
	httpServer := &http.Server{Handler: f.handler(), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() {
		grpcServer.Stop()
		_ = httpServer.Close()
	})()
	served := make(chan error, 1)
	go func() { served <- grpcServer.Serve(streams) }() // ends at Stop; its end is waited for below
	if err := httpServer.Serve(admin); !errors.Is(err, http.ErrServerClosed) {
		grpcServer.Stop()
		return errors.Join(err, <-served)
	}
	return <-served
}

// face is what is asked of the server over HTTP.
type face struct{ cache *cache.LinearCache }

func (f face) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /assignments", func(w http.ResponseWriter, r *http.Request) {
		took, err := f.update(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, took.Nanoseconds())
	})
	mux.Handle("GET /debug/pprof/heap", pprof.Handler("heap"))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		fmt.Fprintf(w, "go_memstats_heap_alloc_bytes %d\ngo_memstats_stack_inuse_bytes %d\n", memory.HeapAlloc, memory.StackInuse)
	})
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// update has the cache take the assignments of a DiscoveryResponse. It returns
// how long that took, which is how long the cache held its lock.
func (f face) update(body io.Reader) (time.Duration, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	var message discoverypb.DiscoveryResponse
	if err := proto.Unmarshal(text, &message); err != nil {
		return 0, err
	}
	updated := map[string]types.Resource{}
	for _, packed := range message.GetResources() {
		assignment := &endpointpb.ClusterLoadAssignment{}
		if err := packed.UnmarshalTo(assignment); err != nil {
			return 0, err
		}
		updated[assignment.GetClusterName()] = assignment
	}
	began := time.Now()
	err = f.cache.UpdateResources(updated, nil)
	return time.Since(began), err
}
