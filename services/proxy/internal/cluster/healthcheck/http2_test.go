package healthcheck

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// connections are those that a server had.
type connections struct {
	atomic.Int32
	last atomic.Pointer[net.Conn]
}

// serveHTTP2 is a server of HTTP/2 by prior knowledge, with its connections.
func serveHTTP2(t testing.TB, handler http.HandlerFunc) (address string, had *connections) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	had = &connections{}
	server := &http.Server{Handler: handler, Protocols: &http.Protocols{}, ConnState: func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			had.last.Store(&conn)
			had.Add(1)
		}
	}}
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String(), had
}

func TestHTTP2(t *testing.T) {
	address, had := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("x-envoy-upstream-healthchecked-cluster", "mill-7")
		switch {
		case r.Proto != "HTTP/2.0" || r.Host != "cluster" || r.Header.Get("User-Agent") != userAgent:
			w.WriteHeader(http.StatusTeapot)
		case r.URL.Path == "/early":
			w.WriteHeader(http.StatusEarlyHints)
		case r.URL.Path == "/failing":
			w.Header().Set("x-envoy-immediate-health-check-fail", "true")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if r.ContentLength == int64(len(body)) {
			_, _ = w.Write(body)
		}
		_, _ = io.WriteString(w, " answered by "+r.Method)
	})
	for _, c := range []struct {
		name, check string
		want        verdict
		why         string
		excluded    bool
	}{
		{"a status", `path: /`, passed, "", false},
		{"an interim answer before it", `path: /early`, passed, "", false},
		{"another status", `path: /failing`, failed, "status 503", true},
		{"a method without an answer's body", `path: /, method: HEAD`, passed, "", false},
		{"a body both ways", `path: /, method: POST, send: {text: '6f6b'}, receive: [{text: '6f6b'}, {text: '504f5354'}]`, passed, "", false},
		{"another body", `path: /, receive: [{text: 'ff'}]`, failed, "the body has not what is to be received", false},
		{"a service", `path: /, service_name_matcher: {prefix: mill}`, passed, "", false},
		{"another service", `path: /, service_name_matcher: {prefix: barn}`, failed, `x-envoy-upstream-healthchecked-cluster "mill-7" is another service`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := had.Load()
			p := prepare(t, "http_health_check: {codec_client_type: HTTP2, "+c.check+"}", address)
			for range 2 {
				r := probe(t, p)
				require.Equal(t, c.want, r.verdict, r.why)
				require.Equal(t, c.why, r.why)
				require.Equal(t, c.excluded, r.excluded)
			}
			require.Equal(t, before+1, had.Load(), "the connection is kept")
		})
	}
}

func TestAConnectionOfHTTP2ThatTheServerClosedMeanwhileIsMadeAnew(t *testing.T) {
	address, had := serveHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	p := prepare(t, "http_health_check: {codec_client_type: HTTP2, path: /}", address)
	require.Equal(t, passed, probe(t, p).verdict)
	require.NoError(t, (*had.last.Load()).Close())
	require.Equal(t, passed, probe(t, p).verdict)
	require.EqualValues(t, 2, had.Load())
}

func TestACheckOverHTTP2EndsWithItsTime(t *testing.T) {
	address, _ := serveHTTP2(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p := prepare(t, "http_health_check: {codec_client_type: HTTP2, path: /}", address)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Equal(t, network, p.probe(ctx).verdict)

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	r := probe(t, prepare(t, "http_health_check: {codec_client_type: HTTP2, path: /}", closed.Addr().String()))
	require.Equal(t, network, r.verdict)
	require.Contains(t, r.why, "connect: ")
}
