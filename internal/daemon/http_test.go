package daemon_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/daemon"
)

func TestServeHTTPAnswersUntilItsStop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	part := daemon.ServeHTTP("api", l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}), slog.New(slog.DiscardHandler))
	served := make(chan error)
	go func() { served <- part.Run() }() // ends with Stop
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + l.Addr().String())
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "hello", string(body))
	require.NoError(t, part.Stop(context.Background()))
	require.NoError(t, <-served)
}

func TestStopOfAnHTTPPartThatHasNotBegunClosesItsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	part := daemon.ServeHTTP("api", l, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	require.NoError(t, part.Stop(t.Context()))
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestListenersAreKnownByTheirNamesAndClosedTogether(t *testing.T) {
	var all daemon.Listeners
	a, err := all.Open("http", "127.0.0.1:0", "MILL_HTTP")
	require.NoError(t, err)
	b, err := all.Open("admin", "127.0.0.1:0", "MILL_ADMIN")
	require.NoError(t, err)
	c, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	all.Add("grpc", c)
	require.Equal(t, map[string]string{"http": a.Addr().String(), "admin": b.Addr().String(), "grpc": c.Addr().String()}, all.Addrs())
	_, err = all.Open("third", a.Addr().String(), "MILL_THIRD")
	require.ErrorContains(t, err, "MILL_THIRD moves it")
	all.Close()
	_, err = a.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = b.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
