package xds_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// safe is a buffer for several goroutines.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// fileClient is a client under test with what its sinks got.
type fileClient struct {
	*xds.Client
	t        *testing.T
	applied  chan string
	registry *stats.Registry
	log      safe
}

// watchFiles runs a client; a cluster that is called bad is refused where it is
// written.
func watchFiles(t *testing.T) *fileClient {
	schema, err := strict.NewSchema(coreconfig.Fields(), strict.Fields{
		"envoy.config.cluster.v3.Cluster":                {"name", "connect_timeout"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment": {"cluster_name"},
	})
	require.NoError(t, err)
	c := &fileClient{t: t, applied: make(chan string, 1), registry: stats.NewRegistry()}
	c.Client = xds.New(xds.Options{Schema: schema, Stats: c.registry, Log: slog.New(slog.NewTextHandler(&c.log, nil))})
	take := func(resources []xds.Resource, all bool) error {
		var words []string
		if all {
			words = append(words, "all:")
		}
		var refused error
		for _, r := range resources {
			if r.Name == "bad" {
				report := r.Report()
				report.Add(r.At.Field("connect_timeout"), "it is bad")
				refused = report.Err()
				continue
			}
			require.NoError(t, r.Report().Err())
			words = append(words, r.Name+"@"+r.Version)
		}
		c.applied <- strings.Join(words, " ")
		return refused
	}
	c.Handle(xds.ClusterType, sinkFunc(take))
	c.Handle(xds.AssignmentType, sinkFunc(take))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, c.Run(ctx)) }) // ends with cancel
	t.Cleanup(func() { cancel(); running.Wait() })
	return c
}

func (c *fileClient) want(what string) {
	c.t.Helper()
	select {
	case got := <-c.applied:
		require.Equal(c.t, what, got)
	case <-time.After(servicetest.Patience):
		require.Fail(c.t, "nothing applied, instead of "+what)
	}
}

// put moves a text into place.
func put(t *testing.T, path, text string) {
	t.Helper()
	next := path + ".next"
	require.NoError(t, os.WriteFile(next, []byte(text), 0o600))
	require.NoError(t, os.Rename(next, path))
}

const fileOfClusters = `version_info: "1"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
`

func TestAFileIsTakenAndTakenAgainWhenItIsMovedIntoPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cds.yaml")
	put(t, path, fileOfClusters)
	c := watchFiles(t)
	c.Subscribe(coreconfig.Source{Path: path}, xds.ClusterType, time.Minute, func() {})
	c.want("all: a@1")
	put(t, path, `{"resources": [{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "name": "b", "version": "7",
		"resource": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "b"}}]}`)
	c.want("all: b@7")
	require.Equal(t, path, c.Status().Types[0].Source)
	servicetest.Eventually(t, "its version is a hash, as it names none", func() bool { return len(c.Status().Types[0].Version) == 16 })
}

func TestABadFileLeavesWhatWasThereAndSaysWhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cds.yaml")
	put(t, path, fileOfClusters)
	c := watchFiles(t)
	c.Subscribe(coreconfig.Source{Path: path}, xds.ClusterType, 0, nil)
	c.want("all: a@1")
	for text, want := range map[string]string{
		"resources: {}":                        path + ":1:12: resources: want a list",
		fileOfClusters + "  lb_policy: RANDOM": path + ":5:3: resources[0].lb_policy: not supported",
		"resources: [{\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener}]": path + ":1:23: resources[0]: type envoy.config.listener.v3.Listener is not supported",
		"type_url: x": path + `: type_url: "x" is not ` + xds.ClusterType,
		"nonce: x":    path + ":1:1: nonce: not supported",
	} {
		put(t, path, text)
		servicetest.Eventually(t, "it is logged: "+want, func() bool { return strings.Contains(strings.ReplaceAll(c.log.String(), `\"`, `"`), want) })
		require.Contains(t, c.Status().Types[0].Refused, want)
	}
	require.Equal(t, "1", c.Status().Types[0].Version)
	require.EqualValues(t, 5, values(c.registry)["cluster_manager.cds.update_rejected"])
	put(t, path, fileOfClusters+`- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: bad
  connect_timeout: 1s
`)
	c.want("all: a@1")
	servicetest.Eventually(t, "a sink's refusal has its line", func() bool {
		return strings.Contains(c.log.String(), path+":7:3: resources[1].connect_timeout: it is bad")
	})
	require.NoError(t, os.Remove(path))
	servicetest.Eventually(t, "a file that is gone is a failure", func() bool {
		return values(c.registry)["cluster_manager.cds.update_failure"] == 1
	})
	require.Equal(t, map[string]int64{
		"cluster_manager.cds.update_attempt": 8, "cluster_manager.cds.update_success": 1,
		"cluster_manager.cds.update_rejected": 6, "cluster_manager.cds.update_failure": 1,
	}, values(c.registry), "an attempt is a look at the file")
}

