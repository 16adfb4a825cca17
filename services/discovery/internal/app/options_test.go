package app_test

import (
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/environ"
	"github.com/weirproxy/weir/internal/environtest"
	"github.com/weirproxy/weir/services/discovery/internal/app"
)

// storeForms is what URLs of stores look like.
const storeForms = "memory:, file:///path, redis://user:password@host:port/db, " +
	"redis+sentinel://user:password@host:port,host:port/master/db, redis+cluster://user:password@host:port,host:port (rediss for TLS)"

func TestASettingThatCannotBeIsRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	address := taken.Addr().String()
	for name, test := range map[string]struct {
		change func(*app.Options)
		want   string
	}{
		"a port out of range":  {func(o *app.Options) { o.Port = 65536 }, "PORT=65536: not a port"},
		"no port of a statsd":  {func(o *app.Options) { o.StatsdPort = 65536 }, "STATSD_PORT=65536: not a port"},
		"an HTTP port in use":  {func(o *app.Options) { o.HTTPAddress = address }, "listen on " + address + ": the port is in use; DISCOVERY_HTTP_ADDRESS moves it"},
		"an xDS port in use":   {func(o *app.Options) { o.XDSAddress = address }, "listen on " + address + ": the port is in use; DISCOVERY_XDS_ADDRESS moves it"},
		"an admin port in use": {func(o *app.Options) { o.AdminAddress = address }, "listen on " + address + ": the port is in use; DISCOVERY_ADMIN_ADDRESS moves it"},
		"an unknown store":     {func(o *app.Options) { o.Store = "tape:" }, `DISCOVERY_STORE: store of scheme "tape": not one of ` + storeForms},
		"no store":             {func(o *app.Options) { o.Store = "" }, "DISCOVERY_STORE: empty, which is none of " + storeForms},
		"no addresses":         {func(o *app.Options) { o.XDSAddress, o.AdminAddress = "", "" }, "DISCOVERY_XDS_ADDRESS is empty: want host:port\nDISCOVERY_ADMIN_ADDRESS is empty: want host:port"},
		"files, a store and addresses that are none": {
			func(o *app.Options) {
				o.AuthFile, o.TLSCert, o.TLSKey, o.Store, o.ClusterTemplate, o.Resources, o.SecretRules, o.HDSFile = "/a", "/b", "/b", "tape:", "/c", "/d", "/e", "/f"
				o.HTTPAddress, o.XDSAddress, o.AdminAddress = address, "nowhere", address
			},
			`DISCOVERY_STORE: store of scheme "tape": not one of ` + storeForms + "\n" +
				"DISCOVERY_AUTH_FILE=/a: open /a: no such file or directory\nDISCOVERY_TLS_CERT=/b: open /b: no such file or directory\n" +
				"DISCOVERY_TLS_KEY=/b: open /b: no such file or directory\nDISCOVERY_XDS_CLUSTER_TEMPLATE=/c: open /c: no such file or directory\n" +
				"DISCOVERY_XDS_SECRET_RULES=/e: open /e: no such file or directory\nDISCOVERY_XDS_RESOURCES=/d: stat /d: no such file or directory\n" +
				"DISCOVERY_HDS_FILE=/f: open /f: no such file or directory\nlisten on " + address + ": the port is in use; DISCOVERY_HTTP_ADDRESS moves it\n" +
				"listen on nowhere (DISCOVERY_XDS_ADDRESS): listen tcp: address nowhere: missing port in address\n" +
				"listen on " + address + ": the port is in use; DISCOVERY_ADMIN_ADDRESS moves it",
		},
		"a copy of what is none":     {func(o *app.Options) { o.Snapshot = "/hosts" }, `DISCOVERY_STORE: store of scheme "memory": a snapshot beside it is for stores that replicas share`},
		"no ttl":                     {func(o *app.Options) { o.PeerHostTTL = 0 }, "HOST_TTL=0: below 1 second"},
		"a ttl above the longest":    {func(o *app.Options) { o.PeerHostTTL = 7200 }, "HOST_TTL=7200: above DISCOVERY_MAX_TTL=1h0m0s"},
		"a ttl of three centuries":   {func(o *app.Options) { o.PeerHostTTL = 10_000_000_000 }, "HOST_TTL=10000000000: above DISCOVERY_MAX_TTL=1h0m0s"},
		"a ttl of our own below 0":   {func(o *app.Options) { o.HostTTL = -time.Second }, "DISCOVERY_HOST_TTL=-1s: not whole seconds, 1 at least"},
		"a ttl of half a second":     {func(o *app.Options) { o.HostTTL = 1500 * time.Millisecond }, "DISCOVERY_HOST_TTL=1.5s: not whole seconds, 1 at least"},
		"our own above the longest":  {func(o *app.Options) { o.HostTTL = 2 * time.Hour }, "DISCOVERY_HOST_TTL=2h0m0s: above DISCOVERY_MAX_TTL=1h0m0s"},
		"a replica missed too long":  {func(o *app.Options) { o.GuardReplicaLoss = new(25 * time.Hour) }, "DISCOVERY_GUARD_REPLICA_LOSS=25h0m0s: above 24h0m0s"},
		"hops that are none":         {func(o *app.Options) { o.AutoIPHops = -1 }, "DISCOVERY_AUTO_IP_HOPS=-1: below 0"},
		"a range that is none":       {func(o *app.Options) { o.AutoIPRanges = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/8")} }, "DISCOVERY_AUTO_IP_RANGES: 10.1.0.0/8: the range of that is 10.0.0.0/8"},
		"no waiters, and no waits":   {func(o *app.Options) { o.MaxWaiters, o.LongPollMax = 0, 0 }, "DISCOVERY_MAX_WAITERS=0: below 1\nDISCOVERY_LONG_POLL_MAX=0s: below 1s"},
		"fewer names than none":      {func(o *app.Options) { o.XDSNamesPerNode = -1 }, "DISCOVERY_XDS_NAMES_PER_NODE=-1: below 0"},
		"no streams":                 {func(o *app.Options) { o.XDSMaxStreams = 0 }, "DISCOVERY_XDS_MAX_STREAMS=0: below 1"},
		"too keen a keepalive":       {func(o *app.Options) { o.XDSKeepalive = 1 }, "DISCOVERY_XDS_KEEPALIVE=1ns: below 1s"},
		"too many load reports":      {func(o *app.Options) { o.LRSInterval, o.LRSMaxStreams, o.LRSMaxRows = 1, 0, 0 }, "DISCOVERY_LRS_INTERVAL=1ns: below 1s\nDISCOVERY_LRS_MAX_STREAMS=0: below 1\nDISCOVERY_LRS_MAX_ROWS=0: below 1"},
		"health checks by nobody":    {func(o *app.Options) { o.HDSMaxCheckers, o.HDSMaxShare = 0, 1.5 }, "DISCOVERY_HDS_MAX_CHECKERS=0: below 1\nDISCOVERY_HDS_MAX_SHARE=1.5: not from 0 to 1"},
		"no file of health checks":   {func(o *app.Options) { o.HDSFile = "/none.yaml" }, "DISCOVERY_HDS_FILE=/none.yaml: open /none.yaml: no such file or directory"},
		"a debounce without an end":  {func(o *app.Options) { o.DebounceLongest = 1 }, "DISCOVERY_DEBOUNCE_LONGEST=1ns: below DISCOVERY_DEBOUNCE_QUIET=100ms"},
		"a last host shown for ever": {func(o *app.Options) { o.DebounceEmpty = 61 * time.Second }, "DISCOVERY_DEBOUNCE_EMPTY=1m1s: above 1m0s"},
		"numbers of xDS that are none": {
			func(o *app.Options) {
				o.XDSMaxNames, o.XDSStreamsPerNode, o.XDSRequestRate, o.XDSFirstAnswers = 0, -1, -2, -3
			},
			"DISCOVERY_XDS_MAX_NAMES=0: below 1\nDISCOVERY_XDS_STREAMS_PER_NODE=-1: below 0\nDISCOVERY_XDS_REQUEST_RATE=-2: below 0\nDISCOVERY_XDS_FIRST_ANSWERS=-3: below 0",
		},
		"times of xDS that are none": {
			func(o *app.Options) {
				o.XDSSlowAfter, o.XDSDropAfter, o.DebounceLeaving, o.DebounceEmpty, o.XDSMaxAge, o.XDSPollWait = 0, -1, -1, -1, -2, -3
			},
			"DISCOVERY_XDS_SLOW_AFTER=0s: below 1s\nDISCOVERY_XDS_MAX_AGE=-2ns: not 0, and below 10s\nDISCOVERY_XDS_DROP_AFTER=-1ns: below DISCOVERY_XDS_SLOW_AFTER=0s\n" +
				"DISCOVERY_DEBOUNCE_LEAVING=-1ns: below 0s\nDISCOVERY_DEBOUNCE_EMPTY=-1ns: below 0s\nDISCOVERY_XDS_POLL_WAIT=-3ns: below 0s",
		},
		"no poll of files, and rules without them": {func(o *app.Options) { o.ResourcesPoll, o.SecretRules = 0, "/rules" },
			"DISCOVERY_XDS_RESOURCES_POLL=0s: below 10ms\nDISCOVERY_XDS_SECRET_RULES=/rules: without DISCOVERY_XDS_RESOURCES there are no secrets\n" +
				"DISCOVERY_XDS_SECRET_RULES=/rules: open /rules: no such file or directory"},
		"values and files that are none": {
			func(o *app.Options) {
				o.PeerHostTTL, o.Reads = 0, "shut"
				o.SnapshotInterval, o.Store = 0, "file:///none/hosts"
				o.AuthFile, o.TLSCert, o.TLSKey, o.ClusterTemplate, o.Resources, o.HDSFile = "/a", "/b", "/b", "/c", "/d", "/f"
			},
			"HOST_TTL=0: below 1 second\nDISCOVERY_SNAPSHOT_INTERVAL=0s: below 10ms\nDISCOVERY_READS=shut: not one of open, closed\n" +
				"DISCOVERY_STORE: store of scheme \"file\": snapshot /none/hosts: its directory: stat /none: no such file or directory\n" +
				"DISCOVERY_AUTH_FILE=/a: open /a: no such file or directory\nDISCOVERY_TLS_CERT=/b: open /b: no such file or directory\n" +
				"DISCOVERY_TLS_KEY=/b: open /b: no such file or directory\n" +
				"DISCOVERY_XDS_CLUSTER_TEMPLATE=/c: open /c: no such file or directory\nDISCOVERY_XDS_RESOURCES=/d: stat /d: no such file or directory\n" +
				"DISCOVERY_HDS_FILE=/f: open /f: no such file or directory",
		},
		"resources that are none": {func(o *app.Options) { o.Resources = "/none" }, "DISCOVERY_XDS_RESOURCES=/none: stat /none: no such file or directory"},
		"rules that are none":     {func(o *app.Options) { o.Resources, o.SecretRules = ".", "/none" }, "DISCOVERY_XDS_SECRET_RULES=/none: open /none: no such file or directory"},
		"a share above all":       {func(o *app.Options) { o.GuardServiceShare = 25 }, "DISCOVERY_GUARD_SERVICE_SHARE=25: not from 0 to 1"},
		"shares that are none": {func(o *app.Options) { o.GuardGlobalShare, o.GuardBeatLoss = -0.1, math.NaN() },
			"DISCOVERY_GUARD_GLOBAL_SHARE=-0.1: not from 0 to 1\nDISCOVERY_GUARD_BEAT_LOSS=NaN: not from 0 to 1"},
		"numbers that are none, and a ceiling below 0": {
			func(o *app.Options) {
				o.GuardLastHost, o.GuardGlobalLeast, o.GuardBeatLeast, o.GuardCeiling = math.Inf(1), -1, -2, -3
			},
			"DISCOVERY_GUARD_LAST_HOST=+Inf: not a number of TTLs; below 0 is for ever\nDISCOVERY_GUARD_GLOBAL_LEAST=-1: below 0\n" +
				"DISCOVERY_GUARD_BEAT_LEAST=-2: below 0\nDISCOVERY_GUARD_CEILING=-3ns: not 0, and below 1s"},
		"reads that are neither":   {func(o *app.Options) { o.Reads = "shut" }, "DISCOVERY_READS=shut: not one of open, closed"},
		"reads closed to everyone": {func(o *app.Options) { o.Reads = "closed" }, "DISCOVERY_READS=closed: DISCOVERY_AUTH_FILE must name who may read"},
		"hops below 0":             {func(o *app.Options) { o.TrustedHops = -1 }, "DISCOVERY_TRUSTED_HOPS=-1: below 0"},
		"proxies that are none": {func(o *app.Options) { o.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/8")} },
			"DISCOVERY_TRUSTED_RANGES: DISCOVERY_TRUSTED_HOPS=0 does not say how many proxies there are\nDISCOVERY_TRUSTED_RANGES: 10.1.0.0/8: the range of that is 10.0.0.0/8"},
		"too slow a rate":            {func(o *app.Options) { o.CallsPerSource = 0.0001 }, "DISCOVERY_CALLS_PER_SOURCE=0.0001: not 0, and not from 0.001 to 1e+06"},
		"a rate that is no number":   {func(o *app.Options) { o.CallsPerSource = math.NaN() }, "DISCOVERY_CALLS_PER_SOURCE=NaN: not 0, and not from 0.001 to 1e+06"},
		"no burst":                   {func(o *app.Options) { o.CallsBurst = 0 }, "DISCOVERY_CALLS_BURST=0: not from 1 to 1000000"},
		"a certificate without key":  {func(o *app.Options) { o.TLSCert = "c.pem" }, "DISCOVERY_TLS_CERT=c.pem, DISCOVERY_TLS_KEY=: one needs the other"},
		"clients' without our own":   {func(o *app.Options) { o.TLSClientCA = "ca.pem" }, "DISCOVERY_TLS_CLIENT_CA=ca.pem: clients can show a certificate only with DISCOVERY_TLS_CERT"},
		"neither needed nor not":     {func(o *app.Options) { o.TLSClientAuth = "maybe" }, "DISCOVERY_TLS_CLIENT_AUTH=maybe: not one of required, optional"},
		"an auth file that is none":  {func(o *app.Options) { o.AuthFile = "/none" }, "DISCOVERY_AUTH_FILE=/none: open /none: no such file or directory"},
		"a certificate that is none": {func(o *app.Options) { o.TLSCert, o.TLSKey = "/none", "/none" }, "DISCOVERY_TLS_CERT=/none: open /none: no such file or directory\nDISCOVERY_TLS_KEY=/none: open /none: no such file or directory"},
		"an identifier of no text":   {func(o *app.Options) { o.Identifier = "a\xff" }, `DISCOVERY_IDENTIFIER="a\xff": not UTF-8`},
		"a subset below 0, and a namespace of no text": {func(o *app.Options) { o.SubsetSize, o.TagNamespace = -1, "\xff" },
			"DISCOVERY_XDS_SUBSET_SIZE=-1: below 0\nDISCOVERY_XDS_TAG_NAMESPACE=\"\\xff\": not UTF-8"},
		"files that are none": {func(o *app.Options) { o.ClusterTemplate, o.Resources, o.HDSFile = "/none", "/gone", "/lost" },
			"DISCOVERY_XDS_CLUSTER_TEMPLATE=/none: open /none: no such file or directory\nDISCOVERY_XDS_RESOURCES=/gone: stat /gone: no such file or directory\n" +
				"DISCOVERY_HDS_FILE=/lost: open /lost: no such file or directory"},
		"files of access that are none": {func(o *app.Options) { o.AuthFile, o.TLSCert, o.TLSKey = "/none", "/gone", "/gone" },
			"DISCOVERY_AUTH_FILE=/none: open /none: no such file or directory\nDISCOVERY_TLS_CERT=/gone: open /gone: no such file or directory\nDISCOVERY_TLS_KEY=/gone: open /gone: no such file or directory"},
		"a template that is none": {func(o *app.Options) { o.ClusterTemplate = "/none" }, "DISCOVERY_XDS_CLUSTER_TEMPLATE=/none: open /none: no such file or directory"},
		"durations without a unit that is meant": {
			func(o *app.Options) {
				o.MaxTTL, o.WarmUp, o.GuardReplicaLoss, o.GuardCeiling = 1500*time.Millisecond, new(time.Duration(1)), new(time.Duration(1)), 1
				o.PeerHostTTL, o.SnapshotInterval, o.LongPollMax, o.BeatSilence = 1, 1, 1, 1
				o.XDSSlowAfter, o.XDSMaxAge, o.ResourcesPoll = 1, 1, 1
			},
			"DISCOVERY_MAX_TTL=1.5s: not whole seconds, 1 at least\nDISCOVERY_WARM_UP=1ns: not 0, and below 1s\n" +
				"DISCOVERY_GUARD_REPLICA_LOSS=1ns: not 0, and below 1s\nDISCOVERY_GUARD_CEILING=1ns: not 0, and below 1s\n" +
				"DISCOVERY_SNAPSHOT_INTERVAL=1ns: below 10ms\nDISCOVERY_LONG_POLL_MAX=1ns: below 1s\nDISCOVERY_BEAT_SILENCE=1ns: below 1s\n" +
				"DISCOVERY_XDS_SLOW_AFTER=1ns: below 1s\nDISCOVERY_XDS_MAX_AGE=1ns: not 0, and below 10s\nDISCOVERY_XDS_RESOURCES_POLL=1ns: below 10ms"},
		"no sweep":               {func(o *app.Options) { o.SweepInterval = 0 }, "DISCOVERY_SWEEP_INTERVAL=0s: not from 10ms to 1s"},
		"sweeps too far between": {func(o *app.Options) { o.SweepInterval = 1001 * time.Millisecond }, "DISCOVERY_SWEEP_INTERVAL=1.001s: not from 10ms to 1s"},
		"no snapshot, no deadline, and a grace below 0": {func(o *app.Options) { o.SnapshotInterval, o.DrainDeadline, o.DrainGrace = 0, 0, -1 },
			"DISCOVERY_SNAPSHOT_INTERVAL=0s: below 10ms\nDISCOVERY_DRAIN_DEADLINE=0s: not above 0\nDISCOVERY_DRAIN_GRACE=-1ns: below 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			test.change(&o)
			_, err := app.New(o, slog.New(slog.DiscardHandler))
			require.EqualError(t, err, test.want)
		})
	}
}

func TestPORTMovesTheRESTListenerUnlessAnAddressIsGiven(t *testing.T) {
	require.Equal(t, 8090, options(t).Port)
	taken, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	o := options(t)
	o.Port, o.HTTPAddress = port, ""
	_, err = app.New(o, slog.New(slog.DiscardHandler))
	require.EqualError(t, err, "listen on 0.0.0.0:"+strconv.Itoa(port)+": the port is in use; PORT moves it")
	o.HTTPAddress = "127.0.0.1:0"
	start(t, o)
}

func TestDISCOVERY_HOST_TTLIsThatOfHostsThatNameNone(t *testing.T) {
	for own, want := range map[string]string{"": "2m0s", "30s": "30s"} {
		o := options(t)
		t.Setenv("HOST_TTL", "120")
		if own != "" {
			t.Setenv("DISCOVERY_HOST_TTL", own)
		}
		var loaded app.Options
		require.NoError(t, environ.Load(&loaded))
		o.HostTTL, o.PeerHostTTL = loaded.HostTTL, loaded.PeerHostTTL
		r := start(t, o)
		r.register(t, "8080", "")
		_, body := r.get(t, "http", "/v2/services/echo/hosts")
		require.Contains(t, body, `"ttl":"`+want+`"`)
	}
}

func TestAPORTOf0TakesAFreeOne(t *testing.T) {
	o := options(t)
	t.Setenv("PORT", "0")
	var loaded app.Options
	require.NoError(t, environ.Load(&loaded))
	o.Port, o.HTTPAddress = loaded.Port, loaded.HTTPAddress
	r := start(t, o)
	_, port, err := net.SplitHostPort(r.addrs["http"])
	require.NoError(t, err)
	require.NotContains(t, []string{"0", "8090"}, port)
}

func TestTheREADMEListsEverySetting(t *testing.T) {
	environtest.README(t, "../../README.md", app.Options{})
}

func TestMainExits(t *testing.T) {
	environtest.Unset(t, app.Options{})
	t.Setenv("DISCOVERY_ADMIN_ADDRESS", "127.0.0.1:1")
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"--version"}, 0},
		{[]string{"--unknown"}, 2},
		{[]string{"healthcheck"}, 1}, // nothing listens there
	} {
		t.Run(strings.Join(test.args, "_"), func(t *testing.T) {
			require.Equal(t, test.want, app.Main(test.args, "v1.2.3"))
		})
	}
}

