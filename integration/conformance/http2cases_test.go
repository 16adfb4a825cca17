package conformance

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http2"
)

// pseudo are the pseudo-header fields of a request for /a.
func pseudo(method string) []string {
	return []string{":method: " + method, ":scheme: http", ":authority: mill", ":path: /a"}
}

// http2Get is a GET with these fields, and http2Post the head of a POST.
func http2Get(lines ...string) []http2Frame {
	return []http2Frame{wholeHead(append(pseudo("GET"), lines...)...)}
}

func http2Post(lines ...string) http2Frame { return openHead(append(pseudo("POST"), lines...)...) }

// http2Cases are all cases of clients of HTTP/2. On the listener open a malformed
// request costs its stream alone, where it costs the connection on others.
func http2Cases() (cases []http2Case) {
	cases = append(cases, http2PseudoCases()...)
	cases = append(cases, http2FieldCases()...)
	cases = append(cases, http2BodyCases()...)
	cases = append(cases, http2AnswerCases()...)
	cases = append(cases, http2StrictCases()...)
	return append(cases, http2NoneCases()...)
}

func http2PseudoCases() (cases []http2Case) {
	whole := func(lines ...string) []http2Frame { return []http2Frame{wholeHead(lines...)} }
	for _, c := range []http2Case{
		{name: "no method", frames: whole(":scheme: http", ":authority: mill", ":path: /a")},
		{name: "no scheme", frames: whole(":method: GET", ":authority: mill", ":path: /a")},
		{name: "no path", frames: whole(":method: GET", ":scheme: http", ":authority: mill")},
		{name: "no authority", frames: whole(":method: GET", ":scheme: http", ":path: /a")},
		{name: "no authority but a host", frames: whole(":method: GET", ":scheme: http", ":path: /a", "host: granary")},
		{name: "an authority and another host", frames: http2Get("host: granary")},
		{name: "an authority and the same host", frames: http2Get("host: mill")},
		{name: "two hosts", frames: whole(":method: GET", ":scheme: http", ":path: /a", "host: granary", "host: mill")},
		{name: "two methods", frames: whole(append([]string{":method: POST"}, pseudo("GET")...)...)},
		{name: "two schemes", frames: whole(append([]string{":scheme: http"}, pseudo("GET")...)...)},
		{name: "two paths", frames: whole(append([]string{":path: /b"}, pseudo("GET")...)...)},
		{name: "two authorities", frames: whole(append([]string{":authority: granary"}, pseudo("GET")...)...)},
		{name: "an unknown pseudo-header field", frames: whole(append([]string{":version: 2"}, pseudo("GET")...)...)},
		{name: "a status", frames: whole(append([]string{":status: 200"}, pseudo("GET")...)...)},
		{name: "a late path", frames: whole(":method: GET", ":scheme: http", ":authority: mill", "x-a: b", ":path: /a")},
		{name: "a pseudo-header field in capitals", frames: whole(append([]string{":Method: GET"}, pseudo("GET")[1:]...)...)},
		{name: "an empty pseudo-header field", frames: whole(append([]string{":: x"}, pseudo("GET")...)...)},
		{name: "scheme https", frames: whole(":method: GET", ":scheme: https", ":authority: mill", ":path: /a")},
		{name: "scheme ftp", frames: whole(":method: GET", ":scheme: ftp", ":authority: mill", ":path: /a")},
		{name: "an empty scheme", frames: whole(":method: GET", ":scheme: ", ":authority: mill", ":path: /a")},
		{name: "CONNECT", frames: []http2Frame{openHead(":method: CONNECT", ":authority: mill:80")}},
		{name: "CONNECT with a path", frames: []http2Frame{openHead(pseudo("CONNECT")...)}},
		{name: "CONNECT of a protocol", frames: []http2Frame{openHead(append([]string{":protocol: websocket"}, pseudo("CONNECT")...)...)}},
		{name: "GET of a protocol", frames: whole(append([]string{":protocol: websocket"}, pseudo("GET")...)...)},
	} {
		cases = append(cases, c)
		c.name, c.listener = "open: "+c.name, "open"
		cases = append(cases, c)
	}
	for _, method := range []string{"", "get", "HEAD", "M-SEARCH", "G T", "G@T", "GE\x00T", "OPTIONS", strings.Repeat("A", 100)} {
		cases = append(cases, http2Case{name: fmt.Sprintf("method %q", clipText(method)), listener: "open", frames: whole(pseudo(method)...)})
	}
	for _, path := range []string{
		"", "*", "a", "http://granary/a", "//a//b", "/a?b#c", "/a#b", "/a b", "/a\tb", "/a\x00b", "/a\x7fb", "/a\xc3\xa4b", "/a%00b", "/../a", `/a\b`, "/a|\"<>b", "/" + strings.Repeat("a", 8000),
	} {
		cases = append(cases, http2Case{name: fmt.Sprintf("path %q", clipText(path)), listener: "open", frames: whole(":method: GET", ":scheme: http", ":authority: mill", ":path: "+path)})
	}
	cases = append(cases, http2Case{name: "OPTIONS of the server", listener: "open", frames: whole(":method: OPTIONS", ":scheme: http", ":authority: mill", ":path: *")})
	for _, authority := range []string{"", "mill:80", "mill:ab", "u:p@mill", "mi ll", "mill/a", "[::1]", "[::1", "MILL", "mill:80:80", "mi\x00ll"} {
		cases = append(cases, http2Case{name: fmt.Sprintf("authority %q", authority), listener: "open", frames: whole(":method: GET", ":scheme: http", ":authority: "+authority, ":path: /a")})
	}
	return cases
}

