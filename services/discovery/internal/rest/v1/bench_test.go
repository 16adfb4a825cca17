package v1

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/daemon"
)

func BenchmarkCheckIn(b *testing.B) {
	h := loadedHandler(b)
	body := fields().Encode()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(body))
		r.Header.Set("Content-Type", formType)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkListOfTen(b *testing.B) {
	h := loadedHandler(b)
	registerTen(b, h)
	b.ReportAllocs()
	for b.Loop() {
		if w := do(h, "GET", "/v1/registration/users", nil); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

func registerTen(b *testing.B, h http.Handler) {
	for port := range 10 {
		if w := do(h, "POST", "/v1/registration/users", fields("port", fmt.Sprint(port+1))); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkOverHTTP makes calls over 16 connections that are kept. With -cpu 1
// one core does the work of both ends.
func BenchmarkOverHTTP(b *testing.B) {
	form := fields().Encode()
	for name, head := range map[string]string{
		"heartbeat":   fmt.Sprintf("POST /v1/registration/users HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", formType, len(form), form),
		"list of ten": "GET /v1/registration/users HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n",
		"known list":  "GET /v1/registration/users HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			h := loadedHandler(b)
			registerTen(b, h)
			callOver(b, h, []byte(head))
		})
	}
}

// callOver sends a request b.N times, over connections that are kept.
func callOver(b *testing.B, h http.Handler, request []byte) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := daemon.ServeHTTP("test", listener, h, slog.New(slog.DiscardHandler))
	var working sync.WaitGroup
	defer working.Wait()
	// Ends with Stop; the end of the benchmark waits for it.
	working.Go(func() { _ = server.Run() })
	defer func() { _ = server.Stop(b.Context()) }()

	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var clients sync.WaitGroup
	for range 16 {
		// Ends when no calls are left; waited for below.
		clients.Go(func() {
			c, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			answer := make([]byte, 64<<10)
			size := 0 // of an answer: all have the same
			for left.Add(-1) >= 0 {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if size == 0 {
					size, err = c.Read(answer)
				} else {
					_, err = io.ReadFull(c, answer[:size])
				}
				if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) || answer[9] == '4' {
					b.Errorf("%v: %s", err, answer[:size])
					return
				}
			}
		})
	}
	clients.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
