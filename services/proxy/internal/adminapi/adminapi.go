// Package adminapi is what Envoy's operators look for on the admin listener:
// /clusters, /listeners, /stats, /config_dump and the like in Envoy's paths and
// formats, the actions that take a POST, and /xds, which is our own. App mounts
// it on the shared admin server, which has /ready and the rest, and does what
// the actions ask for. It says what the proxy has: a number that the proxy does
// not keep is left out, not made up.
package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Clusters are the clusters in use.
type Clusters interface {
	// All is sorted by name.
	All() []*cluster.Cluster
	// IsStatic says whether a cluster is of the bootstrap.
	IsStatic(name string) bool
}

// ControlPlane is the client of the control plane.
type ControlPlane interface {
	Status() xds.Status
}

// Listeners are the listeners there are.
type Listeners interface {
	// States has those of the bootstrap first.
	States() []listener.State
}

// Routes are the route tables that came by RDS.
type Routes interface {
	// Tables is sorted by name.
	Tables() []rds.Table
}

// Options says what is shown. All fields are required.
type Options struct {
	Version string
	Started time.Time
	// State is asked at each request, and answers as /ready does: "LIVE".
	State func() string
	// CommandLine is what the process was started with.
	CommandLine *adminv3.CommandLineOptions
	Bootstrap   *bootstrapv3.Bootstrap
	Node        *corev3.Node
	Clusters    Clusters
	Listeners   Listeners
	Routes      Routes
	// ControlPlane is the client of those that there are, if any.
	ControlPlane ControlPlane
	Stats        *stats.Registry
	Runtime      *layeredruntime.Runtime
	Control      Control
	// LogLevel is that of the process's log.
	LogLevel *slog.LevelVar
}

// Server is where the endpoints are mounted.
type Server interface {
	Handle(pattern, help string, h http.Handler)
}

// Mount adds the endpoints to a server that does not serve yet.
func Mount(server Server, o Options) {
	a := &api{Options: o}
	// A page of anyone's, in a browser of this machine, must not do what operators can.
	sameOrigin := http.NewCrossOriginProtection()
	for _, e := range a.actions() {
		server.Handle("POST "+e.path, e.help, sameOrigin.Handler(e))
	}
	for _, e := range a.views() {
		server.Handle(e.path, e.help, e)
	}
}

// endpoint is one path.
type endpoint struct {
	path, help string
	// parameters are those that the endpoint knows.
	parameters []string
	serve      func(http.ResponseWriter, url.Values) error
}

// actions are the endpoints that change something.
func (a *api) actions() []endpoint {
	return []endpoint{
		{"/healthcheck/fail", "fail health checks, and end connections with their next answer", nil, a.failHealthChecks(true)},
		{"/healthcheck/ok", "pass health checks again", nil, a.failHealthChecks(false)},
		{"/drain_listeners", "close the sockets of listeners; graceful, skip_exit, inboundonly", []string{"graceful", "skip_exit", "inboundonly"}, a.drainListeners},
		{"/logging", "the log's level; level=LEVEL or paths=" + logger + ":LEVEL sets it", []string{"level", "paths", logger}, a.logging},
		{"/reset_counters", "let all counters begin at 0 again", nil, a.resetCounters},
		{"/runtime_modify", "set keys of the runtime's admin_layer; KEY=VALUE, as the query or as a form, and KEY= to take it out", []string{anyParameter}, a.modifyRuntime},
		{"/reopen_logs", "open the files of access logs anew, as SIGUSR1 does", nil, a.reopenLogs},
		{"/quitquitquit", "end the process as SIGTERM does", nil, a.quit},
	}
}

