package route

import (
	"bytes"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// pathRewrite is what becomes of a path: a new prefix, substitutions, or what a
// format makes. The query stays.
type pathRewrite struct {
	prefix   []byte // nil for none
	replaced int    // how many bytes of the path it replaces; negative is all
	regex    *matcher.Substitution
	format   *format.Template // nil for none
}

// pathRewrites are the fields of actions that rewrite paths.
type pathRewrites interface {
	GetPrefixRewrite() string
	GetRegexRewrite() *matcherv3.RegexMatchAndSubstitute
	GetPathRewrite() string
}

// pathRewrite reads the rewrites of an action at the path at, of which one at
// most may be set. An empty prefix or format is none.
func (p *parser) pathRewrite(m pathRewrites, replaced int, at strict.Path) pathRewrite {
	r := pathRewrite{replaced: replaced, regex: matcher.ParseSubstitution(m.GetRegexRewrite(), at.Field("regex_rewrite"), p.report)}
	if prefix := m.GetPrefixRewrite(); prefix != "" {
		r.prefix = escapePath([]byte(prefix))
		if r.regex != nil {
			p.report.Add(at.Field("regex_rewrite"), "prefix_rewrite rewrites the path already")
		}
	}
	if text := m.GetPathRewrite(); text != "" {
		r.format = p.format(text, format.Header, at.Field("path_rewrite"))
		if r.regex != nil || r.prefix != nil {
			p.report.Add(at.Field("path_rewrite"), "prefix_rewrite or regex_rewrite rewrites the path already")
		}
	}
	return r
}

// format reads the format of a path or a host at the path at.
func (p *parser) format(text string, style format.Style, at strict.Path) *format.Template {
	t, err := format.Parse(text, style)
	if err != nil {
		p.report.Add(at, "format %q: %v", text, err)
	}
	return t
}

// append appends what becomes of the path of a request of which f tells: one that
// begins with a slash, as a server wants it. It appends nothing if the path stays as it
// is, because no rewrite is wanted or nothing would be left. What would end a path within
// a request's line is %-encoded.
func (p *pathRewrite) append(to, path []byte, f *format.Facts) []byte {
	bare := withoutQuery(path)
	query := path[len(bare):]
	begin, rest := p.prefix, []byte(nil)
	switch {
	case p.prefix != nil && p.replaced >= 0: // a filter may have made the path shorter
		rest = bare[min(p.replaced, len(bare)):]
	case p.prefix == nil && p.regex != nil:
		begin = escapePath(p.regex.Replace(bare))
	case p.format != nil:
		begin = escapePath(p.format.Append(nil, f))
	}
	if len(begin) == 0 {
		return to
	}
	if begin[0] != '/' && string(begin) != "*" {
		to = append(to, '/')
	}
	return append(append(append(to, begin...), rest...), query...)
}

// escapePath makes text, which may hold values of the client's, fit for a path: what
// would end it within a request's line is %-encoded.
func escapePath(text []byte) []byte {
	const digits = "0123456789ABCDEF"
	breaks := func(c byte) bool { return c <= ' ' || c == '#' || c >= 0x7f }
	if !slices.ContainsFunc(text, breaks) {
		return text
	}
	var escaped []byte
	for _, c := range text {
		if breaks(c) {
			escaped = append(escaped, '%', digits[c>>4], digits[c&15])
		} else {
			escaped = append(escaped, c)
		}
	}
	return escaped
}

// hostRewrite is what becomes of a host: one of these, or it stays.
type hostRewrite struct {
	literal []byte                // nil for none
	header  string                // whose value it becomes; lower case, empty for none
	regex   *matcher.Substitution // of the path, which it becomes
	format  *format.Template      // nil for none
	// auto says that it becomes the name of the upstream host that is picked:
	// RewriteHost.
	auto bool
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
		h.literal = p.host(s.HostRewriteLiteral, at.Field("host_rewrite_literal"))
	case *routev3.RouteAction_HostRewriteHeader:
		h.header = matcher.ParseName(s.HostRewriteHeader, at.Field("host_rewrite_header"), p.report)
	case *routev3.RouteAction_HostRewritePathRegex:
		h.regex = matcher.ParseSubstitution(s.HostRewritePathRegex, at.Field("host_rewrite_path_regex"), p.report)
	case *routev3.RouteAction_HostRewrite:
		// What is missing is "-" in a host, as in Envoy, which leaves it out of a path.
		h.format = p.format(s.HostRewrite, format.Log, at.Field("host_rewrite"))
	case *routev3.RouteAction_AutoHostRewrite:
		h.auto = s.AutoHostRewrite.GetValue()
	}
	return h
}

// host reads a host, which may be empty, at the path at.
func (p *parser) host(text string, at strict.Path) []byte {
	if text != "" && http1.CheckAuthority([]byte(text)) != nil {
		p.report.Add(at, "%q is no host: a name or an address, with perhaps a port", text)
	}
	return []byte(text)
}

// Rewrite gives a request that is to be forwarded, of which f tells, the host and the
// path that the route wants, and keeps the old ones in x-envoy-original-host and
// x-envoy-original-path if they are to be kept. New texts are appended to scratch,
// which is returned and has to stay as it is for as long as the request is used. It
// allocates nothing beyond that unless a regular expression or a format rewrites.
func (r *Route) Rewrite(request *message.Request, f *format.Facts, keep bool, scratch []byte) []byte {
	if len(r.host.weighted) > 0 {
		request.Authority = r.host.weighted
	}
	switch h := &r.host; {
	case len(h.literal) > 0:
		h.replace(request, h.literal, keep)
	case h.header != "":
		if value, ok := matcher.Value(request, h.header); ok && len(value) > 0 {
			h.offer(request, value, keep)
		}
	case h.regex != nil:
		h.offer(request, h.regex.Replace(withoutQuery(request.Path)), keep)
	case h.format != nil:
		if host := h.format.Append(nil, f); len(host) > 0 {
			h.offer(request, host, keep)
		}
	}
	start := len(scratch)
	scratch = r.path.append(scratch, request.Path, f)
	if path := scratch[start:len(scratch):len(scratch)]; len(path) > 0 {
		if keep {
			setBytes(&request.Headers, "x-envoy-original-path", request.Path)
		}
		request.Path = path
	}
	return scratch
}

// RewriteHost gives a request the name of the upstream host that it goes to, if the
// route wants that (auto_host_rewrite) and there is a name. The old host is kept as by
// Rewrite.
func (r *Route) RewriteHost(request *message.Request, name string, keep bool) {
	if r.host.auto && name != "" {
		r.host.offer(request, []byte(name), keep)
	}
}

// offer is replace for a host that was made of a request or came with an endpoint. The
// host stays if it would be malformed, since that is as if there were none.
func (h *hostRewrite) offer(request *message.Request, host []byte, keep bool) {
	if http1.CheckAuthority(host) == nil {
		h.replace(request, host, keep)
	}
}

// replace makes host the request's, and keeps the old one if it is to be kept.
func (h *hostRewrite) replace(request *message.Request, host []byte, keep bool) {
	old := request.Authority
	if h.forwarded && len(old) > 0 {
		appendForwardedHost(&request.Headers, old)
	}
	if keep {
		setBytes(&request.Headers, "x-envoy-original-host", old)
	}
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
