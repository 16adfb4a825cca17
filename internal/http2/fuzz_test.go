package http2_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
)

// FuzzServer sends a server frames, and wants it to end in good order: no panic,
// nobody left behind, and an answer that is made of whole frames.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		headers(end|whole, 1, get) + ping(0, "12345678") + headers(end|whole, 3, post("/large")) + windowUpdate(3, 100_000),
		headers(whole, 1, post("/")) + data(0, 1, "abc") + headers(end|whole, 1, "x: y\n"),
		headers(whole, 1, post("/hold")) + data(padded, 1, "\x02abc\x00\x00") + reset(1, 8) + data(0, 1, "late"),
		raw(1, end, 1, block(get)[:9]) + raw(9, whole, 1, block(get)[9:]),
		settings(1, 0, 4, 1, 5, 16384) + headers(end|whole, 1, post("/large")) + settings(4, 70_000) + priority(1, 3),
		raw(7, 0, 0, word(0)+word(0)) + headers(end|whole, 1, post("/interim")) + raw(4, ack, 0, ""),
		raw(1, end|whole, 1, "\x20\x3f\xe1\x1f\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
		headers(whole, 1, post("/")+"content-length: 3\n") + data(end, 1, "ab"),
		headers(whole, 1, get+"X: y\n") + strings.Repeat(data(0, 1, ""), 3),
	} {
		f.Add([]byte(seed))
	}
	server := http2.NewServer(http2.Options{StreamWindow: 1000, MaxHeaderBytes: 2000, MaxConcurrentStreams: 5, HeaderTableSize: 200})
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, frames []byte) {
		near, far := net.Pipe()
		ended := make(chan error, 1)
		// Ends with the connection.
		go func() { ended <- server.Conn(far, answer{}).Serve([]byte(preface + settings())) }()
		got := make(chan string, 1)
		// As well.
		go func() {
			text, _ := io.ReadAll(near)
			got <- string(text)
		}()
		_, _ = near.Write(frames)
		_, _ = near.Write([]byte(ping(0, "the end."))) // may come within a frame
		near.Close()
		require.Error(t, <-ended)
		<-got
	})
}

// FuzzClient sends a client frames as the answer to a request.
func FuzzClient(f *testing.F) {
	const ok = ":status: 200\n"
	for _, seed := range []string{
		headers(whole, 1, ok+"a: b\n") + data(0, 1, "ab") + data(end, 1, "c"),
		headers(whole, 1, ":status: 103\n") + headers(whole, 1, ok+"content-length: 3\n") + data(end, 1, "abc"),
		headers(whole, 1, ok) + data(0, 1, "a") + headers(end|whole, 1, "x: y\n") + raw(7, 0, 0, word(1)+word(0)),
		headers(whole, 1, ok) + reset(1, 0) + settings(3, 0, 4, 0),
		raw(5, whole, 1, word(2)+block(get)),
	} {
		f.Add([]byte(seed))
	}
	options := http2.NewClientOptions(http2.Options{StreamWindow: 1000, MaxHeaderBytes: 2000})
	f.Fuzz(func(t *testing.T, frames []byte) {
		near, far := net.Pipe()
		// Ends with the connection.
		go func() { _, _ = io.Copy(io.Discard, near) }()
		client := http2.NewClient(far, options)
		s, err := client.Open(request("POST", "/"), nil, false)
		require.NoError(t, err)
		seen := make(chan string, 1)
		// Ends with the stream.
		go func() { seen <- outcome(s) }()
		_, _ = io.WriteString(near, settings())
		_, _ = near.Write(frames)
		near.Close()
		<-client.Done()
		<-seen
		s.Close()
	})
}
