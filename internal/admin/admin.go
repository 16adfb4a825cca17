// Package admin is the admin listener that every service has: /healthz,
// /ready, /metrics, /debug/pprof, an index at /, and whatever the service
// mounts. It is for operators and probes; no user's request ever passes it.
package admin

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// State is what /ready answers: 200 when Ready, else 503, with Text as body.
type State struct {
	Ready bool
	Text  string
}

// Options says what an admin server shows. Every field but Allow and Around is required.
type Options struct {
	// Name is the service's, for the index page.
	Name string
	// State is asked at each /ready, from many goroutines.
	State func() State
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
	// Log gets net/http's complaints.
	Log *slog.Logger
	// Allow says whether a path, unescaped, with the query behind a '?' if there is
	// one, is answered; others are 403. Nil is all of them.
	Allow func(target string) bool
	// Around makes what is asked in the place of the handler that answers all requests,
	// refused ones too; nil is that handler.
	Around func(http.Handler) http.Handler
}

// Server is an admin listener. Mount all handlers before Serve is called.
type Server struct {
	listener net.Listener
	server   *http.Server
	mux      *http.ServeMux
	name     string
	index    []entry
}

// entry is one line of the index page. Post says that the path changes something,
// and so is no link.
type entry struct {
	Path, Help string
	Post       bool
}

// New makes a server on an open listener, which it then owns.
func New(listener net.Listener, o Options) *Server {
	s := &Server{listener: listener, mux: http.NewServeMux(), name: o.Name}
	handler := present(namedLocally(listener.Addr(), allowed(o.Allow, s.mux)))
	if o.Around != nil {
		handler = o.Around(handler)
	}
	s.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	// What only tells takes any method, as on Envoy's admin listener, but for profiles.
	s.Handle("/healthz", "200 while the process lives", http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	s.Handle("/ready", "200 when work is taken, else 503", http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			state := o.State()
			if !state.Ready {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintln(w, state.Text)
		}))
	s.Handle("/metrics", "metrics in Prometheus' format", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{}))
	s.Handle("GET /debug/pprof/", "profiles of the Go runtime", http.HandlerFunc(pprof.Index))
	s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.mux.HandleFunc("/{$}", s.serveIndex)
	s.Handle("/help", "this list as text", http.HandlerFunc(s.serveHelp))
	return s
}

// Handle mounts h at a pattern of net/http's ServeMux and lists it, with help,
// on the index page.
func (s *Server) Handle(pattern, help string, h http.Handler) {
	s.mux.Handle(pattern, h)
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		path = pattern
	}
	s.index = append(s.index, entry{path, help, method == http.MethodPost})
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Stop is called, and then returns nil.
func (s *Server) Serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// patience is what a request in flight gets at the stop: others need the time
// more than a profile of 30 s does.
const patience = 200 * time.Millisecond

// Stop ends Serve, also one that has not begun, and closes the listener.
// Requests in flight have a moment and are cut off then, which is no error.
func (s *Server) Stop(ctx context.Context) error {
	defer s.listener.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return s.server.Close()
	}
	return nil
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<meta charset="utf-8"><title>{{.Name}}</title><h1>{{.Name}}</h1>
<table>{{range .Index}}<tr><td>{{if .Post}}{{.Path}} (POST){{else}}<a href="{{.Path}}">{{.Path}}</a>{{end}}</td><td>{{.Help}}</td></tr>{{end}}</table>
`))

func (s *Server) serveIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// A failed write means that the reader has gone.
	_ = indexPage.Execute(w, struct {
		Name  string
		Index []entry
	}{s.name, s.index})
}

func (s *Server) serveHelp(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "admin commands are:")
	for _, e := range s.index {
		path := e.Path
		if e.Post {
			path += " (POST)"
		}
		fmt.Fprintf(w, "  %s: %s\n", path, e.Help)
	}
}

// Check asks the admin listener at address for /ready and returns nil if the
// service takes work; otherwise the error holds what it answered. It is the
// binaries' `healthcheck` command. A wildcard host is asked on loopback.
func Check(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("ask admin listener %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/ready"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
