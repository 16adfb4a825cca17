package adminapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
)

// Control is what operators can do to the proxy.
type Control interface {
	// FailHealthChecks makes the proxy fail its health checks, and end connections
	// with their next answer, or ends that.
	FailHealthChecks(fail bool)
	// DrainListeners closes sockets, as listener.Manager has it.
	DrainListeners(inboundOnly, graceful, keepOpen bool)
	// ReopenLogs opens the files of access logs anew.
	ReopenLogs()
	// Quit ends the process as SIGTERM does, and does not wait for that.
	Quit()
}

// done answers an action that there is nothing to say of.
func done(w http.ResponseWriter) error {
	writeText(w, []byte("OK\n"))
	return nil
}

// failHealthChecks serves /healthcheck/fail and /healthcheck/ok.
func (a *api) failHealthChecks(fail bool) func(http.ResponseWriter, url.Values) error {
	return func(w http.ResponseWriter, _ url.Values) error {
		a.Control.FailHealthChecks(fail)
		return done(w)
	}
}

// drainListeners serves /drain_listeners.
func (a *api) drainListeners(w http.ResponseWriter, query url.Values) error {
	a.Control.DrainListeners(query.Has("inboundonly"), query.Has("graceful"), query.Has("skip_exit"))
	return done(w)
}

// reopenLogs serves /reopen_logs.
func (a *api) reopenLogs(w http.ResponseWriter, _ url.Values) error {
	a.Control.ReopenLogs()
	return done(w)
}

// quit serves /quitquitquit.
func (a *api) quit(w http.ResponseWriter, _ url.Values) error {
	a.Control.Quit()
	return done(w)
}

// resetCounters serves /reset_counters.
func (a *api) resetCounters(w http.ResponseWriter, _ url.Values) error {
	a.Stats.ResetCounters()
	return done(w)
}

// modifyRuntime serves /runtime_modify.
func (a *api) modifyRuntime(w http.ResponseWriter, query url.Values) error {
	if len(query) == 0 {
		return wrong("usage: /runtime_modify?key1=value1&key2=value2, or a form with them; an empty value takes a key out of the admin_layer")
	}
	changes := map[string]string{}
	for key := range query {
		changes[key] = query.Get(key)
	}
	switch err := a.Runtime.Modify(changes); {
	case errors.Is(err, layeredruntime.ErrNoAdminLayer):
		return &queryError{http.StatusServiceUnavailable, err.Error()}
	case err != nil:
		return wrong("%v", err)
	}
	return done(w)
}

// off is above the level of every line.
const off = slog.LevelError + 4

// logger is the only one that there is, where Envoy has many.
const logger = "proxy"

// levels are Envoy's names of levels by ours.
var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
	"error": slog.LevelError, "critical": slog.LevelError, "off": off,
}

// levelName is Envoy's name of a level.
func levelName(l slog.Level) string {
	switch {
	case l >= off:
		return "off"
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warning"
	case l >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

// logging serves /logging: it sets the level of the log, if the query has one, and
// tells it.
func (a *api) logging(w http.ResponseWriter, query url.Values) error {
	wanted := []string{query.Get("level"), query.Get(logger)}
	if paths := query.Get("paths"); paths != "" {
		for pair := range strings.SplitSeq(paths, ",") {
			name, level, _ := strings.Cut(pair, ":")
			if name != logger {
				return wrong("parameter paths=%q: there is no logger %q, but %s alone", paths, name, logger)
			}
			wanted = append(wanted, level)
		}
	}
	set := a.LogLevel.Level()
	for _, name := range wanted {
		level, known := levels[name]
		switch {
		case known:
			set = level
		case name != "":
			return wrong("level %q is not one of trace, debug, info, warning, error, critical, off", name)
		}
	}
	a.LogLevel.Set(set)
	writeText(w, fmt.Appendf(nil, "active loggers:\n  %s: %s\n", logger, levelName(set)))
	return nil
}
