package app

import (
	"cmp"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// Options is every setting of the service, read from the environment. HOST_TTL,
// PORT, APPLICATION_ENV, LOG_LEVEL, STATSD_HOST and STATSD_PORT are named as
// lyft/discovery names them; the others begin with DISCOVERY_.
type Options struct {
	HTTPAddress  string `envconfig:"DISCOVERY_HTTP_ADDRESS" desc:"where REST is served; if unset, at PORT of 0.0.0.0; port 0 takes a free one, here and below"`
	XDSAddress   string `envconfig:"DISCOVERY_XDS_ADDRESS" default:"0.0.0.0:18000" desc:"where xDS is served over gRPC"`
	AdminAddress string `envconfig:"DISCOVERY_ADMIN_ADDRESS" default:"127.0.0.1:6071" desc:"where operators look: /ready, /metrics, /registry, /xds, /debug/pprof"`
	Port         int    `envconfig:"PORT" default:"8090" desc:"port of the REST listener, if DISCOVERY_HTTP_ADDRESS is unset"`
	LogLevel     string `envconfig:"DISCOVERY_LOG_LEVEL" desc:"debug, info, warn or error; if unset, LOG_LEVEL holds"`
	AnyLogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"the same for every service of this environment"`
	Env          string `envconfig:"APPLICATION_ENV" default:"development" desc:"what lists of hosts say as their env"`
	Identifier   string `envconfig:"DISCOVERY_IDENTIFIER" desc:"name of this replica in xDS responses and /v2/status; if unset, the host's name"`

	Store            string        `envconfig:"DISCOVERY_STORE" default:"memory:" desc:"where hosts are kept over a restart: memory: (not at all), file:///path, or one of redis://, redis+sentinel://, redis+cluster://, which replicas share"`
	Snapshot         string        `envconfig:"DISCOVERY_SNAPSHOT" desc:"file for a copy of what a store in Redis has, to start with where Redis does not answer, and to give it what it lacks where it was emptied, of each replica its own; if unset, none"`
	SnapshotInterval time.Duration `envconfig:"DISCOVERY_SNAPSHOT_INTERVAL" default:"5s" desc:"how often a file:// store, and the copy of one in Redis, is written, if a host changed"`

	HostTTL               time.Duration  `envconfig:"DISCOVERY_HOST_TTL" desc:"time after its last check-in at which a host is dropped that names none of its own, in whole seconds; if unset, HOST_TTL holds"`
	PeerHostTTL           int            `envconfig:"HOST_TTL" default:"600" desc:"the same as a number of seconds"`
	MaxTTL                time.Duration  `envconfig:"DISCOVERY_MAX_TTL" default:"1h" desc:"longest time that a host may name, in whole seconds"`
	SweepInterval         time.Duration  `envconfig:"DISCOVERY_SWEEP_INTERVAL" default:"500ms" desc:"how often dead hosts are looked for, and so how late one is dropped at most; 1s at most"`
	WarmUp                *time.Duration `envconfig:"DISCOVERY_WARM_UP" desc:"after a start that restored no host, or some of an earlier warm-up: how long no reader is told that a service has no hosts, and those that have some from before are left with them; if unset, a quarter of HOST_TTL; HOST_TTL at least where the store lost hosts; 0 turns all of this off, where hosts were lost too"`
	EmptyServiceRetention time.Duration  `envconfig:"DISCOVERY_EMPTY_SERVICE_RETENTION" default:"1h" desc:"how long a service is still known after its last host went"`
	DrainTime             time.Duration  `envconfig:"DISCOVERY_DRAIN_TIME" default:"30s" desc:"how long a host that drains is still shown to proxies, as draining, before it is left out"`
	MaxHostsPerService    int            `envconfig:"DISCOVERY_MAX_HOSTS_PER_SERVICE" default:"20000" desc:"hosts that one service may have; more are refused"`
	MaxServices           int            `envconfig:"DISCOVERY_MAX_SERVICES" default:"50000" desc:"services that there may be; more are refused"`
	MaxTagBytes           int            `envconfig:"DISCOVERY_MAX_TAG_BYTES" default:"16384" desc:"names and values of a host's tags together"`
	AutoIPHops            int            `envconfig:"DISCOVERY_AUTO_IP_HOPS" default:"1" desc:"proxies of one's own before REST: auto_ip takes the address that many from the end of X-Forwarded-For; with 0 that of the connection"`
	AutoIPRanges          []netip.Prefix `envconfig:"DISCOVERY_AUTO_IP_RANGES" default:"192.168.0.0/16" desc:"where an address must lie that auto_ip takes"`

	GuardServiceShare float64        `envconfig:"DISCOVERY_GUARD_SERVICE_SHARE" default:"0.25" desc:"share of a service's hosts that expire within one TTL at most, one at least; 0 turns this guard off"`
	GuardGlobalShare  float64        `envconfig:"DISCOVERY_GUARD_GLOBAL_SHARE" default:"0.15" desc:"the same of all hosts; 0 turns this guard off"`
	GuardGlobalLeast  int            `envconfig:"DISCOVERY_GUARD_GLOBAL_LEAST" default:"10" desc:"so many hosts may expire within one TTL whatever share of all hosts they are"`
	GuardLastHost     float64        `envconfig:"DISCOVERY_GUARD_LAST_HOST" default:"2" desc:"TTLs after its last check-in at which the last host of a service is dropped; below 0 it stays until the ceiling"`
	GuardCeiling      time.Duration  `envconfig:"DISCOVERY_GUARD_CEILING" default:"1h" desc:"how long after its TTL a host is dropped whatever guards say; 0 for never"`
	GuardBeatLoss     float64        `envconfig:"DISCOVERY_GUARD_BEAT_LOSS" default:"0.5" desc:"share of the usual heartbeats below which no host expires; 0 turns this guard off"`
	GuardBeatLeast    int            `envconfig:"DISCOVERY_GUARD_BEAT_LEAST" default:"10" desc:"heartbeats that must have been due lately for that to be judged; two hosts and more that all fall silent are judged by two each"`
	GuardReplicaLoss  *time.Duration `envconfig:"DISCOVERY_GUARD_REPLICA_LOSS" desc:"how long no host expires because a replica that shares the store fell silent, 24h at most; if unset, three times HOST_TTL; 0 turns this guard off"`

	LongPollMax time.Duration `envconfig:"DISCOVERY_LONG_POLL_MAX" default:"5m" desc:"how long a caller of v2 may wait for a list to change at most"`
	MaxWaiters  int           `envconfig:"DISCOVERY_MAX_WAITERS" default:"10000" desc:"calls of v2 that wait at once, for a list to change or on a stream of events; more are refused"`

	XDSOptions
	FileOptions

	ResourceOptions

	BeatSilence    time.Duration `envconfig:"DISCOVERY_BEAT_SILENCE" default:"15s" desc:"how long a gRPC stream of heartbeats may be without a message before it is ended, 1s at least"`
	BeatLossEnds   bool          `envconfig:"DISCOVERY_BEAT_LOSS_ENDS" default:"false" desc:"let hosts ask that they be taken out when their stream of heartbeats breaks"`
	BeatMaxStreams int           `envconfig:"DISCOVERY_BEAT_MAX_STREAMS" default:"10000" desc:"streams of heartbeats served at once; more are refused"`
	BeatMaxHosts   int           `envconfig:"DISCOVERY_BEAT_MAX_HOSTS" default:"100000" desc:"hosts that one stream of heartbeats may carry"`

	LoadOptions
	HealthCheckOptions

	StatsdHost string `envconfig:"STATSD_HOST" desc:"host of a statsd server that is sent lyft/discovery's counters by UDP; localhost if only STATSD_PORT is set; nothing is sent if neither is"`
	StatsdPort int    `envconfig:"STATSD_PORT" desc:"its port; 8125 if only STATSD_HOST is set"`

	AccessOptions

	DrainGrace    time.Duration `envconfig:"DISCOVERY_DRAIN_GRACE" default:"1s" desc:"time between not being ready any more and closing the listeners, at SIGTERM"`
	DrainDeadline time.Duration `envconfig:"DISCOVERY_DRAIN_DEADLINE" default:"10s" desc:"time that work in flight has to end, after that"`
}

// httpAddress is where REST is served, and the variable that moves it.
func (o Options) httpAddress() (address, variable string) {
	if o.HTTPAddress != "" {
		return o.HTTPAddress, "DISCOVERY_HTTP_ADDRESS"
	}
	return net.JoinHostPort("0.0.0.0", strconv.Itoa(o.Port)), "PORT"
}

// statsd is where counters are sent; empty for nowhere.
func (o Options) statsd() string {
	if o.StatsdHost == "" && o.StatsdPort == 0 {
		return ""
	}
	host, port := cmp.Or(o.StatsdHost, "localhost"), cmp.Or(o.StatsdPort, 8125)
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// log is how to log, and the variable that says so.
func (o Options) log() (options daemon.LogOptions, variable string) {
	if o.LogLevel != "" {
		return daemon.LogOptions{Level: o.LogLevel}, "DISCOVERY_LOG_LEVEL"
	}
	return daemon.LogOptions{Level: o.AnyLogLevel}, "LOG_LEVEL"
}

// identifier names this replica.
func (o Options) identifier() string {
	if o.Identifier != "" {
		return o.Identifier
	}
	name, err := os.Hostname()
	if err != nil {
		return "discovery"
	}
	return name
}

// guard is how careful the registry is with hosts that fall silent.
func (o Options) guard() guard.Limits {
	return guard.Limits{
		ServiceShare: o.GuardServiceShare,
		GlobalShare:  o.GuardGlobalShare,
		GlobalLeast:  o.GuardGlobalLeast,
		LastHost:     o.GuardLastHost,
		Ceiling:      o.GuardCeiling,
		BeatLoss:     o.GuardBeatLoss,
		BeatLeast:    o.GuardBeatLeast,
		ReplicaLoss:  o.replicaLoss(),
	}
}

// replicaLoss is how long a replica that fell silent is missed.
func (o Options) replicaLoss() time.Duration {
	if o.GuardReplicaLoss != nil {
		return *o.GuardReplicaLoss
	}
	return min(3*o.hostTTL(), longestReplicaLoss)
}

// longestSweepInterval is what keeps the promise that a dead host is gone within two
// seconds of its TTL: a sweep may come so late, and the store takes its part.
const longestSweepInterval = time.Second

// longestReplicaLoss is how long stores remember a replica.
const longestReplicaLoss = 24 * time.Hour

// warmUp is how long a registry that restored no host is not warm: as long as hosts
// that know no better than HOST_TTL take to beat once.
func (o Options) warmUp() time.Duration {
	if o.WarmUp != nil {
		return *o.WarmUp
	}
	return o.hostTTL() / 4
}

// hostTTL is the TTL of a host that names none.
func (o Options) hostTTL() time.Duration {
	if o.HostTTL != 0 {
		return o.HostTTL
	}
	return time.Duration(o.PeerHostTTL) * time.Second
}

// checkHostTTL reports each fault of the variable that hostTTL takes.
func (o Options) checkHostTTL(fault func(format string, args ...any)) {
	switch {
	case o.HostTTL == 0 && o.PeerHostTTL < 1:
		fault("%v: below 1 second", setting.Variable("HOST_TTL", o.PeerHostTTL))
	case o.HostTTL == 0 && o.PeerHostTTL > int(o.MaxTTL/time.Second): // in seconds, for a duration may not hold it
		fault("%v: above %v", setting.Variable("HOST_TTL", o.PeerHostTTL), setting.Variable("DISCOVERY_MAX_TTL", o.MaxTTL))
	case o.HostTTL == 0:
	case o.HostTTL < time.Second || o.HostTTL%time.Second != 0:
		fault("%v: not whole seconds, 1 at least", setting.Variable("DISCOVERY_HOST_TTL", o.HostTTL))
	case o.HostTTL > o.MaxTTL:
		fault("%v: above %v", setting.Variable("DISCOVERY_HOST_TTL", o.HostTTL), setting.Variable("DISCOVERY_MAX_TTL", o.MaxTTL))
	}
}

// leastPoll is the least time between two things that are done again and again.
const leastPoll = 10 * time.Millisecond

// orOff reports a duration that is below least, but for 0, by which something is off.
func orOff(name string, d, least time.Duration, fault func(format string, args ...any)) {
	if d != 0 && d < least {
		fault("%v: not 0, and below %v", setting.Variable(name, d), least)
	}
}

// check returns an error for each value that its type alone does not rule out,
// joined. Each names the variable and the value.
func (o Options) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, setting.Faultf(format, args...)) }
	if o.XDSAddress == "" { // else it would be served at any port of all addresses, as what is below
		fault("DISCOVERY_XDS_ADDRESS is empty: want host:port")
	}
	if o.AdminAddress == "" {
		fault("DISCOVERY_ADMIN_ADDRESS is empty: want host:port")
	}
	setting.Port("PORT", o.Port, fault)
	setting.Port("STATSD_PORT", o.StatsdPort, fault)
	if !utf8.ValidString(o.Identifier) { // it is in every response of xDS
		fault("DISCOVERY_IDENTIFIER=%q: not UTF-8", o.Identifier)
	}
	o.checkHostTTL(fault)
	setting.AtLeast("DISCOVERY_MAX_HOSTS_PER_SERVICE", o.MaxHostsPerService, 1, fault)
	setting.AtLeast("DISCOVERY_MAX_SERVICES", o.MaxServices, 1, fault)
	setting.AtLeast("DISCOVERY_MAX_TAG_BYTES", o.MaxTagBytes, 1, fault)
	setting.AtLeast("DISCOVERY_MAX_WAITERS", o.MaxWaiters, 1, fault)
	setting.AtLeast("DISCOVERY_BEAT_MAX_STREAMS", o.BeatMaxStreams, 1, fault)
	setting.AtLeast("DISCOVERY_BEAT_MAX_HOSTS", o.BeatMaxHosts, 1, fault)
	setting.AtLeast("DISCOVERY_AUTO_IP_HOPS", o.AutoIPHops, 0, fault)
	for _, p := range o.AutoIPRanges {
		if p != p.Masked() {
			fault("DISCOVERY_AUTO_IP_RANGES: %v: the range of that is %v", p, p.Masked())
		}
	}
	setting.Share("DISCOVERY_GUARD_SERVICE_SHARE", o.GuardServiceShare, fault)
	setting.Share("DISCOVERY_GUARD_GLOBAL_SHARE", o.GuardGlobalShare, fault)
	setting.Share("DISCOVERY_GUARD_BEAT_LOSS", o.GuardBeatLoss, fault)
	if math.IsNaN(o.GuardLastHost) || math.IsInf(o.GuardLastHost, 0) {
		fault("%v: not a number of TTLs; below 0 is for ever", setting.Variable("DISCOVERY_GUARD_LAST_HOST", o.GuardLastHost))
	}
	setting.AtLeast("DISCOVERY_GUARD_GLOBAL_LEAST", o.GuardGlobalLeast, 0, fault)
	setting.AtLeast("DISCOVERY_GUARD_BEAT_LEAST", o.GuardBeatLeast, 0, fault)
	if o.SweepInterval < leastPoll || o.SweepInterval > longestSweepInterval {
		fault("%v: not from %v to %v", setting.Variable("DISCOVERY_SWEEP_INTERVAL", o.SweepInterval), leastPoll, longestSweepInterval)
	}
	if o.MaxTTL < time.Second || o.MaxTTL%time.Second != 0 {
		fault("%v: not whole seconds, 1 at least", setting.Variable("DISCOVERY_MAX_TTL", o.MaxTTL))
	}
	if o.WarmUp != nil {
		orOff("DISCOVERY_WARM_UP", *o.WarmUp, time.Second, fault)
	}
	if loss := o.GuardReplicaLoss; loss != nil {
		orOff("DISCOVERY_GUARD_REPLICA_LOSS", *loss, time.Second, fault)
		if *loss > longestReplicaLoss {
			fault("%v: above %v", setting.Variable("DISCOVERY_GUARD_REPLICA_LOSS", *loss), longestReplicaLoss)
		}
	}
	orOff("DISCOVERY_GUARD_CEILING", o.GuardCeiling, time.Second, fault)
	setting.AtLeast("DISCOVERY_SNAPSHOT_INTERVAL", o.SnapshotInterval, leastPoll, fault)
	setting.AtLeast("DISCOVERY_LONG_POLL_MAX", o.LongPollMax, time.Second, fault)
	setting.AtLeast("DISCOVERY_BEAT_SILENCE", o.BeatSilence, time.Second, fault)
	o.AccessOptions.check(fault)
	o.XDSOptions.check(fault)
	o.ResourceOptions.check(fault)
	o.FileOptions.check(fault)
	o.LoadOptions.check(fault)
	o.HealthCheckOptions.check(fault)
	setting.Positive("DISCOVERY_DRAIN_DEADLINE", o.DrainDeadline, fault)
	setting.AtLeast("DISCOVERY_DRAIN_TIME", o.DrainTime, 0, fault)
	setting.AtLeast("DISCOVERY_EMPTY_SERVICE_RETENTION", o.EmptyServiceRetention, 0, fault)
	setting.AtLeast("DISCOVERY_DRAIN_GRACE", o.DrainGrace, 0, fault)
	return errors.Join(errs...)
}
