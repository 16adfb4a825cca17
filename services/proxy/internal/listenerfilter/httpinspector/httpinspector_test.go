package httpinspector

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter/listenerfiltertest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { listenerfiltertest.Readme(t, Factory{}) }

// undecided stands for a client that has to say more.
const undecided = "undecided"

var clients = []struct{ sends, want string }{
	{"", undecided},
	{preface, listenerfilter.H2C},
	{preface + "and frames", listenerfilter.H2C},
	{preface[:len(preface)-1], undecided},
	{"P", undecided},
	{"PRI * HTTP/2.0\r\n\r\nSX", listenerfilter.HTTP10},
	{"PRI * HTTP/2.0\n", listenerfilter.HTTP10},
	{"PRI * HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"POST", undecided},
	{"GET / HTTP/1.1\r\nhost: a\r\n\r\n", listenerfilter.HTTP11},
	{"GET / HTTP/1.1\n", listenerfilter.HTTP11},
	{"GET / HTTP/1.1\r", undecided},
	{"GET / HTTP/1.0\r\n", listenerfilter.HTTP10},
	{"GET / HTTP/1.2\r\n", listenerfilter.HTTP10},
	{"GET / HTTP/2.0\r\n", listenerfilter.HTTP10},
	{"GET /\r\n", listenerfilter.HTTP10},
	{"GET\t/\tHTTP/1.1\r\n", listenerfilter.HTTP11},
	{"GET  /  HTTP/1.1 \r\n", listenerfilter.HTTP11},
	{"GET / HTTP/1.1\r\r\n", listenerfilter.HTTP11},
	{"GET /\x01 HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"get / HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"M-SEARCH * HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"CONNECT a.example:443 HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"GET http://a.example/ HTTP/1.1\r\n", listenerfilter.HTTP11},
	{"GET foo bar", undecided},

	{"\r\nGET / HTTP/1.1\r\n", ""},
	{"\n", ""},
	{" GET", ""},
	{"\tGET", ""},
	{"\x16\x03\x01", ""},
	{"G{T", ""},
	{"G\x80T", ""},
	{"GET\r\n", ""},
	{"GET \r\n", ""},
	{"hello world\r\n", ""},
	{"GET a.example:443 HTTP/1.1\r\n", ""},
	{"GET ://a HTTP/1.1\r\n", ""},
	{"GET h2://a HTTP/1.1\r\n", ""},
	{"GET /\x7f HTTP/1.1\r\n", ""},
	{"GET /é HTTP/1.1\r\n", ""},
	{"GET / HTTP/1.1 x\r\n", ""},
	{"GET / http/1.1\r\n", ""},
	{"GET / HTTP/1.\r\n", ""},
	{"GET / HTTP/1.11\r\n", ""},
	{"GET / HTTP/x.1\r\n", ""},
	{"GET / HTTP/1,1\r\n", ""},
}

// verdict is that of a finder in one word.
func verdict(f *finder, received string) string {
	protocol, ok := f.find([]byte(received))
	if !ok {
		return undecided
	}
	return protocol
}

func TestAProtocolIsFoundByTheFirstBytes(t *testing.T) {
	for _, c := range clients {
		require.Equal(t, c.want, verdict(&finder{}, c.sends), "%q", c.sends)
	}
}

// TestEachByteIsLookedAtOnce has ends of lines in the place of what was looked at.
func TestEachByteIsLookedAtOnce(t *testing.T) {
	var f finder
	for n := range 100 {
		sends := "GET /" + strings.Repeat("\n", n) + "a"
		require.Equal(t, undecided, verdict(&f, sends), "%q", sends)
	}
}

func TestWhatIsFoundIsToldAndCounted(t *testing.T) {
	for _, c := range []struct {
		sends, protocol, counter string
		err                      error
	}{
		{"GET / HTTP/1.1\r\nhost: a\r\n\r\n", listenerfilter.HTTP11, "http11_found", nil},
		{"GET /\r\n", listenerfilter.HTTP10, "http10_found", nil},
		{preface, listenerfilter.H2C, "http2_found", nil},
		{"SSH-2.0-\x01", "", "http_not_found", nil},
		{"GET /" + strings.Repeat("a", 60<<10) + " HTTP/1.1\r\n", listenerfilter.HTTP11, "http11_found", nil},
		{"GET /" + strings.Repeat("a", most) + " HTTP/1.1\r\n", "", "read_error", listenerfilter.ErrClose},
		{"GET /", "", "", io.EOF},
		{"", "", "", io.EOF},
	} {
		registry := stats.NewRegistry()
		filter := listenerfiltertest.MustParse(t, Factory{}, "{}")
		filter.Measure(registry)
		facts, err := listenerfiltertest.Inspect(t, filter, c.sends)
		require.ErrorIs(t, err, c.err, "%.20q", c.sends)
		require.Equal(t, c.protocol, strings.Join(facts.Applications, ","), "%.20q", c.sends)
		registry.Each(func(m stats.Metric) {
			require.Equal(t, m.Name == "http_inspector."+c.counter, m.Value == 1, "%.20q: %s is %d", c.sends, m.Name, m.Value)
		})
	}
}

func TestWhatIsTLSIsNotLookedAt(t *testing.T) {
	filter := listenerfiltertest.MustParse(t, Factory{}, "{}")
	require.NoError(t, filter.Inspect(&listenerfilter.Socket{Facts: listenerfilter.Facts{Transport: "tls"}}))
}

func TestItHasNoFields(t *testing.T) {
	_, report := listenerfiltertest.Parse(t, Factory{}, "{stat_prefix: a}")
	require.ErrorContains(t, report.Err(), "stat_prefix")
}

// FuzzFind holds the verdict to be the same however the bytes are split: once there is
// one it is that of all bytes.
func FuzzFind(f *testing.F) {
	for _, c := range clients {
		f.Add(c.sends, uint16(len(c.sends)/2))
	}
	f.Fuzz(func(t *testing.T, sends string, at uint16) {
		whole, parts := verdict(&finder{}, sends), &finder{}
		part := verdict(parts, sends[:min(int(at), len(sends))])
		if part == undecided {
			part = verdict(parts, sends)
		}
		if part != whole {
			t.Errorf("%q is %q, and split behind %d bytes %q", sends, whole, at, part)
		}
	})
}
