package route

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Redirect is a RedirectAction: the request is sent elsewhere.
type Redirect struct {
	// Status is 301, 302, 303, 307 or 308.
	Status int

	scheme     string // empty: as it is
	host       string // empty: as it is
	port       string // with its colon; empty: as it is, or the new scheme's own
	path       string // empty: as it is, or rewritten
	rewrite    pathRewrite
	stripQuery bool
}

// redirect reads a RedirectAction, of a route that matches as many bytes of a
// path.
func (p *parser) redirect(m *routev3.RedirectAction, matched int, at strict.Path) *Redirect {
	r := &Redirect{scheme: m.GetSchemeRedirect(), host: m.GetHostRedirect(), path: m.GetPathRedirect(), stripQuery: m.GetStripQuery()}
	if m.GetHttpsRedirect() {
		r.scheme = "https"
	}
	if port := m.GetPortRedirect(); port > 65535 {
		p.report.Add(at.Field("port_redirect"), "%d is no port", port)
	} else if port > 0 {
		r.port = ":" + strconv.Itoa(int(port))
	}
	r.Status = map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_MOVED_PERMANENTLY:  301,
		routev3.RedirectAction_FOUND:              302,
		routev3.RedirectAction_SEE_OTHER:          303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307,
		routev3.RedirectAction_PERMANENT_REDIRECT: 308,
	}[m.GetResponseCode()]
	r.rewrite = p.pathRewrite(m, matched, at)
	return r
}

// Location is where a request is sent, of which f tells.
func (r *Redirect) Location(request *message.Request, f *format.Facts) string {
	scheme := r.scheme
	if scheme == "" {
		scheme = string(request.URLScheme())
	}
	host := r.host
	if host == "" {
		is, ok := request.Headers.Get("x-forwarded-proto") // which the port goes by, as in Envoy
		if !ok {
			is = request.URLScheme()
		}
		host = r.sameHost(request.Authority, string(is), scheme)
	}
	return scheme + "://" + host + r.port + r.target(request.Path, f)
}

// sameHost is the host of a request, without a port that makes place for
// another one, or is that of the scheme from which the redirect leads away.
func (r *Redirect) sameHost(authority []byte, is, becomes string) string {
	host, port := string(authority), ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i:]
	}
	standard := map[string]string{"http": ":80", "https": ":443"}[is]
	if r.port != "" || is != becomes && port == standard {
		return host
	}
	return host + port
}

// target is the path and the query of the location.
func (r *Redirect) target(path []byte, f *format.Facts) string {
	whole := r.path
	if r.rewrite.format != nil {
		whole = string(escapePath(r.rewrite.format.Append(nil, f)))
	}
	switch {
	case strings.Contains(whole, "?"):
		return slashed(whole)
	case whole != "":
		path = append([]byte(whole), path[len(withoutQuery(path)):]...)
	default:
		if rewritten := r.rewrite.append(nil, path, f); rewritten != nil {
			path = rewritten
		}
	}
	if r.stripQuery {
		path = withoutQuery(path)
	}
	return slashed(string(path))
}

// slashed is a path with the slash in front that it needs.
func slashed(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

// DirectResponse is a DirectResponseAction: the request is answered here.
type DirectResponse struct {
	// Status is 200 to 599.
	Status int
	// Body is empty for none. With a format it is what LOCAL_REPLY_BODY stands for.
	Body string

	format *format.Line // body_format; nil for none
}

// defaultBodySize is the largest body of a direct response in bytes, unless
// RouteConfiguration.max_direct_response_body_size_bytes says otherwise.
const defaultBodySize = 4096

func (p *parser) directResponse(m *routev3.DirectResponseAction, at strict.Path) *DirectResponse {
	body := coreconfig.DataSource(m.GetBody(), at.Field("body"), p.report)
	if len(body) > p.largestBody {
		p.report.Add(at.Field("body"), "the body has %d bytes, more than the %d of max_direct_response_body_size_bytes", len(body), p.largestBody)
	}
	d := &DirectResponse{Status: int(m.GetStatus()), Body: string(body)}
	if m.GetBodyFormat() != nil {
		d.format = format.ParseLine(m.GetBodyFormat(), at.Field("body_format"), p.report)
	}
	return d
}

// Content is the body for a request of which f tells, and its content-type; empty is
// text/plain.
func (d *DirectResponse) Content(f *format.Facts) (body, contentType string) {
	if d.format == nil {
		return d.Body, ""
	}
	f.LocalReplyBody = d.Body
	body = string(d.format.Append(nil, f))
	f.LocalReplyBody = ""
	switch {
	case d.format.ContentType != "":
		return body, d.format.ContentType
	case d.format.JSON:
		return body, "application/json"
	}
	return body, ""
}

// Location is where the response points to: the address that was asked for, if
// the status is one that wants a location, and else nothing.
func (d *DirectResponse) Location(request *message.Request) string {
	if d.Status != 201 && d.Status/100 != 3 {
		return ""
	}
	return (&Redirect{}).Location(request, nil)
}
