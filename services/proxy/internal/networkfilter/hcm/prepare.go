package hcm

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/normalize"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// refusal is why a request does not get to the filters.
type refusal struct {
	status   int
	text     string
	location string // of a redirect
	details  string // RESPONSE_CODE_DETAILS
	// malformed says that the request broke the protocol, and what to do with the
	// connection is for stream_error_on_invalid_http_message to say.
	malformed bool
	flags     format.Flags
}

// fill makes the response.
func (r *refusal) fill(s *stream.Stream) {
	reply := httpfilter.Reply{Status: r.status, Body: r.text}
	if r.location != "" {
		reply.Headers = []httpfilter.Header{{Name: "location", Value: r.location}}
	}
	if r.details != "" {
		s.Facts.Details = r.details
	}
	s.Facts.Flags |= r.flags
	reply.Fill(s)
}

func malformed(details, text string) *refusal {
	return &refusal{status: 400, details: details, text: text + "\n", malformed: true, flags: format.DownstreamProtocolError}
}

// hostless refuses a request without a host: it is well-formed, and serves nobody.
func hostless() *refusal {
	return &refusal{status: 400, details: "missing_host_header", text: "no host\n", malformed: true}
}

// prepare makes the request's head one that filters and an upstream may see:
// without what belongs to this hop, and mended. It returns the filters for it,
// or why it is refused.
func (c *connection) prepare() (*httpfilter.Chain, *refusal) {
	m, s := c.manager, &c.stream
	if len(s.Request.Authority) == 0 {
		return m.chain, hostless()
	}
	chain, refused := c.hopByHop()
	if refused == nil {
		refused = m.mend(s, c.peer, c.port)
	}
	if refused != nil && refused.flags != 0 {
		m.stats.protocolErrors.Inc()
	}
	if m.proxyContinue && !c.reader.HTTP10() {
		s.Interim = c.interim
	}
	return chain, refused
}

// mend brings a request's path and host into their normal form, and puts in what
// we know of the client, whose end of the connection is peer; port is that of
// ours. It is the same for every version of HTTP.
func (m *manager) mend(s *stream.Stream, peer netip.Addr, port int) *refusal {
	r := &s.Request
	if bytes.IndexByte(r.Path, '#') >= 0 {
		return m.refusePath("a path with a fragment")
	}
	path, outcome := m.paths.Path(r.Path)
	switch outcome {
	case normalize.Refuse:
		return m.refusePath("a path that cannot be normalised")
	case normalize.Redirect:
		m.stats.redirectedPaths.Inc()
		return &refusal{status: 307, details: "path_normalization_failed", location: string(path)}
	}
	r.Path = path
	hosts := m.hosts
	if m.stripListenerPort {
		hosts.StripPort = port
	}
	r.Authority = hosts.Host(r.Authority)
	s.ClientAddress = m.identity.Mend(&r.Headers, peer, false)
	if m.proxyContinue && r.ExpectContinue {
		r.Headers.Add("expect", "100-continue")
		r.ExpectContinue = false
	}
	return nil
}

func (m *manager) refusePath(why string) *refusal {
	m.stats.badPaths.Inc()
	return &refusal{status: 400, details: "path_normalization_failed", text: why + "\n", malformed: true}
}

// hopByHop takes out the fields that belong to one connection (RFC 9110
// §7.6.1): the known ones and those that Connection names. It refuses a
// Connection that names a field which others rely on, and an upgrade with a body; any
// other becomes the request's Upgrade, which upgraded refuses if it is not configured.
func (c *connection) hopByHop() (*httpfilter.Chain, *refusal) {
	m, r := c.manager, &c.stream.Request
	h := &r.Headers
	chain := m.chain
	names := named(h)
	if len(names) > mostNamed {
		return chain, malformed("http1.connection_header_rejected", "connection names too many fields")
	}
	for _, name := range names {
		switch {
		case name == "upgrade":
			protocol, ok := h.Get("upgrade")
			if !ok || c.reader.HTTP10() || bytes.EqualFold(protocol, []byte("h2c")) { // RFC 9110 §7.8
				continue
			}
			if len(r.Upgrade) > 0 { // Connection says so twice
				continue
			}
			switch {
			case len(protocol) == 0: // none, and what follows is no tunnel's
				return chain, m.refuseUpgrade("the upgrade field is empty")
			case r.Body != nil && !m.mayUpgrade(protocol):
				return chain, m.refuseUpgrade(notConfigured(protocol))
			case r.Body != nil:
				return chain, malformed("upgrade_failed", "an upgrade of a request with a body")
			}
			r.Upgrade = protocol
			r.Body, r.BodyLength, r.ExpectContinue = c.reader.Tunnel(), message.Unknown, false
			h.Remove("content-length")
		case protected(name):
			return chain, malformed("http1.connection_header_rejected", "connection names "+name)
		default:
			h.Remove(name)
		}
	}
	h.Keep(func(name, _ []byte) bool { return !hopByHop(name) })
	if h.Has("te") {
		trailers := takesTrailers(h)
		if h.Remove("te"); trailers {
			h.Add("te", "trailers")
		}
	}
	return chain, nil
}

// takesTrailers says whether te lists trailers, the one thing of it that goes on
// (RFC 9110 §10.1.4).
func takesTrailers(h *message.Headers) bool {
	for i := range h.Len() {
		name, value := h.At(i)
		if string(name) != "te" {
			continue
		}
		for part := range bytes.SplitSeq(value, []byte(",")) {
			if bytes.EqualFold(bytes.TrimSpace(part), []byte("trailers")) {
				return true
			}
		}
	}
	return false
}

// mostNamed is how many fields Connection may name, as in Envoy.
const mostNamed = 9

// plainConnection says whether Connection says nothing that concerns others,
// as is nearly always so.
func plainConnection(value []byte) bool {
	return bytes.EqualFold(value, []byte("keep-alive")) || bytes.EqualFold(value, []byte("close"))
}

// named are the fields that Connection names, in lower case, less the options
// that are no fields.
func named(h *message.Headers) []string {
	var names []string
	for i := range h.Len() {
		name, value := h.At(i)
		if string(name) != "connection" || plainConnection(value) {
			continue
		}
		for token := range strings.SplitSeq(string(value), ",") {
			switch token = strings.ToLower(strings.TrimSpace(token)); token {
			case "", "close", "keep-alive", "te":
			default:
				names = append(names, token)
			}
		}
	}
	return names
}

// protected says whether others rely on a field, so that Connection cannot take
// it away.
func protected(name string) bool {
	switch name {
	case "host", "content-length", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host":
		return true
	}
	return strings.HasPrefix(name, ":")
}

// hopByHop says whether a field belongs to one connection.
func hopByHop(name []byte) bool {
	switch string(name) {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings":
		return true
	}
	return false
}