func http2FieldCases() (cases []http2Case) {
	for _, c := range []struct {
		name  string
		lines []string
	}{
		{"none more", nil},
		{"capitals in a name", []string{"X-A: b"}},
		{"an empty name", []string{": b"}},
		{"a space in a name", []string{"x a: b"}},
		{"a space behind a name", []string{"x-a : b"}},
		{"a colon in a name", []string{"x:a: b"}},
		{"a zero byte in a name", []string{"x\x00a: b"}},
		{"a byte beyond ASCII in a name", []string{"x\xe4a: b"}},
		{"an underscore in a name", []string{"x_a: b"}},
		{"all marks in a name", []string{"!#$%&'*+-.^_`|~09: b"}},
		{"an empty value", []string{"x-a: "}},
		{"space around a value", []string{"x-a:   b "}},
		{"a zero byte in a value", []string{"x-a: b\x00c"}},
		{"CR in a value", []string{"x-a: b\rc"}},
		{"LF in a value", []string{"x-a: b\nc"}},
		{"CR LF in a value", []string{"x-a: b\r\nx-b: c"}},
		{"a control in a value", []string{"x-a: b\x01c"}},
		{"a tab in a value", []string{"x-a: b\tc"}},
		{"delete in a value", []string{"x-a: b\x7fc"}},
		{"obs-text", []string{"x-a: \xe4\xff"}},
		{"twice", []string{"x-a: 1", "x-b: 2", "x-a: 3"}},
		{"cookies", []string{"cookie: a=1", "x-a: b", "cookie: b=2", "cookie: c=3; d=4"}},
		{"connection", []string{"connection: close"}},
		{"connection that names a field", []string{"connection: x-a", "x-a: b"}},
		{"keep-alive", []string{"keep-alive: timeout=5"}},
		{"proxy-connection", []string{"proxy-connection: keep-alive"}},
		{"transfer-encoding", []string{"transfer-encoding: chunked"}},
		{"upgrade", []string{"upgrade: websocket"}},
		{"te of trailers", []string{"te: trailers"}},
		{"te of gzip", []string{"te: gzip"}},
		{"te of trailers and gzip", []string{"te: trailers, gzip"}},
		{"content-length of 0", []string{"content-length: 0"}},
		{"content-length without a body", []string{"content-length: 5"}},
		{"two equal content-lengths", []string{"content-length: 0", "content-length: 0"}},
		{"content-length that is none", []string{"content-length: x"}},
		{"negative content-length", []string{"content-length: -1"}},
		{"expect", []string{"expect: 100-continue"}},
		{"x-forwarded-proto", []string{"x-forwarded-proto: https"}},
		{"x-forwarded-for", []string{"x-forwarded-for: 1.2.3.4"}},
		{"Envoy's own", []string{"x-envoy-internal: true", "x-envoy-max-retries: 3", "x-envoy-original-path: /b", "x-envoy-original-host: b", "x-envoy-attempt-count: 2"}},
		{"http2-settings", []string{"http2-settings: AAMAAABkAAQAAP__"}},
		{"trailer", []string{"trailer: x-a"}},
		{"101 fields", slices.Repeat([]string{"x-a: b"}, 101)},
		{"a value of 50 KB", []string{"x-a: " + strings.Repeat("b", 50<<10)}},
		{"a value of 63 KB", []string{"x-a: " + strings.Repeat("b", 63<<10)}},
		{"a value of 100 KB", []string{"x-a: " + strings.Repeat("b", 100<<10)}},
	} {
		cases = append(cases, http2Case{name: "field: " + c.name, listener: "open", frames: http2Get(c.lines...)})
	}
	for _, line := range []string{"X-A: b", "x-a: b\x00c", "connection: close", "content-length: 5"} {
		cases = append(cases, http2Case{name: fmt.Sprintf("field %q where that costs the connection", line), frames: http2Get(line)})
	}
	return cases
}

