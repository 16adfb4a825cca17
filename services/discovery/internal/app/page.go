package app

import (
	"net"
	"net/http"
	"net/netip"
)

// pageElsewhere leads from the admin listener to the page, which is on another
// one: at its address, or where that is any, at the name by which the caller
// has reached this one.
func pageElsewhere(scheme, listener string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := listener
		if address, err := netip.ParseAddrPort(listener); err == nil && address.Addr().IsUnspecified() {
			host := r.Host
			if name, _, err := net.SplitHostPort(r.Host); err == nil {
				host = name
			}
			_, port, _ := net.SplitHostPort(listener)
			at = net.JoinHostPort(host, port)
		}
		http.Redirect(w, r, scheme+"://"+at+"/", http.StatusFound)
	})
}
