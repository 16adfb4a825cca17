package http1_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// get is a request as a browser sends it: ten header fields.
var get = crlf(`GET /assets/app.js?version=42 HTTP/1.1
Host: www.example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0
Accept: */*
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: https://www.example.com/
Connection: keep-alive
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark
Cache-Control: no-cache
X-Request-Id: 6a1f5c9e-3f0b-4b62-9b0e-2f1d7f0c8a11

`)

// ok is the response to it.
var ok = crlf(`HTTP/1.1 200 OK
Date: Mon, 01 Jun 2026 00:00:00 GMT
Content-Type: text/plain; charset=utf-8
Content-Length: 14
Cache-Control: max-age=60
Etag: "5f3c"
Vary: Accept-Encoding

hello, world
`)

// again gives the same text over and over.
type again struct {
	text string
	rest string
}

func (a *again) Read(to []byte) (int, error) {
	if a.rest == "" {
		a.rest = a.text
	}
	n := copy(to, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// nowhere is a connection that takes all that is written to it.
type nowhere struct{ sink }

func (*nowhere) Write(b []byte) (int, error) { return len(b), nil }

// passRequest makes a function that reads a request and writes it again.
func passRequest(t testing.TB, text string) func() {
	r := http1.NewReader(&again{text: text}, limits)
	w := http1.NewWriter(&nowhere{})
	var m message.Request
	return func() {
		if _, err := r.ReadRequest(&m); err != nil {
			t.Fatal(err)
		}
		w.WriteRequest(&m)
		passBody(t, w, m.Body)
	}
}

// passResponse makes a function that reads a response and writes it again.
func passResponse(t testing.TB, text string) func() {
	r := http1.NewReader(&again{text: text}, limits)
	w := http1.NewWriter(&nowhere{})
	var m message.Response
	method := []byte("GET")
	return func() {
		if _, err := r.ReadResponse(&m, method); err != nil {
			t.Fatal(err)
		}
		w.WriteResponse(&m, false)
		passBody(t, w, m.Body)
	}
}

func passBody(t testing.TB, w *http1.Writer, body message.Body) {
	for body != nil {
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteChunk(chunk); err != nil {
			t.Fatal(err)
		}
	}
	w.Finish(nil)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// upload is a request with a chunked body of 64 KiB.
var upload = crlf("POST /upload HTTP/1.1\nHost: www.example.com\nTransfer-Encoding: chunked\n\n") +
	strings.Repeat("4000\r\n"+strings.Repeat("x", 16<<10)+"\r\n", 4) + "0\r\n\r\n"

func TestPathAllocatesNothing(t *testing.T) {
	t.Run("a request with ten fields", func(t *testing.T) { servicetest.Allocations(t, 0, passRequest(t, get)) })
	t.Run("a request with a chunked body", func(t *testing.T) { servicetest.Allocations(t, 0, passRequest(t, upload)) })
	t.Run("a response", func(t *testing.T) { servicetest.Allocations(t, 0, passResponse(t, ok)) })
}

func BenchmarkRequest(b *testing.B) { run(b, passRequest(b, get), len(get)) }

func BenchmarkChunkedRequest(b *testing.B) { run(b, passRequest(b, upload), len(upload)) }

func BenchmarkResponse(b *testing.B) { run(b, passResponse(b, ok), len(ok)) }

func run(b *testing.B, pass func(), size int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		pass()
	}
}

func BenchmarkReadRequest(b *testing.B) {
	r := http1.NewReader(&again{text: get}, limits)
	var m message.Request
	run(b, func() {
		if _, err := r.ReadRequest(&m); err != nil {
			b.Fatal(err)
		}
	}, len(get))
}