func http2BodyCases() (cases []http2Case) {
	for _, c := range []http2Case{
		{name: "of no length", frames: []http2Frame{http2Post(), data("gra"), lastData("in")}},
		{name: "with a length", frames: []http2Frame{http2Post("content-length: 5"), lastData("grain")}},
		{name: "shorter than its length", frames: []http2Frame{http2Post("content-length: 5"), lastData("gra")}},
		{name: "longer than its length", frames: []http2Frame{http2Post("content-length: 5"), lastData("grains")}},
		{name: "with another length behind", frames: []http2Frame{http2Post("content-length: 5", "content-length: 6"), lastData("grain")}},
		{name: "with an empty piece at the end", frames: []http2Frame{http2Post(), data("grain"), lastData("")}},
		{name: "empty", frames: []http2Frame{http2Post(), lastData("")}},
		{name: "of a GET", frames: []http2Frame{openHead(pseudo("GET")...), lastData("grain")}},
		{name: "with trailers", frames: []http2Frame{http2Post(), data("grain"), wholeHead("x-a: b", "x-c: d")}},
		{name: "with trailers alone", frames: []http2Frame{http2Post(), wholeHead("x-a: b")}},
		{name: "with a length and trailers", frames: []http2Frame{http2Post("content-length: 5"), data("grain"), wholeHead("x-a: b")}},
		{name: "with trailers that have a pseudo-header field", frames: []http2Frame{http2Post(), data("grain"), wholeHead(":path: /b", "x-a: b")}},
		{name: "with trailers in capitals", frames: []http2Frame{http2Post(), data("grain"), wholeHead("X-A: b")}},
		{name: "with trailers of a connection", frames: []http2Frame{http2Post(), data("grain"), wholeHead("connection: close")}},
		{name: "with trailers that frame", frames: []http2Frame{http2Post(), data("grain"), wholeHead("content-length: 9", "x-a: b")}},
		{name: "with trailers that do not end it", frames: []http2Frame{http2Post(), data("grain"), openHead("x-a: b"), lastData("")}},
		{name: "that is reset", frames: []http2Frame{http2Post(), data("gra"), func(w *http2Text) { _ = w.framer.WriteRSTStream(1, http2.ErrCodeCancel) }}, leaves: true},
		{name: "that the client leaves", frames: []http2Frame{http2Post(), data("gra")}, leaves: true},
		{name: "on a stream of the server's", frames: []http2Frame{func(w *http2Text) { w.head(2, true, pseudo("GET")...) }}},
		{name: "for a stream that is not there", frames: []http2Frame{lastData("grain")}},
		{name: "with a window of 0", frames: []http2Frame{http2Post(), func(w *http2Text) { _ = w.framer.WriteWindowUpdate(1, 0) }}},
		{name: "with padding", frames: []http2Frame{http2Post(), func(w *http2Text) {
			w.ended = true
			_ = w.framer.WriteDataPadded(1, true, []byte("grain"), make([]byte, 100))
		}}},
	} {
		c.name, c.listener = "body "+c.name, "open"
		cases = append(cases, c)
	}
	return cases
}

