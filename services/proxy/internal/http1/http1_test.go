package http1_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// limits are those of an http_connection_manager by default.
var limits = http1.Limits{HeadBytes: 60 << 10, Headers: 100}

// crlf gives a message the line ends that it has on the wire.
func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// inAnySplit reads text whole, byte by byte, in random parts, and from a pipe of the
// system, which is read as sockets are. What is understood of it must not depend on
// how it arrives.
func inAnySplit(t *testing.T, text string, read func(io.Reader) string) string {
	t.Helper()
	whole := read(strings.NewReader(text))
	require.Equal(t, whole, read(iotest.OneByteReader(strings.NewReader(text))), "byte by byte")
	require.Equal(t, whole, readPiped(t, text, read), "from a pipe")
	for seed := range uint64(5) {
		source := &randomParts{strings.NewReader(text), rand.New(rand.NewPCG(seed, 0))}
		require.Equal(t, whole, read(source), "in random parts of seed %d", seed)
	}
	return whole
}

// readPiped reads text from a pipe of the system.
func readPiped(t *testing.T, text string, read func(io.Reader) string) string {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	written := make(chan bool)
	// Ends with the text, or with the pipe; received below.
	go func() {
		_, _ = io.WriteString(in, text) // who reads may want no more
		_ = in.Close()
		close(written)
	}()
	got := read(out)
	require.NoError(t, out.Close())
	<-written
	return got
}

// randomParts gives up to 40 bytes with each Read.
type randomParts struct {
	source io.Reader
	random *rand.Rand
}

func (p *randomParts) Read(to []byte) (int, error) {
	return p.source.Read(to[:min(len(to), 1+p.random.IntN(40))])
}

// requests reads the requests of a connection to its end and writes down what
// it understood, one line for each and one for the end:
//
//	POST /a host=a.example x-user=ann | 3:abc
//	end
//
// A line ends in "| length:body", "| chunked:body" or nothing, and begins with
// "close: " if the client wants the connection closed.
func requests(t *testing.T, text string, limits http1.Limits) string {
	t.Helper()
	return inAnySplit(t, text, func(source io.Reader) string { return readRequests(source, limits) })
}

func readRequests(source io.Reader, limits http1.Limits) string {
	r := http1.NewReader(source, limits)
	var b strings.Builder
	var m message.Request // one for all, as a connection has
	for {
		keepAlive, err := r.ReadRequest(&m)
		if err != nil {
			b.WriteString(ending(err))
			return b.String()
		}
		if !keepAlive {
			b.WriteString("close: ")
		}
		fmt.Fprintf(&b, "%s %s host=%s%s", m.Method, m.Path, m.Authority, fields(&m.Headers))
		if m.ExpectContinue {
			b.WriteString(" (expects 100)")
		}
		if err := writeBody(&b, m.Body, m.BodyLength); err != nil {
			b.WriteString(ending(err))
			return b.String()
		}
	}
}

// responses is requests for the responses to a method. After one that ends the
// connection it goes on only to see that nothing is left.
func responses(t *testing.T, text, method string) string {
	t.Helper()
	return inAnySplit(t, text, func(source io.Reader) string { return readResponses(source, method) })
}

func readResponses(source io.Reader, method string) string {
	r := http1.NewReader(source, limits)
	var b strings.Builder
	var m message.Response
	for {
		keepAlive, err := r.ReadResponse(&m, []byte(method))
		if err != nil {
			b.WriteString(ending(err))
			return b.String()
		}
		if !keepAlive {
			b.WriteString("close: ")
		}
		fmt.Fprintf(&b, "%d%s", m.Status, fields(&m.Headers))
		if m.Bodiless {
			b.WriteString(" (bodiless)")
		}
		if err := writeBody(&b, m.Body, m.BodyLength); err != nil {
			b.WriteString(ending(err))
			return b.String()
		}
	}
}

func fields(h *message.Headers) string {
	var b strings.Builder
	for i := range h.Len() {
		name, value := h.At(i)
		fmt.Fprintf(&b, " %s=%s", name, value)
	}
	return b.String()
}

// writeBody reads a body to its end and writes it down with the end of the line.
func writeBody(b *strings.Builder, body message.Body, length int64) error {
	defer b.WriteByte('\n')
	if body == nil {
		return nil
	}
	kind := "chunked"
	if length != message.Unknown {
		kind = fmt.Sprint(length)
	}
	fmt.Fprintf(b, " | %s:", kind)
	for {
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b.Write(chunk)
	}
}

// ending says how a connection ended: "end", "cut off", or the status that
// answers a broken protocol, and why.
func ending(err error) string {
	var protocol *message.ProtocolError
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	case errors.As(err, &protocol):
		return fmt.Sprint(protocol.Status, " ", protocol.Detail)
	default:
		return "error: " + err.Error()
	}
}
