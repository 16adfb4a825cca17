package xds

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestHostsThatAreLeftOutAreCountedWhileTheyAre(t *testing.T) {
	h := newTestHub(t)
	for _, step := range []struct {
		service   string
		addresses []string
		want      float64
	}{
		{"users", []string{"10.0.0.1:80", "10.0.0.1:80", "10.0.0.2:80"}, 1},
		{"users", []string{"10.0.0.1:80", "10.0.0.1:80", "10.0.0.3:80"}, 1},
		{"carts", []string{"10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:80"}, 3},
		{"users", []string{"10.0.0.1:80", "10.0.0.3:80"}, 2},
		{"carts", nil, 0},
	} {
		h.hosts(step.service, step.addresses...)
		require.Equal(t, step.want, testutil.ToFloat64(h.metrics.duplicates))
	}
	require.Empty(t, h.duplicates)
}
