package outlier_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse makes a config of YAML.
func parse(t testing.TB, yaml string) (*outlier.Config, *strict.Report) {
	t.Helper()
	schema, err := strict.NewSchema(outlier.Fields(), coreconfig.Fields())
	require.NoError(t, err)
	if yaml == "" {
		yaml = "{}"
	}
	m := &clusterv3.OutlierDetection{}
	report := strict.Load("outlier.yaml", []byte(yaml), m, schema)
	return outlier.Parse(m, "", report), report
}

// cluster is a detector of hosts "0", "1", … that runs inside a bubble, with
// what it told.
type cluster struct {
	*outlier.Detector[string]
	t        testing.TB
	registry *stats.Registry
	log      *bytes.Buffer

	mu   sync.Mutex
	told []string
}

// start makes a cluster of so many hosts and runs its detector until the test
// ends. It must be called in a bubble.
func start(t *testing.T, hosts int, yaml string) *cluster {
	t.Helper()
	config, report := parse(t, yaml)
	require.NoError(t, report.Err())
	c := &cluster{t: t, registry: stats.NewRegistry(), log: &bytes.Buffer{}}
	c.Detector = outlier.New(config, outlier.Options[string]{
		Changed: c.changed, Scope: c.registry.Scope("cluster.a"),
		Log: slog.New(slog.NewTextHandler(c.log, nil)), Name: func(host string) string { return host },
		Random: func(n int64) int64 { return n / 2 },
	})
	c.SetHosts(names(hosts))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func (c *cluster) changed(host string, ejected bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sign := map[bool]string{true: "-", false: "+"}[ejected]
	c.told = append(c.told, sign+host)
}

// tells returns what was told since the last call: "-1" for an ejection of
// host 1, "+1" for its end.
func (c *cluster) tells() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	told := c.told
	c.told = nil
	return told
}

// statuses reports responses of a host.
func (c *cluster) statuses(host int, list ...int) {
	for _, status := range list {
		c.Monitor(fmt.Sprint(host)).ReportStatus(status)
	}
}

// rate reports 100 responses of a host, of which so many are successes. They
// alternate, so that no row of failures grows long.
func (c *cluster) rate(host, successes int) {
	for i := range 100 {
		status := 500
		if i*successes/100 != (i+1)*successes/100 {
			status = 200
		}
		c.statuses(host, status)
	}
}

// counts are the metrics that are not 0, without their prefix.
func (c *cluster) counts() map[string]int {
	all := map[string]int{}
	c.registry.Each(func(m stats.Metric) {
		if m.Value != 0 {
			all[m.Name[len("cluster.a.outlier_detection."):]] = int(m.Value)
		}
	})
	return all
}

// anyShare takes the cap out of a test.
const anyShare = "max_ejection_percent: 100\n"

func TestRowsOfFailures(t *testing.T) {
	repeat := func(n, status int) []int { return slices.Repeat([]int{status}, n) }
	for _, c := range []struct {
		name     string
		yaml     string
		statuses []int
		ejected  bool
		counts   map[string]int
	}{
		{"five 5xx are one", "", repeat(5, 500), true, map[string]int{
			"ejections_detected_consecutive_5xx": 1, "ejections_enforced_consecutive_5xx": 1, "ejections_enforced_total": 1,
			"ejections_active": 1, "ejections_total": 1, "ejections_consecutive_5xx": 1,
		}},
		{"four are none", "", repeat(4, 500), false, map[string]int{}},
		{"a success between them ends the row", "", []int{500, 500, 500, 500, 200, 500, 500, 500, 500}, false, map[string]int{}},
		{"a 4xx is a success", "", []int{500, 500, 500, 500, 404, 500}, false, map[string]int{}},
		{"consecutive_5xx sets its length", "consecutive_5xx: 2", repeat(2, 599), true, nil},
		{"0 turns it off", "consecutive_5xx: 0", repeat(9, 500), false, map[string]int{}},
		{"gateway failures are found and not enforced by default", "consecutive_5xx: 0", []int{502, 503, 504, 502, 503}, false, map[string]int{
			"ejections_detected_consecutive_gateway_failure": 1,
		}},
		{"gateway failures, enforced", "consecutive_5xx: 0, enforcing_consecutive_gateway_failure: 100", []int{502, 503, 504, 502, 503}, true, map[string]int{
			"ejections_detected_consecutive_gateway_failure": 1, "ejections_enforced_consecutive_gateway_failure": 1,
			"ejections_enforced_total": 1, "ejections_active": 1,
		}},
		{"another 5xx ends a row of gateway failures", "consecutive_5xx: 0, enforcing_consecutive_gateway_failure: 100", []int{502, 502, 502, 502, 500, 502}, false, map[string]int{}},
		{"what is not enforced is found again by a row as long", "enforcing_consecutive_5xx: 0", repeat(10, 500), false, map[string]int{
			"ejections_detected_consecutive_5xx": 2, "ejections_consecutive_5xx": 2, "ejections_total": 2,
		}},
		{"the chance decides: 50 is not below 50", "enforcing_consecutive_5xx: 50", repeat(5, 500), false, nil},
		{"the chance decides: 50 is below 51", "enforcing_consecutive_5xx: 51", repeat(5, 500), true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := start(t, 2, "{max_ejection_percent: 100, "+c.yaml+"}")
				cluster.statuses(1, c.statuses...)
				var want []string
				if c.ejected {
					want = []string{"-1"}
				}
				require.Equal(t, want, cluster.tells())
				if c.counts != nil {
					require.Equal(t, c.counts, cluster.counts())
				}
			})
		})
	}
}

