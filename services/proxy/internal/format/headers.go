package format

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func (f *Facts) requestHeaders() *message.Headers {
	if f.Request == nil {
		return nil
	}
	return &f.Request.Headers
}

func (f *Facts) responseHeaders() *message.Headers {
	if f.Response == nil {
		return nil
	}
	return &f.Response.Headers
}

// header appends the first field of a name.
func header(b []byte, h *message.Headers, name string) ([]byte, bool) {
	if h == nil {
		return b, false
	}
	value, ok := h.Get(name)
	return append(b, value...), ok
}

// requestHeader appends a field or a pseudo header of the request.
func requestHeader(b []byte, f *Facts, name string) ([]byte, bool) {
	r := f.Request
	if r == nil {
		return b, false
	}
	var value []byte
	switch name {
	case ":method":
		value = r.Method
	case ":path":
		value = r.Path
	case ":authority", "host":
		value = r.Authority
	case ":scheme":
		if len(r.Method) == 0 { // there is no request
			return b, false
		}
		value = r.URLScheme()
	default:
		return header(b, &r.Headers, name)
	}
	return append(b, value...), len(value) > 0
}

// responseHeader appends a field of the response, or its status.
func responseHeader(b []byte, f *Facts, name string) ([]byte, bool) {
	if name != ":status" {
		return header(b, f.responseHeaders(), name)
	}
	if f.Response == nil || f.Response.Status == 0 {
		return b, false
	}
	return strconv.AppendInt(b, int64(f.Response.Status), 10), true
}

func responseTrailer(b []byte, f *Facts, name string) ([]byte, bool) {
	return header(b, f.ResponseTrailers, name)
}

func requestHeaderOperator(argument string) (operator, error) {
	return headerOperator(argument, requestHeader)
}

func responseHeaderOperator(argument string) (operator, error) {
	return headerOperator(argument, responseHeader)
}

func responseTrailerOperator(argument string) (operator, error) {
	return headerOperator(argument, responseTrailer)
}

// headerOperator makes NAME(main?alternative), which is the alternative where
// there is no main one.
func headerOperator(argument string, get func([]byte, *Facts, string) ([]byte, bool)) (operator, error) {
	main, alternative, two := strings.Cut(strings.ToLower(argument), "?")
	if strings.Contains(alternative, "?") {
		return operator{}, errors.New("more than one alternative")
	}
	names := []string{main, alternative}
	if !two {
		names = names[:1]
	}
	for _, name := range names {
		if !HeaderName(strings.TrimPrefix(name, ":")) {
			return operator{}, fmt.Errorf("%q is no name of a header", name)
		}
	}
	return operator{foreign: true, write: func(b []byte, f *Facts) ([]byte, bool) {
		b, ok := get(b, f, main)
		if !ok && two {
			return get(b, f, alternative)
		}
		return b, ok
	}}, nil
}

// HeaderName says whether a text is the name of a header field in lower case
// (RFC 9110 §5.1).
func HeaderName(name string) bool {
	for _, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

// requestHeaderBytes counts names and values, the pseudo headers' too.
func requestHeaderBytes(f *Facts) int64 {
	if f.Request == nil || len(f.Request.Method) == 0 {
		return 0
	}
	n := len(":method") + len(f.Request.Method) + len(":scheme") + len(f.Request.URLScheme()) + len(":authority") + len(f.Request.Authority)
	if len(f.Request.Path) > 0 {
		n += len(":path") + len(f.Request.Path)
	}
	return int64(n) + fieldBytes(&f.Request.Headers)
}

func responseHeaderBytes(f *Facts) int64 {
	if f.Response == nil || f.Response.Status == 0 {
		return 0
	}
	return int64(len(":status200")) + fieldBytes(&f.Response.Headers)
}

func fieldBytes(h *message.Headers) (n int64) {
	if h == nil {
		return 0
	}
	for i := range h.Len() {
		name, value := h.At(i)
		n += int64(len(name) + len(value))
	}
	return n
}

// pathOperator makes PATH(query:which): WQ with the query, NQ without; the path
// as the client sent it, as it is now, or the one if there is one, else the
// other.
func pathOperator(argument string) (operator, error) {
	query, which, _ := strings.Cut(argument, ":")
	if query != "" && query != "WQ" && query != "NQ" {
		return operator{}, fmt.Errorf("%q is not WQ or NQ", query)
	}
	names, ok := map[string][]string{
		"":             {"x-envoy-original-path", ":path"},
		"ORIG_OR_PATH": {"x-envoy-original-path", ":path"},
		"ORIG":         {"x-envoy-original-path"},
		"PATH":         {":path"},
	}[which]
	if !ok {
		return operator{}, fmt.Errorf("%q is not ORIG, PATH or ORIG_OR_PATH", which)
	}
	return operator{foreign: true, write: func(b []byte, f *Facts) ([]byte, bool) {
		start := len(b)
		for _, name := range names {
			b, ok := requestHeader(b, f, name)
			if !ok {
				continue
			}
			if i := bytes.IndexByte(b[start:], '?'); i >= 0 && query == "NQ" {
				b = b[:start+i]
			}
			return b, true
		}
		return b, false
	}}, nil
}

// query is what follows the first ? of the request's path.
func query(f *Facts) ([]byte, bool) {
	if f.Request == nil {
		return nil, false
	}
	_, query, ok := bytes.Cut(f.Request.Path, []byte("?"))
	return query, ok
}

// queryParameters makes QUERY_PARAMS, the whole query as it came or decoded.
func queryParameters(argument string) (operator, error) {
	if argument != "" && argument != "ORIG" && argument != "DECODED" {
		return operator{}, errors.New("it is ORIG or DECODED")
	}
	return operator{foreign: true, write: func(b []byte, f *Facts) ([]byte, bool) {
		query, ok := query(f)
		if argument == "DECODED" {
			return AppendDecoded(b, query), ok
		}
		return append(b, query...), ok
	}}, nil
}

// queryParameter makes QUERY_PARAM(name), the first of that name, decoded.
func queryParameter(name string) (operator, error) {
	return operator{foreign: true, write: func(b []byte, f *Facts) ([]byte, bool) {
		rest, _ := query(f)
		start := len(b)
		for len(rest) > 0 {
			var one []byte
			one, rest, _ = bytes.Cut(rest, []byte("&"))
			key, value, _ := bytes.Cut(one, []byte("="))
			b = AppendDecoded(b[:start], key)
			if string(b[start:]) == name {
				return AppendDecoded(b[:start], value), true
			}
		}
		return b[:start], false
	}}, nil
}

// AppendDecoded appends a text with its %XX decoded; what is none stays.
func AppendDecoded(b, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			high, low := unhex(text[i+1]), unhex(text[i+2])
			if high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, text[i])
	}
	return b
}

// unhex is the value of a hexadecimal digit, −1 if it is none.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// hostLength is the length of a host without its port.
func hostLength(authority []byte) int {
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		return i
	}
	return len(authority)
}
