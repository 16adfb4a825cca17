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
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
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

func registerTen(t testing.TB, h http.Handler) {
	for port := range 10 {
		if w := do(h, "POST", "/v1/registration/users", fields("port", fmt.Sprint(port+1))); w.Code != 200 {
			t.Fatal(w.Body)
		}
	}
}

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestAListAllocatesLittle(t *testing.T) {
	for name, draining := range map[string]bool{"all serve": false, "one drains": true} {
		t.Run(name, func(t *testing.T) {
			h := tenHosts(t, draining)
			r := httptest.NewRequest("GET", "/v1/registration/users", nil)
			w := discard{http.Header{}}
			// The match of the path.
			servicetest.Allocations(t, 1, func() { h.ServeHTTP(w, r) })
		})
	}
}

// tenHosts is a handler with ten hosts of users, one of which may drain.
func tenHosts(t testing.TB, draining bool) http.Handler {
	hosts := registrytest.Loaded(t)
	h := newHandler(hosts)
	registerTen(t, h)
	if draining {
		list, err := hosts.List("users")
		require.NoError(t, err)
		host := *list.Hosts[0].Host
		host.Draining = true
		_, err = hosts.Put(host, "test")
		require.NoError(t, err)
	}
	return h
}

// BenchmarkListOfTenOfWhichOneDrains reads what is composed once, as that of hosts
// that all serve.
func BenchmarkListOfTenOfWhichOneDrains(b *testing.B) {
	h := tenHosts(b, true)
	r := httptest.NewRequest("GET", "/v1/registration/users", nil)
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// BenchmarkListOfEach lists many services in turn, so that what a host holds is
// not at hand.
func BenchmarkListOfEach(b *testing.B) {
	h := loadedHandler(b)
	requests := make([]*http.Request, 2000)
	for i := range requests {
		path := fmt.Sprintf("/v1/registration/service-%d", i)
		for port := range 10 {
			tags := fmt.Sprintf(`{"az":"eu-1a","region":"eu-1","instance_id":"i-%x"}`, i*10+port)
			if w := do(h, "POST", path, fields("port", fmt.Sprint(port+1), "tags", tags)); w.Code != 200 {
				b.Fatal(w.Body)
			}
		}
		requests[i] = httptest.NewRequest("GET", path, nil)
	}
	w := discard{http.Header{}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.ServeHTTP(w, requests[i%len(requests)])
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
