package agent

import (
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestAHostThatWasNeverTakenIsNotDeregistered(t *testing.T) {
	away := httptest.NewServer(nil)
	away.Close()
	for name, before := range map[string][]string{
		"refused":                        nil,
		"not heard by one, refused then": {away.URL},
	} {
		t.Run(name, func(t *testing.T) {
			var e events
			d := newDiscovery(t, &e, 400)
			urls := append(before, d.URL)
			a := start(t, &e, urls, 0, "listen")
			servicetest.Eventually(t, "it tries on", func() bool { return e.count("POST /v1/registration/users 400") >= 3 })
			a.signals <- syscall.SIGTERM
			a.end(t, 7)
			require.Equal(t, 1, e.count("400 Bad Request: the reason"), "it is said once")
			require.Zero(t, e.count("DELETE"))
			require.Zero(t, e.count("deregistered"))
		})
	}
}

func TestAHostThatMayHaveBeenTakenIsDeregistered(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 500)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "POST")
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	require.Equal(t, 1, e.count("DELETE /v1/registration/users/127.0.0.1?port="+os.Getenv(programPort)+" 500"))
	require.Equal(t, 1, e.count("not deregistered; if it is still registered, that ends with the ttl"))
}

func TestAHostThatWasTakenOnceIsDeregisteredThoughRefusedLater(t *testing.T) {
	var e events
	d := newDiscovery(t, &e, 200)
	a := start(t, &e, []string{d.URL}, 0, "listen")
	e.await(t, "msg=registered")
	d.answer(400)
	e.await(t, "POST /v1/registration/users 400")
	d.answer(200)
	a.signals <- syscall.SIGTERM
	a.end(t, 7)
	e.order(t, "400", "DELETE", "msg=deregistered")
}

func TestThePausesGrowAndMostAfterARefusal(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		longest time.Duration
	}{
		"refused":                           {&statusError{400, "no"}, time.Minute},
		"refused by one, another not heard": {errors.Join(io.EOF, &statusError{400, "no"}), time.Minute},
		"not ready":                         {&statusError{503, "later"}, 2 * time.Second},
		"not heard":                         {io.EOF, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			pause := nextRetry(retryShortest, test.err)
			require.Equal(t, 2*retryShortest, pause)
			for range 10 {
				pause = nextRetry(pause, test.err)
			}
			require.Equal(t, test.longest, pause)
		})
	}
}
