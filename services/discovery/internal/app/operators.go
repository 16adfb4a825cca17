package app

import (
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// addOperators opens the listener at which operators look, and serves there what
// is known without the others; they add theirs.
func (a *App) addOperators(state *serviceState) (*admin.Server, error) {
	listener, err := a.listeners.Open("admin", a.options.AdminAddress, "DISCOVERY_ADMIN_ADDRESS")
	if err != nil {
		return nil, err
	}
	operators := admin.New(listener, admin.Options{Name: "discovery", State: state.get, Metrics: a.metrics, Log: a.log})
	operators.Handle("GET /registry", "known services and how many hosts each has", serveServices(a.hosts))
	a.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})
	return operators, nil
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
	select {
	case <-s.registry.Loaded():
		return admin.State{Ready: true, Text: "ready"}
	default:
		return admin.State{Text: "the registry is not loaded yet"}
	}
}

// serveServices answers with how many hosts each known service has, and with 503
// while the registry is not loaded.
func serveServices(r *registry.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		services, err := r.Services()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		counts := make(map[string]int, len(services))
		for i := range services {
			counts[services[i].Name] = services[i].Hosts
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		// A failed write means that the reader has gone.
		_ = encoder.Encode(struct {
			Services map[string]int `json:"services"`
		}{counts})
	})
}
