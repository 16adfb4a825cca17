// Package templatefile reads the template of clusters from its file, at the
// start and whenever the file changes. The app opens it and makes a new maker of
// resources by each template. A bad file is told and changes nothing; what is in
// it the resources package says.
package templatefile

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// Options is how the file is watched. Every field is required.
type Options struct {
	File filewatch.File
	// Poll is the time between looks at the file, for changes of which the file
	// system does not tell.
	Poll    time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Watch reads the file anew when it changes. It is for one goroutine.
type Watch struct {
	options Options
	watch   *filewatch.Watch
	good    prometheus.Gauge
}

// Open reads the file for the first time. The error names the setting and all
// that is wrong with the file.
func Open(o Options) (*Watch, *resources.Template, error) {
	watch, contents, err := filewatch.Open(filewatch.Options{
		Files: []filewatch.File{o.File}, Poll: o.Poll, What: "cluster templates", Log: o.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	t, err := resources.ReadTemplate(o.File.Path, contents[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.File.Setting, err)
	}
	w := &Watch{options: o, watch: watch, good: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "discovery_xds_template_good",
		Help: "1 while clusters are made by their template's file, 0 while that is bad and the one before it stays.",
	})}
	o.Metrics.MustRegister(w.good)
	w.good.Set(1)
	return w, t, nil
}

// Run gives take each new template until ctx ends. A bad file is logged, and the
// template before it stays.
func (w *Watch) Run(ctx context.Context, take func(*resources.Template)) {
	w.watch.Run(ctx, func(contents [][]byte, err error) {
		var t *resources.Template
		if err == nil {
			t, err = resources.ReadTemplate(w.options.File.Path, contents[0])
		}
		if err != nil {
			w.good.Set(0)
			w.options.Log.Error("the cluster template is not changed", "error", err)
			return
		}
		w.good.Set(1)
		w.options.Log.Info("cluster template changed", "services", t.Services())
		take(t)
	})
}
