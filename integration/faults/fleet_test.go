package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// ttl is how long most hosts are known after a beat, beatEvery the time between its
	// beats, and callTimeout how long one waits for an answer.
	ttl         = 5 * time.Second
	beatEvery   = 800 * time.Millisecond
	callTimeout = time.Second
	// carriers beat for the hosts, each for as many.
	carriers = 32
	// formsOf is of how many carriers one beats by the forms of v1.
	formsOf = 16
)

// serviceSizes is how many hosts services have, taken in turns.
var serviceSizes = []int{1, 2, 3, 5, 9, 40}

const services = 204

// routing is which replica a carrier calls.
type routing int

const (
	// byFailure is one replica, until a call to it fails: then the next one.
	byFailure routing = iota
	// byTurns is each in turn, as a load balancer does, and the next if it fails.
	byTurns
	// byHome is one replica whatever comes of it.
	byHome
	// byStream is byFailure over streams of heartbeats, whose loss ends the hosts on
	// them where a replica lets it.
	byStream
)

// host is one host of the fleet.
type host struct {
	index   int
	service string
	id      string
	address netip.AddrPort
	carrier *carrier
	lease   string // of its carrier's goroutine alone
	late    bool   // it registers only when that is asked for
	// Times by the test's clock, in nanoseconds, 0 before: registered is when it
	// first was, died when it ceased to beat for good.
	registered, died atomic.Int64
}

// fleet is the hosts of all services. They register by PUT, beat in bulk or by
// streams, and register again when told to; some do all of that by the form of v1.
type fleet struct {
	clock     func() time.Duration
	ttl       time.Duration // of every host
	hosts     []*host
	byID      map[string]*host
	byAddress map[netip.AddrPort]*host
	byService map[string][]*host
	names     []string // of services
	carriers  []*carrier

	late atomic.Bool // the late hosts register too

	// taken is how many calls each replica took, by address; again how many hosts
	// were told that they are not known.
	taken map[string]*atomic.Int64
	again atomic.Int64

	mu     sync.Mutex
	faults []string // answers that no host should get
}

// carrier beats for some hosts, over connections of its own.
type carrier struct {
	fleet    *fleet
	hosts    []*host
	client   *http.Client
	forms    bool     // they beat by the form of v1
	replicas []string // addresses
	streams  *streams // nil if none are used
	routing  routing
	home     int // the replica that is called first
	next     int // the one that is called next
}

// newFleet makes hosts that are yet to be started. replicas are addresses of REST,
// overGRPC those of the same replicas over gRPC.
func newFleet(clock func() time.Duration, replicas, overGRPC []string, how routing, hostTTL time.Duration) *fleet {
	f := &fleet{
		clock: clock, ttl: hostTTL, byID: map[string]*host{}, byAddress: map[netip.AddrPort]*host{}, byService: map[string][]*host{},
		taken: map[string]*atomic.Int64{},
	}
	for _, r := range replicas {
		f.taken[r] = &atomic.Int64{}
	}
	for n := range carriers {
		f.carriers = append(f.carriers, &carrier{
			fleet: f, replicas: replicas, routing: how, next: n % len(replicas), home: n % len(replicas),
			client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1}},
			forms:  n%formsOf == formsOf-1,
		})
		if c := f.carriers[n]; how == byStream && !c.forms {
			c.streams = &streams{addresses: overGRPC}
		}
	}
	for n := range services {
		service := fmt.Sprintf("service-%03d", n)
		f.names = append(f.names, service)
		for i := range serviceSizes[n%len(serviceSizes)] {
			f.add(service).late = i == 39
		}
	}
	return f
}

func (f *fleet) add(service string) *host {
	n := len(f.hosts)
	c := f.carriers[n%len(f.carriers)]
	h := &host{
		index: n, service: service, id: "i-" + strconv.Itoa(n), carrier: c,
		address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80),
	}
	if c.forms {
		h.id = h.address.String() // as v1 names it
	}
	f.hosts = append(f.hosts, h)
	f.byID[h.id], f.byAddress[h.address] = h, h
	f.byService[service] = append(f.byService[service], h)
	c.hosts = append(c.hosts, h)
	return h
}

