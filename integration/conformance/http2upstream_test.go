package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// brokenOff are requests to a host of HTTP/2: the method, how long its body is, the
// path, what the host does with each stream, and how often it gets the request, of our
// proxy too unless that differs.
var brokenOff = []struct {
	method string
	body   int
	path   string
	does   string
	ours   string // where it differs from Envoy's, on purpose
}{
	{"GET", 0, "/", "head data end", ""}, // later ones find a connection

	// What came before the end can be read.
	{"GET", 0, "/", "head data cancel", ""},
	{"POST", 10, "/", "head data internal", ""},
	{"GET", 0, "/", "500 data internal", ""},
	{"GET", 0, "/", "head close", ""},
	{"GET", 0, "/", "head data close", ""},
	{"GET", 0, "/", "head data goaway close", ""},
	{"GET", 0, "/", "close", ""},
	{"POST", 10, "/", "head data end no", ""},
	{"POST", 200_000, "/", "head data end no", ""},
	{"POST", 200_000, "/", "head data end half", ""},
	{"POST", 200_000, "/", "head data end goaway half", ""},
	{"POST", 200_000, "/", "head data cancel", ""},
	{"POST", 200_000, "/", "cancel", ""},

	// What a host may have processed is sent once, but for retries.
	{"GET", 0, "/", "cancel", ""}, {"PUT", 0, "/", "cancel", ""}, {"DELETE", 0, "/", "internal", ""}, {"GET", 0, "/", "no", ""},
	{"GET", 0, "/reset", "cancel", ""}, {"GET", 0, "/reset", "close", ""}, {"GET", 0, "/refused", "refuse", ""}, {"POST", 10, "/refused", "refuse", ""},
	{"GET", 0, "/refused", "cancel", ""}, {"GET", 0, "/reset", "behind", ""}, {"POST", 10, "/", "refuse", ""},
	// What it has not is sent once more, if it has no body.
	{"GET", 0, "/", "refuse", refused}, {"POST", 0, "/", "refuse", refused}, {"GET", 0, "/", "behind", refused}, {"GET", 0, "/other", "refuse", refused},
}

const refused = `503 "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset" as a whole, of 2 streams`

func TestOurProxyAndARealEnvoyTakeWhatHTTP2BreaksOffAlike(t *testing.T) {
	theirs, our := newBreaking(t), newBreaking(t)
	before := func(up *breaking) string {
		return bootstrap{
			listeners: []listener{{manager: breakingRoutes}},
			clusters:  []string{cluster("up", up.address, overHTTP2)},
		}.String()
	}
	envoy, ours := harness.Envoy(t, before(theirs)), harness.Proxy(t, before(our))
	for _, c := range brokenOff {
		t.Run(fmt.Sprintf("%s %s of %d bytes, %s", c.method, c.path, c.body, c.does), func(t *testing.T) {
			want := theirs.ask(t, envoy.Addr("ingress"), c.method, c.path, c.does, c.body)
			if c.ours != "" {
				require.NotEqual(t, want, c.ours)
				want = c.ours
			}
			require.Equal(t, want, our.ask(t, ours.Addr("ingress"), c.method, c.path, c.does, c.body))
		})
	}
}

const breakingRoutes = `
route_config:
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes:
    - {match: {prefix: /reset}, route: {cluster: up, retry_policy: {retry_on: reset, num_retries: 1}}}
    - {match: {prefix: /refused}, route: {cluster: up, retry_policy: {retry_on: refused-stream, num_retries: 2}}}
    - {match: {prefix: /other}, route: {cluster: up, retry_policy: {retry_on: retriable-4xx, num_retries: 2}}}
    - {match: {prefix: /}, route: {cluster: up}}
`

// breaking is a host of HTTP/2 that does with each stream what its request says in
// x-does, and gives no credit for bodies.
type breaking struct {
	address string

	mu      sync.Mutex
	streams int // of the present request
}

func newBreaking(t *testing.T) *breaking {
	b := &breaking{}
	b.address = servicetest.Accept(t, func(conn net.Conn) { _ = b.serve(conn.(*net.TCPConn)) })
	return b
}

// serve serves a connection until it ends.
func (b *breaking) serve(conn *net.TCPConn) error {
	if _, err := io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	var answer bytes.Buffer // goes out in one piece
	framer := http2.NewFramer(&answer, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings() // all goes to memory
	for {
		if _, err := answer.WriteTo(conn); err != nil {
			return err
		}
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			b.mu.Lock()
			b.streams++
			b.mu.Unlock()
			if err := carryOut(conn, framer, &answer, f); err != nil {
				return err
			}
		}
	}
}

// carryOut does what a request says, and returns an error if that is to end the
// connection.
func carryOut(conn *net.TCPConn, framer *http2.Framer, answer *bytes.Buffer, request *http2.MetaHeadersFrame) error {
	var words []string
	for _, field := range request.RegularFields() {
		if field.Name == "x-does" {
			words = strings.Fields(field.Value)
		}
	}
	codes := map[string]http2.ErrCode{
		"no": http2.ErrCodeNo, "cancel": http2.ErrCodeCancel, "internal": http2.ErrCodeInternal, "refuse": http2.ErrCodeRefusedStream,
	}
	for i, word := range words {
		switch word {
		case "head", "500":
			block := []byte{0x88} // :status 200, by RFC 7541
			if word == "500" {
				block = []byte{0x8e}
			}
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: request.StreamID, BlockFragment: block, EndHeaders: true})
		case "data":
			end := i+1 < len(words) && words[i+1] == "end"
			_ = framer.WriteData(request.StreamID, end, []byte("ok"))
		case "end":
		case "goaway":
			_ = framer.WriteGoAway(request.StreamID, http2.ErrCodeNo, nil)
		case "behind": // a GOAWAY
			_ = framer.WriteGoAway(request.StreamID-1, http2.ErrCodeNo, nil)
		case "half":
			if _, err := answer.WriteTo(conn); err != nil {
				return err
			}
			return conn.CloseWrite()
		case "close":
			if _, err := answer.WriteTo(conn); err != nil {
				return err
			}
			return io.EOF
		default:
			_ = framer.WriteRSTStream(request.StreamID, codes[word])
		}
	}
	return nil
}

// ask sends a request through a proxy, and says what came of it, there and here.
func (b *breaking) ask(t *testing.T, proxy, method, path, does string, body int) string {
	b.mu.Lock()
	b.streams = 0
	b.mu.Unlock()
	request, err := http.NewRequest(method, "http://"+proxy+path, strings.NewReader(strings.Repeat("a", body)))
	require.NoError(t, err)
	request.Header.Set("X-Does", does)
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, response.Body.Close())
	end := "as a whole"
	if err != nil {
		end = "broken off"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d %q %s, of %d streams", response.StatusCode, text, end, b.streams)
}
