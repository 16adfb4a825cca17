package app

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// logged tells the access logs of the admin listener of each request that next
// answered.
func (a *App) logged(next http.Handler) http.Handler {
	if len(a.adminLogs) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := requestFacts(r)
		counted := &countedResponse{ResponseWriter: w, facts: f, bodiless: r.Method == http.MethodHead}
		r.Body = &countedBody{r.Body, f}
		defer func() { // also of a handler that breaks off
			f.ResponseCode = cmp.Or(f.ResponseCode, http.StatusOK)
			f.Response = &message.Response{Status: f.ResponseCode, Headers: headersOf(counted.Header())}
			f.Mark(format.SendEnd, time.Now())
			values := a.runtime.Snapshot()
			for _, l := range a.adminLogs {
				l.Write(f, values)
			}
		}()
		next.ServeHTTP(counted, r)
	})
}

// requestFacts are those of a request whose head was read just now.
func requestFacts(r *http.Request) *format.Facts {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	connection := &format.Connection{Peer: addressOf(r.RemoteAddr)}
	if local != nil {
		connection.Local = addressOf(local.String())
	}
	return &format.Facts{
		Start: time.Now(), Connection: connection, Remote: connection.Peer, Protocol: r.Proto,
		Details: "admin_filter_response", // as Envoy's admin listener has it
		Request: &message.Request{
			Method: []byte(r.Method), Path: []byte(r.RequestURI), Authority: []byte(r.Host), Headers: headersOf(r.Header),
		},
	}
}

// addressOf is one of IP, not valid for another.
func addressOf(text string) netip.AddrPort {
	pair, _ := netip.ParseAddrPort(text)
	return netip.AddrPortFrom(pair.Addr().Unmap(), pair.Port())
}

func headersOf(fields http.Header) (h message.Headers) {
	for name, values := range fields {
		for _, value := range values {
			h.Add(strings.ToLower(name), value)
		}
	}
	return h
}

// countedBody counts a request's body.
type countedBody struct {
	io.ReadCloser
	facts *format.Facts
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.facts.AddReceived(n)
	return n, err
}

// countedResponse notes the status and counts the body of a response.
type countedResponse struct {
	http.ResponseWriter
	facts    *format.Facts
	bodiless bool // whatever is written
}

// WriteHeader implements http.ResponseWriter. A second final status counts for nothing.
func (w *countedResponse) WriteHeader(status int) {
	if w.facts.ResponseCode != 0 {
		return
	}
	if status >= 200 {
		w.facts.ResponseCode = status
		w.facts.Mark(format.SendBegin, time.Now())
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *countedResponse) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	if !w.bodiless {
		w.facts.AddSent(n)
	}
	return n, err
}

// Unwrap lets http.ResponseController find what the server's own writer can.
func (w *countedResponse) Unwrap() http.ResponseWriter { return w.ResponseWriter }
