// Package grpchttp2 serves gRPC on package http2, for servers that hold many
// streams at rest: grpc-go's costs several times the memory. It takes services in
// grpc-go's own types (it is a grpc.ServiceRegistrar) and gives handlers what that
// gives them, so generated code runs on either. It is no client, retries nothing
// and knows no names of services but those that are registered.
//
// The path of a call, by the protocol that gRPC describes in PROTOCOL-HTTP2:
//
//	connection.go  a connection is made one: TLS, HTTP/2's preface, its age
//	call.go        a request becomes a call: its method, its deadline, or why not
//	metadata.go    its fields become metadata, and metadata becomes fields
//	stream.go      what a handler has of it (grpc.ServerStream)
//	message.go     messages between frames of five bytes and the codec
//	status.go      how it ends: grpc-status, grpc-message
//
// What grpc-go has and this does not: stats handlers, and compressed responses. Gzip
// is read if a client sends it, and answered plainly, as gRPC lets a server do: one
// message may go to thousands of streams, and would be compressed for each of them
// anew, by a writer that takes most of a megabyte. How often a client may ping is
// bounded by a token bucket of http2's, where grpc-go counts those that come too soon.
//
// # Goroutines
//
// A connection has one that reads, and each call one that runs its handler, unless
// that has left the rest for Later. Both end with what they are of; a stop waits for
// all. A handler that leaves others behind may let them call the stream at any time:
// they get an error.
package grpchttp2
