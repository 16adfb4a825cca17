// Package statsd sends the service's statistics under the peer's flat names to
// a statsd server, or to a dogstatsd agent. The app runs a Sender in the
// background; what counts the hits knows nothing of it, since a Sender reads
// the metrics as a scrape does.
//
// Counters are sent as what was added since the last flush, and not at all if
// that is nothing. Durations are known by the bucket of their histogram only:
// all of one bucket are sent as a single line with the bucket's middle as the
// value and a sample rate that says how many there were,
//
//	ratelimit_server.ShouldRateLimit.response_time:0.0375|ms|@0.01
//
// and those above the last bound with that bound. So counts are true, and
// means and percentiles as fine as the buckets.
//
// While the server is away nothing is read, so that what was counted meanwhile
// is in the first flush that it takes, and memory does not grow. Lost is only
// what the system took for a server that was just going, and datagrams that
// nobody receives.
package statsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// Options says whether and where statistics are sent. They are the variables
// of the environment that stand beside them.
type Options struct {
	// Statsd is USE_STATSD: "true" or "false", or "" to send if Host or Port
	// is set and Datadog is not.
	Statsd string
	// Datadog is USE_DOG_STATSD: send to a dogstatsd agent by UDP.
	Datadog bool
	// Disable is DISABLE_STATS: send nothing, whatever the others say.
	Disable bool
	// Host and Port are STATSD_HOST and STATSD_PORT: where the server is, ""
	// and 0 for localhost and 8125.
	Host string
	Port int
	// Protocol is STATSD_PROTOCOL: "tcp", or "udp"; "" is tcp. Datadog is
	// always by UDP.
	Protocol string
	// Interval is STATS_FLUSH_INTERVAL: the time between flushes.
	Interval time.Duration
	// ExtraTags is EXTRA_TAGS: "k:v,k2:v2", put on every statistic.
	ExtraTags string
	// Mogrifiers is USE_DOG_STATSD_MOGRIFIERS: "ONE,TWO", the names of rules
	// that turn a part of a flat name into tags. Getenv reads each one's
	// DOG_STATSD_MOGRIFIER_ONE_PATTERN, _NAME and _TAGS. Only for Datadog.
	Mogrifiers string
	Getenv     func(variable string) string

	// Metrics is what is sent.
	Metrics prometheus.Gatherer
	// Log gets a line when the server goes away and one when it is back.
	Log *slog.Logger
}

// Where the server is if the options don't say so.
const (
	defaultHost = "localhost"
	defaultPort = 8125
)

// Sender sends statistics while its Run does.
type Sender struct {
	reader   *peerstats.Reader
	encoder  encoder
	line     connection
	interval time.Duration
	log      *slog.Logger
	away     bool
}

// New makes a Sender, or none if the options ask for none. The error joins all
// that is wrong; each part names the variable and its value.
func New(o Options) (*Sender, error) {
	send, err := o.wanted()
	if err != nil || !send {
		return nil, err
	}
	var errs []error
	if o.Interval <= 0 {
		errs = append(errs, fmt.Errorf("STATS_FLUSH_INTERVAL=%v: not above 0", o.Interval))
	}
	if o.Port < 0 || o.Port > 65535 {
		errs = append(errs, fmt.Errorf("STATSD_PORT=%d: not a port", o.Port))
	}
	network := "udp"
	if !o.Datadog {
		switch o.Protocol {
		case "", "tcp":
			network = "tcp"
		case "udp":
		default:
			errs = append(errs, fmt.Errorf("STATSD_PROTOCOL=%s: not one of tcp, udp", o.Protocol))
		}
	}
	e := encoder{datadog: o.Datadog}
	if e.tags, err = readTags(o.ExtraTags); err != nil {
		errs = append(errs, fmt.Errorf("EXTRA_TAGS=%s: %w", o.ExtraTags, err))
	}
	if o.Datadog {
		if e.mogrifiers, err = readMogrifiers(o.Mogrifiers, o.Getenv); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	host, port := o.Host, o.Port
	if host == "" {
		host = defaultHost
	}
	if port == 0 {
		port = defaultPort
	}
	return &Sender{
		reader:   peerstats.NewReader(o.Metrics),
		encoder:  e,
		line:     connection{network: network, address: net.JoinHostPort(host, strconv.Itoa(port))},
		interval: o.Interval,
		log:      o.Log,
	}, nil
}

// wanted says whether anything is to be sent.
func (o *Options) wanted() (bool, error) {
	if o.Disable {
		return false, nil
	}
	if o.Statsd == "" {
		return o.Datadog || o.Host != "" || o.Port != 0, nil
	}
	statsd, err := strconv.ParseBool(o.Statsd)
	if err != nil {
		return false, fmt.Errorf("USE_STATSD=%s: not true or false", o.Statsd)
	}
	if statsd && o.Datadog {
		return false, errors.New("USE_STATSD=true and USE_DOG_STATSD=true: statistics are sent to one server only, set one of them")
	}
	return statsd || o.Datadog, nil
}

// How long the server may take.
const (
	flushWait = time.Second            // for one flush
	lastWait  = 500 * time.Millisecond // for the one at the stop
)

// Run flushes at each interval until ctx ends, and then a last time. The error
// is always nil: a server that is away is logged and tried again at the next
// flush.
func (s *Sender) Run(ctx context.Context) error {
	defer s.line.close()
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.flush(ctx, flushWait)
		case <-ctx.Done():
			s.flush(context.WithoutCancel(ctx), lastWait)
			return nil
		}
	}
}

// flush sends what there is, and tells when that begins to fail or to work
// again.
func (s *Sender) flush(ctx context.Context, wait time.Duration) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := s.send(within)
	switch {
	case err != nil && ctx.Err() != nil: // the stop cut it short; the last flush follows
	case err != nil && !s.away:
		s.away = true
		s.log.Warn("statistics are not taken; what is counted is sent when they are", "network", s.line.network, "server", s.line.address, "error", err)
	case err == nil && s.away:
		s.away = false
		s.log.Info("statistics are taken again", "network", s.line.network, "server", s.line.address)
	}
}

// send connects if it has to, sends what an earlier flush did not get off, and
// only then reads anew.
func (s *Sender) send(ctx context.Context) error {
	if err := s.line.open(ctx); err != nil {
		return err
	}
	if err := s.line.send(ctx); err != nil {
		return err
	}
	stats, _, err := s.reader.Read()
	if err != nil {
		err = fmt.Errorf("read metrics: %w", err)
	}
	s.line.pending = s.encoder.encode(s.line.pending[:0], stats)
	return errors.Join(err, s.line.send(ctx))
}
