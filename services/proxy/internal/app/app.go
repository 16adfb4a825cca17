// Package app wires the proxy: options to a bootstrap, the bootstrap to
// clusters, listeners and an xDS client, and all of them to the life of a
// process. It is the only package that knows the others; it serves no request
// itself.
package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Options is what the command line says.
type Options struct {
	// ConfigPath is the bootstrap file; ConfigYAML is merged over it. One of
	// them is needed.
	ConfigPath, ConfigYAML string
	// ServiceNode, ServiceCluster and ServiceZone replace the bootstrap's node, if set.
	ServiceNode, ServiceCluster, ServiceZone string
	// LogLevel is debug, info, warn or error, or what slog makes of another text.
	LogLevel string
	// LogFormat is text or json; empty is text on a terminal and JSON elsewhere.
	LogFormat string
	// Log is where the log goes.
	Log io.Writer
	// DrainGrace is how long the proxy still accepts once it was told to stop;
	// DrainTime bounds what is in flight then.
	DrainGrace, DrainTime time.Duration
	// DrainGradually spreads drains of listeners over DrainTime.
	DrainGradually bool
	// ReadyFile gets the bound addresses once requests are served; empty for none.
	ReadyFile string
	// AdminAddressPath is a file that gets the admin listener's bound address; empty
	// for none.
	AdminAddressPath string
	Version          string
}

// App is a proxy whose sockets are bound.
type App struct {
	*configuration
	options Options
	log     *slog.Logger
	admin   *admin.Server // nil without an admin listener
	// adminAddress is the bound one; empty without an admin listener.
	adminAddress string
	state        atomic.Int32
	// failed says that an operator wants health checks to fail.
	failed atomic.Bool
	// telling is held while state or failed changes and the listeners are told, so that
	// they always do what was said last.
	telling  sync.Mutex
	logLevel slog.LevelVar
	// quit ends Run; it is set before anyone is served.
	quit    context.CancelFunc
	started time.Time
	stats   *serverStats
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
	a := &App{options: o, started: time.Now()}
	if a.log, err = daemon.Logger(o.Log, daemon.LogOptions{Level: o.LogLevel, Format: o.LogFormat, Variable: &a.logLevel}); err != nil {
		return nil, err
	}
	if a.configuration, err = configure(o, a.log, a.failing); err != nil {
		return nil, err
	}
	a.stats = a.newServerStats()
	if err := a.logs.Open(); err != nil {
		return nil, err
	}
	if err := a.bind(); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// close lets go of what New has opened, of an App that does not Run.
func (a *App) close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if a.admin != nil {
		_ = a.admin.Stop(ended) // nothing was served yet, here and below
	}
	_ = a.listeners.Stop(context.Background())
	_ = a.logs.Run(ended) // closes its files
}

// failing says whether the proxy is to fail health checks: it was told to, or to
// stop.
func (a *App) failing() bool { return a.failed.Load() || a.state.Load() == draining }

// bind opens the sockets of the listeners and of the admin interface.
func (a *App) bind() error {
	if err := a.listeners.AddStatic(a.staticListeners); err != nil {
		return err
	}
	if a.boot.AdminAddress == "" {
		return nil
	}
	l, err := daemon.Listen(a.boot.AdminAddress, "admin.address")
	if err != nil {
		return err
	}
	a.admin = a.newAdmin(l)
	a.adminAddress = l.Addr().String()
	if path := a.options.AdminAddressPath; path != "" {
		if err := os.WriteFile(path, []byte(a.adminAddress), 0o644); err != nil {
			return fmt.Errorf("write the admin listener's address: %w", err)
		}
	}
	return nil
}

// Addr is the bound address of the listener of that name, or of "admin"; empty
// if there is none.
func (a *App) Addr(name string) string { return a.addresses()[name] }

// addresses are the bound ones of all listeners there are now.
func (a *App) addresses() map[string]string {
	all := map[string]string{}
	for _, l := range a.listeners.States() {
		all[l.Name] = l.Address.String()
	}
	if a.adminAddress != "" {
		all["admin"] = a.adminAddress
	}
	return all
}

// Run serves until ctx ends, then drains. Clients that connect wait until the
// clusters that the start needs are warm. It is called once.
func (a *App) Run(ctx context.Context) error {
	ctx, a.quit = context.WithCancel(ctx)
	defer a.quit()
	group := &daemon.Group{Log: a.log, Grace: a.options.DrainGrace, Deadline: a.options.DrainTime}
	if a.admin != nil {
		group.Add(daemon.Part{Name: "admin listener", Run: a.admin.Serve, Stop: a.admin.Stop})
	}
	a.clusters.AddStatic(a.static)
	group.Add(daemon.Background("cluster manager", a.clusters.Run))
	if cds := a.boot.CDS; cds != nil {
		a.xds.Subscribe(cds.Source, xds.ClusterType, cds.InitialFetchTimeout, a.clusters.StopWaiting)
	}
	group.Add(daemon.Background("xds client", a.xds.Run))
	group.Add(daemon.Part{Name: "rate-limit client", Stop: func(context.Context) error {
		a.limits.Close()
		return nil
	}})
	// Before the listeners, so that its stop, which writes out what is left,
	// comes after theirs.
	group.Add(daemon.Background("access logs", a.logs.Run))
	group.Add(daemon.Background("access log rotation", a.reopenLogsOnSignal))
	group.Add(daemon.Part{Name: "listeners", Run: a.listeners.Run, Drain: a.listeners.Drain, Stop: a.listeners.Stop})
	// Added after the listeners, so that its stop, with which they accept, comes
	// before theirs.
	group.Add(daemon.Background("start", func(ctx context.Context) error {
		a.begin(ctx)
		if ctx.Err() == nil {
			if err := a.goLive(); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}))
	group.Add(daemon.Part{Name: "readiness", Drain: a.beginDrain})
	return group.Run(ctx)
}

// beginDrain fails health checks for good. The listeners drain after it.
func (a *App) beginDrain() {
	a.telling.Lock()
	defer a.telling.Unlock()
	a.state.Store(draining)
}

// goLive tells everyone that requests are served.
func (a *App) goLive() error {
	a.state.CompareAndSwap(initializing, live)
	a.stats.initialization.Record(time.Since(a.started))
	a.log.Info("live", "version", a.options.Version, "admin", a.adminAddress, "after", time.Since(a.started))
	return daemon.WriteReadyFile(a.options.ReadyFile, a.addresses())
}
