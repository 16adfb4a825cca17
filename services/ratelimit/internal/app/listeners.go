package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/grpcserver"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

// serveGRPC makes the part that serves the rate limit service, health and
// reflection on l.
func serveGRPC(l net.Listener, o grpcserver.Options) daemon.Part {
	server := grpcserver.New(l, o)
	return daemon.Part{Name: "grpc listener", Run: server.Serve, Stop: server.Stop}
}

// servePlain makes the part that serves /json and /healthcheck on l.
func servePlain(l net.Listener, service *rls.Service, h *serviceHealth, log *slog.Logger) daemon.Part {
	mux := http.NewServeMux()
	mux.HandleFunc("/json", service.JSON)
	mux.HandleFunc("/healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		if state := h.state(); !state.Ready {
			http.Error(w, state.Text, http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "OK")
	})
	return daemon.ServeHTTP("http listener", l, mux, log)
}
