package v1

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/rest/rule"
)

// autoIP is how the address of a caller is found that does not know its own.
type autoIP struct {
	// hops is how many proxies of one's own stand in front: the address is the
	// one that the outermost saw, hops from the end of X-Forwarded-For. What
	// stands further left may be anybody's word. With 0 it is the connection's.
	hops int
	// ranges is where the address must lie.
	ranges []netip.Prefix
}

// find returns the address of the caller of r.
func (a *autoIP) find(r *http.Request) (netip.Addr, error) {
	ip, err := a.seen(r)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, p := range a.ranges {
		if p.Contains(ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s, where the caller was seen, is not in one of %v", ip, a.ranges)
}

// seen returns the address that the caller was seen at.
func (a *autoIP) seen(r *http.Request) (netip.Addr, error) {
	if a.hops == 0 {
		return remoteAddress(r)
	}
	forwardedFor := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	hops := strings.Split(forwardedFor, ",")
	if len(hops) < a.hops {
		return netip.Addr{}, fmt.Errorf("x-forwarded-for %q has fewer than %d hops", forwardedFor, a.hops)
	}
	ip, err := rule.Address(strings.TrimSpace(hops[len(hops)-a.hops]))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("hop %d from the end of x-forwarded-for %q: %w", a.hops, forwardedFor, err)
	}
	return ip, nil
}

// remoteAddress is where the connection of r comes from.
func remoteAddress(r *http.Request) (netip.Addr, error) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the caller's address %q: %w", r.RemoteAddr, err)
	}
	return rule.Address(remote.Addr().WithZone("").String())
}
