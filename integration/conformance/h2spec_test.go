package conformance

import (
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
)

// small answers every request with a few bytes, once it has read the body.
type small struct{}

// ServeStream implements http2.Handler.
func (small) ServeStream(s *http2.Stream) {
	var head http2.Head
	err := s.ReadHead(&head)
	for err == nil && !head.End {
		_, err = s.Next()
		head.End = err != nil
	}
	if s.WriteHead(200, nil, false) == nil {
		_ = s.WriteData([]byte("conformant"), true)
	}
}

// TestHTTP2IsConformant runs all cases of h2spec, the strict ones included,
// against a server that is made of internal/http2 and nothing else: on sockets,
// and on connections that wrap one, which are read and written in another way.
func TestHTTP2IsConformant(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{
		{"sockets", func(conn net.Conn) net.Conn { return conn }},
		{"wrapped sockets", func(conn net.Conn) net.Conn { return struct{ net.Conn }{conn} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := servicetest.Peer(t, "h2spec", "H2SPEC", "make bin/h2spec")
			requireH2spec(t, program, serveSmall(t, c.wrap))
		})
	}
}

// serveSmall serves until the test ends, and returns the address.
func serveSmall(t *testing.T, wrap func(net.Conn) net.Conn) string {
	t.Helper()
	server := http2.NewServer(http2.Options{MaxConcurrentStreams: 100})
	t.Cleanup(server.Close) // behind its connections
	return servicetest.Accept(t, func(conn net.Conn) { _ = server.Conn(wrap(conn), small{}).Serve(nil) })
}

// requireH2spec runs h2spec against an address and wants each case to pass.
func requireH2spec(t *testing.T, program, address string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	report := filepath.Join(t.TempDir(), "report.xml")
	output, err := exec.Command(program, "-h", host, "-p", port, "--strict", "--timeout", "60", "-j", report).CombinedOutput()
	require.NoError(t, err, "%s", output)
	text, err := os.ReadFile(report)
	require.NoError(t, err)
	var suites struct {
		Suites []struct {
			Tests   int `xml:"tests,attr"`
			Skipped int `xml:"skipped,attr"`
			Failed  int `xml:"failures,attr"`
			Errors  int `xml:"errors,attr"`
		} `xml:"testsuite"`
	}
	require.NoError(t, xml.Unmarshal(text, &suites))
	cases := 0
	for _, s := range suites.Suites {
		cases += s.Tests
		require.Zero(t, s.Skipped+s.Failed+s.Errors, "%s", output)
	}
	require.GreaterOrEqual(t, cases, 145)
	t.Logf("%d cases", cases)
}
