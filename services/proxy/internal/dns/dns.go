// Package dns looks up the names of upstream hosts, again and again, and tells
// each answer. A cluster whose endpoints are names calls it and makes hosts of
// the answers; it knows neither hosts nor clusters, and keeps no answer.
package dns

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
)

// Resolver looks up the addresses of a name; network is "ip4" or "ip6". That
// there are none is a net.DNSError which says so; any other error is no answer.
// *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error)
}

// Follow looks up a name until ctx ends, and calls answer after each lookup:
// with its addresses, none if the name has none, or with the error of a lookup
// that had no answer. A name that is an address is its own answer.
func (c *Config) Follow(ctx context.Context, resolver Resolver, name string, answer func([]netip.Addr, error)) {
	failures := 0
	for {
		addresses, err := c.lookUp(ctx, resolver, name)
		if ctx.Err() != nil {
			return
		}
		answer(addresses, err)
		wait := c.refresh
		if err != nil {
			wait = c.afterFailure(failures)
			failures++
		} else {
			failures = 0
			if c.jitter > 0 {
				wait = coreconfig.Sum(wait, rand.N(c.jitter))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// afterFailure is the time to the next lookup after that many failures before
// the present one: from the base to that doubled so often, at random, since all
// proxies may have failed at the same moment.
func (c *Config) afterFailure(before int) time.Duration {
	longest := c.failureBase
	for ; before > 0 && longest < c.failureMost; before-- {
		longest *= 2
	}
	longest = min(longest, c.failureMost)
	if longest <= c.failureBase {
		return c.failureBase
	}
	return c.failureBase + rand.N(longest-c.failureBase)
}

// lookUp asks for the addresses of a name: none if it has none. The error is of
// a lookup that had no answer.
func (c *Config) lookUp(ctx context.Context, resolver Resolver, name string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	var found []netip.Addr
	var failed error
	for _, family := range c.families {
		addresses, err := resolver.LookupNetIP(ctx, family, name)
		var known *net.DNSError
		if err != nil && (!errors.As(err, &known) || !known.IsNotFound) {
			failed = err
		}
		for _, ip := range addresses {
			found = append(found, ip.Unmap())
		}
		if len(found) > 0 && !c.all {
			break
		}
	}
	if len(found) > 0 {
		failed = nil
	}
	if !c.Logical { // or the order says which is first
		slices.SortFunc(found, netip.Addr.Compare)
	}
	return found, failed
}
