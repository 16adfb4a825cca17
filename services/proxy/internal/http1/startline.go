package http1

import "bytes"

// startLine is what the first line of a message says. Places are within the line.
type startLine struct {
	methodEnd, targetEnd int // of a request
	status               int // of a response
	http10               bool
	end                  int // behind its CRLF
}

// parse reads a line without its CRLF. The error is a *message.ProtocolError.
func (l *startLine) parse(line []byte, request bool) error {
	what := "status line"
	if request {
		what = "request line"
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		return malformed("CR within the %s", what)
	}
	l.end = len(line) + len(crlf)
	if request {
		return l.parseRequest(line)
	}
	return l.parseStatus(line)
}

// checkStart looks at the first bytes of a message, of which one at least has come.
func checkStart(begun []byte, request bool) error {
	switch c := begun[0]; {
	case c == '\r' || c == '\n': // an empty line
	case !tchar[c]:
		return malformed("character %#02x at the start of a message", c)
	case !request:
		const version = "HTTP/1."
		if n := min(len(begun), len(version)); string(begun[:n]) != version[:n] {
			return malformed("a response that does not begin with %s", version)
		}
	}
	return nil
}

// parseRequest reads "METHOD SP target SP HTTP/1.1" (RFC 9112 §3).
func (l *startLine) parseRequest(line []byte) error {
	l.methodEnd, l.targetEnd = bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if l.methodEnd <= 0 || l.targetEnd == l.methodEnd {
		if l.methodEnd > 0 && knownMethod(line[:l.methodEnd]) && bytes.HasPrefix(line[l.methodEnd:], []byte(" /")) {
			return refusal(426, "no version", lowVersion) // HTTP/0.9
		}
		return malformed("a request line that is not method, target and version")
	}
	if method := line[:l.methodEnd]; !knownMethod(method) {
		return malformed("unknown method %q", clip(method))
	}
	target, version := line[l.methodEnd+1:l.targetEnd], line[l.targetEnd+1:]
	switch l.http10 = string(version) == "HTTP/1.0"; {
	case l.http10 || string(version) == "HTTP/1.1":
	case len(version) == 8 && string(version[:5]) == "HTTP/" && digit(version[5]) && version[6] == '.' && digit(version[7]):
		return refusal(426, "version "+string(version), lowVersion)
	default:
		return malformed("version %q", clip(version))
	}
	if len(target) == 0 {
		return malformed("an empty request target")
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f {
			return malformed("character %#02x in the request target", c)
		}
	}
	return nil
}

// knownMethod says whether Envoy's codec knows the method; others are refused,
// as allow_custom_methods is off there too.
func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
		"ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR",
		"MKCOL", "MOVE", "M-SEARCH", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND",
		"REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE":
		return true
	}
	return false
}

// parseStatus reads "HTTP/1.1 SP 200 SP reason" (RFC 9112 §4); the reason, and
// the space before it, may be missing.
func (l *startLine) parseStatus(line []byte) error {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '1' && line[7] != '0' || line[8] != ' ' ||
		!digit(line[9]) || !digit(line[10]) || !digit(line[11]) || len(line) > 12 && line[12] != ' ' {
		return malformed("status line %q", clip(line))
	}
	l.status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if l.status < 100 || l.status > 599 {
		return malformed("status %d", l.status)
	}
	for _, c := range line[12:] {
		if !fieldChar[c] {
			return malformed("control character %#02x in the reason", c)
		}
	}
	l.http10 = line[7] == '0'
	return nil
}
