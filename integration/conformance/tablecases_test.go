package conformance

import (
	"fmt"
	"strings"
)

// get is a GET with these fields, each with its end.
func get(fields string) string { return "GET /a HTTP/1.1\r\nHost: mill\r\n" + fields + "\r\n" }

// post is a POST with these fields and what follows the head.
func post(fields, body string) string {
	return "POST /a HTTP/1.1\r\nHost: mill\r\n" + fields + "\r\n" + body
}

// line is a request whose first line is this, without its end.
func line(text string) string { return text + "\r\nHost: mill\r\n\r\n" }

const chunkedField = "Transfer-Encoding: chunked\r\n"

// answer is one of the backend, which ends the connection, with these fields and
// what follows.
func answer(status, fields, body string) string {
	return "HTTP/1.1 " + status + "\r\nX-Backend: one\r\nConnection: close\r\n" + fields + "\r\n" + body
}

// tableCases are all cases.
func tableCases() (cases []tableCase) {
	for _, part := range [][]tableCase{
		methodCases(), targetCases(), versionCases(), fieldCases(), hostCases(), hopCases(), lengthCases(), chunkCases(),
		connectionCases(), expectCases(), answerCases(), openCases(), strictCases(), grpcCases(),
	} {
		cases = append(cases, part...)
	}
	return cases
}

func methodCases() (cases []tableCase) {
	for _, method := range strings.Fields("GET HEAD PUT DELETE OPTIONS TRACE PATCH PROPFIND PURGE M-SEARCH UNSUBSCRIBE BREW QUERY get Get G@T GET. PRI") {
		cases = append(cases, tableCase{name: "method " + method, text: line(method + " /a HTTP/1.1")})
	}
	for _, method := range strings.Fields("POST PUT DELETE PATCH GET OPTIONS REPORT") {
		cases = append(cases, tableCase{name: "method with a body " + method, text: method + " /a HTTP/1.1\r\nHost: mill\r\nContent-Length: 3\r\n\r\nabc"})
	}
	return append(cases,
		tableCase{name: "method of 100 bytes", text: line(strings.Repeat("A", 100) + " /a HTTP/1.1")},
		tableCase{name: "method with a zero byte", text: line("GE\x00T /a HTTP/1.1")},
		tableCase{name: "method missing", text: line(" /a HTTP/1.1")},
		tableCase{name: "method after a space", text: line(" GET /a HTTP/1.1")},
		tableCase{name: "CONNECT", text: "CONNECT mill:80 HTTP/1.1\r\nHost: mill:80\r\n\r\n"},
		tableCase{name: "CONNECT of a path", text: "CONNECT /a HTTP/1.1\r\nHost: mill\r\n\r\n"},
	)
}

// grpcCases are answered by the proxy itself, which tells clients of gRPC in their way.
func grpcCases() (cases []tableCase) {
	for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc;a=b", "application/grpc-web", "Application/grpc"} {
		for _, path := range []string{"/said", "/moved"} {
			cases = append(cases, tableCase{name: "gRPC " + path + " " + kind, listener: "strict", text: line("GET " + path + " HTTP/1.1\r\nContent-Type: " + kind)})
		}
	}
	return cases
}

