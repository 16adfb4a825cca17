package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// connected are both ends of a connection over TCP.
func connected(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// TestAConnectionThatWaitsHoldsNoBuffers has heads of all lengths arrive after a
// wait: within what is read first where that is no socket, beyond it, and beyond a
// buffer.
func TestAConnectionThatWaitsHoldsNoBuffers(t *testing.T) {
	ends := map[string]func() (client, server net.Conn){
		"a socket": func() (client, server net.Conn) { return connected(t) },
		"a pipe":   net.Pipe,
	}
	for name, pair := range ends {
		t.Run(name, func(t *testing.T) {
			client, server := pair()
			defer client.Close()
			limits := Limits{HeadBytes: 64 << 10, Headers: 100}
			r, w := NewReader(server, limits), NewWriter(server)
			var m message.Request
			for _, length := range []int{0, waitSize - 40, waitSize, 5000, bufferSize, 40_000, 10} {
				value := strings.Repeat("a", length)
				sent := make(chan error, 1)
				// Ends with the write; received below.
				go func() {
					_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: mill\r\nX-A: "+value+"\r\n\r\n")
					sent <- err
				}()
				require.NoError(t, r.Wait())
				m.Headers.Reset()
				_, err := r.ReadRequest(&m)
				require.NoError(t, err)
				require.NoError(t, <-sent)
				got, _ := m.Headers.Get("x-a")
				require.Equal(t, value, string(got))
				require.Nil(t, r.buf, "nothing follows the head")

				w.WriteResponse(&message.Response{Status: 204, Bodiless: true}, true)
				require.NotNil(t, w.buf)
				// Ends with the read; the pipe has no room.
				go func() { _, _ = client.Read(make([]byte, 1024)) }()
				require.NoError(t, w.Flush())
				require.Nil(t, w.buf)
			}
			require.NoError(t, server.SetReadDeadline(time.Unix(1, 0)))
			require.Error(t, r.Wait())
			require.Nil(t, r.buf)
		})
	}
}

// counting is a connection that counts what is read from it.
type counting struct {
	*net.TCPConn
	read int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.read += n
	return n, err
}

func TestWhatWrapsASocketIsReadItself(t *testing.T) {
	client, server := connected(t)
	wrapped := &counting{TCPConn: server.(*net.TCPConn)}
	r := NewReader(wrapped, Limits{HeadBytes: 1000, Headers: 10})
	const text = "GET / HTTP/1.1\r\nHost: mill\r\n\r\n"
	_, err := io.WriteString(client, text)
	require.NoError(t, err)
	_, err = r.ReadRequest(&message.Request{})
	require.NoError(t, err)
	require.Len(t, text, wrapped.read)
}

// TestASocketThatWaitsWithinABodyHoldsNoBuffer has a body come in parts, and looks
// at the reader while it waits for the second one.
func TestASocketThatWaitsWithinABodyHoldsNoBuffer(t *testing.T) {
	client, server := connected(t)
	r := NewReader(server, Limits{HeadBytes: 1000, Headers: 10})
	_, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: mill\r\nContent-Length: 2\r\n\r\na")
	require.NoError(t, err)
	var m message.Request
	_, err = r.ReadRequest(&m)
	require.NoError(t, err)
	chunk, err := m.Body.Next()
	require.NoError(t, err)
	require.Equal(t, "a", string(chunk))

	// What the runtime calls before it waits, and when it need not any more.
	try := func() (done bool) {
		require.NoError(t, r.socket.Control(func(fd uintptr) { done = r.tryRead(fd) }))
		return done
	}
	require.False(t, try())
	require.Nil(t, r.buf)
	require.NoError(t, client.Close())
	servicetest.Eventually(t, "the end is there", try)
	require.ErrorIs(t, r.failed, io.EOF)
	require.Nil(t, r.buf)
}

// TestTheEndOfAConnectionGivesItsBufferBack has a client close, and break off, a
// connection that waits for its next request.
func TestTheEndOfAConnectionGivesItsBufferBack(t *testing.T) {
	for name, end := range map[string]struct {
		linger int // seconds; 0 has the close be a reset
		err    error
	}{
		"closed": {-1, io.EOF},
		"broken": {0, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := connected(t)
			r := NewReader(server, Limits{HeadBytes: 1000, Headers: 10})
			require.NoError(t, client.(*net.TCPConn).SetLinger(end.linger))
			require.NoError(t, client.Close())
			require.ErrorIs(t, r.Wait(), end.err)
			require.Nil(t, r.buf)
		})
	}
}

