// Package redis keeps hosts and settings in Redis, 6.2 or newer: one server, one
// that Sentinels find, or a Cluster. It is the store behind URLs such as
// redis://host:port, and lets several replicas of discovery be one registry. The
// registry calls it off the path of any request; reads never come here, nothing
// here expires by itself, and no call waits longer for Redis than a second for
// each few thousand hosts; but all of a partition is read in one step.
//
// # Keys
//
// Services are spread over 256 partitions, by FNV-1a of their names. All keys of
// a partition p have the hash tag {p}, so that they share a slot of a Cluster and
// a script can change them in one step; what concerns several partitions is a
// pipeline of such scripts. <prefix> is sd: unless the URL has another.
//
//	<prefix>{p}:rec    hash     host → hash, lease, and the record as JSON; written when it changes, never by a beat
//	<prefix>{p}:beat   zset     host → last beat in ms of Redis' clock
//	<prefix>{p}:log    stream   about the last 1,000 changes, each with the record, its event and who wrote it
//	<prefix>{p}:ovr    hash     setting → hash, and the setting as JSON
//	<prefix>{p}:meta   hash     gen, digest, count, last, schema: see below
//	<prefix>{p}:tomb   zset     leases that were deregistered → two hours after they went, in ms; + and one that registered again → two hours after that
//	<prefix>{p}:sweep  string   the replica that takes out dead hosts, for three seconds
//	<prefix>{0}:state  string  all hosts are here ("complete"), or some may be missing ("partial") or are ("lost")
//	<prefix>{0}:replicas  hash  replica → since when it runs, when it last told so, in ms, and its name
//
// gen is drawn when the partition is first written, so that another one tells of
// data that was lost. digest is the exclusive or of the hashes of all records and
// settings, count how many these are. last is the id of the latest entry of the log.
// Redis must not evict keys: noeviction, or a maxmemory that is not reached.
//
// # Times
//
// Times in Redis are those of its clock: of that of each server in a Cluster. For each
// partition a replica knows between which two times that clock is now: a reading, by
// TIME, was made between when it was asked for and answered, and each bounds those after
// it, less a thousandth of the time between them. One that those before it rule out stands
// alone: the clock was set, or is that of another server. All clocks are read each second,
// and those of the partitions that changes are of before these are sent.
//
// So who sends what happened says when, and not how long ago: how long it lies in a queue
// after that, of a Redis that stands still or of a process that does, changes nothing.
// Both who sends and who reads take the latest time that it may have been, in favour of
// the host where it beat, and so that of two replicas' events a deregistration is the
// later one unless the other surely is. They are told apart if they are further from
// each other than the best reading of late took at both replicas together, a ms or two,
// and a ms for each second since. Beyond that the order is wrong
//
//   - if Redis' clock is set, or another server comes in its place, between two events or
//     until they are read: by as much as it was set; and by no more than a reading took
//     for as long as none says so, which is a second;
//   - if a machine is suspended with the clock that its processes see: what happened
//     before seems later by as long, if it is told afterwards.
//
// No event is of a time to come: what says so, since Redis' clock was set back, is one of
// now.
//
// # Faults
//
// What Redis keeps survives this process. What it loses, in a crash or because a
// replica of it takes over that was behind, is told to the registry as lost,
// which gives it again; nothing is deleted for it. Until then, and in new data until
// the first registry is warm, the state is not "complete", and who starts does not
// take what is there for all. Data of a version without a state is partial too: the
// first replica of this one then warms up as if it was new, which harms nobody.
package redis

import (
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options says where Redis is and how long it may take. Every field is required.
type Options struct {
	// URL is one of Forms.
	URL string
	// Timeout bounds one exchange with Redis, which carries some thousand hosts
	// at most, or all of one partition; Redis that took longer is away.
	Timeout time.Duration
	// Name is what other replicas call this one; one that starts anew has it again.
	Name string
	// Log gets a line when a partition was read anew because data was lost, and
	// one for each record that cannot be understood.
	Log *slog.Logger
}

// Store is a registry.SharedStore in Redis.
type Store struct {
	options Options
	place   *place
	client  goredis.UniversalClient
	// writer names this store in the logs and the leases of sweepers.
	writer string

	// exchange is held by Append, and by Follow from reading until what it read
	// was applied. So what Follow hands over is later than all that was appended,
	// and earlier than what the registry has yet to append.
	exchange   sync.Mutex
	partitions [partitionCount]partition
	looks      int  // how many looks were taken
	unsaid     bool // that hosts may be missing is yet to be noted
	presences  presences

	mu sync.Mutex // of what follows
	// heard are later beats of hosts that the registry took for dead, for Follow
	// to hand over.
	heard map[registry.Key]time.Time
	// refused are the partitions where Append was refused something, for Follow
	// to read anew.
	refused map[int]struct{}
}

var _ registry.SharedStore = (*Store)(nil)

// Open makes a store; Close ends it. It waits for nothing: a Redis that is away
// is an error of each call. The error is that of the URL, and shows no more of
// it than the scheme.
func Open(o Options) (*Store, error) {
	p, err := parse(o.URL)
	if err != nil {
		return nil, err
	}
	s := &Store{
		options: o, place: p,
		writer:  strconv.FormatUint(rand.Uint64(), 36),
		heard:   map[registry.Key]time.Time{},
		refused: map[int]struct{}{},
	}
	switch u := s.universal(); p.kind {
	case cluster:
		s.client = goredis.NewClusterClient(u.Cluster())
	case sentinel:
		s.client = goredis.NewFailoverClient(u.Failover())
	default:
		s.client = goredis.NewClient(u.Simple())
	}
	return s, nil
}

// universal is what all three kinds of client have in common.
func (s *Store) universal() *goredis.UniversalOptions {
	p, timeout := s.place, s.options.Timeout
	return &goredis.UniversalOptions{
		Addrs: p.addresses, MasterName: p.master, DB: p.db,
		Username: p.username, Password: p.password,
		SentinelUsername: p.sentinelUsername, SentinelPassword: p.sentinelPassword,
		TLSConfig: p.tls,
		// The registry tries again, with what is new by then.
		MaxRetries:    -1,
		DialerRetries: 1,
		// Nor is another server of a Cluster asked in the same exchange: if one does
		// not answer in time, the driver would forget the answers of the others.
		// After an answer that says where a partition is now, it knows.
		MaxRedirects: -1,
		DialTimeout:  timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled: true,
		// Append, Flush, Expire and Follow have one exchange each at a time.
		PoolSize: 5, PipelinePoolSize: -1,
		// Nothing is pushed, so nothing need be looked for.
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// Close takes leave of the other replicas, for a second at most, and closes the
// connections. No other method may run any more.
func (s *Store) Close() error {
	s.leave()
	return s.client.Close()
}