func targetCases() (cases []tableCase) {
	for _, target := range []string{
		"/", "/a?b=c", "/a?", "/?", "/a?b?c", "/a;b=c", "//a//b", "/a/./b", "/a/../b", "/..", "/a/%2e%2e/b", "/a%2Fb", "/a%2Fb/../c//d", "/a%5cb", `/a\b`,
		"/%41", "/%zz", "/%", "/%00", "/a%00b", "/a%0d%0ab", "/a|b", "/a\"b", "/a<b>", "/a{b}", "/a^b`", "/a'b", "/a~b", "/a[b]", "/a?b[]=c",
		"*", "a", "a/b", "?a", "mill:80", "http://granary/a", "http://granary", "http://granary?b", "http://granary/?b#c", "HTTP://granary/a",
		"https://granary/a", "ftp://granary/a", "http:///a", "http://", "http:/a", "http://u:p@granary/a", "http://granary:81/a", "http://granary:/a",
		"http://granary:ab/a", "http://[::1]/a", "http://[::1/a", "http://gra nary/a", "/a#b", "/a b", "/a\tb", "/a\x01b", "/a\x7fb", "/a\xc3\xa4b", "/a\x80b", "/a\x00b",
	} {
		cases = append(cases, tableCase{name: fmt.Sprintf("target %q", target), text: line("GET " + target + " HTTP/1.1")})
	}
	for _, length := range []int{4000, 8000, 50_000, 70_000} {
		cases = append(cases, tableCase{name: fmt.Sprintf("target of %d bytes", length), text: line("GET /" + strings.Repeat("a", length-1) + " HTTP/1.1")})
	}
	return append(cases,
		tableCase{name: "OPTIONS of the server", text: line("OPTIONS * HTTP/1.1")},
		tableCase{name: "POST of the server", text: "POST * HTTP/1.1\r\nHost: mill\r\nContent-Length: 0\r\n\r\n"},
		tableCase{name: "absolute target without Host", text: "GET http://granary/a HTTP/1.1\r\n\r\n"},
		tableCase{name: "absolute target and two Hosts", text: "GET http://granary/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
		tableCase{name: "OPTIONS of an absolute target", text: line("OPTIONS http://granary HTTP/1.1")},
	)
}

func versionCases() (cases []tableCase) {
	for _, version := range []string{
		"", " ", " HTTP/0.9", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", " HTTP/2", " HTTP/3.0", " HTTP/9.9", " HTTP/1", " HTTP/1.", " HTTP/1.x", " HTTP/1.10", " HTTP/01.1",
		" HTTP/1.1 ", " HTTP/1.1\t", "  HTTP/1.1", "\tHTTP/1.1", " http/1.1", " HTTP /1.1", " HTTP/ 1.1", " HTTP/1.1a", " ICY/1.1", " HTTPS/1.1",
	} {
		cases = append(cases, tableCase{name: fmt.Sprintf("version %q", version), text: line("GET /a" + version), waits: version == "" || version == " "})
	}
	return append(cases,
		tableCase{name: "two spaces before the target", text: line("GET  /a HTTP/1.1")},
		tableCase{name: "a tab before the target", text: line("GET\t/a HTTP/1.1")},
		tableCase{name: "HTTP/0.9 alone", text: "GET /a\r\n", waits: true},
		tableCase{name: "HTTP/1.0 without Host", text: "GET /a HTTP/1.0\r\n\r\n"},
		tableCase{name: "an empty line before", text: "\r\n" + get("")},
		tableCase{name: "three empty lines before", text: "\r\n\r\n\r\n" + get("")},
		tableCase{name: "an empty line of LF before", text: "\n" + get("")},
		tableCase{name: "a space in a line before", text: " \r\n" + get("")},
		tableCase{name: "a first line that ends with LF", text: "GET /a HTTP/1.1\nHost: mill\r\n\r\n"},
		tableCase{name: "a first line that ends with CR", text: "GET /a HTTP/1.1\rHost: mill\r\n\r\n", waits: true},
		tableCase{name: "a first line with CR", text: "GET /a\r HTTP/1.1\r\nHost: mill\r\n\r\n"},
		tableCase{name: "TLS", text: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", waits: true},
		tableCase{name: "binary", text: "\x00\x01\x02\x03\r\n\r\n", waits: true},
		tableCase{name: "half a line", text: "GET /a HT", waits: true},
		tableCase{name: "half a head", text: "GET /a HTTP/1.1\r\nHost: mi", waits: true},
		tableCase{name: "a head without its end", text: "GET /a HTTP/1.1\r\nHost: mill\r\n", waits: true},
	)
}

func fieldCases() (cases []tableCase) {
	for _, c := range []struct{ name, field string }{
		{"spelling", "X-ABC: Def\r\n"},
		{"empty value", "X-A:\r\n"},
		{"value of spaces", "X-A:   \r\n"},
		{"space around a value", "X-A:  \t b c\t \r\n"},
		{"no space before a value", "X-A:b\r\n"},
		{"twice", "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\n"},
		{"cookies", "Cookie: a=1\r\nCookie: b=2\r\n"},
		{"obs-text", "X-A: \xe4\xff\r\n"},
		{"UTF-8", "X-A: ä\r\n"},
		{"a quoted value", "X-A: \"b\\\"c\"\r\n"},
		{"all marks in a name", "!#$%&'*+-.^_`|~09: b\r\n"},
		{"underscore", "X_A: b\r\n"},
		{"space in a name", "X A: b\r\n"},
		{"space after a name", "X-A : b\r\n"},
		{"tab after a name", "X-A\t: b\r\n"},
		{"space before a name", " X-A: b\r\n"},
		{"no name", ": b\r\n"},
		{"no colon", "X-A\r\n"},
		{"no colon but a space", "X-A b\r\n"},
		{"at sign in a name", "X@A: b\r\n"},
		{"brackets in a name", "X(A): b\r\n"},
		{"zero byte in a name", "X\x00A: b\r\n"},
		{"control in a name", "X\x01A: b\r\n"},
		{"byte beyond ASCII in a name", "X\xe4A: b\r\n"},
		{"zero byte in a value", "X-A: b\x00c\r\n"},
		{"control in a value", "X-A: b\x01c\r\n"},
		{"delete in a value", "X-A: b\x7fc\r\n"},
		{"vertical tab in a value", "X-A: b\x0bc\r\n"},
		{"CR in a value", "X-A: b\rc\r\n"},
		{"CR that hides a field", "X-A: b\rTransfer-Encoding: chunked\r\n"},
		{"CR before CR LF", "X-A: b\r\r\n"},
		{"LF as an end", "X-A: b\nX-B: c\r\n"},
		{"CR in a name", "X\rA: b\r\n"},
		{"folded", "X-A: b\r\n c\r\n"},
		{"folded by a tab", "X-A: b\r\n\tc\r\n"},
		{"folded and empty", "X-A: b\r\n \r\n"},
		{"folded length", "Content-Length:\r\n 0\r\n"},
		{"pseudo header", ":path: /b\r\n"},
		{"pseudo authority", ":authority: b\r\n"},
		{"value with a colon", "X-A: b: c\r\n"},
		{"HTTP/2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"},
		{"100 fields less one", strings.Repeat("X-A: b\r\n", 95)},
		{"101 fields", strings.Repeat("X-A: b\r\n", 100)},
		{"a value of 50 KB", "X-A: " + strings.Repeat("b", 50<<10) + "\r\n"},
		{"a value of 70 KB", "X-A: " + strings.Repeat("b", 70<<10) + "\r\n"},
		{"a name of 1 KB", strings.Repeat("x", 1<<10) + ": b\r\n"},
		{"a name of 70 KB", strings.Repeat("x", 70<<10) + ": b\r\n"},
		{"X-Forwarded-For", "X-Forwarded-For: 10.0.0.9, 1.2.3.4\r\n"},
		{"X-Forwarded-Proto", "X-Forwarded-Proto: https\r\n"},
		{"X-Forwarded-Proto of nonsense", "X-Forwarded-Proto: gopher\r\n"},
		{"X-Request-Id", "X-Request-Id: mine\r\n"},
		{"Envoy's own", "X-Envoy-Internal: true\r\nX-Envoy-Retry-On: 5xx\r\nX-Envoy-Max-Retries: 3\r\nX-Envoy-Upstream-Rq-Timeout-Ms: 5000\r\nX-Envoy-Decorator-Operation: x\r\n"},
		{"Forwarded-Client-Cert", "X-Forwarded-Client-Cert: By=x\r\n"},
		{"Via", "Via: 1.1 else\r\n"},
		{"Max-Forwards", "Max-Forwards: 0\r\n"},
		{"Content-Type twice", "Content-Type: a/b\r\nContent-Type: c/d\r\n"},
		{"Authorization twice", "Authorization: a\r\nAuthorization: b\r\n"},
		{"grpc-timeout of a plain request", "grpc-timeout: 5S\r\n"},
	} {
		cases = append(cases, tableCase{name: "field: " + c.name, text: get(c.field)})
	}
	return append(cases,
		tableCase{name: "field: the first begins with a space", text: "GET /a HTTP/1.1\r\n X-A: b\r\nHost: mill\r\n\r\n"},
		tableCase{name: "field: Host folded", text: "GET /a HTTP/1.1\r\nHost: mill\r\n b\r\n\r\n"},
		tableCase{name: "head that ends with LF", text: "GET /a HTTP/1.1\r\nHost: mill\r\n\n"},
		tableCase{name: "head of LF alone", text: "GET /a HTTP/1.1\nHost: mill\n\n"},
		tableCase{name: "head that ends with CR CR LF", text: "GET /a HTTP/1.1\r\nHost: mill\r\n\r\r\n", waits: true},
	)
}

func hostCases() (cases []tableCase) {
	for _, host := range []string{
		"mill", "MILL", "mill.", "mill:80", "mill:0", "mill:65535", "mill:65536", "mill:", "mill:ab", "mill:8 0", "127.0.0.1", "1.2.3.4:80", "[::1]", "[::1]:80", "[::1", "::1", "[::1%25eth0]",
		"[::g]", "a_b", "a-b", "-a", "a..b", ".", "", "   ", "u@mill", "u:p@mill", "mill/a", "mill?a", "mill#a", "mill, b", "mill b", "mill\tb", "mill\\b", "mill\x00b", "mi%6cl", "m\xe4ll", "mill:80:80", "http://mill", "*",
	} {
		cases = append(cases, tableCase{name: fmt.Sprintf("host %q", host), text: "GET /a HTTP/1.1\r\nHost: " + host + "\r\n\r\n"})
	}
	return append(cases,
		tableCase{name: "host missing", text: "GET /a HTTP/1.1\r\n\r\n"},
		tableCase{name: "host missing of a POST", text: "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"},
		tableCase{name: "CONNECT and host missing", text: "CONNECT mill:80 HTTP/1.1\r\n\r\n"},
		tableCase{name: "an empty X-Forwarded-For", text: get("X-Forwarded-For:\r\n")},
		tableCase{name: "host twice", text: "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
		tableCase{name: "host twice and the same", text: "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
		tableCase{name: "host of 300 bytes", text: "GET /a HTTP/1.1\r\nHost: " + strings.Repeat("a", 300) + "\r\n\r\n"},
		tableCase{name: "host and a space after its name", text: "GET /a HTTP/1.1\r\nHost : a\r\n\r\n"},
	)
}

func hopCases() (cases []tableCase) {
	for _, c := range []struct{ name, fields string }{
		{"keep-alive", "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"},
		{"Proxy-Connection", "Proxy-Connection: keep-alive\r\n"},
		{"Proxy-Authorization", "Proxy-Authorization: Basic x\r\n"},
		{"Proxy-Authenticate", "Proxy-Authenticate: Basic\r\n"},
		{"a field that is named", "Connection: x-hop\r\nX-Hop: 1\r\nX-Not: 2\r\n"},
		{"fields that are named", "Connection: keep-alive, X-HOP , x-other\r\nX-Hop: 1\r\nX-Other: 2\r\n"},
		{"Connection twice", "Connection: x-hop\r\nConnection: x-other\r\nX-Hop: 1\r\nX-Other: 2\r\n"},
		{"Authorization named", "Connection: authorization\r\nAuthorization: a\r\n"},
		{"Cookie named", "Connection: cookie\r\nCookie: a=1\r\n"},
		{"Cache-Control named", "Connection: cache-control\r\nCache-Control: no-store\r\n"},
		{"Host named", "Connection: host\r\n"},
		{"Content-Length named", "Connection: content-length\r\nContent-Length: 0\r\n"},
		{"Transfer-Encoding named", "Connection: transfer-encoding\r\n"},
		{"X-Forwarded-For named", "Connection: x-forwarded-for\r\nX-Forwarded-For: 1.2.3.4\r\n"},
		{"X-Forwarded-Proto named", "Connection: x-forwarded-proto\r\n"},
		{"X-Forwarded-Host named", "Connection: x-forwarded-host\r\nX-Forwarded-Host: a\r\n"},
		{"X-Request-Id named", "Connection: x-request-id\r\nX-Request-Id: a\r\n"},
		{"a pseudo header named", "Connection: :path\r\n"},
		{"nine named", "Connection: a,b,c,d,e,f,g,h,i\r\n"},
		{"a thousand named", "Connection: " + strings.Repeat("a,", 1000) + "a\r\n"},
		{"empty", "Connection:\r\n"},
		{"commas alone", "Connection: , ,\r\n"},
		{"nonsense", "Connection: \"close\r\n"},
		{"TE of trailers", "TE: trailers\r\n"},
		{"TE of gzip", "TE: gzip\r\n"},
		{"TE of both", "TE: gzip;q=0.5, trailers\r\n"},
		{"TE named", "Connection: TE\r\nTE: trailers\r\n"},
		{"Trailer", "Trailer: x-a\r\n"},
		{"Upgrade that is not named", "Upgrade: websocket\r\n"},
		{"Upgrade to websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
		{"Upgrade to h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"},
		{"Upgrade to h2c without settings", "Connection: Upgrade\r\nUpgrade: h2c\r\n"},
		{"Upgrade to H2C and more", "Connection: Upgrade\r\nUpgrade: H2C, websocket\r\n"},
		{"Upgrade to HTTP/2.0", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n"},
		{"Upgrade to TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"},
		{"Upgrade named and missing", "Connection: Upgrade\r\n"},
	} {
		cases = append(cases, tableCase{name: "hop: " + c.name, text: get(c.fields)})
	}
	return cases
}

func lengthCases() (cases []tableCase) {
	for _, c := range []struct{ name, fields, body string }{
		{"of a body", "Content-Length: 5\r\n", "grain"},
		{"of nothing", "Content-Length: 0\r\n", ""},
		{"missing", "", ""},
		{"with spaces around", "Content-Length:  5\t\r\n", "grain"},
		{"with zeros before", "Content-Length: 0005\r\n", "grain"},
		{"twice and the same", "Content-Length: 5\r\nContent-Length: 5\r\n", "grain"},
		{"twice and not the same", "Content-Length: 5\r\nContent-Length: 6\r\n", "grain"},
		{"listed and the same", "Content-Length: 5, 5\r\n", "grain"},
		{"listed", "Content-Length: 5, 6\r\n", "grain"},
		{"signed", "Content-Length: +5\r\n", "grain"},
		{"negative", "Content-Length: -5\r\n", "grain"},
		{"hexadecimal", "Content-Length: 0x5\r\n", "grain"},
		{"with letters", "Content-Length: 5a\r\n", "grain"},
		{"with a space within", "Content-Length: 5 5\r\n", "grain"},
		{"with a point", "Content-Length: 5.0\r\n", "grain"},
		{"empty", "Content-Length:\r\n", ""},
		{"of 2^63", "Content-Length: 9223372036854775808\r\n", ""},
		{"of 2^64", "Content-Length: 18446744073709551616\r\n", ""},
		{"of 2^64 and 5", "Content-Length: 18446744073709551621\r\n", "grain"},
		{"of forty digits", "Content-Length: " + strings.Repeat("1", 40) + "\r\n", ""},
		{"and chunks", "Content-Length: 3\r\n" + chunkedField, "0\r\n\r\n"},
		{"after chunks", chunkedField + "Content-Length: 5\r\n", "0\r\n\r\n"},
		{"with another dash", "Content_Length: 5\r\n", ""},
		{"with a space after its name", "Content-Length : 5\r\n", "grain"},
	} {
		cases = append(cases, tableCase{name: "length " + c.name, text: post(c.fields, c.body), waits: strings.HasPrefix(c.name, "of 2") || strings.HasPrefix(c.name, "of forty")})
	}
	return append(cases,
		tableCase{name: "length that is not reached", text: post("Content-Length: 10\r\n", "grain"), waits: true},
		tableCase{name: "length that hides a request", text: post("Content-Length: 0\r\n", "") + get(""), answers: 2},
		tableCase{name: "length of a GET that hides a request", text: "GET /a HTTP/1.1\r\nHost: mill\r\nContent-Length: 31\r\n\r\n" + get("")},
		tableCase{name: "length of 100 KB", text: post("Content-Length: 102400\r\n", strings.Repeat("b", 100<<10))},
	)
}

// mayWait says whether a proxy may wait for more of chunks: if they don't end as
// they should, or one is longer than what follows.
func mayWait(body string) bool {
	return !strings.HasSuffix(body, "\r\n\r\n") || strings.HasPrefix(body, "fff")
}

func chunkCases() (cases []tableCase) {
	for _, c := range []struct{ name, body string }{
		{"plain", "5\r\ngrain\r\n0\r\n\r\n"},
		{"none", "0\r\n\r\n"},
		{"many", strings.Repeat("1\r\na\r\n", 300) + "0\r\n\r\n"},
		{"zeros before a size", "0005\r\ngrain\r\n000\r\n\r\n"},
		{"capital digits", "A\r\n0123456789\r\n0\r\n\r\n"},
		{"extension", "5;a=b\r\ngrain\r\n0;c\r\n\r\n"},
		{"extension in quotes", "5;a=\"b;c\"\r\ngrain\r\n0\r\n\r\n"},
		{"extension after a space", "5 ;a=b\r\ngrain\r\n0\r\n\r\n"},
		{"extension with a zero byte", "5;a=\x00\r\ngrain\r\n0\r\n\r\n"},
		{"extension with LF", "5;a\nb\r\ngrain\r\n0\r\n\r\n"},
		{"extension with CR", "5;a\rb\r\ngrain\r\n0\r\n\r\n"},
		{"extension of 8 KB", "5;" + strings.Repeat("a", 8<<10) + "\r\ngrain\r\n0\r\n\r\n"},
		{"extensions of 20 KB", strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\ng\r\n", 20) + "0\r\n\r\n"},
		{"space after a size", "5 \r\ngrain\r\n0\r\n\r\n"},
		{"space before a size", " 5\r\ngrain\r\n0\r\n\r\n"},
		{"size of two words", "5 5\r\ngrain\r\n0\r\n\r\n"},
		{"signed size", "+5\r\ngrain\r\n0\r\n\r\n"},
		{"negative size", "-5\r\ngrain\r\n0\r\n\r\n"},
		{"size with 0x", "0x5\r\ngrain\r\n0\r\n\r\n"},
		{"size with an underscore", "0_5\r\ngrain\r\n0\r\n\r\n"},
		{"size that is none", "xyz\r\ngrain\r\n0\r\n\r\n"},
		{"empty size", "\r\ngrain\r\n0\r\n\r\n"},
		{"size of 17 digits", "10000000000000005\r\ngrain\r\n0\r\n\r\n"},
		{"size of 2^64-1", "ffffffffffffffff\r\ngrain\r\n0\r\n\r\n"},
		{"LF after a size", "5\ngrain\r\n0\r\n\r\n"},
		{"LF after data", "5\r\ngrain\n0\r\n\r\n"},
		{"LF at the end", "5\r\ngrain\r\n0\r\n\n"},
		{"CR after a size", "5\rgrain\r\n0\r\n\r\n"},
		{"no end after data", "5\r\ngrain0\r\n\r\n"},
		{"too much data", "5\r\ngrains\r\n0\r\n\r\n"},
		{"two bytes too much", "5\r\ngrainXX\r\n0\r\n\r\n"},
		{"trailers", "5\r\ngrain\r\n0\r\nX-A: b\r\n\r\n"},
		{"trailers that frame", "5\r\ngrain\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"},
		{"trailers without a colon", "5\r\ngrain\r\n0\r\nnonsense\r\n\r\n"},
		{"trailers with a space in a name", "5\r\ngrain\r\n0\r\nX A: b\r\n\r\n"},
		{"trailers folded", "5\r\ngrain\r\n0\r\nX-A: b\r\n c\r\n\r\n"},
		{"trailers with LF", "5\r\ngrain\r\n0\r\nX-A: b\n\r\n"},
		{"trailers of 70 KB", "5\r\ngrain\r\n0\r\nX-A: " + strings.Repeat("b", 70<<10) + "\r\n\r\n"},
	} {
		cases = append(cases, tableCase{name: "chunks: " + c.name, text: post(chunkedField, c.body), waits: mayWait(c.body)})
	}
	for _, c := range []struct{ name, fields string }{
		{"Chunked", "Transfer-Encoding: Chunked\r\n"},
		{"spaces around", "Transfer-Encoding:  chunked \r\n"},
		{"twice", chunkedField + chunkedField},
		{"listed twice", "Transfer-Encoding: chunked, chunked\r\n"},
		{"gzip", "Transfer-Encoding: gzip\r\n"},
		{"gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"},
		{"chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n"},
		{"gzip and chunked in two lines", "Transfer-Encoding: gzip\r\n" + chunkedField},
		{"identity", "Transfer-Encoding: identity\r\n"},
		{"identity, chunked", "Transfer-Encoding: identity, chunked\r\n"},
		{"xchunked", "Transfer-Encoding: xchunked\r\n"},
		{"chunked;a", "Transfer-Encoding: chunked;a\r\n"},
		{"in quotes", "Transfer-Encoding: \"chunked\"\r\n"},
		{"a comma before", "Transfer-Encoding: ,chunked\r\n"},
		{"a comma after", "Transfer-Encoding: chunked,\r\n"},
		{"a vertical tab before", "Transfer-Encoding: \x0bchunked\r\n"},
		{"empty", "Transfer-Encoding:\r\n"},
		{"and then empty", chunkedField + "Transfer-Encoding:\r\n"},
		{"space after its name", "Transfer-Encoding : chunked\r\n"},
		{"with an underscore", "Transfer_Encoding: chunked\r\n"},
		{"folded", "Transfer-Encoding:\r\n chunked\r\n"},
		{"and a length by another name", "Content_Length: 5\r\n" + chunkedField},
	} {
		cases = append(cases, tableCase{name: "coding " + c.name, text: post(c.fields, "5\r\ngrain\r\n0\r\n\r\n")})
	}
	return append(cases,
		tableCase{name: "coding in HTTP/1.0", text: "POST /a HTTP/1.0\r\nHost: mill\r\n" + chunkedField + "\r\n0\r\n\r\n"},
		tableCase{name: "chunks of a GET", text: get(chunkedField) + "5\r\ngrain\r\n0\r\n\r\n"},
		tableCase{name: "chunks that are not all there", text: post(chunkedField, "5\r\ngra"), waits: true},
		tableCase{name: "chunks and a request", text: post(chunkedField, "5\r\ngrain\r\n0\r\n\r\n") + get(""), answers: 2},
	)
}

func connectionCases() []tableCase {
	return []tableCase{
		{name: "connection: close", text: get("Connection: close\r\n")},
		{name: "connection: Close", text: get("Connection: Close\r\n")},
		{name: "connection: close among others", text: get("Connection: keep-alive, close\r\n")},
		{name: "connection: close of a POST", text: post("Connection: close\r\nContent-Length: 5\r\n", "grain")},
		{name: "connection: proxy-connection closes nothing", text: get("Proxy-Connection: close\r\n")},
		{name: "pipelined: two", text: get("") + get("X-A: b\r\n"), answers: 2},
		{name: "pipelined: five", text: strings.Repeat(get(""), 5), answers: 5},
		{name: "pipelined: POST and GET", text: post("Content-Length: 5\r\n", "grain") + get(""), answers: 2},
		{name: "pipelined: empty lines between", text: get("") + "\r\n\r\n" + get(""), answers: 2},
		{name: "pipelined: nonsense after", text: get("") + "nonsense\r\n\r\n", answers: 2},
		{name: "pipelined: close before", text: get("Connection: close\r\n") + get("")},
		{name: "pipelined: a bad one between", text: get("") + get("X A: b\r\n") + get(""), answers: 2},
		{name: "a body too long by a line", text: post("Content-Length: 5\r\n", "grain\r\n")},
	}
}

func expectCases() []tableCase {
	return []tableCase{
		{name: "expect: 100-continue", text: post("Content-Length: 5\r\nExpect: 100-continue\r\n", "grain")},
		{name: "expect: 100-Continue", text: post("Content-Length: 5\r\nExpect: 100-Continue\r\n", "grain")},
		{name: "expect: of chunks", text: post(chunkedField+"Expect: 100-continue\r\n", "5\r\ngrain\r\n0\r\n\r\n")},
		{name: "expect: of nothing", text: post("Content-Length: 0\r\nExpect: 100-continue\r\n", "")},
		{name: "expect: of a GET", text: get("Expect: 100-continue\r\n")},
		{name: "expect: something else", text: post("Content-Length: 5\r\nExpect: 200-ok\r\n", "grain")},
		{name: "expect: two", text: post("Content-Length: 5\r\nExpect: 100-continue, x\r\n", "grain")},
		{name: "expect: twice", text: post("Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n", "grain")},
		{name: "expect: in HTTP/1.0", text: "POST /a HTTP/1.0\r\nHost: mill\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\ngrain"},
	}
}

func answerCases() (cases []tableCase) {
	for _, c := range []struct{ name, answer string }{
		{"of a length", answer("200 OK", "Content-Length: 5\r\n", "grain")},
		{"in chunks", answer("200 OK", chunkedField, "5\r\ngrain\r\n0\r\n\r\n")},
		{"in chunks with an extension", answer("200 OK", chunkedField, "5;a=b\r\ngrain\r\n0\r\n\r\n")},
		{"in chunks with trailers", answer("200 OK", chunkedField+"Trailer: x-a\r\n", "5\r\ngrain\r\n0\r\nX-A: b\r\n\r\n")},
		{"until the end", answer("200 OK", "", "grain")},
		{"of nothing", answer("200 OK", "Content-Length: 0\r\n", "")},
		{"without a reason", "HTTP/1.1 200\r\nX-Backend: one\r\nContent-Length: 0\r\n\r\n"},
		{"with an empty reason", "HTTP/1.1 200 \r\nX-Backend: one\r\nContent-Length: 0\r\n\r\n"},
		{"with a reason of its own", answer("200 Fine, thank you", "Content-Length: 0\r\n", "")},
		{"in HTTP/1.0", "HTTP/1.0 200 OK\r\nX-Backend: one\r\nContent-Length: 5\r\n\r\ngrain"},
		{"in HTTP/1.0 until the end", "HTTP/1.0 200 OK\r\nX-Backend: one\r\n\r\ngrain"},
		{"in HTTP/1.0 in chunks", "HTTP/1.0 200 OK\r\nX-Backend: one\r\n" + chunkedField + "\r\n5\r\ngrain\r\n0\r\n\r\n"},
		{"in HTTP/1.2", "HTTP/1.2 200 OK\r\nX-Backend: one\r\nContent-Length: 0\r\n\r\n"},
		{"in HTTP/2.0", "HTTP/2.0 200 OK\r\nX-Backend: one\r\nContent-Length: 0\r\n\r\n"},
		{"in HTTP/0.9", "grain"},
		{"of 201", answer("201 Created", "Location: /b\r\nContent-Length: 0\r\n", "")},
		{"of 204", answer("204 No Content", "", "")},
		{"of 204 with a length", answer("204 No Content", "Content-Length: 0\r\n", "")},
		{"of 204 with a body", answer("204 No Content", "Content-Length: 5\r\n", "grain")},
		{"of 204 in chunks", answer("204 No Content", chunkedField, "0\r\n\r\n")},
		{"of 205", answer("205 Reset Content", "Content-Length: 0\r\n", "")},
		{"of 206", answer("206 Partial Content", "Content-Range: bytes 0-4/9\r\nContent-Length: 5\r\n", "grain")},
		{"of 304", answer("304 Not Modified", "Etag: \"a\"\r\n", "")},
		{"of 304 with a length", answer("304 Not Modified", "Content-Length: 5\r\n", "")},
		{"of 401", answer("401 Unauthorized", "WWW-Authenticate: Basic\r\nContent-Length: 0\r\n", "")},
		{"of 404", answer("404 Not Found", "Content-Length: 0\r\n", "")},
		{"of 500", answer("500 Internal Server Error", "Content-Length: 4\r\n", "oops")},
		{"of 503", answer("503 Service Unavailable", "Retry-After: 1\r\nContent-Length: 0\r\n", "")},
		{"of 599", answer("599 Own", "Content-Length: 0\r\n", "")},
		{"of 600", answer("600 Own", "Content-Length: 0\r\n", "")},
		{"of 2000", answer("2000 OK", "Content-Length: 0\r\n", "")},
		{"of abc", answer("abc OK", "Content-Length: 0\r\n", "")},
		{"after 100", "HTTP/1.1 100 Continue\r\n\r\n" + defaultAnswer},
		{"after 102", "HTTP/1.1 102 Processing\r\nX-A: b\r\n\r\n" + defaultAnswer},
		{"after 103", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + defaultAnswer},
		{"after 199", "HTTP/1.1 199 Own\r\n\r\n" + defaultAnswer},
		{"of 101 that nobody asked for", answer("101 Switching Protocols", "Connection: upgrade\r\nUpgrade: websocket\r\n", "")},
		{"with a Connection", answer("200 OK", "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n", "")},
		{"with fields of the hop", answer("200 OK", "Proxy-Connection: close\r\nProxy-Authenticate: Basic\r\nTE: x\r\nUpgrade: h2c\r\nContent-Length: 0\r\n", "")},
		{"with cookies", answer("200 OK", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n", "")},
		{"with a server and a date", answer("200 OK", "Server: theirs\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n", "")},
		{"with Envoy's fields", answer("200 OK", "X-Envoy-Overloaded: true\r\nX-Envoy-Upstream-Service-Time: 9\r\nX-Envoy-Decorator-Operation: a\r\nContent-Length: 0\r\n", "")},
		{"with a request id", answer("200 OK", "X-Request-Id: a\r\nContent-Length: 0\r\n", "")},
		{"with an empty field", answer("200 OK", "X-A:\r\nContent-Length: 0\r\n", "")},
		{"with obs-text", answer("200 OK", "X-A: \xe4\r\nContent-Length: 0\r\n", "")},
		{"with two lengths", answer("200 OK", "Content-Length: 5\r\nContent-Length: 6\r\n", "grain")},
		{"with one length twice", answer("200 OK", "Content-Length: 5\r\nContent-Length: 5\r\n", "grain")},
		{"with a length that is none", answer("200 OK", "Content-Length: 5x\r\n", "grain")},
		{"with a length and chunks", answer("200 OK", "Content-Length: 5\r\n"+chunkedField, "5\r\ngrain\r\n0\r\n\r\n")},
		{"in gzip and chunks", answer("200 OK", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")},
		{"in a coding that is none", answer("200 OK", "Transfer-Encoding: x\r\n", "grain")},
		{"with a bad chunk", answer("200 OK", chunkedField, "x\r\ngrain\r\n0\r\n\r\n")},
		{"that breaks off", answer("200 OK", "Content-Length: 9\r\n", "grain")},
		{"in chunks that break off", answer("200 OK", chunkedField, "9\r\ngrain")},
		{"in chunks without an end", answer("200 OK", chunkedField, "5\r\ngrain\r\n")},
		{"with more than its length", answer("200 OK", "Content-Length: 5\r\n", "grains")},
		{"with a second answer", answer("200 OK", "Content-Length: 0\r\n", "") + defaultAnswer},
		{"that is no head", "nonsense\r\n\r\n"},
		{"of half a head", "HTTP/1.1 200 OK\r\nX-Ba"},
		{"of nothing at all", "\r\n"},
		{"behind an empty line", "\r\n" + defaultAnswer},
		{"with a space in a name", answer("200 OK", "X A: b\r\nContent-Length: 0\r\n", "")},
		{"with a zero byte", answer("200 OK", "X-A: b\x00\r\nContent-Length: 0\r\n", "")},
		{"with CR in a value", answer("200 OK", "X-A: b\rc\r\nContent-Length: 0\r\n", "")},
		{"folded", answer("200 OK", "X-A: b\r\n c\r\nContent-Length: 0\r\n", "")},
		{"of LF", strings.ReplaceAll(answer("200 OK", "Content-Length: 0\r\n", ""), "\r\n", "\n")},
		{"without a colon", answer("200 OK", "nonsense\r\nContent-Length: 0\r\n", "")},
		{"with an underscore", answer("200 OK", "X_A: b\r\nContent-Length: 0\r\n", "")},
		{"with a field of 50 KB", answer("200 OK", "X-A: "+strings.Repeat("b", 50<<10)+"\r\nContent-Length: 0\r\n", "")},
		{"with a field of 100 KB", answer("200 OK", "X-A: "+strings.Repeat("b", 100<<10)+"\r\nContent-Length: 0\r\n", "")},
		{"with 110 fields", answer("200 OK", strings.Repeat("X-A: b\r\n", 110)+"Content-Length: 0\r\n", "")},
		{"with a field of 70 KB", answer("200 OK", "X-A: "+strings.Repeat("b", 70<<10)+"\r\nContent-Length: 0\r\n", "")},
		{"with a field of 90 KB", answer("200 OK", "X-A: "+strings.Repeat("b", 90<<10)+"\r\nContent-Length: 0\r\n", "")},
		{"of 200 KB", answer("200 OK", "Content-Length: 204800\r\n", strings.Repeat("b", 200<<10))},
	} {
		cases = append(cases, tableCase{name: "answer " + c.name, text: get(""), answer: c.answer})
	}
	const head = "HEAD /a HTTP/1.1\r\nHost: mill\r\n\r\n"
	return append(cases,
		tableCase{name: "answer to HEAD with a length", text: head, answer: answer("200 OK", "Content-Length: 5\r\n", "")},
		tableCase{name: "answer to HEAD in chunks", text: head, answer: answer("200 OK", chunkedField, "")},
		tableCase{name: "answer to HEAD of neither", text: head, answer: answer("200 OK", "", "")},
		tableCase{name: "answer to HEAD of 404", text: head, answer: answer("404 Not Found", "Content-Length: 9\r\n", "")},
		tableCase{name: "answer to HEAD with a body", text: head, answer: answer("200 OK", "Content-Length: 5\r\n", "grain")},
	)
}

func openCases() (cases []tableCase) {
	for _, c := range []tableCase{
		{name: "GET", text: get("X-Spelt-SO: Yes\r\n")},
		{name: "HTTP/1.0", text: "GET /a HTTP/1.0\r\nHost: mill\r\n\r\n"},
		{name: "HTTP/1.0 without Host", text: "GET /a HTTP/1.0\r\n\r\n"},
		{name: "HTTP/1.0 that is kept", text: "GET /a HTTP/1.0\r\nHost: mill\r\nConnection: keep-alive\r\n\r\n"},
		{name: "HTTP/1.0 POST", text: "POST /a HTTP/1.0\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain"},
		{name: "HTTP/1.0 in chunks", text: "POST /a HTTP/1.0\r\nHost: mill\r\n" + chunkedField + "\r\n5\r\ngrain\r\n0\r\n\r\n", waits: true},
		{name: "HTTP/1.0 with an answer in chunks", text: "GET /a HTTP/1.0\r\nHost: mill\r\n\r\n", answer: answer("200 OK", chunkedField, "5\r\ngrain\r\n0\r\n\r\n")},
		{name: "HTTP/0.9", text: "GET /a\r\n", waits: true},
		{name: "HTTP/1.2", text: line("GET /a HTTP/1.2")},
		{name: "trailers", text: post(chunkedField+"Trailer: X-A\r\n", "5\r\ngrain\r\n0\r\nX-A: b\r\n\r\n")},
		{name: "trailers that frame", text: post(chunkedField, "5\r\ngrain\r\n0\r\nContent-Length: 9\r\nX-A: b\r\n\r\n")},
		{name: "trailers of an answer", text: get("TE: trailers\r\n"), answer: answer("200 OK", chunkedField, "5\r\ngrain\r\n0\r\nX-A: b\r\n\r\n")},
		{name: "expect", text: post("Content-Length: 5\r\nExpect: 100-continue\r\n", "grain"), answer: "HTTP/1.1 100 Continue\r\n\r\n" + defaultAnswer},
		{name: "early hints", text: get(""), answer: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + defaultAnswer},
		{name: "interim answers", text: get(""), answer: "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + defaultAnswer},
		{name: "websocket", text: get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"), answer: switched + "Switching Protocols\r\nX-Backend: one\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{name: "websocket that is refused", text: get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), answer: answer("403 Forbidden", "Content-Length: 2\r\n", "no")},
		{name: "websocket in capitals", text: get("Connection: upgrade\r\nUpgrade: WebSocket\r\n"), answer: switched + "Switching Protocols\r\nX-Backend: one\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{name: "an upgrade to something else", text: get("Connection: Upgrade\r\nUpgrade: spdy\r\n")},
		{name: "a request id", text: get("X-Request-Id: mine\r\n")},
		{name: "Via", text: get("Via: 1.1 else\r\n")},
		{name: "X-Forwarded-For", text: get("X-Forwarded-For: 1.2.3.4\r\n")},
		{name: "X-Forwarded-Proto", text: get("X-Forwarded-Proto: https\r\n")},
		{name: "Envoy's own", text: get("X-Envoy-Internal: true\r\nX-Envoy-External-Address: 1.2.3.4\r\nX-Envoy-Max-Retries: 3\r\n")},
		{name: "a bad field", text: get("X A: b\r\n")},
		{name: "a bad length", text: post("Content-Length: x\r\n", "")},
		{name: "a bad Connection", text: get("Connection: host\r\n")},
		{name: "a bad answer", text: get(""), answer: "nonsense\r\n\r\n"},
	} {
		c.name, c.listener = "open: "+c.name, "open"
		cases = append(cases, c)
	}
	return cases
}

func strictCases() (cases []tableCase) {
	for _, target := range []string{
		"/a", "/a/../b", "/a/./b", "/../a", "/a/..", "/a//b", "///", "/a/%2e%2e/b", "/a%2Fb", "/a%2fb?c=%2f", "/a%5cb", `/a\..\b`, "/%61%7e", "/%zz", "/%00", "/a/b/../../../c", "/a|b\"c",
		"/a/..?b=/../c", "/moved/a", "/said", "/a;b/../c", "/.", "/..;/a", "http://granary/a", "/a/%252e%252e/b", "*",
	} {
		cases = append(cases, tableCase{name: fmt.Sprintf("strict: target %q", target), text: line("GET " + target + " HTTP/1.1")})
	}
	for _, c := range []tableCase{
		{name: "underscore", text: get("X_A: b\r\n")},
		{name: "underscore of an answer", text: get(""), answer: answer("200 OK", "X_A: b\r\nContent-Length: 0\r\n", "")},
		{name: "a port", text: "GET /a HTTP/1.1\r\nHost: mill:8080\r\n\r\n"},
		{name: "a port of IPv6", text: "GET /a HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"},
		{name: "ten fields", text: get(strings.Repeat("X-A: b\r\n", 9))},
		{name: "eleven fields", text: get(strings.Repeat("X-A: b\r\n", 10))},
		{name: "9 KB of fields", text: get("X-A: " + strings.Repeat("b", 9<<10) + "\r\n")},
		{name: "7 KB of fields", text: get("X-A: " + strings.Repeat("b", 7<<10) + "\r\n")},
		{name: "the server's name", text: get(""), answer: answer("200 OK", "Server: theirs\r\nContent-Length: 0\r\n", "")},
		{name: "no server's name", text: get(""), answer: answer("200 OK", "Content-Length: 0\r\n", "")},
		{name: "HEAD that is moved", text: line("HEAD /moved HTTP/1.1")},
		{name: "POST that is moved", text: "POST /moved HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain"},
		{name: "POST that is said", text: "POST /said HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\n\r\ngrain"},
		{name: "HEAD that is said", text: line("HEAD /said HTTP/1.1")},
	} {
		c.name = "strict: " + c.name
		cases = append(cases, c)
	}
	for i := range cases {
		cases[i].listener = "strict"
	}
	return cases
}
