package v2

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

const described = `{"address":"10.0.0.%d","additional_addresses":["fd00::%d"],"port":8080,"ports":{"grpc":9090},` +
	`"zone":"eu-1a","region":"eu-1","repo":"users","revision":"6f1ce2a","weight":50,"tags":{"rack":"7"},"ttl":"30s"}`

// withTen is a fixture with ten hosts of users.
func withTen(t testing.TB) *fixture {
	f := newFixture(t)
	for i := range 10 {
		f.put(t, fmt.Sprintf("/v2/services/users/hosts/%d", i), fmt.Sprintf(described, i+1, i+1))
	}
	return f
}

// withMany is a fixture with maxLeases hosts, and the body of their beats.
func withMany(t testing.TB) (*fixture, string) {
	f := newFixture(t)
	leases := make([]string, maxLeases)
	for i := range leases {
		answer := f.put(t, fmt.Sprintf("/v2/services/s%d/hosts/%d", i/10, i), fmt.Sprintf(described, i%250+1, i%250+1))
		leases[i] = `"` + answer["lease"].(string) + `"`
	}
	return f, `{"leases":[` + strings.Join(leases, ",") + `]}`
}

func BenchmarkPutUnchanged(b *testing.B) {
	f := withTen(b)
	body := fmt.Sprintf(described, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		if w := f.call("PUT", "/v2/services/users/hosts/0", body); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkBeat(b *testing.B) {
	f := withTen(b)
	b.ReportAllocs()
	for b.Loop() {
		if w := f.call("POST", "/v2/services/users/hosts/0/heartbeat", ""); w.Code != 204 {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkBeatMany is of calls with maxLeases known leases each.
func BenchmarkBeatMany(b *testing.B) {
	f, body := withMany(b)
	b.ReportAllocs()
	for b.Loop() {
		if w := f.call("POST", "/v2/heartbeats", body); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(b.N)*maxLeases/b.Elapsed().Seconds(), "hosts/s")
}

func BenchmarkReadLeases(b *testing.B) {
	_, body := withMany(b)
	text := []byte(body)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var wrong call.Faults
		if leases, _ := readLeases(text, &wrong); len(leases) != maxLeases || wrong != nil {
			b.Fatal(wrong)
		}
	}
}

func BenchmarkListOfTen(b *testing.B) {
	f := withTen(b)
	b.ReportAllocs()
	for b.Loop() {
		if w := f.call("GET", "/v2/services/users/hosts", ""); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkListOfTenOverTCP is of calls by keep-alive connections. Its client
// does next to nothing: it sends the same bytes again and again, and counts
// those of the answer, whose length never changes.
func BenchmarkListOfTenOverTCP(b *testing.B) {
	server := httptest.NewServer(withTen(b))
	defer server.Close()
	request := []byte("GET /v2/services/users/hosts HTTP/1.1\r\nHost: discovery\r\n\r\n")
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		connection, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(b, err)
		defer connection.Close()
		answer := make([]byte, 64<<10)
		_, err = connection.Write(request)
		require.NoError(b, err)
		reader := bufio.NewReaderSize(connection, len(answer))
		response, err := http.ReadResponse(reader, nil)
		require.NoError(b, err)
		head, err := httputil.DumpResponse(response, false)
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(b, err)
		length := len(head) + int(response.ContentLength)
		for pb.Next() {
			if _, err := connection.Write(request); err != nil {
				b.Error(err)
				return
			}
			if _, err := io.ReadFull(connection, answer[:length]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestAListAllocatesLittle(t *testing.T) {
	f := withTen(t)
	r := newRequest("GET", "/v2/services/users/hosts", "")
	w := discard{http.Header{}}
	// The match of the path; and the fixture's context, and the request with it.
	servicetest.Allocations(t, 3, func() { f.ServeHTTP(w, r) })
}
