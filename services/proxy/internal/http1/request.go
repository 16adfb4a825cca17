package http1

import (
	"bytes"
	"net/netip"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// ReadRequest reads the head of the next request into m, whose Body then reads
// from this Reader. It says whether the connection stays open after the answer
// as far as the client is concerned. Authority is empty for a request that lacks the
// Host field, which is well-formed and to be refused (RFC 9112 §3.2).
//
// Errors: io.EOF if the client closed before the first byte,
// io.ErrUnexpectedEOF if within the head, *message.ProtocolError with the status to
// answer, or what the source's Read returned.
func (r *Reader) ReadRequest(m *message.Request) (keepAlive bool, err error) {
	block, err := r.head(true)
	if err != nil {
		r.spoil()
		return false, err
	}
	block = m.Headers.Load(block)
	line := r.opening
	m.Method = block[:line.methodEnd]
	target := block[line.methodEnd+1 : line.targetEnd]
	if line.http10 && !r.Options.AcceptHTTP10 {
		return false, refusal(426, "version HTTP/1.0", lowVersion)
	}
	f, err := r.fields(&m.Headers, block, line.end)
	if err != nil {
		return false, err
	}
	if err := f.check(); err != nil {
		return false, err
	}
	if line.http10 && f.chunked {
		return false, malformed("transfer-encoding in HTTP/1.0")
	}
	if f.hosts > 1 {
		return false, malformed("%d host fields", f.hosts)
	}
	m.Authority = f.host
	if f.hosts == 0 && line.http10 && r.Options.DefaultHost != "" {
		m.Authority = []byte(r.Options.DefaultHost)
		f.hosts = 1
	}
	if err := r.requestTarget(m, target); err != nil {
		return false, err
	}
	if f.hosts == 0 {
		m.Authority = nil // whatever the target says
	} else if err := CheckAuthority(m.Authority); err != nil {
		return false, err
	}
	m.ExpectContinue = f.expect && !line.http10 // RFC 9110 §10.1.1
	switch {
	case f.chunked:
		m.BodyLength = message.Unknown
	case f.length > 0:
		m.BodyLength = f.length
	default:
		m.BodyLength = 0
	}
	m.Body = r.body.begin(r, m.BodyLength, f.chunked, &m.Trailers)
	// What follows a CONNECT may be meant for a tunnel that is not there.
	return !f.closes && (!line.http10 || f.keepAlive) && string(m.Method) != "CONNECT", nil
}

// requestTarget sorts out the four forms of a target (RFC 9112 §3.2). The
// absolute form's host replaces the Host field. A fragment, which none of them has, is
// left in a path, for whoever takes the request to refuse.
func (r *Reader) requestTarget(m *message.Request, target []byte) error {
	switch {
	case string(m.Method) == "CONNECT":
		m.Path = nil
		m.Authority = target
	case target[0] == '/':
		m.Path = target
	case string(target) == "*" && string(m.Method) == "OPTIONS":
		m.Path = target
	default:
		scheme := bytes.Index(target, []byte("://"))
		if scheme < 0 || !equalFold(target[:scheme], "http") && !equalFold(target[:scheme], "https") {
			return malformed("request target %q", clip(target))
		}
		if r.Options.RefuseAbsolute {
			return ErrAbsoluteTarget
		}
		m.Authority = target[scheme+3:]
		m.Path = rootPath
		if i := bytes.IndexAny(m.Authority, "/?"); i >= 0 {
			m.Authority, m.Path = m.Authority[:i], m.Authority[i:]
			if m.Path[0] == '?' {
				m.Path = append([]byte("/"), m.Path...)
			}
		}
	}
	return nil
}

var rootPath = []byte("/")

// CheckAuthority holds a host to RFC 3986 §3.2 without userinfo: a name or an
// IPv4 address, or an IPv6 one in brackets; then perhaps a colon and a port. The
// error is a *message.ProtocolError.
func CheckAuthority(authority []byte) error {
	host, port := authority, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		i := bytes.IndexByte(host, ']')
		if i < 0 {
			return malformed("host %q", clip(authority))
		}
		if address, err := netip.ParseAddr(string(host[1:i])); err != nil || !address.Is6() || address.Zone() != "" {
			return malformed("host %q", clip(authority))
		}
		host, port = host[:0], host[i+1:]
		if len(port) > 0 && port[0] != ':' {
			return malformed("host %q", clip(authority))
		}
	} else {
		if i := bytes.IndexByte(host, ':'); i >= 0 {
			host, port = host[:i], host[i:]
		}
		if len(host) == 0 {
			return malformed("host %q", clip(authority))
		}
	}
	for _, c := range host {
		if !regName[c] {
			return malformed("host %q", clip(authority))
		}
	}
	if len(port) == 0 {
		return nil
	}
	n := 0
	for _, c := range port[1:] {
		if !digit(c) {
			return malformed("host %q", clip(authority))
		}
		if n = n*10 + int(c-'0'); n > 65535 {
			return malformed("host %q", clip(authority))
		}
	}
	return nil
}

// regName marks the bytes of a registered name (RFC 3986 §3.2.2).
var regName = func() (t [256]bool) {
	for _, c := range "-._~!$&'()*+,;=%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

func digit(c byte) bool { return '0' <= c && c <= '9' }

func hexDigit(c byte) bool {
	return digit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// clip shortens what a client sent for an error text.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
