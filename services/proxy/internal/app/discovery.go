package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/grpcchannel"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// newClient makes the client of all control planes, which dials nothing before
// it runs.
func (c *configuration) newClient(schema *strict.Schema, log *slog.Logger) *xds.Client {
	options := xds.Options{
		Dial: func(_ context.Context, name string) (grpc.ClientConnInterface, io.Closer, error) {
			cluster := c.clusters.Get(name)
			if cluster == nil {
				return nil, nil, fmt.Errorf("there is no cluster %q", name)
			}
			channel, err := grpcchannel.New(cluster)
			return channel, channel, err
		},
		Node: c.boot.Node, Schema: schema, Stats: c.registry, Log: log,
	}
	if c.boot.ADS != nil {
		options.ADS = &c.boot.ADS.GRPC
	}
	client := xds.New(options)
	client.Handle(xds.ClusterType, sink{apply: func(resources []xds.Resource, all bool) error {
		if all {
			return c.clusters.ApplyClusters(resources)
		}
		return c.clusters.ChangeClusters(resources)
	}})
	client.Handle(xds.AssignmentType, sink{
		apply: func(resources []xds.Resource, _ bool) error { return c.clusters.ApplyAssignments(resources) },
		failed: func(source coreconfig.Source, names []string, why xds.Failure) {
			c.clusters.AssignmentsFailed(source, names, why)
		},
	})
	client.Handle(xds.ListenerType, sink{apply: func(resources []xds.Resource, all bool) error { return c.listeners.Apply(resources, all) }})
	client.Handle(xds.RouteType, sink{
		apply:  func(resources []xds.Resource, all bool) error { return c.routes.Apply(resources, all) },
		failed: func(source coreconfig.Source, names []string, why xds.Failure) { c.routes.Failed(source, names, why) },
	})
	return client
}

// setServices passes on which assignments are wanted from a source.
func (c *configuration) setServices(source coreconfig.Source, names []string) {
	c.xds.SetNames(source, xds.AssignmentType, names)
}

// setRoute passes on whether a table is wanted from a source.
func (c *configuration) setRoute(source coreconfig.Source, name string, wanted bool) {
	c.xds.SetName(source, xds.RouteType, name, wanted)
}

// sink makes an xds.Sink of functions. Failed is nil for a type that is asked for as a
// whole.
type sink struct {
	apply  func([]xds.Resource, bool) error
	failed func(coreconfig.Source, []string, xds.Failure)
}

// Apply implements xds.Sink.
func (s sink) Apply(resources []xds.Resource, all bool) error { return s.apply(resources, all) }

// Failed implements xds.Sink.
func (s sink) Failed(source coreconfig.Source, names []string, why xds.Failure) {
	s.failed(source, names, why)
}

// begin brings the proxy to serve, as far as ctx does not end: clusters first,
// then listeners with their routes. Clients that connect wait meanwhile.
func (a *App) begin(ctx context.Context) {
	await(ctx, a.clusters.Started())
	if ctx.Err() == nil {
		a.listeners.Start()
		if lds := a.boot.LDS; lds != nil {
			a.xds.Subscribe(lds.Source, xds.ListenerType, lds.InitialFetchTimeout, a.listeners.StopWaiting)
		}
		await(ctx, a.listeners.Started())
	}
	a.listeners.Accept()
}

func await(ctx context.Context, what <-chan struct{}) {
	select {
	case <-what:
	case <-ctx.Done():
	}
}
