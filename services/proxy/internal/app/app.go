// Package app wires the proxy: options to a bootstrap, the bootstrap to
// clusters, listeners and an xDS client, and all of them to the life of a
// process. It is the only package that knows the others; it serves no request
// itself.
package app

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/grpcchannel"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Options is what the command line says.
type Options struct {
	// ConfigPath is the bootstrap file; ConfigYAML is merged over it. One of
	// them is needed.
	ConfigPath, ConfigYAML string
	// ServiceNode and ServiceCluster replace the bootstrap's node, if set.
	ServiceNode, ServiceCluster string
	// LogLevel is debug, info, warn or error.
	LogLevel string
	// Log is where the log goes.
	Log io.Writer
	// DrainGrace is how long the proxy still accepts once it was told to stop;
	// DrainTime bounds what is in flight then.
	DrainGrace, DrainTime time.Duration
	// ReadyFile gets the bound addresses once requests are served; empty for none.
	ReadyFile string
	Version   string
}

// App is a proxy whose sockets are bound.
type App struct {
	*configuration
	options   Options
	log       *slog.Logger
	xds       *xds.Client          // nil without a control plane
	admin     *admin.Server        // nil without an admin listener
	sockets   []*listener.Listener // of the listeners, in their order
	addresses map[string]string
	state     atomic.Int32
	started   time.Time
}

// The states of a proxy, by Envoy's names (admin.v3.ServerInfo.State).
const (
	initializing int32 = iota // waits for its clusters
	live
	draining
)

// New reads the configuration, builds the proxy and binds its sockets. The
// error of a faulty configuration lists every fault; nothing is bound then.
func New(o Options) (_ *App, err error) {
	a := &App{options: o, started: time.Now(), addresses: map[string]string{}}
	if a.log, err = daemon.Logger(o.Log, daemon.LogOptions{Level: o.LogLevel}); err != nil {
		return nil, err
	}
	if a.configuration, err = configure(o, a.log, a.setServices); err != nil {
		return nil, err
	}
	if a.boot.ADS != nil {
		a.xds = a.newControlPlane()
	}
	if err := a.bind(); err != nil {
		a.unbind()
		return nil, err
	}
	return a, nil
}

// bind opens the sockets of the listeners and of the admin interface.
func (a *App) bind() error {
	for _, config := range a.listeners {
		l, err := listener.Open(config, a.registry, a.log)
		if err != nil {
			return err
		}
		a.sockets = append(a.sockets, l)
		a.addresses[config.Name] = l.Addr().String()
	}
	if a.boot.AdminAddress == "" {
		return nil
	}
	l, err := daemon.Listen(a.boot.AdminAddress, "admin.address")
	if err != nil {
		return err
	}
	a.admin = a.newAdmin(l)
	a.addresses["admin"] = l.Addr().String()
	return nil
}

// unbind closes what a failed bind opened.
func (a *App) unbind() {
	for _, l := range a.sockets {
		_ = l.Stop(context.Background()) // nothing was served yet
	}
}

// newControlPlane makes the xDS client, which dials nothing before it runs.
func (a *App) newControlPlane() *xds.Client {
	ads := a.boot.ADS
	client := xds.New(xds.Options{
		Dial: func(context.Context) (grpc.ClientConnInterface, io.Closer, error) {
			channel, err := grpcchannel.New(a.clusters.Get(ads.Cluster))
			return channel, channel, err
		},
		Node: a.boot.Node, NodeOnFirstMessageOnly: ads.NodeOnFirstMessageOnly, Stats: a.registry, Log: a.log,
	})
	if a.boot.CDS != nil {
		client.Watch(xds.ClusterType, true, sink(a.clusters.ApplyClusters))
	}
	client.Watch(xds.AssignmentType, false, sink(a.clusters.ApplyAssignments))
	return client
}

// sink makes an xds.Sink of a method.
type sink func([]xds.Resource) error

// Apply implements xds.Sink.
func (s sink) Apply(resources []xds.Resource) error { return s(resources) }

// setServices passes on which assignments the clusters want.
func (a *App) setServices(names []string) {
	if a.xds != nil {
		a.xds.SetNames(xds.AssignmentType, names)
	}
}

// Addr is the bound address of the listener of that name, or of "admin".
func (a *App) Addr(name string) string { return a.addresses[name] }

// Run serves until ctx ends, then drains. Clients that connect wait until the
// clusters that the start needs are warm. It is called once.
func (a *App) Run(ctx context.Context) error {
	group := &daemon.Group{Log: a.log, Grace: a.options.DrainGrace, Deadline: a.options.DrainTime}
	if a.admin != nil {
		group.Add(daemon.Part{Name: "admin listener", Run: a.admin.Serve, Stop: a.admin.Stop})
	}
	a.clusters.AddStatic(a.static)
	group.Add(daemon.Background("cluster manager", a.clusters.Run))
	if a.xds != nil {
		group.Add(daemon.Background("xds client", a.xds.Run))
	}
	group.Add(daemon.Part{Name: "rate-limit client", Stop: func(context.Context) error {
		a.limits.Close()
		return nil
	}})
	serving := make(chan struct{})
	for _, l := range a.sockets {
		group.Add(daemon.Part{
			Name: "listener " + l.Config.Name,
			Run: func() error {
				<-serving // closed before the Stop below is called
				return l.Serve()
			},
			Drain: l.Drain,
			Stop:  l.Stop,
		})
	}
	// Added after the listeners, so that its stop, which opens the gate, comes
	// before theirs.
	group.Add(daemon.Background("start", func(ctx context.Context) error {
		a.awaitClusters(ctx)
		close(serving)
		if ctx.Err() == nil {
			if err := a.goLive(); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}))
	group.Add(daemon.Part{Name: "readiness", Drain: func() { a.state.Store(draining) }})
	return group.Run(ctx)
}

// awaitClusters waits for the clusters that the start needs, each within its
// own time, or until ctx ends.
func (a *App) awaitClusters(ctx context.Context) {
	if cds := a.boot.CDS; cds != nil && cds.InitialFetchTimeout > 0 {
		patience := time.AfterFunc(cds.InitialFetchTimeout, a.clusters.StopWaiting)
		defer patience.Stop()
	}
	select {
	case <-a.clusters.Started():
	case <-ctx.Done():
	}
}

// goLive tells everyone that requests are served.
func (a *App) goLive() error {
	a.state.CompareAndSwap(initializing, live)
	for _, config := range a.listeners {
		a.log.Info("listening", "listener", config.Name, "address", a.addresses[config.Name])
	}
	a.log.Info("live", "version", a.options.Version, "admin", a.addresses["admin"], "after", time.Since(a.started))
	return daemon.WriteReadyFile(a.options.ReadyFile, a.addresses)
}