func TestAFileBehindALinkIsTakenWhenTheLinkIsSwapped(t *testing.T) {
	directory := t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		require.NoError(t, os.Mkdir(filepath.Join(directory, version), 0o700))
		put(t, filepath.Join(directory, version, "cds.yaml"), strings.Replace(fileOfClusters, "a\n", version+"\n", 1))
	}
	link := filepath.Join(directory, "current")
	require.NoError(t, os.Symlink("v1", link))
	c := watchFiles(t)
	c.Subscribe(coreconfig.Source{Path: filepath.Join(link, "cds.yaml"), WatchedDirectory: directory}, xds.ClusterType, 0, nil)
	c.want("all: v1@1")
	require.NoError(t, os.Symlink("v2", link+".next"))
	require.NoError(t, os.Rename(link+".next", link))
	c.want("all: v2@1")
}

func TestOfAFileOnlyWhatIsNamedIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eds.pb")
	var m discoveryv3.DiscoveryResponse
	for _, name := range []string{"a", "b", "c"} {
		m.Resources = append(m.Resources, resource(t, "eds", name))
	}
	m.VersionInfo = "1"
	raw, err := proto.Marshal(&m)
	require.NoError(t, err)
	put(t, path, string(raw))
	c := watchFiles(t)
	source := coreconfig.Source{Path: path}
	c.SetNames(source, xds.AssignmentType, []string{"b"})
	c.want("b@1")
	c.SetNames(source, xds.AssignmentType, []string{"b", "c", "missing"})
	c.want("b@1 c@1")
	c.SetNames(source, xds.AssignmentType, nil)
	require.Empty(t, c.Status().Types)
}

// byNames is a sink that says what it is told.
type byNames chan string

func (s byNames) Apply(resources []xds.Resource, _ bool) error {
	var words []string
	for _, r := range resources {
		if r.Message == nil {
			words = append(words, "no")
		}
		words = append(words, r.Name)
	}
	s <- strings.Join(words, " ")
	return nil
}

func (s byNames) Failed(_ coreconfig.Source, names []string, why xds.Failure) {
	s <- map[xds.Failure]string{xds.Away: "away: ", xds.Refused: "refused: "}[why] + strings.Join(names, " ")
}

func TestWhoAsksAFileForNamesIsToldWhatItLacks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eds.yaml")
	assignments := func(names ...string) string {
		text := "resources:\n"
		for _, name := range names {
			text += "- {\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: " + name + "}\n"
		}
		return text
	}
	told := make(byNames)
	c := watchFiles(t)
	c.Handle(xds.AssignmentType, told)
	put(t, path, assignments("a", "b"))
	c.SetNames(coreconfig.Source{Path: path}, xds.AssignmentType, []string{"a", "b"})
	for _, step := range []struct {
		name, text string
		want       []string
	}{
		{"all are there", assignments("a", "b"), []string{"a b"}},
		{"one is not", assignments("other", "b"), []string{"refused: a", "b"}},
		{"one is malformed", assignments("a", "a"), []string{"refused: a b"}},
		{"one is at fault", "nonce: 1", []string{"refused: a b"}},
		{"there are none", "resources: []", []string{"no a no b"}},
		{"it can't be read", "{", []string{"away: a b"}},
	} {
		put(t, path, step.text)
		for _, want := range step.want {
			select {
			case got := <-told:
				require.Equal(t, want, got, step.name)
			case <-time.After(servicetest.Patience):
				require.Fail(t, step.name+": nothing told")
			}
		}
	}
	require.Contains(t, c.log.String(), path+": has no resource of the name a")
}

func TestAFileIsWaitedForNoLongerThanTheInitialFetchTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cds.yaml")
	c := watchFiles(t)
	expired := make(chan struct{})
	c.Subscribe(coreconfig.Source{Path: path}, xds.ClusterType, time.Millisecond, func() { close(expired) })
	select {
	case <-expired: // or the missing file was found missing first
	case <-time.After(servicetest.Patience):
		require.Fail(t, "still waiting")
	}
	put(t, path, fileOfClusters)
	c.want("all: a@1")
}

// FuzzFile wants no panic of any file.
func FuzzFile(f *testing.F) {
	f.Add([]byte(fileOfClusters))
	f.Add([]byte(`{"resources": [{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource"}]}`))
	f.Add([]byte("resources: [{}]"))
	schema, err := strict.NewSchema(coreconfig.Fields(), strict.Fields{"envoy.config.cluster.v3.Cluster": {"name"}})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		resources, err := xds.ParseFile("f.yaml", text, xds.ClusterType, schema)
		for _, r := range resources {
			if err == nil {
				require.IsType(t, &clusterv3.Cluster{}, r.Message)
				require.NotEmpty(t, r.Name)
			}
		}
	})
}
