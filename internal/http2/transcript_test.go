package http2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	x "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// The frames that tests send are made here from their bytes, so that any rule
// can be broken; what comes back is read by x/net's Framer, and told as text.

// raw is a frame of any kind.
func raw(kind, flags uint8, stream uint32, payload string) string {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	b = binary.BigEndian.AppendUint32(b, stream)
	return string(b) + payload
}

// Flags.
const (
	end    = 0x1 // END_STREAM
	ack    = 0x1
	whole  = 0x4 // END_HEADERS
	padded = 0x8
	weight = 0x20 // PRIORITY
)

func word(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

func data(flags uint8, stream uint32, payload string) string { return raw(0, flags, stream, payload) }

// headers is a HEADERS frame with fields "name: value", one a line.
func headers(flags uint8, stream uint32, fields string) string {
	return raw(1, flags, stream, block(fields))
}

func priority(stream, on uint32) string          { return raw(2, 0, stream, word(on)+"\x00") }
func reset(stream uint32, code x.ErrCode) string { return raw(3, 0, stream, word(uint32(code))) }
func ping(flags uint8, text string) string       { return raw(6, flags, 0, text) }
func windowUpdate(stream, n uint32) string       { return raw(8, 0, stream, word(n)) }

// settings is a SETTINGS frame with pairs of id and value.
func settings(pairs ...uint32) string {
	var payload string
	for i := 0; i < len(pairs); i += 2 {
		payload += word(pairs[i])[2:] + word(pairs[i+1])
	}
	return raw(4, 0, 0, payload)
}

// block is a header block of literals that are not added to the table.
func block(fields string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(fields, "\n"), "\n") {
		if line == "" {
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		b.WriteString("\x00" + text(name) + text(value))
	}
	return b.String()
}

// text is a string of HPACK.
func text(s string) string {
	if len(s) < 127 {
		return string(rune(len(s))) + s
	}
	n := []byte{127}
	rest := len(s) - 127
	for ; rest >= 128; rest >>= 7 {
		n = append(n, byte(rest)|128)
	}
	return string(append(n, byte(rest))) + s
}

const get = ":method: GET\n:scheme: http\n:path: /\n:authority: a\n"

func post(path string) string {
	return ":method: POST\n:scheme: http\n:path: " + path + "\n:authority: a\n"
}

// peer is the other end of a connection under test.
type peer struct {
	t    *testing.T
	conn net.Conn

	mu   sync.Mutex
	seen []string // frames that came, as text
}

// newPeer reads what comes until the connection ends.
func newPeer(t *testing.T, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn}
	// Ends when the connection is closed.
	go p.read()
	return p
}

