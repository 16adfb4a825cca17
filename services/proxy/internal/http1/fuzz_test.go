package http1_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// The fuzz targets hold the codec to net/http, which reads HTTP in another way:
//
//   - what we accept, net/http accepts too, but for what stands in theirRefusals;
//   - what both accept means the same: line, host, fields and body;
//   - what we accept and write again, net/http reads as the same message, and
//     finds nothing behind it.

// FuzzReadRequest reads the first request of a connection.
func FuzzReadRequest(f *testing.F) {
	for _, seed := range requestSeeds {
		f.Add([]byte(crlf(seed)))
		f.Add([]byte(seed))
	}
	f.Add([]byte(get))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m message.Request
		r := http1.NewReader(strings.NewReader(string(text)), limits)
		_, err := r.ReadRequest(&m)
		var body string
		if err == nil {
			body, err = readAll(m.Body)
		}
		requireSameByteByByte(t, string(text), func(source io.Reader) string { return readRequests(source, limits) })
		if err != nil {
			return
		}
		standard, standardBody, refusal := standardRequest(string(text))
		requireAgreement(t, body, standardBody, refusal)
		if string(m.Method) == "CONNECT" || len(m.Authority) == 0 { // is never forwarded
			return
		}
		if refusal == nil {
			requireSameRequest(t, &m, standard)
		}

		conn := &sink{}
		w := http1.NewWriter(conn)
		w.WriteRequest(&m)
		finish(t, w, body)
		rest := bufio.NewReader(strings.NewReader(conn.text()))
		got, err := http.ReadRequest(rest)
		if _, ok := errors.AsType[*url.Error](err); ok { // escapes are not the codec's
			return
		}
		require.NoError(t, err, "%q", conn.text())
		require.Equal(t, string(m.Method), got.Method)
		require.Equal(t, string(m.Path), got.RequestURI)
		require.Equal(t, string(m.Authority), got.Host)
		requireFields(t, &m.Headers, got.Header)
		requireBody(t, body, got.Body, rest)
	})
}

// FuzzReadRequestWithOptions reads requests with everything on that is off
// otherwise. What is written again differs from what the message says in how
// names are spelt, and reads as the same message.
func FuzzReadRequestWithOptions(f *testing.F) {
	for _, seed := range requestSeeds {
		f.Add([]byte(crlf(seed)))
	}
	f.Add([]byte(crlf("PUT / HTTP/1.0\nX-My_ID: 1\nContent-Length: 1\n\na")))
	f.Add([]byte(crlf("PUT / HTTP/1.1\nHOST: a\nX-My_ID: 1\nTransfer-encoding: chunked\n\n1\na\n0\nX-T: 1\nHost: b\n\n")))
	options := http1.Options{AcceptHTTP10: true, DefaultHost: "fallback", Trailers: true, KeepSpelling: true, Underscores: http1.DropUnderscores}
	read := func(source io.Reader, options http1.Options) (*message.Request, string, error) {
		m := &message.Request{}
		r := http1.NewReader(source, limits)
		r.Options = options
		if _, err := r.ReadRequest(m); err != nil {
			return m, "", err
		}
		body, err := readAll(m.Body)
		return m, body, err
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, body, err := read(strings.NewReader(string(text)), options)
		_, slowBody, slowErr := read(iotest.OneByteReader(strings.NewReader(string(text))), options)
		require.Equal(t, body, slowBody)
		require.Equal(t, err == nil, slowErr == nil)
		if err != nil || string(m.Method) == "CONNECT" || len(m.Authority) == 0 {
			return
		}
		conn := &sink{}
		w := http1.NewWriter(conn)
		w.Trailers = true
		w.WriteRequest(m)
		if body != "" {
			require.NoError(t, w.WriteChunk([]byte(body)))
		}
		w.Finish(&m.Trailers)
		require.NoError(t, w.Flush())
		again, againBody, err := read(strings.NewReader(conn.text()), http1.Options{Trailers: true})
		require.NoError(t, err, "%q", conn.text())
		require.Equal(t, string(m.Path), string(again.Path))
		require.Equal(t, string(m.Authority), string(again.Authority))
		require.Equal(t, body, againBody)
		require.Equal(t, fields(&m.Trailers), fields(&again.Trailers))
		for _, framing := range []string{"content-length", "expect"} {
			m.Headers.Remove(framing)
			again.Headers.Remove(framing)
		}
		require.Equal(t, fields(&m.Headers), fields(&again.Headers))
	})
}

// FuzzReadResponse reads the first response of a connection, to a HEAD or to a
// GET.
func FuzzReadResponse(f *testing.F) {
	for _, seed := range responseSeeds {
		f.Add([]byte(crlf(seed)), false)
		f.Add([]byte(crlf(seed)), true)
	}
	f.Add([]byte(ok), false)
	f.Fuzz(func(t *testing.T, text []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		var m message.Response
		r := http1.NewReader(strings.NewReader(string(text)), limits)
		_, err := r.ReadResponse(&m, []byte(method))
		var body string
		if err == nil {
			body, err = readAll(m.Body)
		}
		requireSameByteByByte(t, string(text), func(source io.Reader) string { return readResponses(source, method) })
		standard, refusal := standardResponse(string(text), method)
		if err != nil {
			return
		}
		requireAgreement(t, body, standard, refusal)

		conn := &sink{}
		w := http1.NewWriter(conn)
		w.WriteResponse(&m, false)
		finish(t, w, body)
		rest := bufio.NewReader(strings.NewReader(conn.text()))
		got, err := http.ReadResponse(rest, &http.Request{Method: method})
		require.NoError(t, err, "%q", conn.text())
		require.Equal(t, m.Status, got.StatusCode)
		requireFields(t, &m.Headers, got.Header)
		requireBody(t, body, got.Body, rest)
	})
}

