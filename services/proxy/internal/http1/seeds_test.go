package http1_test

import "strings"

// The seeds of the fuzz targets, with LF for CR LF: messages that are good, and
// such as have been used to smuggle others past a proxy.
var (
	requestSeeds = []string{
		"GET / HTTP/1.1\nHost: a\n\n",
		"\nGET /a?b=c HTTP/1.1\nHost: a:80\nX-A:  b \nX-A:\n\n",
		"OPTIONS * HTTP/1.1\nHost: [::1]\n\n",
		"GET http://b/c HTTP/1.1\nHost: a\n\n",
		"CONNECT a:443 HTTP/1.1\nHost: a\n\n",
		"POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3;x=\"y\"\nabc\n0\nX-A: b\n\n",
		"PUT / HTTP/1.1\nHost: a\nExpect: 100-continue\nConnection: close, x\nContent-Length: 1\n\nb",
		"POST / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\nGET /smuggled HTTP/1.1\nHost: a\n\n",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: xchunked\n\n0\n\n",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\n\n0\n\n",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\x0bchunked\n\n0\n\n",
		"POST / HTTP/1.1\nHost: a\nX: y\n Transfer-Encoding: chunked\n\n0\n\n",
		"POST / HTTP/1.1\nHost: a\nX: y\rTransfer-Encoding: chunked\n\n0\n\n",
		"POST / HTTP/1.1\nHost: a\n\r\nContent-Length: 5\n\nhello",
		"POST / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 2\n\nab",
		"POST / HTTP/1.1\nHost: a\nContent-Length: +1\n\na",
		"POST / HTTP/1.1\nHost: a\nContent-Length: 9223372036854775807\n\na",
		"GET / HTTP/1.0\nHost: a\n\n",
		"PRI * HTTP/2.0\n\nSM\n\n",
	}
	responseSeeds = []string{
		"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
		"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
		"HTTP/1.1 200\n\nabc",
		"HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 0\n\n",
		"HTTP/1.1 204 No Content\nContent-Length: 3\n\n",
		"HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n",
		"\nHTTP/1.1 200 OK\n\n",
		"HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: a\n\nHTTP/1.1 404 No\nContent-Length: 0\n\n",
		"HTTP/1.1 101 Switching Protocols\nUpgrade: x\n\n",
		"HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\n",
		"HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
		"HTTP/1.1 200 OK\nX-A: b\n c\nContent-Length: 0\n\n",
	}
	bodySeeds = []string{
		"0\n\n",
		"3\nabc\nA;b=c\n0123456789\n0\nX-A: b\n\nGET / HTTP/1.1\nHost: a\n\n",
		"3 ;a\nabc\n000\n\n",
		"5 5\nabcde\n0\n\n",
		"3 \nabc\n0\n\n",
		"0x3\nabc\n0\n\n",
		"00000000000000003\nabc\n0\n\n",
		"7fffffffffffffff\nabc",
		"8000000000000000\nabc",
		"3\nabcd\n0\n\n",
		"3\nabc0\n\n",
		"2;" + strings.Repeat("a", 5000) + "\nab\n0\n\n",
		"0\nX-A\n\n",
	}
)
