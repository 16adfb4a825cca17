package app

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/beats"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// helloTimeout is the time that a connection has to begin HTTP/2.
const helloTimeout = 5 * time.Second

// streamsPerConnection is far above what one client opens, and what its proxies
// open for several. Beyond it a client waits until one of its streams ends.
const streamsPerConnection = 1000

// A client may end so many streams of a connection before their time at once, and so
// many each second: an Envoy that asks for the assignment of each cluster by a stream
// of its own ends all of them when their clusters change.
const (
	streamResetBurst = 20 * streamsPerConnection
	streamResetRate  = streamsPerConnection
)

// addGRPC serves the listener of all that is served over gRPC: xDS, and streams of
// heartbeats, of load reports and of health checks. The server of xDS, which serves what
// maker makes, has a face over HTTP too.
func (a *App) addGRPC(maker *resources.Maker, operators *admin.Server) {
	o := a.options
	limits := o.limits()
	limits.MayBe = func(ctx context.Context, node resources.Asker) error {
		return a.access.mayBe(ctx, node.ID, node.Cluster)
	}
	limits.MayRead = a.access.mayRead
	limits.MayHaveSecret = mayHaveSecret(a.inputs.rules)
	control := xds.New(xds.Options{
		Registry:   a.hosts,
		Maker:      maker,
		Identifier: o.identifier(),
		Debounce:   o.debounce(),
		Limits:     limits,
		Identity:   func(ctx context.Context) string { return auth.FromContext(ctx).Identity() },
		Log:        a.log,
		Metrics:    a.metrics,
	})
	a.control = control
	operators.Handle("GET /xds", "open streams: who, what they have, what they refused", shown(func() (any, error) { return control.Status(), nil }))
	a.group.Add(daemon.Background("xds", control.Run))
	if a.inputs.templates != nil {
		a.group.Add(followTemplate(a.inputs.templates, maker, control.SetMaker))
	}
	a.addFiles(control, operators)
	heartbeats := beats.New(beats.Options{
		Registry:   a.hosts,
		Silence:    o.BeatSilence,
		LossEnds:   o.BeatLossEnds,
		MaxStreams: o.BeatMaxStreams,
		MaxHosts:   o.BeatMaxHosts,
		Log:        a.log,
		Metrics:    a.metrics,
	})
	server := newGRPCServer(o, a.access, a.log, a.metrics)
	control.Register(server)
	heartbeats.Register(server)
	a.loads.Register(server)
	if a.checks != nil {
		a.group.Add(daemon.Background("health checks", a.checks.Run))
		a.checks.Register(server)
	}
	a.group.Add(daemon.ServeGRPC("xds listener", a.inputs.xds, server, helloTimeout, func() {
		control.Stop()
		heartbeats.Stop()
		a.loads.Stop()
		if a.checks != nil {
			a.checks.Stop()
		}
	}))
}

// newGRPCServer makes the server of all that is served over gRPC. After each
// XDSKeepalive a client is asked whether it is there; it has as long again, at most
// 20 seconds, to answer.
func newGRPCServer(o Options, access *access, log *slog.Logger, registerer prometheus.Registerer) *grpchttp2.Server {
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "discovery_xds_handshake_errors_total", Help: "Connections to the listener of xDS that could not be made secure."})
	floods := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_xds_floods_total", Help: "Connections to the listener of xDS that were ended for what their clients did too often, by what that was."}, []string{"flood"})
	unaccepted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "discovery_xds_accept_errors_total", Help: "Times that the listener of xDS could not accept a connection, as where too many files are open, and tried again."})
	registerer.MustRegister(failures, floods, unaccepted)
	options := xds.ServerOptions(o.XDSMaxAge)
	options.HandshakeTimeout = helloTimeout
	options.HTTP2.MaxConcurrentStreams = streamsPerConnection
	options.HTTP2.StreamResetBurst, options.HTTP2.StreamResetRate = streamResetBurst, streamResetRate
	options.HTTP2.OnFlood = func(f http2.Flood) {
		floods.WithLabelValues(f.String()).Inc()
		log.Warn("connection ended for a flood", "listener", "xds", "flood", f.String())
	}
	options.HTTP2.KeepaliveInterval = o.XDSKeepalive
	options.HTTP2.KeepaliveTimeout = min(o.XDSKeepalive, 20*time.Second)
	options.HandshakeFailed = func(from net.Addr, err error) {
		failures.Inc()
		log.Warn("TLS handshake failed", "listener", "xds", "peer", from.String(), "error", err)
	}
	options.AcceptFailed = func(err error, first bool) {
		unaccepted.Inc()
		if first {
			log.Warn("connections are not accepted; trying again", "listener", "xds", "error", err)
		}
	}
	access.guard(&options)
	return grpchttp2.New(options)
}
