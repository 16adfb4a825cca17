package httpjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
)

// Unread is l with the answers in JSON that net/http gives by itself, in plain text, to
// what it cannot read as a request: 400, 431, 501 and 505. No handler is asked for them.
// A listener of TLS cannot be had so, since net/http has to know its connections.
func Unread(l net.Listener) net.Listener { return unread{l} }

type unread struct{ net.Listener }

func (l unread) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return unreadConn{tcp}, err
	}
	return conn, err
}

// unreadConn is a connection of such a listener.
type unreadConn struct{ *net.TCPConn }

// What such an answer begins with, and what parts it from its text. It is one write. No
// answer of a handler has these headers alone: a date is among those always.
var (
	unreadBegin   = []byte("HTTP/1.1 ")
	unreadHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
)

func (c unreadConn) Write(b []byte) (int, error) {
	line, text, is := bytes.Cut(b[:min(len(b), 512)], unreadHeaders)
	if !is || !bytes.HasPrefix(line, unreadBegin) || bytes.ContainsRune(line, '\n') {
		return c.TCPConn.Write(b)
	}
	body, _ := json.Marshal(map[string]string{"error": "this is no request that can be read: " + string(text)}) // texts always can be
	_, err := fmt.Fprintf(c.TCPConn, "%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", line, len(body)+1, body)
	if err != nil {
		return 0, err
	}
	return len(b), nil
}
