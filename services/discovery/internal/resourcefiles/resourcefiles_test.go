package resourcefiles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// clusters is a file of clusters that have a connect timeout, by which versions
// of them are told apart.
func clusters(seconds int, names ...string) string {
	text := "resources:\n"
	for _, name := range names {
		text += fmt.Sprintf("- {%s, name: %q, connect_timeout: %ds}\n", clusterType, name, seconds)
	}
	return text
}

// step is what a directory holds, and what comes of that: what is in force, as
// "name version's file", and the states of files.
type step struct {
	files  map[string]string
	want   []string
	states map[string]State
}

// inForce shows each resource with the place at which it stands.
func shownInForce(c choice) (list []string) {
	for _, l := range c.claims {
		for _, e := range l.entries {
			again, err := read("f.yaml", []byte(clusters(1, e.name)))
			version := "2"
			if err == nil && again[0].resource.Version == e.resource.Version {
				version = "1"
			}
			list = append(list, e.name+version+" "+l.path)
		}
	}
	slices.Sort(list)
	return list
}

func TestABadFileKeepsWhatItGaveAndOthersGoLive(t *testing.T) {
	const bad = "a: ["
	for name, steps := range map[string][]step{
		"a file that goes bad and is good again": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y")}, []string{"x1 a", "y1 b"}, map[string]State{"a": Good, "b": Good}},
			{map[string]string{"a": bad, "b": clusters(2, "y", "z")}, []string{"x1 a", "y2 b", "z2 b"}, map[string]State{"a": Kept, "b": Good}},
			{map[string]string{"a": clusters(2, "x"), "b": clusters(2, "y")}, []string{"x2 a", "y2 b"}, map[string]State{"a": Good, "b": Good}},
		},
		"a bad file that never was good": {
			{map[string]string{"a": bad, "b": clusters(1, "y")}, []string{"y1 b"}, map[string]State{"a": Bad, "b": Good}},
		},
		"a file that is gone": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y")}, []string{"x1 a", "y1 b"}, map[string]State{"a": Good, "b": Good}},
			{map[string]string{"b": clusters(1, "y")}, []string{"y1 b"}, map[string]State{"b": Good}},
			{map[string]string{}, nil, map[string]State{}},
		},
		"a bad file that is gone": {
			{map[string]string{"a": clusters(1, "x")}, []string{"x1 a"}, map[string]State{"a": Good}},
			{map[string]string{"a": bad}, []string{"x1 a"}, map[string]State{"a": Kept}},
			{map[string]string{}, nil, map[string]State{}},
		},
		"a file that cannot be read": {
			{map[string]string{"a": clusters(1, "x")}, []string{"x1 a"}, map[string]State{"a": Good}},
			{map[string]string{"a": "unreadable"}, []string{"x1 a"}, map[string]State{"a": Kept}},
		},
		"a directory that cannot be read": {
			{map[string]string{"d/a": clusters(1, "x"), "d/b": clusters(1, "y"), "dd": clusters(1, "z")}, []string{"x1 d/a", "y1 d/b", "z1 dd"}, map[string]State{"d/a": Good, "d/b": Good, "dd": Good}},
			{map[string]string{"d": "unreadable"}, []string{"x1 d/a", "y1 d/b"}, map[string]State{"d": Kept, "d/a": Good, "d/b": Good}},
		},
		"of two new files with a name the first by path has it": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(2, "x", "y")}, []string{"x1 a"}, map[string]State{"a": Good, "b": Bad}},
			{map[string]string{"a": clusters(1, "z"), "b": clusters(2, "x", "y")}, []string{"x2 b", "y2 b", "z1 a"}, map[string]State{"a": Good, "b": Good}},
		},
		"who has a name keeps it": {
			{map[string]string{"b": clusters(1, "x")}, []string{"x1 b"}, map[string]State{"b": Good}},
			{map[string]string{"a": clusters(2, "x"), "b": clusters(2, "x", "y")}, []string{"x2 b", "y2 b"}, map[string]State{"a": Bad, "b": Good}},
		},
		"a name moves from file to file": {
			{map[string]string{"a": clusters(1, "x", "y"), "b": clusters(1, "z")}, []string{"x1 a", "y1 a", "z1 b"}, map[string]State{"a": Good, "b": Good}},
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y", "z")}, []string{"x1 a", "y1 b", "z1 b"}, map[string]State{"a": Good, "b": Good}},
		},
		"files change places": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y")}, []string{"x1 a", "y1 b"}, map[string]State{"a": Good, "b": Good}},
			{map[string]string{"a": clusters(2, "y"), "b": clusters(2, "x")}, []string{"x2 b", "y2 a"}, map[string]State{"a": Good, "b": Good}},
		},
		"what is kept has its names from who took them meanwhile": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y")}, []string{"x1 a", "y1 b"}, map[string]State{"a": Good, "b": Good}},
			{map[string]string{"a": clusters(2, "y"), "b": bad}, []string{"x1 a", "y1 b"}, map[string]State{"a": Kept, "b": Kept}},
		},
		"a chain of those": {
			{map[string]string{"a": clusters(1, "x"), "b": clusters(1, "y"), "c": clusters(1, "z")}, []string{"x1 a", "y1 b", "z1 c"}, map[string]State{"a": Good, "b": Good, "c": Good}},
			{map[string]string{"a": clusters(2, "y"), "b": clusters(2, "z"), "c": bad}, []string{"x1 a", "y1 b", "z1 c"}, map[string]State{"a": Kept, "b": Kept, "c": Kept}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var c choice
			for _, s := range steps {
				var files []filewatch.TreeFile
				for path, text := range s.files {
					f := filewatch.TreeFile{Path: path, Text: []byte(text)}
					if text == "unreadable" {
						f = filewatch.TreeFile{Path: path, Err: errors.New("permission denied")}
					}
					files = append(files, f)
				}
				c = c.choose(files)
				require.Equal(t, s.want, shownInForce(c))
				states := map[string]State{}
				for _, f := range c.status("").Files {
					states[f.Path] = f.State
					require.Equal(t, f.State == Good, len(f.Faults) == 0)
				}
				require.Equal(t, s.states, states)
			}
		})
	}
}