// FuzzBody reads a chunked body.
func FuzzBody(f *testing.F) {
	for _, seed := range bodySeeds {
		f.Add([]byte(crlf(seed)))
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole := crlf(chunkedHead) + string(text)
		requireSameByteByByte(t, whole, func(source io.Reader) string { return readRequests(source, limits) })
		var m message.Request
		_, err := http1.NewReader(strings.NewReader(whole), limits).ReadRequest(&m)
		require.NoError(t, err)
		got, err := readAll(m.Body)
		standard, refusal := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(string(text))))
		if err != nil {
			return
		}
		requireAgreement(t, got, string(standard), refusal)
	})
}

// theirRefusals begin what net/http says of messages that it refuses and we
// accept, with why that does no harm.
var theirRefusals = []struct{ text, why string }{
	{"parse ", "it takes targets apart into URLs; here they are passed on as they are, and held to RFC 3986 where they are not paths"},
	{`malformed HTTP request ""`, "it wants no empty line before a request, which RFC 9112 §2.2 has servers pass over"},
	{"http: invalid trailer key", "it is about the field Trailer, which announces and does nothing"},
	{"bad trailer key", "so is this"},
	{"http: suspiciously long trailer", "its limit is lower"},
}

// requireAgreement holds what we accepted to what net/http made of the same
// bytes: it accepted them too, with the same body, but for theirRefusals.
func requireAgreement(t *testing.T, body, standard string, refusal error) {
	t.Helper()
	if refusal == nil {
		require.Equal(t, standard, body)
		return
	}
	for _, listed := range theirRefusals {
		if strings.HasPrefix(refusal.Error(), listed.text) {
			return
		}
	}
	require.NoError(t, refusal, "net/http refuses what we accept, and it is not listed")
}

// requireSameRequest compares what two readers made of one head.
func requireSameRequest(t *testing.T, m *message.Request, standard *http.Request) {
	t.Helper()
	require.Equal(t, standard.Method, string(m.Method))
	if strings.HasPrefix(standard.RequestURI, "/") || standard.RequestURI == "*" {
		require.Equal(t, standard.RequestURI, string(m.Path))
	}
	require.Equal(t, standard.Host, string(m.Authority))
	standard.Header.Del("Expect") // is no field here, but ExpectContinue
	m.Headers.Remove("expect")
	requireFields(t, &m.Headers, standard.Header)
}

// standardRequest is the first request of a text as net/http reads it, and its
// body.
func standardRequest(text string) (*http.Request, string, error) {
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(request.Body)
	return request, string(body), err
}

// standardResponse is standardRequest for the first response that is not
// interim.
func standardResponse(text, method string) (string, error) {
	source := bufio.NewReader(strings.NewReader(text))
	for {
		response, err := http.ReadResponse(source, &http.Request{Method: method})
		if err != nil {
			return "", err
		}
		if response.StatusCode >= 200 {
			body, err := io.ReadAll(response.Body)
			return string(body), err
		}
	}
}

func requireSameByteByByte(t *testing.T, text string, read func(io.Reader) string) {
	t.Helper()
	require.Equal(t, read(strings.NewReader(text)), read(iotest.OneByteReader(strings.NewReader(text))))
}

func readAll(body message.Body) (string, error) {
	var b strings.Builder
	for body != nil {
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		b.Write(chunk)
	}
	return b.String(), nil
}

// finish writes a body, in two chunks where it has two bytes.
func finish(t *testing.T, w *http1.Writer, body string) {
	t.Helper()
	for _, part := range []string{body[:len(body)/2], body[len(body)/2:]} {
		if part != "" {
			require.NoError(t, w.WriteChunk([]byte(part)))
		}
	}
	w.Finish(nil)
	require.NoError(t, w.Flush())
}

// requireFields compares the fields name by name, but for those that net/http
// changes as it reads.
func requireFields(t *testing.T, want *message.Headers, got http.Header) {
	t.Helper()
	wanted := http.Header{}
	for i := range want.Len() {
		name, value := want.At(i)
		wanted.Add(string(name), string(value))
	}
	for _, name := range []string{"Content-Length", "Cache-Control", "Pragma", "Trailer"} {
		wanted.Del(name)
		got.Del(name)
	}
	require.Equal(t, wanted, got)
}

// requireBody compares the body, and wants nothing behind it.
func requireBody(t *testing.T, want string, body io.Reader, rest *bufio.Reader) {
	t.Helper()
	got, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	_, err = rest.ReadByte()
	require.ErrorIs(t, err, io.EOF, "something is left")
}
