package templatefile_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/templatefile"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func write(t *testing.T, path, text string) {
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// told hands on the messages of what is logged.
type told struct {
	slog.Handler
	messages chan string
}

func (h told) Enabled(context.Context, slog.Level) bool { return true }

func (h told) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.Value.String()
		return true
	})
	h.messages <- text
	return nil
}

func TestATemplateIsReadAnewAndABadOneChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clusters.yaml")
	write(t, path, "services: {a: {}}")
	log := told{slog.DiscardHandler, make(chan string, 10)}
	metrics := prometheus.NewRegistry()
	watch, first, err := templatefile.Open(templatefile.Options{
		File: filewatch.File{Setting: "TEMPLATE", Path: path}, Poll: time.Minute, Log: slog.New(log), Metrics: metrics,
	})
	require.NoError(t, err)
	require.Equal(t, 1, first.Services())
	good := func() float64 {
		families, err := metrics.Gather()
		require.NoError(t, err)
		require.Equal(t, "discovery_xds_template_good", families[0].GetName())
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	require.InDelta(t, 1, good(), 0)

	ctx, cancel := context.WithCancel(t.Context())
	taken, ended := make(chan *resources.Template, 1), make(chan struct{})
	go func() { // ends with ctx, waited for below
		defer close(ended)
		watch.Run(ctx, func(t *resources.Template) { taken <- t })
	}()
	write(t, path, "services: {a: {}, b: {}}")
	require.Equal(t, 2, (<-taken).Services())
	require.Equal(t, "cluster template changed 2", <-log.messages)

	write(t, path, "services: {a: {kind: b}}")
	require.Equal(t, "the cluster template is not changed "+path+
		`:1:16: services["a"].kind: unknown field of envoy.config.cluster.v3.Cluster`, <-log.messages)
	require.InDelta(t, 0, good(), 0)

	require.NoError(t, os.Remove(path))
	require.Contains(t, <-log.messages, "the cluster template is not changed TEMPLATE="+path)

	write(t, path, "services: {a: {}, b: {}, c: {}}")
	require.Equal(t, 3, (<-taken).Services())
	<-log.messages
	require.InDelta(t, 1, good(), 0)
	cancel()
	<-ended
	require.Empty(t, taken)
}

func TestABadTemplateAtTheStartIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clusters.yaml")
	options := templatefile.Options{File: filewatch.File{Setting: "TEMPLATE", Path: path}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	_, _, err := templatefile.Open(options)
	require.ErrorContains(t, err, "TEMPLATE="+path)
	write(t, path, "cluster: {name: a}\nx: y")
	_, _, err = templatefile.Open(options)
	require.EqualError(t, err, "TEMPLATE: "+path+":1:11: cluster.name: every cluster bears the name of its service\n"+
		path+`:2:1: "x" is not one of cluster, services`)
}