func (p *peer) read() {
	framer := x.NewFramer(io.Discard, p.conn)
	framer.SetMaxReadFrameSize(1 << 24)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = 1 << 20
	for {
		f, err := framer.ReadFrame()
		told := "closed"
		if err == nil {
			told = tell(f)
		}
		p.mu.Lock()
		p.seen = append(p.seen, told)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// tell is a frame as text.
func tell(f x.Frame) string {
	id := f.Header().StreamID
	flag := func(set bool, name string) string {
		if set {
			return " " + name
		}
		return ""
	}
	switch f := f.(type) {
	case *x.DataFrame:
		payload := fmt.Sprintf("%q", f.Data())
		if len(f.Data()) > 20 {
			payload = fmt.Sprint(len(f.Data()))
		}
		return fmt.Sprintf("DATA %d %s%s", id, payload, flag(f.StreamEnded(), "end"))
	case *x.MetaHeadersFrame:
		var fields []string
		for _, field := range f.Fields {
			fields = append(fields, field.Name+"="+field.Value)
		}
		return fmt.Sprintf("HEADERS %d %s%s", id, strings.Join(fields, " "), flag(f.StreamEnded(), "end"))
	case *x.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %v", id, f.ErrCode)
	case *x.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ack"
		}
		var settings []string
		_ = f.ForeachSetting(func(s x.Setting) error {
			settings = append(settings, fmt.Sprintf("%v=%d", s.ID, s.Val))
			return nil
		})
		return "SETTINGS " + strings.Join(settings, " ")
	case *x.PingFrame:
		return fmt.Sprintf("PING %q%s", f.Data[:], flag(f.IsAck(), "ack"))
	case *x.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	case *x.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	}
	return f.Header().String()
}

// send writes frames as far as the other side takes them.
func (p *peer) send(frames ...string) { _, _ = io.WriteString(p.conn, strings.Join(frames, "")) }

// got waits until nothing moves any more, and returns what came since.
func (p *peer) got() []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

// parked is what a handler keeps of a stream that it parks.
type parked struct {
	path  string
	times int
}

// answer is a Handler for transcripts: what it does stands in the path.
type answer struct{ broke chan error }

func (a answer) ServeStream(s *http2.Stream) {
	var head http2.Head
	if path, ok := s.Parked().(parked); ok {
		head.Path = []byte(path.path)
	} else if s.ReadHead(&head) != nil {
		return
	}
	var fields http2.Fields
	if head.TooLarge != "" {
		fields.Add("reason", head.TooLarge)
		_ = s.WriteHead(431, &fields, true)
		return
	}
	switch string(head.Path) {
	case "/early": // answers without reading
		_ = s.WriteHead(413, nil, true)
		return
	case "/nothing": // forgets to
		return
	case "/half": // forgets the end
		_ = s.WriteHead(200, nil, false)
		return
	case "/interim":
		_ = s.WriteHead(103, nil, false)
	case "/fields": // shows the request
		for i := range head.Fields.Len() {
			name, value := head.Fields.At(i)
			fields.Add("got-"+string(name), string(value))
		}
		fields.Add("length", fmt.Sprint(head.ContentLength))
	case "/cut": // resets
		s.Reset(http2.ErrCode(x.ErrCodeHTTP11Required))
		return
	case "/began": // says when
		took := "at once"
		if !head.Began.IsZero() {
			took = time.Since(head.Began).String()
		}
		fields.Add("took", took)
	case "/large":
		_ = s.WriteHead(200, nil, false)
		_ = s.WriteData(bytes.Repeat([]byte("x"), 100_000), true)
		return
	case "/park": // is called for each part of the body
		state, _ := s.Parked().(parked)
		if state.times == 0 {
			_ = s.WriteHead(200, nil, false)
		}
		for s.Ready() {
			chunk, err := s.Next()
			if err != nil {
				_ = s.WriteData(fmt.Appendf(nil, "parked %d times", state.times), true)
				return
			}
			_ = s.WriteData(chunk, false)
		}
		s.Park(parked{"/park", state.times + 1})
		return
	case "/watch": // answers, and waits for the stream to break
		if s.Parked() != nil {
			_, err := s.Next()
			a.broke <- err
			return
		}
		_ = s.WriteHead(200, nil, false)
		_, _ = s.Next()
		s.Park(parked{"/watch", 1})
		return
	case "/hold": // reads nothing until the stream is cut
		ended := make(chan error, 1)
		s.OnReset(func(err error) { ended <- err })
		<-ended
		return
	}
	var body []byte
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return
		}
		body = append(body, chunk...)
	}
	var trailers http2.Fields
	ended := s.ReadTrailers(&trailers)
	_ = s.WriteHead(200, &fields, len(body) == 0 && !ended)
	switch {
	case ended:
		_ = s.WriteData(body, false)
		_ = s.WriteTrailers(&trailers)
	case len(body) > 0:
		_ = s.WriteData(body, true)
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// TestServerTranscripts sends a server what a row holds, behind the preface and
// SETTINGS of a client, and compares what it answers behind its own.
func TestServerTranscripts(t *testing.T) {
	small := http2.Options{StreamWindow: 1000, MaxHeaderBytes: 500, MaxConcurrentStreams: 3, MaxHeaders: 6}
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		rule    string // RFC 9113 unless it says otherwise
		send    []string
		want    string // a line for each frame
		options http2.Options
	}{
		// Messages.
		{"8.1 a request is answered", []string{headers(end|whole, 1, get)}, "HEADERS 1 :status=200 end", small},
		{"8.1 a body is read and answered", []string{headers(whole, 1, post("/")), data(0, 1, "ab"), data(end, 1, "c")},
			"HEADERS 1 :status=200\nDATA 1 \"abc\" end", small},
		{"8.1 trailers are handed over", []string{headers(whole, 1, post("/")), data(0, 1, "a"), headers(end|whole, 1, "x: y\n")},
			"HEADERS 1 :status=200\nDATA 1 \"a\"\nHEADERS 1 x=y end", small},
		{"8.1 trailers without a body", []string{headers(whole, 1, post("/")), headers(end|whole, 1, "x: y\n")},
			"HEADERS 1 :status=200\nHEADERS 1 x=y end", small},
		{"8.1 an interim answer goes first", []string{headers(end|whole, 1, post("/interim"))},
			"HEADERS 1 :status=103\nHEADERS 1 :status=200 end", small},
		{"8.1 an early answer ends with NO_ERROR", []string{headers(whole, 1, post("/early"))},
			"HEADERS 1 :status=413 end\nRST_STREAM 1 NO_ERROR", small},
		{"a handler that does not answer", []string{headers(end|whole, 1, post("/nothing"))}, "RST_STREAM 1 INTERNAL_ERROR", small},
		{"a handler that does not end its answer", []string{headers(end|whole, 1, post("/half"))},
			"HEADERS 1 :status=200\nRST_STREAM 1 INTERNAL_ERROR", small},
		{"a handler that resets", []string{headers(end|whole, 1, post("/cut"))}, "RST_STREAM 1 HTTP_1_1_REQUIRED", small},
		{"8.2.3 cookies are joined", []string{headers(end|whole, 1, post("/fields")+"cookie: a=b\nx: y\ncookie: c=d\ncookie: e=f\n")},
			"HEADERS 1 :status=200 got-cookie=a=b; c=d; e=f got-x=y length=-1 end", small},
		{"8.1.1 content-length is told", []string{headers(whole, 1, post("/fields")+"content-length: 3\n"), data(end, 1, "abc")},
			"HEADERS 1 :status=200 got-content-length=3 length=3\nDATA 1 \"abc\" end", small},

		// Malformed messages (8.1.1).
		{"8.1.1 more DATA than content-length", []string{headers(whole, 1, post("/")+"content-length: 1\n"), data(end, 1, "ab")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1.1 less DATA than content-length", []string{headers(whole, 1, post("/")+"content-length: 3\n"), data(end, 1, "ab")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1.1 content-length and no DATA", []string{headers(end|whole, 1, post("/")+"content-length: 3\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1.1 content-length and trailers", []string{headers(whole, 1, post("/")+"content-length: 3\n"), headers(end|whole, 1, "x: y\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1.1 content-length twice", []string{headers(end|whole, 1, post("/")+"content-length: 0\ncontent-length: 0\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1.1 content-length with a sign", []string{headers(end|whole, 1, post("/")+"content-length: +0\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1 trailers that do not end", []string{headers(whole, 1, post("/")), headers(whole, 1, "x: y\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.1 pseudo-header field in trailers", []string{headers(whole, 1, post("/")), headers(end|whole, 1, ":path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 a capital in a name", []string{headers(end|whole, 1, get+"X-a: b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 space in a name", []string{headers(end|whole, 1, get+"x a: b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 an empty name", []string{raw(1, end|whole, 1, block(get)+"\x00\x00\x01a")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 CR in a value", []string{headers(end|whole, 1, get+"a: b\rc\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 LF in a value", []string{raw(1, end|whole, 1, block(get)+"\x00\x01a\x03b\nc")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 NUL in a value", []string{headers(end|whole, 1, get+"a: b\x00c\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 space before a value", []string{headers(end|whole, 1, get+"a:  b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.1 tab behind a value", []string{headers(end|whole, 1, get+"a: b\t\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 connection", []string{headers(end|whole, 1, get+"connection: close\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 transfer-encoding", []string{headers(end|whole, 1, get+"transfer-encoding: chunked\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 upgrade", []string{headers(end|whole, 1, get+"upgrade: h2c\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 keep-alive", []string{headers(end|whole, 1, get+"keep-alive: 1\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 proxy-connection", []string{headers(end|whole, 1, get+"proxy-connection: close\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 te of another kind", []string{headers(end|whole, 1, get+"te: gzip\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.2.2 te: trailers", []string{headers(end|whole, 1, get+"te: trailers\n")}, "HEADERS 1 :status=200 end", small},
		{"8.3 pseudo-header field behind others", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\nx: y\n:path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3 an unknown pseudo-header field", []string{headers(end|whole, 1, get+":x: y\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3 :status in a request", []string{headers(end|whole, 1, get+":status: 200\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 :path twice", []string{headers(end|whole, 1, get+":path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 no :path", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 an empty :path", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: \n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 :path without slash", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: a\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 space in :path", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: /a b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 a fragment in :path", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: /a#b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 * with OPTIONS", []string{headers(end|whole, 1, ":method: OPTIONS\n:scheme: http\n:path: *\n")}, "HEADERS 1 :status=200 end", small},
		{"8.3.1 * with GET", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: *\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 no :method", []string{headers(end|whole, 1, ":scheme: http\n:path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 space in :method", []string{headers(end|whole, 1, ":method: G T\n:scheme: http\n:path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 no :scheme", []string{headers(end|whole, 1, ":method: GET\n:path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 user information in :authority", []string{headers(end|whole, 1, ":method: GET\n:scheme: http\n:path: /\n:authority: u@a\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 host is another than :authority", []string{headers(end|whole, 1, get+"host: b\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.3.1 host is :authority", []string{headers(end|whole, 1, get+"host: A\n")}, "HEADERS 1 :status=200 end", small},
		{"8.5 CONNECT", []string{headers(end|whole, 1, ":method: CONNECT\n:authority: a:1\n")}, "HEADERS 1 :status=200 end", small},
		{"8.5 CONNECT with :path", []string{headers(end|whole, 1, ":method: CONNECT\n:authority: a:1\n:path: /\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"8.5 CONNECT without :authority", []string{headers(end|whole, 1, ":method: CONNECT\n")}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"RFC 8441 :protocol where it is off", []string{headers(end|whole, 1, ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: a\n")},
			"RST_STREAM 1 PROTOCOL_ERROR", small},
		{"RFC 8441 :protocol", []string{headers(end|whole, 1, ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: a\n")},
			"HEADERS 1 :status=200 end", http2.Options{ConnectProtocol: true}},
		{"RFC 8441 :protocol without CONNECT", []string{headers(end|whole, 1, get+":protocol: websocket\n")}, "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{ConnectProtocol: true}},
		{"malformed messages can end the connection", []string{headers(end|whole, 1, get+"X: y\n")}, "GOAWAY 1 PROTOCOL_ERROR\nclosed", http2.Options{MalformedEndsConnection: true}},
		{"a head over the limit", []string{headers(end|whole, 1, get+"x: "+long+"\n")}, "RST_STREAM 1 INTERNAL_ERROR", small},
		{"too many fields", []string{headers(end|whole, 1, get+strings.Repeat("x: y\n", 7))}, "RST_STREAM 1 INTERNAL_ERROR", small},
		{"10.5.1 heads over the limits that are served", []string{
			headers(end|whole, 1, get+"x: "+long+"\n"), headers(whole, 3, get+strings.Repeat("x: y\n", 7)), headers(end|whole, 5, post("/fields")+"x: y\n")},
			"HEADERS 1 :status=431 reason=more than 500 bytes of fields, with 32 for each end\n" +
				"HEADERS 3 :status=431 reason=more than 6 fields end\nRST_STREAM 3 NO_ERROR\n" +
				"HEADERS 5 :status=200 got-x=y length=-1 end", http2.Options{MaxHeaderBytes: 500, MaxHeaders: 6, ServeTooLarge: true}},
		{"a head over the limit leaves the table in order", []string{
			raw(1, end|whole, 1, block(get+"x: "+long+"\n")+"\x40\x01z\x01q"), raw(1, end|whole, 3, block(post("/fields"))+"\xbe")},
			"RST_STREAM 1 INTERNAL_ERROR\nHEADERS 3 :status=200 got-z=q length=-1 end", small},

		{"a value over the limit of one", []string{
			headers(end|whole, 1, get+"x: "+strings.Repeat("x", 105)+"\n"), headers(end|whole, 3, get+"x: "+strings.Repeat("x", 100)+"\n")},
			"RST_STREAM 1 INTERNAL_ERROR\nHEADERS 3 :status=200 end", http2.Options{MaxFieldBytes: 100}},
		{"a name over the limit of one", []string{headers(end|whole, 1, get+strings.Repeat("x", 105)+": y\n")},
			"RST_STREAM 1 INTERNAL_ERROR", http2.Options{MaxFieldBytes: 100}},
		{"RFC 9110 5.5 obs-text", []string{headers(end|whole, 1, post("/fields")+"x: \xe4\n")}, "HEADERS 1 :status=200 got-x=\xe4 length=-1 end", small},
		{"RFC 9110 5.5 obs-text that is not wanted", []string{headers(end|whole, 1, post("/fields")+"x: \xe4\n")}, "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{NoObsText: true}},

		// Frames and connections.
		{"4.1 frames of unknown kinds are ignored", []string{raw(0x99, 0xff, 0, "abc"), raw(0x99, 0xff, 1, "abc"), headers(end|whole, 1, get)}, "HEADERS 1 :status=200 end", small},
		{"4.2 a frame over the limit", []string{headers(whole, 1, post("/hold")), data(0, 1, strings.Repeat("x", 16385))}, "GOAWAY 1 FRAME_SIZE_ERROR\nclosed", small},
		{"4.3 a block that HPACK can't read", []string{raw(1, end|whole, 1, "\xff\xff\xff\xff\xff\xff\xff")}, "GOAWAY 0 COMPRESSION_ERROR\nclosed", small},
		{"5.1 DATA on an idle stream", []string{data(end, 1, "a")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"5.1 RST_STREAM on an idle stream", []string{reset(1, 8)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"5.1 WINDOW_UPDATE on an idle stream", []string{windowUpdate(1, 1)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"5.1 DATA behind the end", []string{headers(end|whole, 1, post("/hold")), data(0, 1, "a")}, "RST_STREAM 1 STREAM_CLOSED", small},
		{"5.1 HEADERS behind the end", []string{headers(end|whole, 1, post("/hold")), headers(end|whole, 1, "x: y\n")}, "RST_STREAM 1 STREAM_CLOSED", small},
		{"5.1 DATA behind the peer's reset", []string{headers(whole, 1, post("/hold")), reset(1, 8), data(0, 1, "a")}, "GOAWAY 1 STREAM_CLOSED\nclosed", small},
		{"5.1 DATA behind our reset is ignored", []string{headers(whole, 1, get+"X: y\n"), data(0, 1, "a"), headers(end|whole, 1, "x: y\n"), headers(end|whole, 3, get)},
			"RST_STREAM 1 PROTOCOL_ERROR\nHEADERS 3 :status=200 end", small},
		{"5.1.1 an even stream", []string{headers(end|whole, 2, get)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"5.1.1 a stream behind a later one", []string{headers(end|whole, 5, post("/hold")), headers(end|whole, 3, get)}, "GOAWAY 5 PROTOCOL_ERROR\nclosed", small},
		{"5.1.2 more streams than allowed", []string{headers(end|whole, 1, post("/hold")), headers(end|whole, 3, post("/hold")), headers(end|whole, 5, post("/hold")), headers(end|whole, 7, get)},
			"RST_STREAM 7 REFUSED_STREAM", small},
		{"6.1 DATA on stream 0", []string{data(0, 0, "a")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.1 padding is not the body's", []string{headers(whole, 1, post("/")), data(end|padded, 1, "\x02abc\x00\x00")}, "HEADERS 1 :status=200\nDATA 1 \"abc\" end", small},
		{"6.1 more padding than DATA", []string{headers(whole, 1, post("/")), data(end|padded, 1, "\x05abc")}, "GOAWAY 1 PROTOCOL_ERROR\nclosed", small},
		{"6.2 HEADERS on stream 0", []string{headers(whole, 0, get)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.2 padding and priority", []string{raw(1, end|whole|padded|weight, 1, "\x02"+word(0)+"\x00"+block(get)+"\x00\x00")}, "HEADERS 1 :status=200 end", small},
		{"6.2 more padding than HEADERS", []string{raw(1, end|whole|padded, 1, "\x63"+block(get))}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.3 PRIORITY is ignored", []string{priority(1, 0), priority(7, 3), headers(end|whole, 1, get)}, "HEADERS 1 :status=200 end", small},
		{"6.3 PRIORITY on stream 0", []string{priority(0, 1)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.3 PRIORITY of another length", []string{headers(whole, 1, post("/hold")), raw(2, 0, 1, "abcd")}, "RST_STREAM 1 FRAME_SIZE_ERROR", small},
		{"RFC 7540 5.3.1 a stream that depends on itself", []string{headers(whole, 1, post("/hold")), priority(1, 1)}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"6.4 RST_STREAM ends the stream", []string{headers(whole, 1, post("/hold")), reset(1, 8), headers(end|whole, 3, get)}, "HEADERS 3 :status=200 end", small},
		{"6.4 RST_STREAM on stream 0", []string{reset(0, 8)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.4 RST_STREAM of another length", []string{headers(whole, 1, post("/hold")), raw(3, 0, 1, "abc")}, "GOAWAY 1 FRAME_SIZE_ERROR\nclosed", small},
		{"6.5 SETTINGS are acknowledged", []string{settings(1, 100, 0x99, 7)}, "SETTINGS ack", small},
		{"6.5 SETTINGS on a stream", []string{raw(4, 0, 1, "")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.5 SETTINGS of another length", []string{raw(4, 0, 0, "abc")}, "GOAWAY 0 FRAME_SIZE_ERROR\nclosed", small},
		{"6.5 an acknowledgement with a payload", []string{raw(4, ack, 0, "abcdef")}, "GOAWAY 0 FRAME_SIZE_ERROR\nclosed", small},
		{"6.5.2 ENABLE_PUSH of 2", []string{settings(2, 2)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.5.2 INITIAL_WINDOW_SIZE over the limit", []string{settings(4, 1<<31)}, "GOAWAY 0 FLOW_CONTROL_ERROR\nclosed", small},
		{"6.5.2 MAX_FRAME_SIZE under the limit", []string{settings(5, 16383)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.5.2 MAX_FRAME_SIZE over the limit", []string{settings(5, 1<<24)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"RFC 8441 ENABLE_CONNECT_PROTOCOL of 2", []string{settings(8, 2)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.6 PUSH_PROMISE", []string{headers(whole, 1, post("/hold")), raw(5, whole, 1, word(2)+block(get))}, "GOAWAY 1 PROTOCOL_ERROR\nclosed", small},
		{"6.7 PING is answered", []string{ping(0, "12345678")}, "PING \"12345678\" ack", small},
		{"6.7 an answer is not", []string{ping(ack, "12345678")}, "", small},
		{"6.7 PING on a stream", []string{raw(6, 0, 1, "12345678")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.7 PING of another length", []string{ping(0, "1234567")}, "GOAWAY 0 FRAME_SIZE_ERROR\nclosed", small},
		{"6.8 GOAWAY on a stream", []string{raw(7, 0, 1, "12345678")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.8 GOAWAY that is too short", []string{raw(7, 0, 0, "1234567")}, "GOAWAY 0 FRAME_SIZE_ERROR\nclosed", small},
		{"6.8 a client's GOAWAY leaves its streams", []string{headers(whole, 1, post("/")), raw(7, 0, 0, word(0)+word(0)), data(end, 1, "a")}, "HEADERS 1 :status=200\nDATA 1 \"a\" end", small},
		{"6.9 WINDOW_UPDATE of 0 on a stream", []string{headers(whole, 1, post("/hold")), windowUpdate(1, 0)}, "RST_STREAM 1 PROTOCOL_ERROR", small},
		{"6.9 WINDOW_UPDATE of 0 on the connection", []string{windowUpdate(0, 0)}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.9 WINDOW_UPDATE of another length", []string{raw(8, 0, 0, "abc")}, "GOAWAY 0 FRAME_SIZE_ERROR\nclosed", small},
		{"6.9.1 the connection's window overflows", []string{windowUpdate(0, 1<<31-1)}, "GOAWAY 0 FLOW_CONTROL_ERROR\nclosed", small},
		{"6.9.1 a stream's window overflows", []string{headers(whole, 1, post("/hold")), windowUpdate(1, 1<<31-1)}, "RST_STREAM 1 FLOW_CONTROL_ERROR", small},
		{"6.9.2 a window overflows by SETTINGS", []string{headers(whole, 1, post("/hold")), windowUpdate(1, 1<<30), settings(4, 1<<31-1)}, "GOAWAY 1 FLOW_CONTROL_ERROR\nclosed", small},
		{"6.9.1 a window is kept to", []string{settings(4, 1), headers(end|whole, 1, post("/large"))}, "SETTINGS ack\nHEADERS 1 :status=200\nDATA 1 \"x\"", small},
		{"6.9.1 a window is kept to as it grows", []string{settings(4, 0), headers(end|whole, 1, post("/large")), windowUpdate(1, 2), windowUpdate(1, 3)},
			"SETTINGS ack\nHEADERS 1 :status=200\nDATA 1 \"xx\"\nDATA 1 \"xxx\"", small},
		{"6.9.2 a window grows by SETTINGS", []string{settings(4, 1), headers(end|whole, 1, post("/large")), settings(4, 2)},
			"SETTINGS ack\nHEADERS 1 :status=200\nDATA 1 \"x\"\nSETTINGS ack\nDATA 1 \"x\"", small},
		{"6.9.2 a window may become negative", []string{settings(4, 3), headers(end|whole, 1, post("/large")), settings(4, 1), windowUpdate(1, 3)},
			"SETTINGS ack\nHEADERS 1 :status=200\nDATA 1 \"xxx\"\nSETTINGS ack\nDATA 1 \"x\"", small},
		{"6.9.1 DATA over a stream's window", []string{raw(4, ack, 0, ""), headers(whole, 1, post("/hold")), data(0, 1, strings.Repeat("x", 1001))}, "RST_STREAM 1 FLOW_CONTROL_ERROR", small},
		{"6.9.3 a client may not know our window yet", []string{headers(whole, 1, post("/hold")), data(0, 1, strings.Repeat("x", 1001))}, "", small},
		{"6.9 credit comes for what was read", []string{headers(whole, 1, post("/")), data(0, 1, strings.Repeat("x", 400))}, "WINDOW_UPDATE 1 400", small},
		{"6.9 none comes for what was not", []string{headers(whole, 1, post("/hold")), data(0, 1, strings.Repeat("x", 400))}, "", small},
		{"6.9 a little credit comes once the peer has nothing left", []string{headers(whole, 1, post("/hold")), headers(whole, 3, post("/")),
			strings.Repeat(data(0, 1, strings.Repeat("x", 16000)), 4), data(0, 3, "x"), data(0, 1, strings.Repeat("x", 1534))},
			"WINDOW_UPDATE 0 1", http2.Options{StreamWindow: 1 << 20, ConnectionWindow: 65535}},
		{"6.10 CONTINUATION", []string{raw(1, end, 1, block(get)[:9]), raw(9, 0, 1, block(get)[9:12]), raw(9, whole, 1, block(get)[12:])}, "HEADERS 1 :status=200 end", small},
		{"6.10 another frame within a block", []string{headers(end, 1, get), ping(0, "12345678")}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.10 CONTINUATION of another stream", []string{headers(end, 1, get), raw(9, whole, 3, block("x: y\n"))}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.10 CONTINUATION without a block", []string{raw(9, whole, 1, block("x: y\n"))}, "GOAWAY 0 PROTOCOL_ERROR\nclosed", small},
		{"6.10 CONTINUATION behind the end of a block", []string{headers(whole, 1, post("/hold")), raw(9, whole, 1, block("x: y\n"))}, "GOAWAY 1 PROTOCOL_ERROR\nclosed", small},

		// Floods.
		{"flood of empty DATA", []string{headers(whole, 1, post("/hold")), data(0, 1, ""), data(0, 1, "")}, "GOAWAY 1 ENHANCE_YOUR_CALM\nclosed", small},
		{"an empty DATA is none", []string{headers(whole, 1, post("/")), data(0, 1, ""), data(0, 1, "a"), data(0, 1, ""), data(end, 1, "")}, "HEADERS 1 :status=200\nDATA 1 \"a\" end", small},
		{"flood of empty CONTINUATION", []string{headers(end, 1, get), raw(9, 0, 1, ""), raw(9, 0, 1, "")}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed", small},
		{"flood of CONTINUATION", []string{headers(end, 1, get), raw(9, 0, 1, strings.Repeat("x", 16384)), raw(9, 0, 1, strings.Repeat("x", 16384))}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed", small},
		{"flood of PRIORITY", []string{strings.Repeat(priority(1, 0), 3)}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed", http2.Options{MaxPriorityFramesPerStream: 2}},
		{"flood of WINDOW_UPDATE", []string{strings.Repeat(windowUpdate(0, 1), 6)}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed", small},
		{"flood of resets", []string{headers(whole, 1, post("/hold")), reset(1, 8), headers(whole, 3, post("/hold")), reset(3, 8), headers(whole, 5, post("/hold")), reset(5, 8)},
			"GOAWAY 5 ENHANCE_YOUR_CALM\nclosed", http2.Options{StreamResetBurst: 2}},
		{"flood of resets that the peer makes us send", []string{headers(whole, 1, get+"X: y\n"), headers(whole, 3, post("/hold")), windowUpdate(3, 0), headers(whole, 5, get+"X: y\n")},
			"RST_STREAM 1 PROTOCOL_ERROR\nRST_STREAM 3 PROTOCOL_ERROR\nRST_STREAM 5 PROTOCOL_ERROR\nGOAWAY 5 ENHANCE_YOUR_CALM\nclosed", http2.Options{StreamResetBurst: 2}},
		{"no empty frame", []string{headers(whole, 1, post("/hold")), data(0, 1, "")}, "GOAWAY 1 ENHANCE_YOUR_CALM\nclosed", http2.Options{MaxConsecutiveEmptyFrames: http2.None}},
		{"no PRIORITY", []string{headers(whole, 1, post("/hold")), priority(3, 0)}, "GOAWAY 1 ENHANCE_YOUR_CALM\nclosed", http2.Options{MaxPriorityFramesPerStream: http2.None}},
		{"no reset", []string{headers(whole, 1, post("/hold")), reset(1, 8)}, "GOAWAY 1 ENHANCE_YOUR_CALM\nclosed", http2.Options{StreamResetBurst: http2.None}},
		{"flood of PING", []string{ping(0, "12345678"), ping(0, "12345678"), ping(0, "12345678")},
			"PING \"12345678\" ack\nPING \"12345678\" ack\nGOAWAY 0 ENHANCE_YOUR_CALM\nclosed", http2.Options{PingBurst: 2}},
		{"one PING is free behind an answer", []string{headers(end|whole, 1, get), ping(0, "12345678"), ping(0, "12345678"), ping(0, "12345678")},
			"HEADERS 1 :status=200 end\nPING \"12345678\" ack\nPING \"12345678\" ack\nGOAWAY 1 ENHANCE_YOUR_CALM\nclosed", http2.Options{PingBurst: 1}},
		{"answers to PING are none", []string{strings.Repeat(ping(ack, "12345678"), 3)}, "", http2.Options{PingBurst: 1}},
		{"no bound on PING", []string{strings.Repeat(ping(0, "12345678"), 3)}, strings.TrimSuffix(strings.Repeat("PING \"12345678\" ack\n", 3), "\n"), small},

		// HPACK (RFC 7541).
		{"RFC 7541 4.2 the table's size at the start of a block", []string{raw(1, end|whole, 1, "\x20\x3f\xe1\x1f"+block(get))}, "HEADERS 1 :status=200 end", small},
		{"RFC 7541 4.2 the table's size within a block", []string{raw(1, end|whole, 1, block(get)+"\x20")}, "GOAWAY 0 COMPRESSION_ERROR\nclosed", small},
		{"RFC 7541 6.3 the table's size over the limit", []string{raw(1, end|whole, 1, "\x3f\xe2\x1f"+block(get))}, "GOAWAY 0 COMPRESSION_ERROR\nclosed", small},
		{"RFC 7541 4.2 a table that must shrink and does not", []string{raw(4, ack, 0, ""), headers(end|whole, 1, get)}, "GOAWAY 0 COMPRESSION_ERROR\nclosed", http2.Options{HeaderTableSize: 100}},
		{"RFC 7541 4.2 no table, which is not so yet", []string{raw(4, ack, 0, ""), headers(end|whole, 1, get)}, "GOAWAY 0 COMPRESSION_ERROR\nclosed", http2.Options{HeaderTableSize: http2.None}},
		{"RFC 7541 4.2 no table", []string{raw(4, ack, 0, ""), raw(1, end|whole, 1, "\x20"+block(post("/fields")+"a: b\n")), raw(1, end|whole, 3, block(get))},
			"HEADERS 1 :status=200 got-a=b length=-1 end\nHEADERS 3 :status=200 end", http2.Options{HeaderTableSize: http2.None, EncoderTableSize: http2.None}},
		{"RFC 7541 4.2 a table that must shrink and does", []string{raw(4, ack, 0, ""), raw(1, end|whole, 1, "\x20"+block(get))}, "HEADERS 1 :status=200 end", http2.Options{HeaderTableSize: 100}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := serve(t, c.options)
				p.send(preface, settings())
				p.got()
				for _, frames := range c.send {
					p.send(frames)
					synctest.Wait()
				}
				require.Equal(t, c.want, strings.Join(p.got(), "\n"))
			})
		})
	}
}

// serve starts a server whose streams are answered by their paths.
func serve(t *testing.T, options http2.Options) *peer {
	near, far := net.Pipe()
	server := http2.NewServer(options)
	conn := server.Conn(far, answer{})
	ended := make(chan error, 1)
	// Ends with the connection, which the clean-up waits for.
	go func() { ended <- conn.Serve(nil) }()
	t.Cleanup(func() {
		near.Close()
		<-ended
		server.Close()
	})
	return newPeer(t, near)
}

// TestStreamsThatAreNotReadLeaveTheRestOfTheWindow has one hold nine tenths of the
// connection's window, and another send a megabyte through what is left.
func TestStreamsThatAreNotReadLeaveTheRestOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := serve(t, http2.Options{StreamWindow: 65535, ConnectionWindow: 65535})
		p.send(preface, settings(), raw(4, ack, 0, ""), headers(whole, 1, post("/hold")), headers(whole, 3, post("/")))
		left := map[int]int{0: 65535, 1: 65535, 3: 65535}
		send := func(stream uint32, n int) {
			for part := range slices.Chunk(make([]byte, n), 16384) {
				p.send(data(0, stream, string(part)))
			}
			left[0] -= n
			left[int(stream)] -= n
			for _, frame := range p.got() {
				var id, n int
				if got, _ := fmt.Sscanf(frame, "WINDOW_UPDATE %d %d", &id, &n); got == 2 {
					left[id] += n
				}
			}
		}
		send(1, 59_000)
		for sent := 0; sent < 1<<20; {
			n := min(left[0], left[3], 5000)
			require.Positive(t, n, "%d bytes were sent", sent)
			send(3, n)
			sent += n
		}
		require.LessOrEqual(t, left[0], left[1], "what is held is not told")
	})
}

func TestServerPreface(t *testing.T) {
	for _, c := range []struct{ name, send, want string }{
		{"SETTINGS go first", "", "SETTINGS MAX_CONCURRENT_STREAMS=1024 INITIAL_WINDOW_SIZE=16777216 MAX_HEADER_LIST_SIZE=61440\nWINDOW_UPDATE 0 25100289"},
		{"a preface is wanted", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GOAWAY 0 PROTOCOL_ERROR\nclosed"},
		{"SETTINGS are wanted", preface + ping(0, "12345678"), "GOAWAY 0 PROTOCOL_ERROR\nclosed"},
		{"SETTINGS are wanted, and not their acknowledgement", preface + raw(4, ack, 0, ""), "GOAWAY 0 PROTOCOL_ERROR\nclosed"},
		{"and acknowledged", preface + settings(), "SETTINGS ack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := serve(t, http2.Options{})
				if c.send != "" {
					p.got()
					p.send(c.send)
				}
				require.Equal(t, c.want, strings.Join(p.got(), "\n"))
			})
		})
	}
}

func TestAParkedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := serve(t, http2.Options{})
		p.send(preface, settings(), headers(whole, 1, post("/park")))
		require.Contains(t, p.got(), "HEADERS 1 :status=200")
		p.send(data(0, 1, "a"))
		require.Equal(t, []string{`DATA 1 "a"`}, p.got())
		p.send(data(0, 1, "b"))
		require.Equal(t, []string{`DATA 1 "b"`}, p.got())
		p.send(data(end, 1, ""))
		require.Equal(t, []string{`DATA 1 "parked 3 times" end`}, p.got())
	})
}

func TestAParkedStreamThatBreaks(t *testing.T) {
	for _, c := range []struct {
		name, send string
		want       error
	}{
		{"by a reset", reset(1, x.ErrCodeCancel), &http2.StreamError{ID: 1, Code: http2.Cancel, Remote: true}},
		{"by a broken rule", windowUpdate(1, 0), &http2.StreamError{ID: 1, Code: http2.ProtocolError, Reason: "WINDOW_UPDATE of 0"}},
		{"with its connection", data(0, 0, "a"), &http2.ConnectionError{Code: http2.ProtocolError, Reason: "DATA on stream 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				server := http2.NewServer(http2.Options{})
				broke := make(chan error, 1)
				conn := server.Conn(far, answer{broke})
				ended := make(chan error, 1)
				// Ends with the connection.
				go func() { ended <- conn.Serve([]byte(preface + settings())) }()
				p := newPeer(t, near)
				p.send(headers(end|whole, 1, post("/watch")))
				require.Contains(t, p.got(), "HEADERS 1 :status=200")
				p.send(c.send)
				require.Equal(t, c.want, <-broke)
				near.Close()
				<-ended
				server.Close()
			})
		})
	}
}

func TestHeaderTimeout(t *testing.T) {
	frames := headers(end, 1, get) + raw(9, whole, 1, block("x: y\n"))
	first := len(headers(end, 1, get))
	for _, c := range []struct {
		name string
		cuts []int // where the frames are cut, a second's pause at each
		want string
	}{
		{"at once", nil, "HEADERS 1 :status=200 end"},
		{"in time, and nothing for long", []int{first / 2, first + 3}, "HEADERS 1 :status=200 end"},
		{"too late within a frame", []int{20, 21, 22}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed"},
		{"too late for the first frame", []int{first - 3, first - 2, first - 1}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed"},
		{"too late between frames", []int{first, first, first}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed"},
		{"too late within the second frame", []int{first + 2, first + 3, first + 10}, "GOAWAY 0 ENHANCE_YOUR_CALM\nclosed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := serve(t, http2.Options{HeaderTimeout: 2500 * time.Millisecond})
				p.send(preface, settings())
				p.got()
				sent := 0
				for _, cut := range c.cuts {
					p.send(frames[sent:cut])
					sent = cut
					time.Sleep(time.Second)
				}
				p.send(frames[sent:])
				require.Equal(t, c.want, strings.Join(p.got(), "\n"))
				if !strings.Contains(c.want, "closed") {
					time.Sleep(time.Hour)
					require.Empty(t, p.got())
				}
			})
		})
	}
}

func TestHeadTellsWhenItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := serve(t, http2.Options{}) // without a HeaderTimeout
		p.send(preface, settings())
		p.got()
		first := headers(end, 1, ":method: GET\n:scheme: http\n:path: /began\n:authority: a\n")
		for _, part := range []string{first[:20], first[20:], raw(9, whole, 1, block("x: y\n"))} {
			time.Sleep(time.Second)
			p.send(part)
		}
		require.Equal(t, []string{"HEADERS 1 :status=200 took=2s end"}, p.got(), "from its first frame on")
		p.send(headers(end|whole, 3, ":method: GET\n:scheme: http\n:path: /began\n:authority: a\n"))
		require.Equal(t, []string{"HEADERS 3 :status=200 took=at once end"}, p.got())
	})
}

func TestAnEmptyEndNeedsNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, handlerFunc(echo))
		ended := make(chan error, 1)
		// Ends with the connection.
		go func() { ended <- conn.Serve([]byte(preface + settings(4, 3) + headers(whole, 1, post("/")))) }()
		p := newPeer(t, near)
		p.send(data(0, 1, "abc"))
		require.Contains(t, p.got(), `DATA 1 "abc"`)
		p.send(settings(4, 1)) // which makes the window negative
		require.Equal(t, []string{"SETTINGS ack"}, p.got())
		p.send(data(end, 1, ""))
		require.Equal(t, []string{`DATA 1 "" end`}, p.got())
		near.Close()
		<-ended
		server.Close()
	})
}

func TestHandlersCountAndNotOnlyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{MaxConcurrentStreams: 1})
		goOn := make(chan bool)
		conn := server.Conn(far, handlerFunc(func(*http2.Stream) { <-goOn }))
		ended := make(chan error, 1)
		// Ends with the connection.
		go func() { ended <- conn.Serve([]byte(preface + settings())) }()
		p := newPeer(t, near)
		p.got()
		p.send(headers(end|whole, 1, get), reset(1, x.ErrCodeCancel), headers(end|whole, 3, get))
		require.Equal(t, []string{"RST_STREAM 3 REFUSED_STREAM"}, p.got(), "the first one's handler goes on")
		goOn <- true
		p.got()
		p.send(headers(end|whole, 5, get))
		goOn <- true
		require.Equal(t, []string{"RST_STREAM 5 INTERNAL_ERROR"}, p.got())
		near.Close()
		<-ended
		server.Close()
	})
}

// TestHandlersWhoseAnswerIsWholeDoNotCount has a client open the next stream as
// soon as it has an answer, as often as it likes.
func TestHandlersWhoseAnswerIsWholeDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{MaxConcurrentStreams: 1})
		goOn := make(chan bool)
		conn := server.Conn(far, handlerFunc(func(s *http2.Stream) {
			_ = s.WriteHead(204, nil, true)
			<-goOn
		}))
		ended := make(chan error, 1)
		// Ends with the connection.
		go func() { ended <- conn.Serve([]byte(preface + settings())) }()
		p := newPeer(t, near)
		p.got()
		for id := range uint32(3) {
			p.send(headers(end|whole, 2*id+1, get))
			require.Equal(t, []string{fmt.Sprintf("HEADERS %d :status=204 end", 2*id+1)}, p.got())
		}
		close(goOn)
		near.Close()
		<-ended
		server.Close()
	})
}

func TestHandlersMustSendHeadsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		got := make(chan error, 4)
		conn := server.Conn(far, handlerFunc(func(s *http2.Stream) {
			got <- s.WriteData([]byte("a"), false)
			got <- s.WriteTrailers(nil)
			got <- s.WriteHead(200, nil, false)
			got <- s.WriteHead(200, nil, true)
		}))
		ended := make(chan error, 1)
		// Ends with the connection.
		go func() { ended <- conn.Serve([]byte(preface + settings() + headers(end|whole, 1, get))) }()
		p := newPeer(t, near)
		require.Contains(t, p.got(), "RST_STREAM 1 INTERNAL_ERROR")
		require.ErrorContains(t, <-got, "not sent yet")
		require.ErrorContains(t, <-got, "not sent yet")
		require.NoError(t, <-got)
		require.ErrorContains(t, <-got, "sent already")
		near.Close()
		<-ended
		server.Close()
	})
}
