package conformance

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirproxy/weir/integration/harness"
)

// http2Case is what a client of HTTP/2 sends on stream 1 of a connection of its
// own, to a proxy with testdata/table.yaml.
type http2Case struct {
	name     string
	listener string // default if it is empty
	frames   []http2Frame
	// answer is what the backend sends, over HTTP/1; a 200 if it is empty.
	answer string
	// leaves says that the client's side ends behind the frames.
	leaves bool
}

// http2Frame writes frames of stream 1.
type http2Frame func(*http2Text)

// http2Text is what a client sends.
type http2Text struct {
	bytes.Buffer
	framer *http2.Framer
	block  bytes.Buffer
	fields *hpack.Encoder
	ended  bool // the request is whole
}

func newHTTP2Text() *http2Text {
	w := &http2Text{}
	w.WriteString(http2.ClientPreface)
	w.framer = http2.NewFramer(&w.Buffer, nil)
	w.framer.AllowIllegalWrites = true
	w.fields = hpack.NewEncoder(&w.block)
	_ = w.framer.WriteSettings() // a buffer takes all
	return w
}

// head writes fields, "name: value", as a header block; end says that nothing
// follows.
func (w *http2Text) head(stream uint32, end bool, lines ...string) {
	const most = 16 << 10 // of a frame
	w.block.Reset()
	for _, line := range lines {
		i := strings.Index(line[1:], ": ") + 1 // none in a line whose name is empty
		_ = w.fields.WriteField(hpack.HeaderField{Name: line[:i], Value: line[i+2:]})
	}
	block := w.block.Bytes()
	first := block[:min(most, len(block))]
	block = block[len(first):]
	_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		part := block[:min(most, len(block))]
		block = block[len(part):]
		_ = w.framer.WriteContinuation(stream, len(block) == 0, part)
	}
}

// wholeHead is a head that is the whole request, and openHead one that a body
// follows. Trailers are a wholeHead too.
func wholeHead(lines ...string) http2Frame {
	return func(w *http2Text) {
		w.ended = true
		w.head(1, true, lines...)
	}
}

func openHead(lines ...string) http2Frame {
	return func(w *http2Text) { w.head(1, false, lines...) }
}

// data is a piece of the body, and lastData the last one.
func data(text string) http2Frame {
	return func(w *http2Text) { _ = w.framer.WriteData(1, false, []byte(text)) }
}

func lastData(text string) http2Frame {
	return func(w *http2Text) {
		w.ended = true
		_ = w.framer.WriteData(1, true, []byte(text))
	}
}