func TestLocalErrors(t *testing.T) {
	const split = "{max_ejection_percent: 100, split_external_local_origin_errors: true}"
	for _, c := range []struct {
		name   string
		yaml   string
		events []outlier.Event
		counts map[string]int
	}{
		{"they count as 5xx and as gateway failures unless split", anyShare, slices.Repeat([]outlier.Event{outlier.ConnectFailed}, 5), map[string]int{
			"ejections_detected_consecutive_5xx": 1, "ejections_enforced_consecutive_5xx": 1, "ejections_enforced_total": 1,
			"ejections_active": 1, "ejections_total": 1, "ejections_consecutive_5xx": 1, "ejections_detected_consecutive_gateway_failure": 1,
		}},
		{"split, they are a kind of their own", split, []outlier.Event{outlier.ConnectFailed, outlier.Timeout, outlier.Reset, outlier.Timeout, outlier.Reset}, map[string]int{
			"ejections_detected_consecutive_local_origin_failure": 1, "ejections_enforced_consecutive_local_origin_failure": 1,
			"ejections_enforced_total": 1, "ejections_active": 1,
		}},
		{"split, four are none", split, slices.Repeat([]outlier.Event{outlier.Reset}, 4), map[string]int{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := start(t, 1, c.yaml)
				for _, e := range c.events {
					cluster.Monitor("0").ReportLocal(e)
				}
				require.Equal(t, c.counts, cluster.counts())
			})
		})
	}
	t.Run("split, any response ends their row and 5xx are the host's own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cluster := start(t, 1, split)
			for range 4 {
				cluster.Monitor("0").ReportLocal(outlier.Reset)
			}
			cluster.statuses(0, 500, 500, 500, 500)
			cluster.Monitor("0").ReportLocal(outlier.Reset)
			require.Empty(t, cluster.tells())
			cluster.statuses(0, 500)
			require.Equal(t, []string{"-0"}, cluster.tells())
		})
	})
}

// TestSuccessRateIsThatOfTheReference: rates of 50, 100, 100, 100 and 100 have
// a mean of 90 and a standard deviation of 20, so that the threshold is 52.
func TestSuccessRateIsThatOfTheReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 5, anyShare)
		for host, successes := range []int{50, 100, 100, 100, 100} {
			c.rate(host, successes)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"-0"}, c.tells())
		external, local := c.Thresholds()
		require.InDelta(t, 90, external.Average, 1e-9)
		require.InDelta(t, 52, external.Ejection, 1e-9)
		require.Equal(t, outlier.Thresholds{Average: -1, Ejection: -1}, local)
		rate, _ := c.Monitor("0").SuccessRate()
		require.InDelta(t, 50, rate, 1e-9)
		require.Equal(t, map[string]int{
			"ejections_detected_success_rate": 1, "ejections_enforced_success_rate": 1, "ejections_enforced_total": 1,
			"ejections_active": 1, "ejections_total": 1, "ejections_success_rate": 1,
		}, c.counts())
	})
}