func TestANameInTwoFilesIsToldWithBothPlaces(t *testing.T) {
	c := choice{}.choose([]filewatch.TreeFile{
		{Path: "a.yaml", Text: []byte(clusters(1, "x", "y"))}, {Path: "b.yaml", Text: []byte(clusters(1, "z", "y", "x"))},
	})
	require.EqualError(t, c.err(), `b.yaml:3:66: "y" of clusters is given at a.yaml:3:66 already`+"\n"+
		`b.yaml:4:66: "x" of clusters is given at a.yaml:2:66 already`)
}

func TestOnlySoManyWarningsAreShown(t *testing.T) {
	text := routeType + "\nname: a\nvirtual_hosts:\n- name: a\n  domains: ['*']\n  routes:\n"
	for i := range 101 {
		text += fmt.Sprintf("  - {match: {prefix: /}, route: {cluster: c%d}}\n", i)
	}
	list := choice{}.choose([]filewatch.TreeFile{{Path: "a.yaml", Text: []byte(text)}}).status("").Warnings
	require.Len(t, list, 101)
	require.Equal(t, "and more", list[100])
}

func write(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func TestChangedFilesAreHandedOnAndBadOnesNamed(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.json")
	write(t, a, clusters(1, "x"))
	write(t, b, "[]")
	log, metrics := &journal{}, prometheus.NewRegistry()
	s, first, err := Open(Options{
		Directory: filewatch.File{Setting: "RESOURCES", Path: dir}, Poll: time.Hour,
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: metrics,
	})
	require.NoError(t, err)
	require.Equal(t, "x", first[resources.Clusters][0].Name)

	ctx, cancel := context.WithCancel(t.Context())
	taken, ended := make(chan Resources, 1), make(chan struct{})
	go func() { // ends with ctx, waited for below
		defer close(ended)
		s.Run(ctx, func(r Resources) { taken <- r })
	}()
	const fault = "4711"
	write(t, b, "["+clusterOfOne+"]")
	require.Len(t, (<-taken)[resources.Clusters], 2)
	write(t, a, secretType+"\nname: "+fault+"\ngeneric_secret: {secret: {inline_string: "+fault+"}}")
	require.Len(t, (<-taken)[resources.Clusters], 2)
	require.Contains(t, log.String(), `level=ERROR msg="resource file refused, what it gave before stays" file=`+a+` error="`+a+":2:7: name: ")
	require.NotContains(t, log.String(), "inline_string: invalid")
	require.Contains(t, log.String(), "something that is not told")
	require.Equal(t, map[string]float64{"good": 1, "kept": 1, "bad": 0}, gauges(t, metrics))
	require.Equal(t, Kept, s.Status().Files[0].State)
	require.Equal(t, 1, s.Status().Files[0].Resources)

	told, err := json.Marshal(s.Status())
	require.NoError(t, err)
	require.Contains(t, string(told), `"state":"kept"`)
	require.Contains(t, string(told), a+":3:42: generic_secret.secret.inline_string: want a string, got something that is not told: put it in quotes")

	write(t, filepath.Join(dir, "c.yml"), "a")
	require.Len(t, (<-taken)[resources.Clusters], 2)
	require.Contains(t, log.String(), `level=ERROR msg="resource file refused" file=`+dir+"/c.yml")
	require.Equal(t, map[string]float64{"good": 1, "kept": 1, "bad": 1}, gauges(t, metrics))

	require.NoError(t, os.Remove(filepath.Join(dir, "c.yml")))
	require.Len(t, (<-taken)[resources.Clusters], 2)
	write(t, a, "[]")
	require.Len(t, (<-taken)[resources.Clusters], 1)
	require.Equal(t, map[string]float64{"good": 2, "kept": 0, "bad": 0}, gauges(t, metrics))
	cancel()
	<-ended
	require.Empty(t, taken)
}

// gauges are the files by state, as metrics tell.
func gauges(t testing.TB, metrics *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "discovery_xds_files" {
			for _, m := range f.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return counts
}

func TestADirectoryThatGoesAwayChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "resources")
	require.NoError(t, os.Mkdir(dir, 0o755))
	write(t, filepath.Join(dir, "a.yaml"), clusters(1, "x"))
	log, metrics := &journal{}, prometheus.NewRegistry()
	s, _, err := Open(Options{
		Directory: filewatch.File{Setting: "RESOURCES", Path: dir}, Poll: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: metrics,
	})
	require.NoError(t, err)
	require.NoError(t, os.Rename(dir, dir+"1"))
	ctx, cancel := context.WithCancel(t.Context())
	taken, ended := make(chan Resources, 1), make(chan struct{})
	go func() { // ends with ctx, waited for below
		defer close(ended)
		s.Run(ctx, func(r Resources) { taken <- r })
	}()
	servicetest.Eventually(t, "it is told", func() bool { return len(s.Status().Files) == 2 })
	require.Equal(t, FileStatus{Path: dir, State: Kept, Faults: []string{"RESOURCES=" + dir + ": stat " + dir + ": no such file or directory"}}, s.Status().Files[0])
	require.NoError(t, os.Rename(dir+"1", dir))
	require.Len(t, (<-taken)[resources.Clusters], 1)
	require.Len(t, s.Status().Files, 1)
	cancel()
	<-ended
	require.Contains(t, log.String(), `msg="resource files are not changed"`)
}

