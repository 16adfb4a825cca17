// Package http2 is one HTTP/2 connection (RFC 9113, HPACK of RFC 7541), of
// either side, without policy: the proxy's listeners and upstream pools use it,
// and what else speaks HTTP/2. It opens no connection, knows no routes and sets
// no timeout that it was not told; what it refuses is what the RFC or a limit of
// Options refuses.
//
// The path of a request through a server's connection:
//
//	read.go       one goroutine a connection reads frames (Conn.Serve)
//	receive.go    each frame is held to the state that it meets
//	headers.go    a header block becomes a Head, held to the rules of messages
//	server.go     a Handler runs on a goroutine that is used again
//	stream.go     which pulls the body (ReadHead, Next, ReadTrailers),
//	send.go       and writes the answer (WriteHead, WriteData, WriteTrailers)
//	write.go      into the connection's buffer, which the first writer flushes
//
// A client's is the same from the other end: Client.Open in client.go, then
// send.go and stream.go. Beside the path stand hpack.go, encode.go and
// huffman.go (header compression), settings.go, flow.go (windows both ways),
// flood.go (what a peer may not do too often), drain.go (GOAWAY), keepalive.go and
// traffic.go (what a stream took on the wire).
//
// # Locks and goroutines
//
// One mutex guards a connection with its streams. It is held for the time of a
// copy and never over a system call. Nobody who reads, serves or opens a stream
// waits for the socket to take what was written: on TCP and Unix sockets he who
// writes first writes what it takes at once, for all others too, and leaves the
// rest to a goroutine that ends once all is written; on others, such as TLS, that
// goroutine writes all. So two peers that both wait to write can't stop each
// other, and a stream waits for nothing but credit and room in the buffer, which
// its deadline ends.
//
// # Memory
//
// A connection in rest holds its struct, its streams, what both sides put into
// their header tables, and the stack of the goroutine that reads; on TCP and Unix
// sockets no buffer. A server's stream has the stack of its handler beside, unless
// that parks it. What a peer sends and nobody took is bounded by the windows
// of Options, since credit goes back only for what was taken.
package http2
