package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// namedLocally refuses requests to a loopback listener whose Host is neither an
// address nor localhost. A page of anyone's in a browser of this machine could
// have its own name stand for 127.0.0.1 and so read what the listener shows;
// whoever means the listener has no other name for it. Listeners at other
// addresses may have names, and are let be.
func namedLocally(at net.Addr, next http.Handler) http.Handler {
	if tcp, ok := at.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocalName(r.Host) {
			http.Error(w, fmt.Sprintf("this listener is asked by an address or as localhost, not as %.100q", r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// present has no answer kept by caches, nor taken for another kind than it says: the
// headers are those of Envoy's admin listener.
func present(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache, max-age=0")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// allowed refuses requests to paths that are not allowed. What is looked at is what
// the mux finds a handler by, so that no spelling of a path gets around it.
func allowed(allow func(target string) bool, next http.Handler) http.Handler {
	if allow == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := r.URL.Path
		if r.URL.RawQuery != "" || r.URL.ForceQuery {
			target += "?" + r.URL.RawQuery
		}
		if !allow(target) {
			http.Error(w, fmt.Sprintf("request to path %.200q not allowed", target), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocalName says whether the Host of a request, with or without a port, is an
// address or localhost. HTTP/1.0 need not have one.
func isLocalName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	_, err := netip.ParseAddr(name)
	return err == nil || name == "" || strings.EqualFold(name, "localhost")
}