// TestOurProxyAndARealEnvoyTakeTheSameHTTP2Requests is the table of requests for
// clients of HTTP/2, with differences of its own.
func TestOurProxyAndARealEnvoyTakeTheSameHTTP2Requests(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	listed := readDifferences(t, "testdata/differences_http2.yaml")
	envoy := newTableSide(t, func(bootstrap string) *harness.Process { return harness.Envoy(t, bootstrap) })
	ours := newTableSide(t, func(bootstrap string) *harness.Process { return harness.Proxy(t, bootstrap) })
	names := map[string]bool{}
	for _, c := range http2Cases() {
		require.False(t, names[c.name], "two cases are called %s", c.name)
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			theirs := make(chan []string, 1)
			// Ends with the case; received from below.
			go func() { theirs <- envoy.observeHTTP2(c) }()
			own := ours.observeHTTP2(c)
			got := compare(<-theirs, own)
			if want := listed[c.name]; !slices.Equal(want.Envoy, got.Envoy) || !slices.Equal(want.Ours, got.Ours) {
				shown, err := yaml.Marshal(map[string]difference{c.name: got})
				require.NoError(t, err)
				require.Fail(t, "another difference than is listed", "for testdata/differences_http2.yaml, if there is a good reason:\n%s", shown)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		require.True(t, names[name], "a difference is listed of %q, which is no case", name)
	}
}

// observeHTTP2 is observe for a client of HTTP/2.
func (s tableSide) observeHTTP2(c http2Case) []string {
	s.backend.expect(c.answer)
	conn, err := net.Dial("tcp", s.proxy.Addresses[cmp.Or(c.listener, "default")])
	if err != nil {
		return []string{err.Error()}
	}
	text := newHTTP2Text()
	for _, frame := range c.frames {
		frame(text)
	}
	// A proxy may end the connection before it has taken all: what it said then is
	// there to read.
	_, _ = conn.Write(text.Bytes())
	if c.leaves {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	text.Reset()
	r := &http2Answers{conn: conn, text: text, leaves: c.leaves}
	r.read()
	conn.Close()
	if err := s.settle(); err != nil {
		return append(r.lines, err.Error())
	}
	for i, m := range s.backend.requests() {
		r.lines = append(r.lines, showRawRequest(fmt.Sprintf("request %d", i+1), m)...)
	}
	return r.lines
}

// http2Answers are what a proxy says on a connection, in lines.
type http2Answers struct {
	conn   net.Conn
	text   *http2Text
	leaves bool
	lines  []string

	answer rawMessage // of stream 1, as it has come so far
	whole  bool       // it has ended
	probed bool       // a request was sent behind it

	// leaving says that a GOAWAY came. Its reason is not told: it is for people, and
	// Envoy often gives none.
	leaving bool
}

func (r *http2Answers) tell(lines ...string) { r.lines = append(r.lines, lines...) }

// probeStream is the stream of the request by which a connection shows that it lives.
const probeStream = 101

// read reads until the connection ends or shows that it lives. A request that
// was not sent to its end ends with a reset, which is waited for.
func (r *http2Answers) read() {
	framer := http2.NewFramer(nil, r.conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		if r.whole && r.text.ended && !r.probed && !r.leaves && !r.leaving {
			r.probed = true
			r.text.head(probeStream, true, ":method: GET", ":scheme: http", ":authority: probe", ":path: "+probeTarget)
			_, _ = r.conn.Write(r.text.Bytes()) // fails if the connection has ended, as the read does
		}
		_ = r.conn.SetReadDeadline(time.Now().Add(patience)) // likewise
		frame, err := framer.ReadFrame()
		if err != nil {
			r.tell(ended(err))
			return
		}
		switch f := frame.(type) {
		case *http2.GoAwayFrame:
			r.leaving = true
		case *http2.MetaHeadersFrame:
			if f.StreamID == probeStream {
				if status := f.PseudoValue("status"); status != "200" {
					r.tell("connection: a request after it is answered " + status)
				} else {
					r.tell("connection: lives")
				}
				return
			}
			r.head(f)
		case *http2.DataFrame:
			if f.StreamID == 1 && !r.whole {
				r.answer.body += string(f.Data())
				r.ends(f.StreamEnded())
			}
		case *http2.RSTStreamFrame:
			switch {
			case f.StreamID == probeStream:
				r.tell("connection: a request after it is reset " + f.ErrCode.String())
				return
			case r.whole && !r.text.ended:
				r.tell("stream: reset " + f.ErrCode.String())
			case r.whole:
			case r.answer.line == "":
				r.tell("answer: reset " + f.ErrCode.String())
			default:
				r.tell(showRawAnswer(r.answer)...)
				r.tell("answer broke off: " + f.ErrCode.String())
			}
			r.whole, r.text.ended = true, true
		}
	}
}

// head takes a header block of stream 1.
func (r *http2Answers) head(f *http2.MetaHeadersFrame) {
	if r.whole {
		return
	}
	var fields []string
	for _, field := range f.RegularFields() {
		fields = append(fields, field.Name+": "+field.Value)
	}
	status := f.PseudoValue("status")
	switch {
	case status == "":
		r.answer.trailers = fields
	case status[0] == '1':
		r.tell(showRawAnswer(rawMessage{line: "HTTP/1.1 " + status, fields: fields})...)
	default:
		r.answer = rawMessage{line: "HTTP/1.1 " + status, fields: fields, framing: "in frames"}
	}
	r.ends(f.StreamEnded())
}

// ends tells the answer if it has come to its end.
func (r *http2Answers) ends(end bool) {
	if end {
		r.whole = true
		r.tell(showRawAnswer(r.answer)...)
	}
}
