package v2

import (
	"cmp"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// waiters bounds how many calls wait at once: each holds a connection and a
// goroutine for as long as the caller likes.
type waiters struct {
	most    int64
	waiting atomic.Int64
}

func newWaiters(most int, registerer prometheus.Registerer) *waiters {
	w := &waiters{most: int64(most)}
	registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discovery_rest_v2_waiters",
		Help: "Calls that wait for a change now: long polls and event streams.",
	}, func() float64 { return float64(w.waiting.Load()) }))
	return w
}

// begin lets one more call wait, which calls end when it is done. The error is
// call.ErrTooManyWaiters.
func (w *waiters) begin() (end func(), err error) {
	if w.waiting.Add(1) > w.most {
		w.waiting.Add(-1)
		return nil, call.ErrTooManyWaiters
	}
	return func() { w.waiting.Add(-1) }, nil
}

// answerTime is how long a caller that was waited with has to read the answer,
// and to send the rest of a call that it has not sent yet.
const answerTime = 30 * time.Second

// await waits until there is a list of a service that the caller does not wait
// for any longer, until its time is over, the caller is gone or no call is to
// wait, and returns the list of that moment. The error is that of the registry,
// call.ErrTooManyWaiters, or why the caller may not read any more.
func (f *face) await(w http.ResponseWriter, r *http.Request, query listQuery) (registry.Listing, error) {
	end, err := f.waiters.begin()
	if err != nil {
		return registry.Listing{}, err
	}
	defer end()
	// The listener's deadlines are for calls that are answered at once. One that
	// has none, such as a test's, refuses to change them, which does no harm.
	connection := http.NewResponseController(w)
	_ = connection.SetReadDeadline(time.Time{})
	_ = connection.SetWriteDeadline(time.Now().Add(query.wait + answerTime))
	defer func() { _ = connection.SetReadDeadline(time.Now().Add(answerTime)) }()

	timer := time.NewTimer(query.wait)
	defer timer.Stop()
	for {
		changed, forget := f.registry.Changed(query.service)
		listing, err := f.registry.List(query.service)
		if err != nil || !query.waitsFor(&listing) {
			forget()
			return listing, cmp.Or(err, mayStillRead(r))
		}
		var warm <-chan struct{}
		if listing.Partial {
			warm = f.registry.Warm()
		}
		over := false
		select {
		case <-changed:
		case <-warm:
		case <-timer.C:
			over = true
		case <-f.stopping:
			over = true
		case <-r.Context().Done():
			over = true
		}
		forget()
		if over {
			return listing, mayStillRead(r)
		}
	}
}

// mayStillRead returns why the caller of a call that lasts may not read any more, by
// the rules of now.
func mayStillRead(r *http.Request) error {
	caller := auth.FromContext(r.Context()).Now()
	return caller.MayRead()
}
