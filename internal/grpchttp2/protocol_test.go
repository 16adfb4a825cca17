package grpchttp2_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/http2"
)

// rawClient speaks HTTP/2 and leaves gRPC to the test.
type rawClient struct {
	t testing.TB
	*http2.Client
}

// raw opens a connection whose windows are small.
func (s *served) raw(t testing.TB) rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	c := http2.NewClient(conn, http2.NewClientOptions(http2.Options{StreamWindow: 65535}))
	t.Cleanup(func() { _ = c.Close() })
	return rawClient{t, c}
}

func post(path string) *http2.Request {
	return &http2.Request{Method: []byte("POST"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path)}
}

const plain = "content-type: application/grpc\nte: trailers\n"

// open opens a stream with fields "name: value", one a line.
func (c rawClient) open(r *http2.Request, lines string) *http2.Stream {
	c.t.Helper()
	var list http2.Fields
	for line := range strings.SplitSeq(strings.TrimSuffix(lines, "\n"), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		list.Add(name, value)
	}
	s, err := c.Open(r, &list, false)
	require.NoError(c.t, err)
	require.NoError(c.t, s.Flush())
	return s
}

// call calls with a body, which ends the request or does not, and returns the
// outcome.
func (c rawClient) call(r *http2.Request, lines, body string, end bool) (head, got, trailers string) {
	c.t.Helper()
	s := c.open(r, lines)
	defer s.Close()
	_ = s.WriteData([]byte(body), end) // the server may be done with it
	_ = s.Flush()
	return outcome(s)
}

// outcome is the status and the fields of an answer, its body, and its trailers.
func outcome(s *http2.Stream) (head, body, trailers string) {
	var h http2.Head
	if err := s.ReadHead(&h); err != nil {
		return err.Error(), "", ""
	}
	var b strings.Builder
	for {
		p, err := s.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.WriteString(err.Error())
			}
			break
		}
		b.Write(p)
	}
	var t http2.Fields
	s.ReadTrailers(&t)
	return strings.TrimSpace(fmt.Sprint(h.Status, " ", told(&h.Fields))), b.String(), told(&t)
}

func told(f *http2.Fields) string {
	var list []string
	for i := range f.Len() {
		name, value := f.At(i)
		list = append(list, fmt.Sprintf("%s=%s", name, value))
	}
	return strings.Join(list, " ")
}

// message is a message in its frame.
func message(flag byte, text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(text)))) + text
}

