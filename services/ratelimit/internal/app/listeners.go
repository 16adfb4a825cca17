package app

import (
	"fmt"
	"net"
	"net/http"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/grpcserver"
	"github.com/weirproxy/weir/services/ratelimit/internal/prommap"
	"github.com/weirproxy/weir/services/ratelimit/internal/tracing"
	"github.com/weirproxy/weir/services/ratelimit/internal/web"
)

// streamWorkers is how many goroutines serve gRPC calls without being started
// for each: about as many as calls are in flight. Calls beyond get their own.
const streamWorkers = 64

// socketMode lets every user of the machine call over GRPC_UDS, as they can
// over loopback.
const socketMode = 0o666

func (b *build) listenAdmin() error {
	b.health = newHealth(b.rules.NoRules, b.store, b.log)
	b.health.loaded = b.loaded
	l, err := b.listeners.Open("admin", address(b.options.DebugHost, b.options.DebugPort), "DEBUG_PORT")
	if err != nil {
		return err
	}
	operators := admin.New(l, admin.Options{Name: "ratelimit", State: b.health.state, Metrics: b.metrics, Log: b.log})
	operators.Handle("GET /rlconfig", "rules in force, and what was refused", serveRules(b.limiter, b.rules))
	operators.Handle("GET /page", "the same for people, with what is refused most and how the store is", web.Page())
	operators.Handle("GET /page.json", "its data", web.Data(web.Options{
		Ready: func() (bool, string) {
			state := b.health.state()
			return state.Ready, state.Text
		},
		Rules:    b.limiter.Rules,
		Faults:   b.rules.Refused,
		Refusals: b.refusals.List,
		Store:    b.shown,
		Metrics:  b.metrics,
	}))
	b.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})
	return nil
}

// listenPrometheus serves metrics as the peer names them, where that is wanted.
func (b *build) listenPrometheus() error {
	o := &b.options
	if !o.UsePrometheus || o.DisableStats {
		return nil
	}
	mapped, err := prommap.New(prommap.Options{
		Path: o.PrometheusPath, MapperYAML: o.PrometheusMapper, Milliseconds: o.PrometheusMilliseconds, Metrics: b.metrics,
	})
	if err != nil {
		return err
	}
	l, err := b.listeners.Open("prometheus", o.PrometheusAddr, "PROMETHEUS_ADDR")
	if err != nil {
		return err
	}
	b.group.Add(daemon.ServeHTTP("prometheus listener", l, mapped.Handler(), b.log))
	return nil
}

// listenHTTP serves /json, /healthcheck for readiness and /healthz for whether
// the process lives.
func (b *build) listenHTTP() error {
	o := &b.options
	var json http.Handler = http.HandlerFunc(b.service.JSON)
	if b.tracer != nil {
		json = tracing.FromHTTP(json)
	}
	mux := http.NewServeMux()
	mux.Handle("/json", json)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })
	mux.HandleFunc("/healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		if state := b.health.state(); !state.Ready {
			http.Error(w, state.Text, http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "OK")
	})
	l, err := b.listeners.Open("http", address(o.Host, o.Port), "PORT")
	if err != nil {
		return err
	}
	b.group.Add(daemon.ServeHTTP("http listener", l, mux, b.log))
	return nil
}

// listenGRPC serves the rate limit service, health and reflection.
func (b *build) listenGRPC() error {
	o := &b.options
	options := grpcserver.Options{
		Service:               b.service,
		Health:                b.health.grpc,
		Reflection:            o.Reflection,
		MaxConnectionAge:      o.MaxConnectionAge,
		MaxConnectionAgeGrace: o.MaxConnectionAgeGrace,
		MaxConcurrentStreams:  uint32(o.MaxConcurrentStreams),
		MaxConnections:        o.MaxConnections,
		CallTimeout:           o.CallTimeout,
		KeepaliveMinTime:      o.KeepaliveMinTime,
		StreamWorkers:         streamWorkers,
	}
	if o.ServerTLS {
		certificates, err := grpcserver.LoadCertificates(grpcserver.Files{
			Cert: o.ServerTLSCert, Key: o.ServerTLSKey, ClientCA: o.ClientTLSCA, ClientSAN: o.ClientTLSSAN, Poll: o.RulesPoll,
		}, b.log, b.metrics)
		if err != nil {
			return err
		}
		options.Certificates = certificates
		b.group.Add(daemon.Background("certificates", certificates.Run))
	}
	l, err := b.openGRPC()
	if err != nil {
		return err
	}
	b.group.Add(grpcserver.New(l, options).Part("grpc listener"))
	return nil
}

// openGRPC opens the Unix socket if there is to be one, else the port.
func (b *build) openGRPC() (net.Listener, error) {
	o := &b.options
	if o.GRPCUDS == "" {
		return b.listeners.Open("grpc", address(o.GRPCHost, o.GRPCPort), "GRPC_PORT")
	}
	l, err := grpcserver.ListenUnix(o.GRPCUDS, socketMode)
	if err != nil {
		return nil, err
	}
	b.listeners.Add("grpc", l)
	return l, nil
}
