package app

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/environtest"
)

// full is a listener that finds too many files open a few times, and then breaks.
type full struct {
	net.Listener
	times int
}

func (l *full) Accept() (net.Conn, error) {
	if l.times--; l.times >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: syscall.EMFILE}
	}
	return nil, errors.New("broken")
}

func TestThatNoConnectionCanBeAcceptedIsLoggedOnceAndCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var o Options
	environtest.Defaults(t, &o)
	var out bytes.Buffer
	log, metrics := slog.New(slog.NewTextHandler(&out, nil)), prometheus.NewRegistry()
	access, err := newAccess(o.AccessOptions, metrics, log)
	require.NoError(t, err)
	server := newGRPCServer(o, access, log, metrics)
	require.ErrorContains(t, server.Serve(&full{l, 3}), "broken")
	server.Stop()
	require.Equal(t, 1, strings.Count(out.String(), "too many open files"), out.String())
	families, err := metrics.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, f := range families {
		counted[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	require.InDelta(t, 3, counted["discovery_xds_accept_errors_total"], 0)
}