// views are the endpoints that only tell. They take any method, as in Envoy.
func (a *api) views() []endpoint {
	return []endpoint{
		{"/clusters", "clusters and their hosts; format=json, filter=REGEX", []string{"format", "filter"}, a.clusters},
		{"/listeners", "bound addresses; format=json", []string{"format"}, a.listeners},
		{"/stats", "metrics; filter=REGEX, invert_filter, usedonly, type=Counters|Gauges|Histograms, format=text|json|html|active-html|prometheus, histogram_buckets=summary|cumulative|disjoint|detailed", statsParameters, a.stats},
		{"/stats/prometheus", "metrics in Prometheus' format; filter=REGEX, invert_filter, usedonly, histogram_buckets=cumulative|summary", statsParameters, a.prometheus},
		{"/config_dump", "the configuration in use; resource=LIST, mask=FIELDS, name_regex=REGEX, include_eds", dumpParameters, a.configDump},
		{"/server_info", "version, state, uptime, command line, node", nil, a.serverInfo},
		{"/certs", "certificates in use", nil, certificates},
		{"/runtime", "values of layered_runtime, by layer", []string{"format"}, a.runtime},
		{"/memory", "memory that the process has", nil, a.memory},
		{"/hot_restart_version", "disabled: there is no hot restart", nil, hotRestartVersion},
		{"/page.json", "what /page shows; filter=TEXT of names", []string{"filter"}, a.pageData},
		{"/xds", "what the control plane sent and what of it was refused", nil, a.xds},
	}
}

// ServeHTTP implements http.Handler.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := e.query(w, r)
	if err == nil {
		err = e.serve(w, query)
	}
	var bad *queryError
	switch {
	case errors.As(err, &bad):
		http.Error(w, err.Error(), bad.status)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// longestForm is how many bytes the parameters in a body may have.
const longestForm = 1 << 20

// query are the parameters of a request, which of an endpoint with any of them may
// be a form in the body.
func (e endpoint) query(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	text := r.URL.RawQuery
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); text == "" && slices.Contains(e.parameters, anyParameter) && kind == "application/x-www-form-urlencoded" {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestForm))
		if err != nil {
			return nil, wrong("read the form: %v", err)
		}
		text = string(body)
	}
	return parameters(text, e.parameters)
}

// api serves the endpoints. Their functions write an answer or return an
// error: a queryError for what is wrong with the request.
type api struct{ Options }

// queryError says what is wrong with a query, and the status that tells so.
type queryError struct {
	status int
	text   string
}

// Error implements error.
func (e *queryError) Error() string { return e.text }

func wrong(format string, args ...any) error {
	return &queryError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// anyParameter among those of an endpoint says that it has others too.
const anyParameter = "*"

// parameters reads a query of which all keys must be known: one that does
// nothing would mislead.
func parameters(raw string, known []string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, wrong("query %q: %v", raw, err)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(known, anyParameter) {
			break
		}
		if len(known) == 0 {
			return nil, wrong("parameter %q is not supported, nor is any other", key)
		}
		if !slices.Contains(known, key) {
			return nil, wrong("parameter %q is not supported; supported are: %s", key, strings.Join(known, ", "))
		}
	}
	return query, nil
}

// choice is the value of a parameter that has a few.
func choice(query url.Values, key string, choices ...string) (string, error) {
	value := query.Get(key)
	if value == "" {
		return choices[0], nil
	}
	if !slices.Contains(choices, value) {
		return "", wrong("parameter %s=%q is not one of %s", key, value, strings.Join(choices, ", "))
	}
	return value, nil
}

// filter is a parameter with a regular expression as a function on names.
func filter(query url.Values, key string) (func(name string) bool, error) {
	text := query.Get(key)
	if text == "" {
		return func(string) bool { return true }, nil
	}
	expression, err := regexp.Compile(text)
	if err != nil {
		return nil, wrong("parameter %s=%q: %v", key, text, err)
	}
	return expression.MatchString, nil
}

// writeText answers with plain text.
func writeText(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	// A failed write means that the reader has gone.
	_, _ = w.Write(text)
}

// writeMessage answers with a message in JSON, as Envoy lays it out. Defaults
// says that fields at their default are written too.
func writeMessage(w http.ResponseWriter, m proto.Message, defaults bool) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: defaults}.Marshal(m)
	if err != nil {
		return err
	}
	writeJSON(w, text)
	return nil
}

// writeJSON answers with JSON, one value on a line.
func writeJSON(w http.ResponseWriter, text []byte) {
	var indented bytes.Buffer
	// It came from an encoder.
	_ = json.Indent(&indented, text, "", " ")
	indented.WriteByte('\n')
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(indented.Bytes())
}
