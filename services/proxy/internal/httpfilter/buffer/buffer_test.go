package buffer_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/buffer"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, buffer.Factory{}) }

// unknown makes the body one whose length the client does not tell.
func unknown(s *stream.Stream) { s.Request.BodyLength = message.Unknown }

func TestBuffer(t *testing.T) {
	config := filtertest.MustParse(t, buffer.Factory{}, "max_request_bytes: 5")
	for _, c := range []struct {
		name     string
		exchange filtertest.Exchange
		want     filtertest.Result
	}{
		{"a request without a body passes", filtertest.Exchange{Request: "GET /"},
			filtertest.Result{Forwarded: "GET /\nhost: a.example", Response: "200"}},
		{"a body of the most bytes passes", filtertest.Exchange{Request: "PUT /", Body: []string{"ab", "cde"}},
			filtertest.Result{Forwarded: "PUT /\nhost: a.example\ncontent-length: 5\n\nabcde", Response: "200"}},
		{"of unknown length too", filtertest.Exchange{Request: "PUT /", Body: []string{"ab", "cde"}, Prepare: unknown},
			filtertest.Result{Forwarded: "PUT /\nhost: a.example\ncontent-length: 5\n\nabcde", Response: "200"}},
		{"a longer one is refused", filtertest.Exchange{Request: "PUT /", Body: []string{"ab", "cdef"}},
			filtertest.Result{Response: "413\ncontent-type: text/plain\n\nPayload Too Large"}},
		{"of unknown length too, when it is too long", filtertest.Exchange{Request: "PUT /", Body: []string{"ab", "cdef"}, Prepare: unknown},
			filtertest.Result{Response: "413\ncontent-type: text/plain\n\nPayload Too Large"}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, filtertest.Run(t, config, c.exchange)) })
	}
}

func TestARouteHasItsOwnLimitOrNone(t *testing.T) {
	const perRoute = `{"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, `
	config := filtertest.MustParse(t, buffer.Factory{}, "max_request_bytes: 5")
	routes := filtertest.MustParseRoutes(t, buffer.Factory{}, `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - {match: {path: /more}, direct_response: {status: 200}, typed_per_filter_config: {test: `+perRoute+`buffer: {max_request_bytes: 6}}}}
  - {match: {path: /off}, direct_response: {status: 200}, typed_per_filter_config: {test: `+perRoute+`disabled: true}}}
  - {match: {prefix: /}, direct_response: {status: 200}}
`)
	const refused = "413\ncontent-type: text/plain\n\nPayload Too Large"
	for _, c := range []struct {
		path string
		body []string
		want string
	}{
		{"/", []string{"ab", "cdef"}, refused},
		{"/more", []string{"ab", "cdef"}, "200"},
		{"/more", []string{"ab", "cdefg"}, refused},
		{"/off", []string{"ab", "cdefg"}, "200"},
	} {
		got := filtertest.Run(t, config, filtertest.Exchange{Request: "PUT " + c.path, Body: c.body, Routes: routes})
		require.Equal(t, c.want, got.Response, c.path)
	}
	for config, want := range map[string]string{
		"disabled: false}":                "disabled",
		"buffer: {max_request_bytes: 0}}": `typed_per_filter_config["test"].buffer.max_request_bytes`,
	} {
		_, report := filtertest.ParseRoutes(t, buffer.Factory{}, `typed_per_filter_config: {test: `+perRoute+config+`}`)
		require.ErrorContains(t, report.Err(), want)
	}
}

// watched is a body that tells whether it was read, and how it ends.
type watched struct {
	chunks []string
	end    error
	reads  int
}

func (b *watched) Ready() bool { return true }
func (b *watched) Next() ([]byte, error) {
	b.reads++
	if len(b.chunks) == 0 {
		return nil, b.end
	}
	chunk := b.chunks[0]
	b.chunks = b.chunks[1:]
	return []byte(chunk), nil
}

