package route

import (
	"bytes"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// pathRewrite is what becomes of a path: a new prefix, or substitutions. The
// query stays.
type pathRewrite struct {
	prefix   []byte // nil for none
	replaced int    // how many bytes of the path it replaces; negative is all
	regex    *matcher.Substitution
}

// pathRewrite reads the rewrites of an action at the path at, of which one at
// most may be set. An empty prefix is none.
func (p *parser) pathRewrite(prefix string, regex *matcherv3.RegexMatchAndSubstitute, replaced int, at strict.Path) pathRewrite {
	r := pathRewrite{replaced: replaced, regex: matcher.ParseSubstitution(regex, at.Field("regex_rewrite"), p.report)}
	if prefix != "" {
		r.prefix = []byte(prefix)
		if regex != nil {
			p.report.Add(at.Field("regex_rewrite"), "prefix_rewrite rewrites the path already")
		}
	}
	return r
}

// append appends what becomes of a path: one that begins with a slash, as a
// server wants it. It appends nothing if the path stays as it is, because no
// rewrite is wanted or nothing would be left.
func (p *pathRewrite) append(to, path []byte) []byte {
	bare := withoutQuery(path)
	query := path[len(bare):]
	begin, rest := p.prefix, []byte(nil)
	switch {
	case p.prefix != nil && p.replaced >= 0: // a filter may have made the path shorter
		rest = bare[min(p.replaced, len(bare)):]
	case p.prefix == nil && p.regex != nil:
		begin = p.regex.Replace(bare)
	}
	if len(begin) == 0 {
		return to
	}
	if begin[0] != '/' && string(begin) != "*" {
		to = append(to, '/')
	}
	return append(append(append(to, begin...), rest...), query...)
}

// hostRewrite is what becomes of a host: one of these, or it stays.
type hostRewrite struct {
	literal []byte                // nil for none
	header  string                // whose value it becomes; lower case, empty for none
	regex   *matcher.Substitution // of the path, which it becomes
	// weighted is what the weighted cluster makes of it before all that; empty
	// for nothing.
	weighted []byte
	// forwarded says that x-forwarded-host gets the old one.
	forwarded bool
}

func (p *parser) hostRewrite(m *routev3.RouteAction, at strict.Path) hostRewrite {
	h := hostRewrite{forwarded: m.GetAppendXForwardedHost()}
	switch s := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		h.literal = []byte(s.HostRewriteLiteral)
	case *routev3.RouteAction_HostRewriteHeader:
		h.header = lower(s.HostRewriteHeader)
	case *routev3.RouteAction_HostRewritePathRegex:
		h.regex = matcher.ParseSubstitution(s.HostRewritePathRegex, at.Field("host_rewrite_path_regex"), p.report)
	}
	return h
}

// Rewrite gives a request that is to be forwarded the host and the path that
// the route wants, and keeps the old ones in x-envoy-original-host and
// x-envoy-original-path. New texts are appended to scratch, which is returned
// and has to stay as it is for as long as the request is used. It allocates
// nothing beyond that unless a regular expression rewrites.
func (r *Route) Rewrite(request *message.Request, scratch []byte) []byte {
	if len(r.host.weighted) > 0 {
		request.Authority = r.host.weighted
	}
	switch h := &r.host; {
	case len(h.literal) > 0:
		h.replace(request, h.literal)
	case h.header != "":
		if value, ok := matcher.Value(request, h.header); ok && len(value) > 0 {
			h.replace(request, value)
		}
	case h.regex != nil:
		h.replace(request, h.regex.Replace(withoutQuery(request.Path)))
	}
	start := len(scratch)
	scratch = r.path.append(scratch, request.Path)
	if path := scratch[start:len(scratch):len(scratch)]; len(path) > 0 {
		setBytes(&request.Headers, "x-envoy-original-path", request.Path)
		request.Path = path
	}
	return scratch
}

// replace makes host the request's.
func (h *hostRewrite) replace(request *message.Request, host []byte) {
	old := request.Authority
	if h.forwarded && len(old) > 0 {
		appendForwardedHost(&request.Headers, old)
	}
	setBytes(&request.Headers, "x-envoy-original-host", old)
	request.Authority = host
}

// appendForwardedHost adds a host at the end of x-forwarded-host, unless it is
// there already.
func appendForwardedHost(h *message.Headers, host []byte) {
	const field = "x-forwarded-host"
	if !h.Has(field) {
		h.AddBytes(field, host)
		return
	}
	var list []byte
	for i := range h.Len() {
		if name, value := h.At(i); string(name) == field && len(value) > 0 {
			list = append(append(list, value...), ',')
		}
	}
	last := bytes.TrimSuffix(list, []byte{','})
	last = bytes.TrimSpace(last[bytes.LastIndexByte(last, ',')+1:])
	if !bytes.Equal(last, host) {
		setBytes(h, field, append(list, host...))
	}
}

func setBytes(h *message.Headers, name string, value []byte) {
	h.Remove(name)
	h.AddBytes(name, value)
}
