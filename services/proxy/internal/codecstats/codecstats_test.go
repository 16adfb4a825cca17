package codecstats_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/codecstats"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestStreamErrorsAreCountedByWhoResetsAndWhy(t *testing.T) {
	for name, c := range map[string]struct {
		err  http2.StreamError
		want []string
	}{
		"the peer":               {http2.StreamError{Code: http2.RefusedStream, Remote: true}, []string{"http2.rx_reset"}},
		"a stream too many":      {http2.StreamError{Code: http2.RefusedStream}, []string{"http2.stream_refused_errors", "http2.tx_reset"}},
		"a malformed message":    {http2.StreamError{Code: http2.ProtocolError}, []string{"http2.rx_messaging_error", "http2.tx_reset"}},
		"what is wanted no more": {http2.StreamError{Code: http2.Cancel}, []string{"http2.tx_reset"}},
	} {
		t.Run(name, func(t *testing.T) {
			registry := stats.NewRegistry()
			codecstats.NewHTTP2(registry.Scope("http2")).CountStreamError(&c.err)
			var counted []string
			registry.Each(func(m stats.Metric) {
				if m.Value == 1 {
					counted = append(counted, m.Name)
				}
			})
			require.Equal(t, c.want, counted)
		})
	}
}