// headStep runs the filter's one step on a body.
func headStep(t *testing.T, b *watched, length int64) (*stream.Stream, string) {
	t.Helper()
	config := filtertest.MustParse(t, buffer.Factory{}, "max_request_bytes: 5")
	s := &stream.Stream{}
	s.Request.Body, s.Request.BodyLength = b, length
	reply := config.NewFilter().(httpfilter.RequestHead).RequestHead(s)
	if reply == nil {
		return s, ""
	}
	return s, reply.Body
}

func TestABodyIsThereAsAWholeWithItsLength(t *testing.T) {
	s, refusal := headStep(t, &watched{chunks: []string{"ab", "cd"}, end: io.EOF}, message.Unknown)
	require.Empty(t, refusal)
	require.EqualValues(t, 4, s.Request.BodyLength)
	length, _ := s.Request.Headers.Get("content-length")
	require.Equal(t, "4", string(length))
	chunk, err := s.Request.Body.Next()
	require.NoError(t, err)
	require.Equal(t, "abcd", string(chunk))
}

func TestAnEmptyBodyIsNone(t *testing.T) {
	s, refusal := headStep(t, &watched{end: io.EOF}, message.Unknown)
	require.Empty(t, refusal)
	require.Zero(t, s.Request.BodyLength)
	require.Nil(t, s.Request.Body)
}

// trailing is a body with a trailer behind it.
type trailing struct {
	message.Body
	trailers *message.Headers
}

func (b *trailing) Next() ([]byte, error) {
	chunk, err := b.Body.Next()
	if err != nil {
		b.trailers.Add("x-sum", "1")
	}
	return chunk, err
}

func TestTrailersStayBehindTheBody(t *testing.T) {
	for _, text := range []string{"abc", ""} {
		config := filtertest.MustParse(t, buffer.Factory{}, "max_request_bytes: 5")
		s := &stream.Stream{}
		s.Request.BodyLength = message.Unknown
		s.Request.Body = &trailing{message.NewBytes([]byte(text)), &s.Request.Trailers}
		require.Nil(t, config.NewFilter().(httpfilter.RequestHead).RequestHead(s))
		require.EqualValues(t, message.Unknown, s.Request.BodyLength)
		chunk, err := s.Request.Body.Next()
		require.Equal(t, text, string(chunk))
		if text != "" {
			require.NoError(t, err)
			_, err = s.Request.Body.Next()
		}
		require.ErrorIs(t, err, io.EOF)
		require.True(t, s.Request.Trailers.Has("x-sum"))
	}
}

func TestAnotherProtocolIsNoBody(t *testing.T) {
	config := filtertest.MustParse(t, buffer.Factory{}, "max_request_bytes: 5")
	s, b := &stream.Stream{}, &watched{end: io.EOF}
	s.Request.Body, s.Request.BodyLength, s.Request.Upgrade = b, message.Unknown, []byte("websocket")
	require.Nil(t, config.NewFilter().(httpfilter.RequestHead).RequestHead(s))
	require.Zero(t, b.reads)
	require.Equal(t, b, s.Request.Body)
}

func TestABodyThatAnnouncesTooMuchIsNotRead(t *testing.T) {
	b := &watched{end: io.EOF}
	_, refusal := headStep(t, b, 6)
	require.Equal(t, "Payload Too Large", refusal)
	require.Zero(t, b.reads)
}

func TestABodyThatBreaksOffIsRefused(t *testing.T) {
	_, refusal := headStep(t, &watched{chunks: []string{"a"}, end: errors.New("the client has gone")}, 5)
	require.Equal(t, "the request's body ended early", refusal)
	_, refusal = headStep(t, &watched{end: os.ErrDeadlineExceeded}, 5)
	require.Equal(t, "stream timeout", refusal)
}

func TestFaultsAreTold(t *testing.T) {
	for config, want := range map[string]string{"{}": "max_request_bytes", "max_request_bytes: 0": "max_request_bytes"} {
		_, report := filtertest.Parse(t, buffer.Factory{}, config)
		require.ErrorContains(t, report.Err(), want)
	}
}
