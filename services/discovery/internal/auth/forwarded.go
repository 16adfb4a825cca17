package auth

import (
	"net/netip"
	"slices"
	"strings"
)

// ForwardedFor is the address of whoever called the outermost of so many
// proxies as stand in front: remote, the other end of the connection, for 0
// hops; the last that the lines of X-Forwarded-For hold for 1, the one before
// it for 2, and so on. Whatever stands before that was written by strangers.
// The address is IPv4 where it can be, and has no zone. It is the zero one where
// the header has too little, or no address there.
//
// It is what rest/v1 takes auto_ip from, with hops of its own, and what a
// Policy takes the address of a Caller from.
func ForwardedFor(header []string, remote netip.Addr, hops int) netip.Addr {
	if hops <= 0 {
		return plain(remote)
	}
	for _, line := range slices.Backward(header) {
		for {
			comma := strings.LastIndexByte(line, ',')
			hops--
			if hops == 0 {
				return readForwarded(line[comma+1:])
			}
			if comma < 0 {
				break
			}
			line = line[:comma]
		}
	}
	return netip.Addr{}
}

// readForwarded reads an element of X-Forwarded-For, to which some proxies add
// a port. It returns the zero address for what is none.
func readForwarded(text string) netip.Addr {
	text = strings.TrimSpace(text)
	if a, err := netip.ParseAddr(text); err == nil {
		return plain(a)
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return plain(a.Addr())
	}
	return netip.Addr{}
}

// plain is an address in the one form in which addresses are compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
