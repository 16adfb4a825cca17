package servicetest

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Service is a built service whose listeners are open.
type Service interface {
	// Run serves until ctx ends, then drains.
	Run(ctx context.Context) error
}

// Run runs a service in this process until the test ends, or stop is called:
// that waits for its end and returns its error, each time it is called. A
// service that ends with an error fails the test.
func Run(t testing.TB, s Service) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	// Ends with ctx; stop waits for it.
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { require.NoError(t, stop()) })
	return stop
}

// Get asks an HTTP listener, "host:port", and returns status and body. The
// connection is not kept.
func Get(t testing.TB, address, target string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + target)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}
