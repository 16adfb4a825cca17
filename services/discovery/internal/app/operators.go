package app

import (
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// addOperators serves the listener at which operators look, and there what
// is known without the others; they add theirs.
func (a *App) addOperators(state *serviceState) *admin.Server {
	operators := admin.New(a.inputs.admin, admin.Options{Name: "discovery", State: state.get, Metrics: a.metrics, Log: a.log})
	operators.Handle("GET /registry", "known services and how many hosts each has", shown(a.hostCounts))
	a.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})
	return operators
}

// serviceState is what /ready tells.
type serviceState struct {
	registry *registry.Registry
	stopping atomic.Bool
}

// get says whether hosts may check in and readers may ask.
func (s *serviceState) get() admin.State {
	if s.stopping.Load() {
		return admin.State{Text: "stopping"}
	}
	why, refused := s.registry.Trouble()
	select {
	case <-s.registry.Loaded():
		text := "ready"
		switch {
		case refused:
			text = "ready, from memory alone: " + why
		case why != "":
			text = "ready, but the store does not do all that it is asked: " + why
		}
		return admin.State{Ready: true, Text: text}
	default:
		text := "the registry is not loaded yet"
		if why != "" {
			text += ": " + why
		}
		return admin.State{Text: text}
	}
}

// hostCounts is how many hosts each known service has. The error says that the
// registry is not loaded.
func (a *App) hostCounts() (any, error) {
	services, err := a.hosts.Services()
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int, len(services))
	for i := range services {
		counts[services[i].Name] = services[i].Hosts
	}
	return struct {
		Services map[string]int `json:"services"`
	}{counts}, nil
}

// shown answers an operator with what tell tells, as JSON that people can read, and
// with 503 where it cannot tell it yet.
func shown(tell func() (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v, err := tell()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(v) // a failed write means that the reader has gone
	})
}
