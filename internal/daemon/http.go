package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ServeHTTP makes a part that serves handler on an open listener, which it
// then owns, with the time-outs that an API of small messages needs. Its Stop
// lets requests in flight end. Each of set may change the server before it serves.
func ServeHTTP(name string, l net.Listener, handler http.Handler, log *slog.Logger, set ...func(*http.Server)) Part {
	server := &http.Server{
		Handler:      handler,
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  2 * time.Minute,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	for _, change := range set {
		change(server)
	}
	return Part{
		Name: name,
		Run: func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		Stop: func(ctx context.Context) error {
			defer l.Close() // of a server that has not begun
			if err := server.Shutdown(ctx); err != nil {
				return server.Close()
			}
			return nil
		},
	}
}