// zipped is text in gzip.
func zipped(text string) string {
	var b bytes.Buffer
	z := stdgzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// value is a BytesValue of so many bytes, in protobuf.
func value(n int) string {
	b, _ := proto.Marshal(wrapperspb.Bytes(make([]byte, n)))
	return string(b)
}

// TestRequests has each row of the protocol, and what peers do that mean harm, on
// one connection, which goes on whatever they do.
func TestRequests(t *testing.T) {
	const (
		ok       = "200 content-type=application/grpc"
		done     = "grpc-status=0"
		refused  = "200 content-type=application/grpc grpc-status="
		withGzip = plain + "grpc-encoding: gzip\n"
	)
	s := serve(t, grpchttp2.Options{MaxMessage: 1000}, handlers{})
	c := s.raw(t)
	get := post(askPath)
	get.Method = []byte("GET")
	for name, test := range map[string]struct {
		request        *http2.Request
		fields, body   string
		head, trailers string
		answer         string
	}{
		"a call":                       {post(askPath), plain, message(0, value(3)), ok, done, message(0, value(3))},
		"of the subtype":               {post(askPath), "content-type: application/grpc+proto\n", message(0, ""), ok + "+proto", done, message(0, "")},
		"with a parameter":             {post(askPath), "content-type: application/grpc; charset=utf-8\n", message(0, ""), ok, done, message(0, "")},
		"a stream":                     {post(talkPath), plain, message(0, value(1)) + message(0, value(2)), ok, done, message(0, value(1)) + message(0, value(2))},
		"a stream without messages":    {post(talkPath), plain, "", refused + "0", "", ""},
		"GET":                          {get, plain, "", "405 content-type=application/grpc grpc-status=13 grpc-message=method \"GET\": only POST is served allow=POST", "", ""},
		"no content-type":              {post(askPath), "te: trailers\n", "", "415 content-type=application/grpc grpc-status=3 grpc-message=content-type \"\": only application/grpc is served", "", ""},
		"another content":              {post(askPath), "content-type: text/html\n", "", "415 content-type=application/grpc grpc-status=3 grpc-message=content-type \"text/html\": only application/grpc is served", "", ""},
		"another that begins so":       {post(askPath), "content-type: application/grpc-web\n", "", "415 content-type=application/grpc grpc-status=3 grpc-message=content-type \"application/grpc-web\": only application/grpc is served", "", ""},
		"a subtype without codec":      {post(askPath), "content-type: application/grpc+json\n", "", "415 content-type=application/grpc grpc-status=3 grpc-message=content-type \"application/grpc+json\": only application/grpc is served", "", ""},
		"an unknown service":           {post("/test.Other/Ask"), plain, "", refused + "12 grpc-message=unknown service test.Other", "", ""},
		"an unknown method":            {post("/test.Calls/Shout"), plain, "", refused + "12 grpc-message=unknown method Shout for service test.Calls", "", ""},
		"no method":                    {post("/test.Calls"), plain, "", refused + "12 grpc-message=path \"/test.Calls\": not /service/method", "", ""},
		"an unknown encoding":          {post(askPath), plain + "grpc-encoding: snappy\n", "", refused + "12 grpc-message=grpc-encoding \"snappy\": only gzip is read grpc-accept-encoding=gzip", "", ""},
		"identity":                     {post(askPath), plain + "grpc-encoding: identity\n", message(0, ""), ok, done, message(0, "")},
		"gzip":                         {post(askPath), withGzip, message(1, zipped(value(9))), ok, done, message(0, value(9))},
		"gzip that need not be":        {post(askPath), withGzip, message(0, value(9)), ok, done, message(0, value(9))},
		"gzip that is none":            {post(askPath), withGzip, message(1, value(9)), refused + "13 grpc-message=a message that is no gzip: gzip: invalid header", "", ""},
		"gzip that breaks off":         {post(askPath), withGzip, message(1, zipped(value(9))[:20]), refused + "13 grpc-message=a message that is no gzip: unexpected EOF", "", ""},
		"gzip over the limit":          {post(askPath), withGzip, message(1, zipped(value(100_000))), refused + "8 grpc-message=a message of more than 1000 bytes, decompressed: those are the most", "", ""},
		"a wrong flag":                 {post(askPath), plain, message(1, value(9)), refused + "13 grpc-message=a compressed message without grpc-encoding", "", ""},
		"a flag that there is not":     {post(askPath), plain, message(2, value(9)), refused + "13 grpc-message=a message with flag 2", "", ""},
		"a message over the limit":     {post(askPath), plain, message(0, value(1000)), refused + "8 grpc-message=a message of 1003 bytes: 1000 are the most", "", ""},
		"one that promises to be":      {post(talkPath), plain, "\x00\xff\xff\xff\xff", refused + "8 grpc-message=a message of 4294967295 bytes: 1000 are the most", "", ""},
		"half a message":               {post(askPath), plain, message(0, value(9))[:8], refused + "13 grpc-message=the request ends within a message", "", ""},
		"half a frame":                 {post(talkPath), plain, message(0, value(9)) + "\x00\x00", ok, "grpc-status=13 grpc-message=the request ends within a message", message(0, value(9))},
		"no message":                   {post(askPath), plain, "", refused + "13 grpc-message=the request has no message", "", ""},
		"what is no protobuf":          {post(askPath), plain, message(0, "\xff\xff"), refused + "13", "", ""},
		"a timeout":                    {post(askPath), plain + "grpc-timeout: 99999999H\n", message(0, ""), ok, done, message(0, "")},
		"a timeout without unit":       {post(askPath), plain + "grpc-timeout: 10\n", "", "400 content-type=application/grpc grpc-status=13 grpc-message=grpc-timeout \"10\": not up to eight digits and a unit", "", ""},
		"one that is no number":        {post(askPath), plain + "grpc-timeout: -1S\n", "", "400 content-type=application/grpc grpc-status=13 grpc-message=grpc-timeout \"-1S\": not up to eight digits and a unit", "", ""},
		"one that is too long":         {post(askPath), plain + "grpc-timeout: 123456789S\n", "", "400 content-type=application/grpc grpc-status=13 grpc-message=grpc-timeout \"123456789S\": not up to eight digits and a unit", "", ""},
		"metadata that is no base64":   {post(askPath), plain + "a-bin: !\n", "", "400 content-type=application/grpc grpc-status=13 grpc-message=metadata a-bin: illegal base64 data at input byte 0", "", ""},
		"more fields than are taken":   {post(askPath), plain + strings.Repeat("a: b\n", 99), message(0, ""), "200 content-type=application/grpc grpc-status=8 grpc-message=a request of more than 100 fields", "", ""},
		"as many as are taken":         {post(askPath), plain + strings.Repeat("a: b\n", 98), message(0, ""), ok, done, message(0, "")},
		"longer fields than are taken": {post(askPath), plain + "a: " + strings.Repeat("b", 61440) + "\n", "", "200 content-type=application/grpc grpc-status=8 grpc-message=a request of more than 61440 bytes of fields, with 32 for each", "", ""},
		"padded, unpadded, two in one": {post(askPath), plain + "a-bin: AA==\nb-bin: AA\nc-bin: AA==,AQ\n", message(0, ""), ok, done, message(0, "")},
		"a call with a second message": {post(askPath), plain, message(0, "") + message(0, value(9)), ok, done, message(0, "")},
	} {
		t.Run(name, func(t *testing.T) {
			head, answer, trailers := c.call(test.request, test.fields, test.body, true)
			if strings.HasSuffix(test.head, "=13") { // and what protobuf says
				head = head[:min(len(head), len(test.head))]
			}
			require.Equal(t, test.head, head)
			require.Equal(t, test.answer, answer)
			require.Equal(t, test.trailers, trailers)
			require.NoError(t, c.Err(), "the connection goes on")
		})
	}
}

func TestAnAnswerDoesNotWaitForTheRestOfARequest(t *testing.T) {
	c := serve(t, grpchttp2.Options{MaxMessage: 1000}, handlers{}).raw(t)
	for _, test := range []struct{ path, body, want string }{
		{"/none/Such", "", "grpc-status=12"},
		{askPath, message(0, value(9)), "grpc-status=0"},
		{talkPath, message(3, "")[:5], "grpc-status=13"},
	} {
		head, _, trailers := c.call(post(test.path), plain, test.body, false)
		require.Contains(t, head+" "+trailers, test.want)
	}
	require.NoError(t, c.Err())
}

// TestAClientThatResetsItsStreams does so at every stage, and in the end too often.
func TestAClientThatResetsItsStreams(t *testing.T) {
	s := serve(t, grpchttp2.Options{HTTP2: http2.Options{StreamResetBurst: 100, StreamResetRate: 1}}, handlers{})
	c := s.raw(t)
	for i := range 90 {
		stream := c.open(post(talkPath), plain)
		_ = stream.WriteData([]byte(strings.Repeat(message(0, value(3)), i%4)+"\x00\x00\x00"), false)
		_ = stream.Flush()
		stream.Close()
	}
	_, _, trailers := c.call(post(askPath), plain, message(0, ""), true)
	require.Equal(t, "grpc-status=0", trailers)
	for range 200 {
		stream, err := c.Open(post(talkPath), nil, false)
		if err != nil {
			break
		}
		stream.Close()
	}
	<-c.Done()
	require.ErrorContains(t, c.Err(), "ENHANCE_YOUR_CALM")
	_, err := ask(t.Context(), s.dial(t), 0)
	require.NoError(t, err, "others do not suffer")
}

// TestAClientThatPingsTooOften reads the answers, so that none of them waits.
func TestAClientThatPingsTooOften(t *testing.T) {
	s := serve(t, grpchttp2.Options{}, handlers{})
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	const preface, settings, ping = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	_, err = io.WriteString(conn, preface+settings+strings.Repeat(ping, 1000))
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "\x00\x00\x00\x0btoo_many_pings", "GOAWAY with ENHANCE_YOUR_CALM")
	require.GreaterOrEqual(t, strings.Count(string(answer), "12345678"), 100)
	_, err = ask(t.Context(), s.dial(t), 0)
	require.NoError(t, err, "others do not suffer")
}

// TestAClientMayMeasureItsWindows has grpc-go's estimate the bandwidth by PINGs
// between the messages of a bulk: each of them is behind one of ours.
func TestAClientMayMeasureItsWindows(t *testing.T) {
	var floods atomic.Int64
	s := serve(t, grpchttp2.Options{HTTP2: http2.Options{
		PingBurst: 1, PingRate: 1, OnFlood: func(http2.Flood) { floods.Add(1) },
	}}, handlers{})
	stream := talk(t.Context(), t, s.dial(t))
	for range 20 {
		require.NoError(t, stream.SendMsg(wrapperspb.Bytes(make([]byte, 300_000))))
		require.NoError(t, stream.RecvMsg(&bytesValue{}))
	}
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(&bytesValue{}), io.EOF)
	require.Zero(t, floods.Load())
}
