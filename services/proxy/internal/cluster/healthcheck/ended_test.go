package healthcheck

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// endingConn ends a check as the answer is read.
type endingConn struct {
	net.Conn
	end context.CancelFunc
}

// Read implements io.Reader.
func (c endingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.end()
	return n, err
}

func TestACheckThatEndsAsItsAnswerComes(t *testing.T) {
	for name, check := range map[string]string{
		"HTTP/1.1": `http_health_check: {path: /}`,
		"TCP":      `tcp_health_check: {send: {text: "61"}, receive: [{text: "3230"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			address := talk(t, func(_ int, conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1024))
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn)
			})
			for range 200 { // what the end of a check brings about comes as the check is left, or behind it
				p := prepare(t, check, address)
				ctx, end := context.WithCancel(t.Context())
				dial := func(_ context.Context, address string) (net.Conn, error) {
					conn, err := net.Dial("tcp", address)
					return endingConn{conn, end}, err
				}
				switch p := p.(type) {
				case *httpProber:
					p.dial = dial
				case *tcpProber:
					p.dial = dial
				}
				require.Equal(t, network, p.probe(ctx).verdict)
			}
		})
	}
}
