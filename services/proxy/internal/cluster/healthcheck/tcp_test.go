package healthcheck

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var discard = slog.New(slog.DiscardHandler)

func addrPort(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }

// TestTCPBeginsWithAHeaderOfThePROXYProtocol has one of each version, once a
// connection.
func TestTCPBeginsWithAHeaderOfThePROXYProtocol(t *testing.T) {
	for version, want := range map[string]string{
		"V1": `^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+\r\n$`,
		"V2": "^\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00$",
	} {
		t.Run(version, func(t *testing.T) {
			seen := make(chan string, 2)
			address := talk(t, func(_ int, conn net.Conn) {
				for r := bufio.NewReader(conn); ; {
					text, err := r.ReadString('?')
					if err != nil {
						return
					}
					seen <- strings.TrimSuffix(text, "?")
					_, _ = io.WriteString(conn, "!")
				}
			})
			p := prepare(t, "tcp_health_check: {proxy_protocol_config: {version: "+version+"}, send: {text: '3f'}, receive: [{text: '21'}]}", address)
			defer p.close()
			for range 2 {
				r := probe(t, p)
				require.Equal(t, passed, r.verdict, r.why)
			}
			require.Regexp(t, want, <-seen)
			require.Empty(t, <-seen, "the connection is kept")
		})
	}
}

func TestTCP(t *testing.T) {
	// echo sends back what it got, in two pieces with something between.
	echo := func(_ int, conn net.Conn) {
		buf := make([]byte, 4)
		for {
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			_, _ = conn.Write(append(buf[:2:2], "-noise-"...))
			_, _ = conn.Write(buf[2:])
		}
	}
	silent := func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	for _, c := range []struct {
		name   string
		check  string
		script func(int, net.Conn)
		want   verdict
		why    string
	}{
		{"a connection is enough", "{}", silent, passed, ""},
		{"also with something to send", "{send: {text: '00'}}", silent, passed, ""},
		{"blocks come in order, with gaps", "{send: {text: '61626364'}, receive: [{text: '6162'}, {text: '6364'}]}", echo, passed, ""},
		{"a server that says hello first", "{receive: [{text: '6f6b'}]}", func(_ int, conn net.Conn) {
			_, _ = io.WriteString(conn, "220 ok\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}, passed, ""},
		{"the server closes before all came", "{receive: [{text: '6f6b'}, {text: '6f6b'}]}", func(_ int, conn net.Conn) {
			_, _ = io.WriteString(conn, "220 ok\r\n")
		}, network, "read what is to be received: EOF"},
		{"the server closes at once", "{receive: [{text: '6f6b'}]}", func(int, net.Conn) {}, network, errUnseen.Error()},
		{"too much comes", "{receive: [{text: 'ff'}]}", func(_ int, conn net.Conn) {
			block := make([]byte, 4096)
			for {
				if _, err := conn.Write(block); err != nil {
					return
				}
			}
		}, network, "bytes came without what is to be received"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := prepare(t, "tcp_health_check: "+c.check, talk(t, c.script))
			defer p.close()
			for range 2 { // the second on a kept connection, where one is
				r := probe(t, p)
				require.Equal(t, c.want, r.verdict, r.why)
				require.Contains(t, r.why, c.why)
			}
		})
	}
}

func TestATCPConnectionIsKeptAndMadeAnewWhenClosed(t *testing.T) {
	connections := make(chan int, 8)
	closed := make(chan struct{}, 8)
	address := talk(t, func(n int, conn net.Conn) {
		connections <- n
		buf := make([]byte, 1)
		for range 2 { // checks on each connection
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			_, _ = conn.Write(buf)
		}
		_ = conn.Close()
		closed <- struct{}{}
	})
	p := prepare(t, "tcp_health_check: {send: {text: '61'}, receive: [{text: '61'}]}", address)
	for range 2 {
		require.Equal(t, result{}, probe(t, p))
		require.Equal(t, result{}, probe(t, p))
		<-closed
	}
	require.Len(t, connections, 2)
}
