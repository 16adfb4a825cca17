package v1

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
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
	remote, _ := netip.ParseAddrPort(r.RemoteAddr) // else it has no address
	forwardedFor := r.Header["X-Forwarded-For"]
	ip := auth.ForwardedFor(forwardedFor, remote.Addr(), a.hops)
	if !ip.IsValid() {
		if a.hops == 0 {
			return ip, errors.New("it is not known where the caller was seen")
		}
		return ip, fmt.Errorf("x-forwarded-for %q has no address at place %d from its end", strings.Join(forwardedFor, ", "), a.hops)
	}
	for _, p := range a.ranges {
		if p.Contains(ip) {
			return rule.Address(ip.String())
		}
	}
	return netip.Addr{}, fmt.Errorf("%s, where the caller was seen, is not in one of %v", ip, a.ranges)
}
