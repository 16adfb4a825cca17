package outlier_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// monitor is that of one host of ten.
func monitor(t testing.TB) *outlier.Monitor[string] {
	config, report := parse(t, "split_external_local_origin_errors: true")
	require.NoError(t, report.Err())
	d := outlier.New(config, outlier.Options[string]{
		Changed: func(string, bool) {}, Scope: stats.NewRegistry().Scope("cluster.a"),
		Log: slog.New(slog.DiscardHandler), Name: func(host string) string { return host },
	})
	d.SetHosts(names(10))
	return d.Monitor("0")
}

func TestReportAllocatesNothing(t *testing.T) {
	m := monitor(t)
	servicetest.Allocations(t, 0, func() {
		m.ReportStatus(200)
		m.ReportStatus(503)
		m.ReportLocal(outlier.Reset)
		m.ReportStatus(200)
	})
}

func BenchmarkReportStatus(b *testing.B) {
	m := monitor(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.ReportStatus(200)
		}
	})
}