// run has all hosts register and beat until the test ends, or stop is called.
func (f *fleet) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for n, c := range f.carriers {
		// Ends with ctx; stop waits for it.
		running.Go(func() { c.run(ctx, time.Duration(n)*beatEvery/carriers) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// beats says whether a host is one that beats, or tries to.
func (f *fleet) beats(h *host) bool { return h.died.Load() == 0 && (!h.late || f.late.Load()) }

// awaitAll waits until all hosts that beat are registered.
func (f *fleet) awaitAll(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, h := range f.hosts {
			if f.beats(h) && h.registered.Load() == 0 {
				return false
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond, "all hosts are registered")
}

// kill has a host cease to beat.
func (f *fleet) kill(h *host) { h.died.Store(int64(f.clock())) }

// wrong notes an answer that no host should get.
func (f *fleet) wrong(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (c *carrier) run(ctx context.Context, after time.Duration) {
	defer c.client.CloseIdleConnections()
	if c.streams != nil {
		defer c.streams.close()
	}
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	first := time.NewTimer(after)
	defer first.Stop()
	select {
	case <-first.C:
	case <-ctx.Done():
		return
	}
	for {
		c.beat(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// beat sends one beat of all living hosts to the first replica that takes it, and
// registers those that are not known there.
func (c *carrier) beat(ctx context.Context) {
	for range c.replicas {
		if c.routing == byTurns {
			c.next = (c.next + 1) % len(c.replicas)
		}
		if c.beatAt(ctx, c.replicas[c.next]) || c.routing == byHome || ctx.Err() != nil {
			return
		}
		if c.routing == byFailure || c.routing == byStream {
			c.next = (c.next + 1) % len(c.replicas)
		}
	}
}

// beatAt is beat at one replica. It reports whether that took all.
func (c *carrier) beatAt(ctx context.Context, replica string) bool {
	if c.forms {
		return c.beatByForms(ctx, replica)
	}
	var leases []string
	of := map[string]*host{}
	for _, h := range c.hosts {
		if c.fleet.beats(h) && h.lease != "" {
			leases = append(leases, h.lease)
			of[h.lease] = h
		}
	}
	unknown, ok := c.beatFor(ctx, replica, leases)
	if !ok {
		return false
	}
	for _, lease := range unknown {
		of[lease].lease = ""
		c.fleet.again.Add(1)
	}
	began := time.Now()
	for _, h := range c.hosts {
		if time.Since(began) > beatEvery {
			return true // the others are to beat first
		}
		if c.fleet.beats(h) && h.lease == "" && !c.register(ctx, replica, h) {
			return false
		}
	}
	return true
}

// beatFor beats for leases at one replica, in bulk or over a stream. ok is false if
// that did not take it.
func (c *carrier) beatFor(ctx context.Context, replica string, leases []string) (unknown []string, ok bool) {
	if c.streams != nil {
		unknown, err := c.streams.beat(ctx, slices.Index(c.replicas, replica), leases)
		if err == nil {
			c.fleet.taken[replica].Add(1)
		}
		return unknown, err == nil
	}
	if len(leases) == 0 {
		return nil, true
	}
	var answer struct{ Unknown []string }
	ok = c.call(ctx, http.MethodPost, replica, "/v2/heartbeats", map[string]any{"leases": leases}, &answer)
	return answer.Unknown, ok
}

// beatByForms registers every living host by the form of v1, which is its beat.
func (c *carrier) beatByForms(ctx context.Context, replica string) bool {
	for _, h := range c.hosts {
		if !c.fleet.beats(h) {
			continue
		}
		form := url.Values{
			"ip": {h.address.Addr().String()}, "port": {strconv.Itoa(int(h.address.Port()))}, "revision": {"r1"},
			"tags": {`{"az":"eu-1a","region":"eu-1","instance_id":"` + h.id + `"}`}, "ttl": {strconv.Itoa(int(c.fleet.ttl / time.Second))},
		}
		if !c.send(ctx, http.MethodPost, replica, "/v1/registration/"+h.service, "application/x-www-form-urlencoded", form.Encode(), &struct{}{}) {
			return false
		}
		h.registered.CompareAndSwap(0, int64(c.fleet.clock()))
	}
	return true
}

// register registers a host.
func (c *carrier) register(ctx context.Context, replica string, h *host) bool {
	var answer struct{ Lease string }
	ok := c.call(ctx, http.MethodPut, replica, "/v2/services/"+h.service+"/hosts/"+h.id, map[string]any{
		"address": h.address.Addr().String(), "port": h.address.Port(), "zone": "eu-1a", "ttl": c.fleet.ttl.String(),
	}, &answer)
	if ok {
		h.lease = answer.Lease
		h.registered.CompareAndSwap(0, int64(c.fleet.clock()))
	}
	return ok
}

// call sends one call with a body of JSON, as send does.
func (c *carrier) call(ctx context.Context, method, replica, target string, body, answer any) bool {
	text, err := json.Marshal(body)
	if err != nil {
		c.fleet.wrong("write %v: %v", body, err)
		return false
	}
	return c.send(ctx, method, replica, target, "application/json", string(text), answer)
}

// send sends one call, and reads the answer of one that was taken. A replica that
// does not answer, or is not ready, is no fault.
func (c *carrier) send(ctx context.Context, method, replica, target, contentType, body string, answer any) bool {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+replica+target, strings.NewReader(body))
	if err != nil {
		c.fleet.wrong("%s %s: %v", method, target, err)
		return false
	}
	request.Header.Set("Content-Type", contentType)
	response, err := c.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil || response.StatusCode == http.StatusServiceUnavailable:
		return false
	case response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated:
		c.fleet.wrong("%s %s: %d %s", method, target, response.StatusCode, strings.TrimSpace(string(text)))
		return false
	}
	if err := json.Unmarshal(text, answer); err != nil {
		c.fleet.wrong("%s %s: read %q: %v", method, target, text, err)
		return false
	}
	c.fleet.taken[replica].Add(1)
	return true
}
