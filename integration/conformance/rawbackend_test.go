package conformance

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// rawBackend keeps the requests that come to it whole, and answers each on a
// connection that ends then, so that no proxy takes one that is about to end.
type rawBackend struct {
	address string

	mu     sync.Mutex
	answer string // the next case's; defaultAnswer if it is empty
	seen   []rawMessage
	open   int // connections
}

// The backend's answer has a field that no proxy makes.
const (
	backendMark   = "x-backend"
	defaultAnswer = "HTTP/1.1 200 OK\r\nX-Backend: one\r\nServer: theirs\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
	switched      = "HTTP/1.1 101 "
)

// newRawBackend serves until the test ends.
func newRawBackend(t *testing.T) *rawBackend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &rawBackend{address: listener.Addr().String()}
	var serving sync.WaitGroup
	// Ends with the listener, and each connection with its proxy, which a test ends
	// first; waited for below.
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.serves(1)
			serving.Go(func() {
				defer b.serves(-1)
				b.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return b
}

func (b *rawBackend) serves(more int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open += more
}

// connections are how many it serves, or waits for a request on.
func (b *rawBackend) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// serve answers one request.
func (b *rawBackend) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	m, err := readRaw(r, false, false)
	if err != nil {
		return
	}
	answer := defaultAnswer
	b.mu.Lock()
	if !strings.Contains(m.line, probeTarget) {
		b.seen = append(b.seen, m)
		if b.answer != "" {
			answer = b.answer
		}
	}
	b.mu.Unlock()
	if strings.HasPrefix(m.line, "HEAD ") && answer == defaultAnswer {
		answer = strings.TrimSuffix(answer, "ok")
	}
	if _, err = io.WriteString(conn, answer); err == nil && strings.HasPrefix(answer, switched) {
		_, _ = io.Copy(conn, r) // ends with the connection
	}
}

// expect says what to answer from now on, and forgets what was seen.
func (b *rawBackend) expect(answer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer, b.seen = answer, nil
}

// requests are those that were seen since.
func (b *rawBackend) requests() []rawMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}
