package hcm_test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
)

// TestAgeOfAConnectionCountsFromItsAccept has clients that say nothing at first, of
// connections that may become ten seconds old and then drain for one.
func TestAgeOfAConnectionCountsFromItsAccept(t *testing.T) {
	const silence = 9 * time.Second
	silent := func(t *testing.T, conn net.Conn) {
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	plain := func(t *testing.T, conn net.Conn) {
		time.Sleep(silence)
		_, err := io.WriteString(conn, get)
		require.NoError(t, err)
		_, err = io.ReadAll(conn)
		require.NoError(t, err)
	}
	multiplexed := func(_ *testing.T, conn net.Conn) {
		time.Sleep(silence)
		<-http2.NewClient(conn, http2.NewClientOptions(http2.Options{})).Done()
	}
	for _, c := range []struct {
		name, fields string
		client       func(*testing.T, net.Conn)
		least, most  time.Duration
	}{
		{"HTTP/1", "", plain, 11 * time.Second, 11 * time.Second},
		{"HTTP/2", "", multiplexed, 11 * time.Second, 11 * time.Second},
		{"no request, which has a second more", "", silent, 12 * time.Second, 12 * time.Second},
		{"by chance", `, "max_connection_duration_jitter": {"value": 50}`, plain, 11 * time.Second, 16 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, newUpstream(t).address(), config{
				fields: `"drain_timeout": "1s", "common_http_protocol_options": {"max_connection_duration": "10s"` + c.fields + `},`,
				routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`,
			})
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				conn, began := p.filter.NewConnection(far), time.Now()
				served := make(chan struct{})
				go func() { // ends with the connection
					defer close(served)
					conn.Serve(t.Context())
				}()
				c.client(t, near)
				age := time.Since(began)
				require.GreaterOrEqual(t, age, c.least)
				require.LessOrEqual(t, age, c.most)
				require.NoError(t, near.Close())
				<-served
			})
			require.EqualValues(t, 1, p.stat("http.test.downstream_cx_max_duration_reached"))
		})
	}
}

func TestAConnectionHasOneID(t *testing.T) {
	l := newAccessLog(t, "%CONNECTION_ID%\n")
	p := start(t, newUpstream(t).address(), config{fields: l.field, logs: l.files, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
	require.Equal(t, "200", outcome(open(t, p.dialHTTP2(), "GET /", true)))
	require.Equal(t, []string{"1"}, l.lines(1))
	require.Equal(t, "200", outcome(open(t, p.dialHTTP2(), "GET /", true)))
	require.Equal(t, []string{"1", "2"}, l.lines(2))
}
