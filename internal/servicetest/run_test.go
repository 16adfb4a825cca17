package servicetest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// service is a function as a service.
type service func(ctx context.Context) error

func (f service) Run(ctx context.Context) error { return f(ctx) }

func TestAServiceRunsUntilTheTestEnds(t *testing.T) {
	ended := false
	t.Run("within", func(t *testing.T) {
		Run(t, service(func(ctx context.Context) error {
			<-ctx.Done()
			ended = true
			return nil
		}))
	})
	require.True(t, ended)
}

func TestAStopWaitsForTheServiceAndSaysHowItEnded(t *testing.T) {
	broken := errors.New("the stone broke")
	var stop func() error
	ends := &cleanups{TB: t}
	stop = Run(ends, service(func(ctx context.Context) error {
		<-ctx.Done()
		return broken
	}))
	require.Equal(t, broken, stop())
	require.Equal(t, broken, stop())
	require.Len(t, ends.last, 1)
	require.True(t, run(t, func(tb testing.TB) {
		ends.TB = tb
		ends.last[0]()
	}).failed, "the test of a service that ended with an error")
}

// cleanups is a testing.TB that keeps what is to be done at its end.
type cleanups struct {
	testing.TB
	last []func()
}

func (c *cleanups) Cleanup(f func()) { c.last = append(c.last, f) }

func TestGetReturnsStatusAndBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, r.URL.Path, http.StatusTeapot)
	}))
	defer server.Close()
	status, body := Get(t, server.Listener.Addr().String(), "/mill")
	require.Equal(t, http.StatusTeapot, status)
	require.Equal(t, "/mill\n", body)
}