func TestWhatIsWrongWithTheEnvironmentIsToldAtOnce(t *testing.T) {
	environtest.Unset(t, app.Options{})
	t.Setenv("HOST_TTL", "soon")
	t.Setenv("DISCOVERY_XDS_MAX_NAMES", "0")
	t.Setenv("DISCOVERY_TRUSTED_HOPS", "one")
	t.Setenv("DISCOVERY_TRUSTED_RANGES", "10.0.0.0/8")
	told, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	defer told.Close()
	stderr := os.Stderr
	os.Stderr = told
	code := app.Main(nil, "")
	os.Stderr = stderr
	require.Equal(t, 1, code)
	text, err := os.ReadFile(told.Name())
	require.NoError(t, err)
	require.Contains(t, string(text), `environment variable HOST_TTL="soon": want integer`)
	require.Contains(t, string(text), "DISCOVERY_XDS_MAX_NAMES=0: below 1")
	require.Contains(t, string(text), `environment variable DISCOVERY_TRUSTED_HOPS="one": want integer`)
	require.NotContains(t, string(text), "DISCOVERY_TRUSTED_RANGES", "which wants the hops that could not be read")
}

func TestMainRefusesABadEnvironment(t *testing.T) {
	environtest.Unset(t, app.Options{})
	t.Setenv("HOST_TTL", "soon")
	require.Equal(t, 1, app.Main(nil, ""))
	t.Setenv("HOST_TTL", "1")
	t.Setenv("LOG_LEVEL", "loud")
	require.Equal(t, 1, app.Main(nil, ""))
}