func http2AnswerCases() (cases []http2Case) {
	for _, c := range []http2Case{
		{name: "with its connection's fields", answer: answer("200 OK", "Keep-Alive: timeout=5\r\nContent-Length: 2\r\n", "ok")},
		{name: "with spelt names", answer: answer("200 OK", "X-SPELT: Yes\r\nContent-Length: 2\r\n", "ok")},
		{name: "in chunks", answer: answer("200 OK", chunkedField, "5\r\ngrain\r\n0\r\n\r\n")},
		{name: "with trailers", answer: answer("200 OK", chunkedField, "5\r\ngrain\r\n0\r\nX-A: b\r\n\r\n")},
		{name: "until the end", answer: answer("200 OK", "", "grain")},
		{name: "without a body", answer: answer("204 No Content", "", "")},
		{name: "of 304", answer: answer("304 Not Modified", "Content-Length: 5\r\n", "")},
		{name: "behind early hints", answer: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + defaultAnswer},
		{name: "behind a 100", answer: "HTTP/1.1 100 Continue\r\n\r\n" + defaultAnswer},
		{name: "that breaks off", answer: answer("200 OK", "Content-Length: 9\r\n", "grain")},
		{name: "in chunks that break off", answer: answer("200 OK", chunkedField, "5\r\ngr")},
		{name: "of nonsense", answer: "nonsense\r\n\r\n"},
		{name: "of two lengths", answer: answer("200 OK", "Content-Length: 2\r\nContent-Length: 3\r\n", "ok")},
	} {
		c.name, c.listener, c.frames = "answer "+c.name, "open", http2Get()
		cases = append(cases, c)
	}
	return append(cases,
		http2Case{name: "answer to a HEAD", frames: []http2Frame{wholeHead(pseudo("HEAD")...)}},
		http2Case{name: "answer to a WebSocket", listener: "open", answer: answer("403 Forbidden", "Content-Length: 2\r\n", "no"),
			frames: []http2Frame{wholeHead(append([]string{":method: CONNECT", ":protocol: spdy"}, pseudo("GET")[1:]...)...)}},
	)
}

func http2StrictCases() (cases []http2Case) {
	path := func(text string) []http2Frame {
		return []http2Frame{wholeHead(":method: GET", ":scheme: http", ":authority: mill", ":path: "+text)}
	}
	for _, c := range []http2Case{
		{name: "GET", frames: http2Get()},
		{name: "an underscore", frames: http2Get("x_a: b")},
		{name: "11 fields", frames: http2Get(slices.Repeat([]string{"x-a: b"}, 11)...)},
		{name: "10 KB", frames: http2Get("x-a: " + strings.Repeat("b", 10<<10))},
		{name: "a port", frames: []http2Frame{wholeHead(":method: GET", ":scheme: http", ":authority: mill:80", ":path: /a")}},
		{name: "dots", frames: path("/a/../b//c")},
		{name: "an escaped slash", frames: path("/a%2Fb")},
		{name: "moved", frames: path("/moved")},
		{name: "moved, by https", frames: []http2Frame{wholeHead(":method: GET", ":scheme: https", ":authority: mill", ":path: /moved")}},
		{name: "moved, by http behind https", frames: []http2Frame{wholeHead(":method: GET", ":scheme: http", ":authority: mill", ":path: /moved", "x-forwarded-proto: https")}},
		{name: "said", frames: path("/said")},
		{name: "a POST that is said", frames: []http2Frame{openHead(":method: POST", ":scheme: http", ":authority: mill", ":path: /said")}},
	} {
		c.name, c.listener = "strict: "+c.name, "strict"
		cases = append(cases, c)
	}
	return cases
}

// http2NoneCases are for the listener whose limits are 0.
func http2NoneCases() (cases []http2Case) {
	for _, c := range []http2Case{
		{name: "GET", frames: http2Get("x-a: b", "x-a: b")},
		{name: "a POST", frames: []http2Frame{http2Post(), data("a"), lastData("")}},
		{name: "an empty DATA", frames: []http2Frame{http2Post(), data(""), lastData("a")}},
		{name: "PRIORITY", frames: append([]http2Frame{func(w *http2Text) { _ = w.framer.WritePriority(3, http2.PriorityParam{}) }}, http2Get()...)},
		{name: "a reset", frames: []http2Frame{http2Post(), func(w *http2Text) { _ = w.framer.WriteRSTStream(1, http2.ErrCodeCancel) }}},
	} {
		c.name, c.listener = "none: "+c.name, "none"
		cases = append(cases, c)
	}
	return cases
}
