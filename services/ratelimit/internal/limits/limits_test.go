package limits

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func newParser() *Parser {
	return &Parser{
		Algorithms:     []algorithm.Algorithm{fixedwindow.Algorithm{}},
		NearLimitRatio: 0.8,
		Stats:          NewStats(prometheus.NewRegistry()),
	}
}

// parse reads a rule file that is good.
func parse(t testing.TB, text string) *Domain {
	t.Helper()
	d, err := newParser().Parse("rules.yaml", []byte(text))
	require.NoError(t, err)
	return d
}