func TestABadFileAtTheStartIsAnError(t *testing.T) {
	metrics := prometheus.NewRegistry()
	_, _, err := Open(Options{Directory: filewatch.File{Setting: "RESOURCES", Path: "testdata/bad"}, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	require.EqualError(t, err, `RESOURCES: testdata/bad/a.yaml:3:1: document[0].connect_timeout: value must be greater than 0s
testdata/bad/a.yaml:4:1: document[0].kind: unknown field of envoy.config.cluster.v3.Cluster
testdata/bad/a.yaml:11:5: document[1].filter_chains[0].filters[0].typed_config.stat_prefix: value length must be at least 1 runes
testdata/bad/b.yaml:3:44: [0].generic_secret.secret.inline_string: want a string, got something that is not told: put it in quotes
testdata/bad/d.yaml:2:3: "pages" of routes is given at testdata/bad/c.yaml:2:3 already`)
	_, _, err = Open(Options{Directory: filewatch.File{Setting: "RESOURCES", Path: "testdata/none"}})
	require.EqualError(t, err, "RESOURCES=testdata/none: stat testdata/none: no such file or directory")
	_, err = Read(Options{Directory: filewatch.File{Setting: "DIR", Path: "testdata/none"}})
	require.EqualError(t, err, "DIR=testdata/none: stat testdata/none: no such file or directory")
	require.Zero(t, testutil.CollectAndCount(metrics))
}
