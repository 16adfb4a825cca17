// Package httpinspector is the listener filter that tells which version of HTTP a
// client speaks, by the first bytes that it sends
// (envoy.extensions.filters.listener.http_inspector.v3.HttpInspector). A filter chain
// is chosen by it with application_protocols. It serves no request, and holds none to
// the rules of HTTP beyond its first line.
package httpinspector

import (
	"bytes"

	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes inspectors. It implements listenerfilter.Factory.
type Factory struct{}

// ConfigType implements listenerfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&inspectorv3.HttpInspector{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements listenerfilter.Factory.
func (f Factory) Fields() strict.Fields { return strict.Fields{f.ConfigType(): {}} }

// Parse implements listenerfilter.Factory.
func (Factory) Parse(proto.Message, strict.Path, *strict.Report) listenerfilter.Filter {
	return &filter{}
}

// filter is the inspector of one listener.
type filter struct {
	found     map[string]*stats.Counter // by protocol; "" is none of them
	undecided *stats.Counter
}

// Measure implements listenerfilter.Filter.
func (f *filter) Measure(registry *stats.Registry) {
	scope := registry.Scope("http_inspector")
	f.found = map[string]*stats.Counter{
		listenerfilter.HTTP10: scope.Counter("http10_found"),
		listenerfilter.HTTP11: scope.Counter("http11_found"),
		listenerfilter.H2C:    scope.Counter("http2_found"),
		"":                    scope.Counter("http_not_found"),
	}
	f.undecided = scope.Counter("read_error")
}

// most is how many bytes of a client are looked at, as in Envoy.
const most = 64 << 10

// Inspect implements listenerfilter.Filter. It blocks on the client.
func (f *filter) Inspect(s *listenerfilter.Socket) error {
	if s.Transport != listenerfilter.RawBuffer {
		return nil
	}
	var client finder
	for received := []byte(nil); len(received) < most; {
		var err error
		if received, err = s.Peek(len(received) + 1); err != nil {
			return err
		}
		received = received[:min(len(received), most)]
		protocol, ok := client.find(received)
		if !ok {
			continue
		}
		f.found[protocol].Inc()
		if protocol != "" {
			s.Applications = []string{protocol}
		}
		return nil
	}
	f.undecided.Inc()
	return listenerfilter.ErrClose
}

// preface begins a connection of HTTP/2 (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// finder finds the protocol of one client in what it has sent so far. It looks for the
// end of the first line from where it has stopped, so that a client which sends its
// bytes one by one costs no more than another.
type finder struct {
	looked int  // bytes of the line that it has seen, and not its end
	method bool // they begin with a method, and what ends that
}

// find is the protocol of a client that has sent this so far, "" for none that is
// known here; not ok if more bytes are needed to tell. What more bytes come then
// changes no answer. Each call gets what the one before got, and more behind it.
func (f *finder) find(received []byte) (protocol string, ok bool) {
	if n := min(len(received), len(preface)); string(received[:n]) == preface[:n] {
		return listenerfilter.H2C, n == len(preface)
	}
	for ; !f.method && f.looked < len(received); f.looked++ {
		c := received[f.looked]
		f.method = f.looked > 0 && (c == ' ' || c == '\t')
		if !f.method && !httpguts.IsTokenRune(rune(c)) {
			return "", true
		}
	}
	end := bytes.IndexByte(received[f.looked:], '\n')
	if end < 0 {
		f.looked = len(received)
		return "", false
	}
	// Whatever is no visible character separates, as in Envoy.
	return protocolOf(bytes.FieldsFunc(received[:f.looked+end], func(r rune) bool { return r <= ' ' })), true
}

// protocolOf is the protocol of a request line, which begins with a method: HTTP/1.0
// stands for all versions but 1.1, and for requests that name none.
func protocolOf(fields [][]byte) string {
	switch {
	case len(fields) < 2 || !isTarget(fields[0], fields[1]):
		return ""
	case len(fields) == 2:
		return listenerfilter.HTTP10
	case len(fields) > 3 || !isVersion(fields[2]):
		return ""
	case string(fields[2]) == "HTTP/1.1":
		return listenerfilter.HTTP11
	default:
		return listenerfilter.HTTP10
	}
}

// isTarget says whether a request may be for this: a path, an asterisk, a URI with its
// scheme or, by CONNECT, a host and port (RFC 9112 §3.2).
func isTarget(method, target []byte) bool {
	if bytes.ContainsFunc(target, func(r rune) bool { return r > '~' }) {
		return false
	}
	scheme, _, absolute := bytes.Cut(target, []byte("://"))
	return target[0] == '/' || target[0] == '*' || string(method) == "CONNECT" || absolute && isAlpha(scheme)
}

func isAlpha(b []byte) bool {
	return len(b) > 0 && !bytes.ContainsFunc(b, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' })
}

// isVersion says whether this is the name of a version of HTTP (RFC 9112 §2.3).
func isVersion(b []byte) bool {
	isDigit := func(c byte) bool { return '0' <= c && c <= '9' }
	return len(b) == len("HTTP/1.1") && string(b[:5]) == "HTTP/" && isDigit(b[5]) && b[6] == '.' && isDigit(b[7])
}
