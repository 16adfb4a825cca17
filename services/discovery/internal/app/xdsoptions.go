package app

import (
	"time"

	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// XDSOptions are the settings of xDS.
type XDSOptions struct {
	DebounceQuiet   time.Duration `envconfig:"DISCOVERY_DEBOUNCE_QUIET" default:"100ms" desc:"how long a service must not have changed before xDS clients hear of it"`
	DebounceLeaving time.Duration `envconfig:"DISCOVERY_DEBOUNCE_LEAVING" default:"200ms" desc:"the same for a service that has fewer hosts than before, whose places others may be about to take"`
	DebounceEmpty   time.Duration `envconfig:"DISCOVERY_DEBOUNCE_EMPTY" default:"1s" desc:"how long a service is shown with its last host after that went, which may be about to register at another replica: to xDS clients by every replica, in lists by all but the one at which it deregistered; while Redis is away, until it has answered for as long; a minute at most"`
	DebounceLongest time.Duration `envconfig:"DISCOVERY_DEBOUNCE_LONGEST" default:"900ms" desc:"how long they wait at most while it goes on changing and has hosts"`

	XDSMaxStreams     int           `envconfig:"DISCOVERY_XDS_MAX_STREAMS" default:"10000" desc:"xDS streams, and calls of REST-JSON, served at once; more are refused"`
	XDSStreamsPerNode int           `envconfig:"DISCOVERY_XDS_STREAMS_PER_NODE" default:"0" desc:"how many of them may be of one node id; 0: any number, for clients that share one"`
	XDSMaxNames       int           `envconfig:"DISCOVERY_XDS_MAX_NAMES" default:"50000" desc:"names of resources that one stream may subscribe to; with more it ends"`
	XDSNamesPerNode   int           `envconfig:"DISCOVERY_XDS_NAMES_PER_NODE" default:"0" desc:"names that all streams of one node id may subscribe to together; 0: any number, for clients that share one"`
	XDSRequestRate    int           `envconfig:"DISCOVERY_XDS_REQUEST_RATE" default:"1000" desc:"requests per second that are read from one stream, as many at once after a rest; 0: as many as come"`
	XDSFirstAnswers   int           `envconfig:"DISCOVERY_XDS_FIRST_ANSWERS" default:"2000" desc:"streams that get their first response each second, as many at once after a rest; the others wait; 0: all at once"`
	XDSMaxAge         time.Duration `envconfig:"DISCOVERY_XDS_MAX_AGE" default:"30m" desc:"age at which a stream is ended, or up to a fifth later, so that clients spread over replicas, 10s at least; its connection takes no new streams from shortly before that; 0 for never"`
	XDSSlowAfter      time.Duration `envconfig:"DISCOVERY_XDS_SLOW_AFTER" default:"30s" desc:"how long a response is unanswered before its client counts as slow, 1s at least"`
	XDSDropAfter      time.Duration `envconfig:"DISCOVERY_XDS_DROP_AFTER" default:"5m" desc:"how long a response is unanswered before its stream is ended; 0 for never"`
	XDSKeepalive      time.Duration `envconfig:"DISCOVERY_XDS_KEEPALIVE" default:"30s" desc:"how often an xDS client is asked whether it is there"`
	XDSPollWait       time.Duration `envconfig:"DISCOVERY_XDS_POLL_WAIT" default:"0s" desc:"how long a call of REST-JSON waits for something that the client does not have; below the client's request_timeout, which is 1s unless it says otherwise"`
}

// leastAge is the least age at which streams end: with a lower one clients do little
// but connect.
const leastAge = 10 * time.Second

// longestEmpty is the longest that a last host that went is shown: all that while
// clients try it in vain, if it is not about to be back.
const longestEmpty = time.Minute

// check reports each fault of a value that its type alone does not rule out.
func (o XDSOptions) check(fault func(format string, args ...any)) {
	setting.AtLeast("DISCOVERY_XDS_MAX_STREAMS", o.XDSMaxStreams, 1, fault)
	setting.AtLeast("DISCOVERY_XDS_MAX_NAMES", o.XDSMaxNames, 1, fault)
	setting.AtLeast("DISCOVERY_XDS_STREAMS_PER_NODE", o.XDSStreamsPerNode, 0, fault)
	setting.AtLeast("DISCOVERY_XDS_NAMES_PER_NODE", o.XDSNamesPerNode, 0, fault)
	setting.AtLeast("DISCOVERY_XDS_REQUEST_RATE", o.XDSRequestRate, 0, fault)
	setting.AtLeast("DISCOVERY_XDS_FIRST_ANSWERS", o.XDSFirstAnswers, 0, fault)
	setting.AtLeast("DISCOVERY_XDS_KEEPALIVE", o.XDSKeepalive, time.Second, fault)
	// Streams are looked at each second.
	setting.AtLeast("DISCOVERY_XDS_SLOW_AFTER", o.XDSSlowAfter, time.Second, fault)
	orOff("DISCOVERY_XDS_MAX_AGE", o.XDSMaxAge, leastAge, fault)
	if o.DebounceLongest < o.DebounceQuiet {
		fault("%v: below %v", setting.Variable("DISCOVERY_DEBOUNCE_LONGEST", o.DebounceLongest), setting.Variable("DISCOVERY_DEBOUNCE_QUIET", o.DebounceQuiet))
	}
	if o.DebounceEmpty > longestEmpty {
		fault("%v: above %v", setting.Variable("DISCOVERY_DEBOUNCE_EMPTY", o.DebounceEmpty), longestEmpty)
	}
	if o.XDSDropAfter != 0 && o.XDSDropAfter < o.XDSSlowAfter {
		fault("%v: below %v", setting.Variable("DISCOVERY_XDS_DROP_AFTER", o.XDSDropAfter), setting.Variable("DISCOVERY_XDS_SLOW_AFTER", o.XDSSlowAfter))
	}
	setting.AtLeast("DISCOVERY_DEBOUNCE_QUIET", o.DebounceQuiet, 0, fault)
	setting.AtLeast("DISCOVERY_DEBOUNCE_LEAVING", o.DebounceLeaving, 0, fault)
	setting.AtLeast("DISCOVERY_DEBOUNCE_EMPTY", o.DebounceEmpty, 0, fault)
	setting.AtLeast("DISCOVERY_XDS_POLL_WAIT", o.XDSPollWait, 0, fault)
}

// debounce is how long changes wait for others.
func (o XDSOptions) debounce() xds.Debounce {
	return xds.Debounce{Quiet: o.DebounceQuiet, Leaving: o.DebounceLeaving, Empty: o.DebounceEmpty, Longest: o.DebounceLongest}
}

// limits bound what clients take of the server.
func (o XDSOptions) limits() xds.Limits {
	return xds.Limits{
		Streams:        o.XDSMaxStreams,
		StreamsPerNode: o.XDSStreamsPerNode,
		Names:          o.XDSMaxNames,
		NamesPerNode:   o.XDSNamesPerNode,
		RequestRate:    o.XDSRequestRate,
		FirstAnswers:   o.XDSFirstAnswers,
		MaxAge:         o.XDSMaxAge,
		SlowAfter:      o.XDSSlowAfter,
		DropAfter:      o.XDSDropAfter,
		Wait:           o.XDSPollWait,
	}
}
