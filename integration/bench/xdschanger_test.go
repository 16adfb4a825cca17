package bench

import (
	"bufio"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// changer changes hosts of a discovery, without waiting for the answers.
type changer struct {
	t        testing.TB
	address  string
	fleet    fleet
	weights  map[int]int // of hosts that were changed
	sent     int
	at       time.Time // when the last was sent
	answered atomic.Int64
	refused  atomic.Int64

	connection net.Conn // nil before the first call
	reading    sync.WaitGroup
}

func newChanger(t testing.TB, p *harness.Process, f fleet) *changer {
	t.Helper()
	c := &changer{t: t, address: p.Addr("http"), fleet: f, weights: map[int]int{}}
	t.Cleanup(c.hangUp)
	return c
}

// hangUp ends the connection, if there is one.
func (c *changer) hangUp() {
	if c.connection != nil {
		_ = c.connection.Close() // it has nothing to say any more
	}
	c.reading.Wait()
}

// connect makes a connection for the calls that follow, and reads the answers.
func (c *changer) connect() {
	c.t.Helper()
	connection, err := net.Dial("tcp", c.address)
	require.NoError(c.t, err)
	c.connection = connection
	// Ends with the connection; hangUp waits for it.
	c.reading.Go(func() {
		r := bufio.NewReaderSize(connection, 64<<10)
		for {
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				return
			}
			_ = answer.Body.Close() // it is read
			if answer.StatusCode/100 != 2 {
				c.refused.Add(1)
			}
			c.answered.Add(1)
		}
	})
}

// send sends a call.
func (c *changer) send(call []byte) {
	c.t.Helper()
	const idle = 10 * time.Second // after more of it a server may hang up
	now := time.Now()
	if now.Sub(c.at) > idle {
		c.settle()
		c.hangUp()
		c.connect()
	}
	c.at = now
	_, err := c.connection.Write(call)
	require.NoError(c.t, err)
	c.sent++
}

// reweigh gives the first host of a service another weight.
func (c *changer) reweigh(service int) {
	c.t.Helper()
	const one, other = 1, 2 // one is that of hosts which name none
	if c.weights[service] == other {
		c.weights[service] = one
	} else {
		c.weights[service] = other
	}
	c.send(c.fleet.put(service, longestTTL, c.fleet.revision(service), c.weights[service]))
}

// settle waits until all calls are answered, and wants them answered well.
func (c *changer) settle() {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return int(c.answered.Load()) == c.sent }, time.Minute, time.Millisecond, "all calls are answered")
	require.Zero(c.t, c.refused.Load(), "calls that were refused")
}

// paced calls do so many times a second for d. It tells when each call was to
// be, which may be a little ago.
func paced(perSecond float64, d time.Duration, do func(n int, due time.Time)) {
	began := time.Now()
	for n := range int(math.Round(perSecond * d.Seconds())) {
		due := began.Add(toDuration(float64(n) / perSecond))
		if left := time.Until(due); left > 0 {
			time.Sleep(left)
		}
		do(n, due)
	}
}