func TestRounds(t *testing.T) {
	for _, c := range []struct {
		name   string
		yaml   string
		share  int   // max_ejection_percent
		rates  []int // of each host, by 100 results; -1 is no results
		told   []string
		counts map[string]int
	}{
		{"two of five are not so far off", "", 100, []int{50, 50, 100, 100, 100}, nil, map[string]int{}},
		{"a greater factor lets it be", "success_rate_stdev_factor: 2100", 100, []int{50, 100, 100, 100, 100}, nil, map[string]int{}},
		{"four hosts are too few", "", 100, []int{0, 100, 100, 100}, nil, map[string]int{}},
		{"hosts without enough results do not count", "", 100, []int{50, 100, 100, 100, -1}, nil, map[string]int{}},
		{"success_rate_minimum_hosts", "success_rate_minimum_hosts: 4, success_rate_stdev_factor: 1000", 100, []int{0, 100, 100, 100, -1}, []string{"-0"}, nil},
		{"success_rate_request_volume", "success_rate_request_volume: 101", 100, []int{50, 100, 100, 100, 100}, nil, map[string]int{}},
		{"not enforced, it is counted", "enforcing_success_rate: 0", 100, []int{50, 100, 100, 100, 100}, nil, map[string]int{
			"ejections_detected_success_rate": 1, "ejections_success_rate": 1, "ejections_total": 1,
		}},
		{"failure percentage is counted and not enforced by default", "", 100, []int{15, 15, 15, 15, 16}, nil, map[string]int{
			"ejections_detected_failure_percentage": 4,
		}},
		{"failure percentage, enforced, from 85 on", "enforcing_failure_percentage: 100", 100, []int{15, 15, 15, 15, 16}, []string{"-0", "-1", "-2", "-3"}, nil},
		{"failure_percentage_threshold", "enforcing_failure_percentage: 100, failure_percentage_threshold: 20", 100, []int{81, 80, 100, 100, 100}, []string{"-1"}, nil},
		{"failure_percentage_minimum_hosts", "enforcing_failure_percentage: 100, failure_percentage_minimum_hosts: 6", 100, []int{15, 15, 15, 15, 16}, nil, map[string]int{}},
		{"failure_percentage_request_volume", "enforcing_failure_percentage: 100, failure_percentage_request_volume: 101", 100, []int{15, 15, 15, 15, 16}, nil, map[string]int{}},
		{"the worst goes first where the cap lets one", "enforcing_failure_percentage: 100", 20, []int{10, 5, 6, 10, 9}, []string{"-1"}, map[string]int{
			"ejections_detected_failure_percentage": 5, "ejections_overflow": 4, "ejections_enforced_failure_percentage": 1,
			"ejections_enforced_total": 1, "ejections_active": 1,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := start(t, len(c.rates), fmt.Sprintf("{max_ejection_percent: %d, consecutive_5xx: 0, %s}", c.share, c.yaml))
				for host, successes := range c.rates {
					if successes >= 0 {
						cluster.rate(host, successes)
					}
				}
				time.Sleep(10 * time.Second)
				told := cluster.tells()
				slices.Sort(told)
				require.Equal(t, c.told, told)
				if c.counts != nil {
					require.Equal(t, c.counts, cluster.counts())
				}
			})
		})
	}
}

func TestLocalRoundsAreThoseOfReachingTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 5, "{max_ejection_percent: 100, split_external_local_origin_errors: true, consecutive_local_origin_failure: 0}")
		for host := range 5 {
			for i := range 100 {
				if host == 0 && i%2 == 0 {
					c.Monitor("0").ReportLocal(outlier.ConnectFailed)
				} else {
					c.statuses(host, 200)
				}
			}
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"-0"}, c.tells())
		require.Equal(t, 1, c.counts()["ejections_enforced_local_origin_success_rate"])
		_, local := c.Thresholds()
		require.InDelta(t, 52, local.Ejection, 1e-9)
	})
}

func TestResultsAreThoseOfOneInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 5, anyShare)
		for host := range 5 {
			for range 60 {
				c.statuses(host, 200)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for host := range 5 {
			for range 60 {
				c.statuses(host, 200)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		external, _ := c.Thresholds()
		require.Equal(t, outlier.Thresholds{Average: -1, Ejection: -1}, external)
	})
}

// fail ejects a host by its row of failures.
func (c *cluster) fail(hosts ...int) {
	for _, host := range hosts {
		c.statuses(host, 500, 500, 500, 500, 500)
	}
}

func TestCap(t *testing.T) {
	for _, c := range []struct {
		name     string
		hosts    int
		yaml     string
		ejected  int
		overflow int
	}{
		{"the default ejects none of 9", 9, "", 0, 3},
		{"and one of 10", 10, "", 1, 2},
		{"two of 20", 20, "", 2, 1},
		{"one of 9 where one always goes", 9, "always_eject_one_host: true", 1, 2},
		{"one of one where one always goes", 1, "{always_eject_one_host: true, max_ejection_percent: 0}", 1, 0},
		{"none at 0", 10, "max_ejection_percent: 0", 0, 3},
		{"half of 4", 4, "max_ejection_percent: 50", 2, 1},
		{"all", 3, anyShare, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := start(t, c.hosts, c.yaml)
				for host := range min(3, c.hosts) {
					cluster.fail(host)
				}
				require.Len(t, cluster.tells(), c.ejected)
				require.Equal(t, c.overflow, cluster.counts()["ejections_overflow"])
			})
		})
	}
}

func TestACapThatLetsNoneGoIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 9, "")
		c.SetHosts(names(9))
		require.Equal(t, 1, bytes.Count(c.log.Bytes(), []byte("level=WARN")), c.log)
		require.Contains(t, c.log.String(), "max_ejection_percent 10 ejects no host of 9: it takes 10 hosts, or always_eject_one_host")
		c.SetHosts(names(10))
		require.Equal(t, 1, bytes.Count(c.log.Bytes(), []byte("level=WARN")), c.log)
	})
	for _, c := range []struct {
		yaml  string
		hosts int
		want  string
	}{
		{"", 0, ""},
		{"", 10, ""},
		{"max_ejection_percent: 100", 1, ""},
		{"always_eject_one_host: true", 1, ""},
		{"max_ejection_percent: 30", 3, "max_ejection_percent 30 ejects no host of 3: it takes 4 hosts, or always_eject_one_host"},
		{"max_ejection_percent: 0", 100, "max_ejection_percent 0 ejects no host; set it, or always_eject_one_host"},
	} {
		config, report := parse(t, c.yaml)
		require.NoError(t, report.Err())
		require.Equal(t, c.want, config.Warning(c.hosts))
	}
}

// backAfter waits until the host comes back and says after how many seconds.
func (c *cluster) backAfter() int {
	for s := 1; s < 3600; s++ {
		time.Sleep(time.Second)
		if len(c.tells()) > 0 {
			return s
		}
	}
	c.t.Fatal("no host came back in an hour")
	return 0
}

func TestEjectionTime(t *testing.T) {
	for _, c := range []struct {
		name string
		yaml string
		want []int // seconds of each ejection of the same host, one right after the other
	}{
		{"grows by the base time, up to the most", "base_ejection_time: 20s\nmax_ejection_time: 60s", []int{20, 40, 60, 60, 60}},
		{"is 30 s, up to 300 s", "", []int{30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300}},
		{"has a jitter, here half of the most", "max_ejection_time_jitter: 19s", []int{40, 70}}, // 39.5 and 69.5, seen at the next tick
		{"ends at ticks", "base_ejection_time: 11s", []int{20, 30}},
		{"is as long with a most beyond all", "max_ejection_time: 315576000000s", []int{30, 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := start(t, 1, anyShare+c.yaml)
				var got []int
				for range c.want {
					cluster.fail(0)
					require.Equal(t, []string{"-0"}, cluster.tells())
					got = append(got, cluster.backAfter())
				}
				require.Equal(t, c.want, got)
			})
		})
	}
	t.Run("with a jitter beyond all, is over never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cluster := start(t, 1, anyShare+"max_ejection_time_jitter: 315576000000s")
			cluster.fail(0)
			require.Equal(t, []string{"-0"}, cluster.tells())
			time.Sleep(time.Hour)
			require.Empty(t, cluster.tells())
		})
	})
	t.Run("shrinks with each healthy interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cluster := start(t, 1, anyShare)
			for range 3 { // of 30, 60 and 90 s
				cluster.fail(0)
				cluster.tells()
				cluster.backAfter()
			}
			time.Sleep(20 * time.Second) // two intervals: 90 becomes 30
			synctest.Wait()
			cluster.fail(0)
			cluster.tells()
			require.Equal(t, 60, cluster.backAfter())
			time.Sleep(time.Minute)
			synctest.Wait()
			cluster.fail(0)
			cluster.tells()
			require.Equal(t, 30, cluster.backAfter())
		})
	})
}

func TestAHostThatComesBackBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, anyShare)
		c.fail(0)
		c.statuses(0, 500, 500) // in panic it still gets requests
		c.tells()
		c.backAfter()
		c.statuses(0, 500, 500, 500, 500)
		require.Empty(t, c.tells())
		c.statuses(0, 500)
		require.Equal(t, []string{"-0"}, c.tells())
	})
}

func TestAPassedHealthCheckBringsAHostBack(t *testing.T) {
	for yaml, want := range map[string][]string{
		"": {"-0", "+0"},
		"successful_active_health_check_uneject_host: false": {"-0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, 1, anyShare+yaml)
			c.HealthCheckPassed("0")
			c.HealthCheckPassed("no host")
			c.fail(0)
			c.HealthCheckPassed("0")
			c.HealthCheckPassed("0")
			require.Equal(t, want, c.tells())
		})
	}
}

func TestHostsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 2, "max_ejection_percent: 50")
		gone := c.Monitor("0")
		c.fail(0)
		require.Equal(t, 1, c.counts()["ejections_active"])
		c.SetHosts([]string{"1", "2"})
		require.Nil(t, c.Monitor("0"))
		require.Zero(t, c.counts()["ejections_active"])
		c.fail(1) // the place of the one that went is free
		for range 5 {
			gone.ReportStatus(500)
		}
		require.Equal(t, []string{"-0", "-1"}, c.tells())
		require.Equal(t, 1, c.counts()["ejections_active"])
		time.Sleep(time.Hour)
		require.Equal(t, []string{"+1"}, c.tells())
	})
}

func TestAHostHasItsMonitorBeforeItIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, anyShare)
		m := c.Add("1")
		require.Same(t, m, c.Add("1"))
		for range 5 {
			m.ReportStatus(500)
		}
		c.SetHosts(names(2))
		require.Same(t, m, c.Monitor("1"))
		require.Equal(t, []string{"-1"}, c.tells())
		require.Equal(t, 1, c.counts()["ejections_active"])
	})
}

// TestWhoIsToldMayHoldALockThatSetHostsIsCalledUnder is how a cluster uses it.
func TestWhoIsToldMayHoldALockThatSetHostsIsCalledUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 0, anyShare)
		config, _ := parse(t, anyShare)
		var mu sync.Mutex
		var told []bool
		d := outlier.New(config, outlier.Options[int]{
			Changed: func(_ int, ejected bool) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, ejected)
			},
			Scope: c.registry.Scope("cluster.a"), Log: slog.New(slog.DiscardHandler), Name: func(n int) string { return fmt.Sprint(n) },
		})
		d.SetHosts([]int{1})
		var group sync.WaitGroup
		group.Go(func() {
			for range 1000 {
				mu.Lock()
				d.SetHosts([]int{1})
				mu.Unlock()
			}
		})
		for range 4 {
			group.Go(func() {
				for range 1000 {
					d.Monitor(1).ReportStatus(500)
					d.HealthCheckPassed(1)
				}
			})
		}
		group.Wait()
		for i, ejected := range told {
			require.Equal(t, i%2 == 0, ejected, "told out of order")
		}
	})
}

func TestFaultsAreTold(t *testing.T) {
	for yaml, want := range map[string]string{
		"max_ejection_time: 1s":             "max_ejection_time: 1s is less than base_ejection_time, which is 30s",
		"max_ejection_percent: 101":         "max_ejection_percent",
		"interval: 0s":                      "interval",
		"max_ejection_time_jitter: -1s":     "max_ejection_time_jitter",
		"detect_degraded_hosts: true":       "detect_degraded_hosts: not supported",
		"monitors: [{name: a}]":             "monitors: not supported",
		"failure_percentage_threshold: 101": "failure_percentage_threshold",
	} {
		_, report := parse(t, yaml)
		require.ErrorContains(t, report.Err(), want, yaml)
	}
}

func TestDefaults(t *testing.T) {
	config, report := parse(t, "{}")
	require.NoError(t, report.Err())
	require.Equal(t, &outlier.Config{
		Consecutive: [3]uint32{5, 5, 5}, Enforcing: [7]uint32{100, 0, 100, 100, 100, 0, 0},
		SuccessRate: outlier.Round{Hosts: 5, Volume: 100}, FailurePercentage: outlier.Round{Hosts: 5, Volume: 50},
		StdevFactor: 1.9, FailureThreshold: 85, Interval: 10 * time.Second,
		BaseEjectionTime: 30 * time.Second, MaxEjectionTime: 300 * time.Second, MaxEjectionPercent: 10, UnejectOnHealthCheck: true,
	}, config)
	config, report = parse(t, "base_ejection_time: 400s")
	require.NoError(t, report.Err())
	require.Equal(t, 400*time.Second, config.MaxEjectionTime)
	require.Nil(t, outlier.Parse(nil, "", report))
}

func TestReportsWithoutADetectorDoNothing(t *testing.T) {
	var d *outlier.Detector[string]
	m := d.Add("0")
	m.ReportStatus(500)
	m.ReportLocal(outlier.Timeout)
	external, local := m.SuccessRate()
	require.Equal(t, []float64{-1, -1}, []float64{external, local})
}