// TestLongBodiesAreReadIntoALargeBuffer reads bodies of both kinds, one after
// another, and looks at the buffer within each and behind it.
func TestLongBodiesAreReadIntoALargeBuffer(t *testing.T) {
	client, server := connected(t)
	r := NewReader(server, Limits{HeadBytes: 1000, Headers: 10})
	for _, c := range []struct {
		name           string
		length, buffer int // what the buffer holds by the end of the body
	}{
		{"short", 100, bufferSize},
		{"as long as a buffer", bufferSize, bufferSize},
		{"long", 10 * largeSize, largeSize},
		{"long, into a large buffer from the start", 2 * largeSize, largeSize},
		{"short again, into what the one before wants", 100, largeSize},
		{"short", 100, bufferSize},
	} {
		sent := make(chan error, 1)
		// Ends with the write; received below.
		go func() {
			_, err := fmt.Fprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", c.length, strings.Repeat("x", c.length))
			sent <- err
		}()
		var m message.Response
		_, err := r.ReadHead(&m, []byte("GET"))
		require.NoError(t, err)
		got, last := 0, 0
		for {
			chunk, err := m.Body.Next()
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			require.Equal(t, strings.Repeat("x", len(chunk)), string(chunk))
			got, last = got+len(chunk), len(r.buf)
		}
		require.Equal(t, c.length, got, c.name)
		require.Equal(t, c.buffer, last, c.name)
		require.Nil(t, r.buf, c.name)
		require.NoError(t, <-sent)
	}
}

// TestReadAfterSeesTheAnswerWheneverItComes has it come while the question is still
// being sent, when the sockets were looked after in between, and later.
func TestReadAfterSeesTheAnswerWheneverItComes(t *testing.T) {
	for name, c := range map[string]struct {
		pair  func() (client, server net.Conn)
		early bool // the answer is there before the wait
	}{
		"at once on a socket": {func() (client, server net.Conn) { return connected(t) }, true},
		"later on a socket":   {func() (client, server net.Conn) { return connected(t) }, false},
		"from a pipe":         {net.Pipe, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := c.pair()
			require.NoError(t, client.SetDeadline(time.Now().Add(servicetest.Patience)))
			answered := make(chan error)
			go func() { // ends with the connection, which is the last thing it tells of
				question := make([]byte, len("what?"))
				for {
					if _, err := io.ReadFull(server, question); err != nil {
						answered <- err
						return
					}
					_, err := io.WriteString(server, "HTTP/1.1 204 No Content\r\n\r\n")
					answered <- err
				}
			}()
			r := NewReader(client, Limits{HeadBytes: 8 << 10, Headers: 100})
			var m message.Response
			for range 100 {
				require.NoError(t, r.ReadAfter(func() error {
					_, err := io.WriteString(client, "what?")
					if c.early {
						require.NoError(t, <-answered)
					}
					return err
				}))
				_, err := r.ReadHead(&m, []byte("GET"))
				require.NoError(t, err)
				require.Equal(t, 204, m.Status)
				if !c.early {
					require.NoError(t, <-answered)
				}
			}
			require.NoError(t, client.Close())
			require.Error(t, <-answered)
		})
	}
}

func TestReadAfterFailsAsItsWriteOrTheRead(t *testing.T) {
	client, server := connected(t)
	r := NewReader(client, Limits{HeadBytes: 8 << 10, Headers: 100})
	failed := errors.New("no paper")
	require.Equal(t, failed, r.ReadAfter(func() error { return failed }))
	nothing := func() error { return nil }

	require.NoError(t, client.SetReadDeadline(time.Now().Add(-time.Second)))
	require.ErrorIs(t, r.ReadAfter(nothing), os.ErrDeadlineExceeded)
	require.NoError(t, client.SetReadDeadline(time.Time{}))

	_, err := io.WriteString(server, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
	require.NoError(t, err)
	raw, err := client.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	servicetest.Eventually(t, "it is there", func() (there bool) {
		require.NoError(t, raw.Control(func(fd uintptr) { there = !Quiet(fd) }))
		return there
	})
	notAsked := func() error { return errors.New("it was asked") }
	require.Equal(t, ErrUnasked, r.ReadAfter(notAsked))
	var m message.Response
	_, err = r.ReadHead(&m, []byte("GET"))
	require.NoError(t, err)
	require.Equal(t, 408, m.Status)

	require.Equal(t, io.EOF, r.ReadAfter(server.Close))
	require.Equal(t, ErrUnasked, r.ReadAfter(notAsked))
}
