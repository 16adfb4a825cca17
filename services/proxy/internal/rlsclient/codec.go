package rlsclient

import (
	"bytes"
	"fmt"
	"strings"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
)

// Request is what the proxy sends of a RateLimitRequest.
type Request struct {
	Domain string
	// Descriptors are not kept beyond the call.
	Descriptors *descriptor.List
}

// Response is what the proxy reads of a RateLimitResponse.
type Response struct {
	// Code is OK, OVER_LIMIT, or what else the service sent.
	Code rlsv3.RateLimitResponse_Code
	// RequestHeaders and ResponseHeaders are to be added to the request and to
	// its response. Fields that are no valid HTTP or that frame a message are
	// left out.
	RequestHeaders, ResponseHeaders []Header
	// Body is that of the answer if the request is over its limit.
	Body string
}

// Header is one header field, its name in lower case.
type Header struct{ Name, Value string }

// Numbers of the fields of RateLimitRequest, RateLimitDescriptor and its Entry,
// RateLimitResponse and HeaderValue.
const (
	requestDomain      protowire.Number = 1
	requestDescriptors protowire.Number = 2

	descriptorEntries protowire.Number = 1
	entryKey          protowire.Number = 1
	entryValue        protowire.Number = 2

	responseCode            protowire.Number = 1
	responseResponseHeaders protowire.Number = 3
	responseRequestHeaders  protowire.Number = 4
	responseBody            protowire.Number = 5

	headerKey      protowire.Number = 1
	headerValue    protowire.Number = 2
	headerRawValue protowire.Number = 3
)

// codec writes Request and reads Response in protobuf's wire form, without the
// messages that generated code would have to build. It implements
// encoding.CodecV2.
type codec struct{}

// Name is what the standard codec is called.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	request, ok := v.(*Request)
	if !ok {
		return nil, fmt.Errorf("encode a %T: is no *Request", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(request.encode())}, nil
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	response, ok := v.(*Response)
	if !ok {
		return fmt.Errorf("decode a %T: is no *Response", v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return response.decode(buffer.ReadOnlyData())
}

func (r *Request) encode() []byte {
	size := fieldSize(len(r.Domain))
	for i := range r.Descriptors.Len() {
		size += fieldSize(descriptorSize(r.Descriptors.At(i)))
	}
	b := make([]byte, 0, size)
	b = protowire.AppendTag(b, requestDomain, protowire.BytesType)
	b = protowire.AppendString(b, r.Domain)
	for i := range r.Descriptors.Len() {
		entries := r.Descriptors.At(i)
		b = protowire.AppendTag(b, requestDescriptors, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(descriptorSize(entries)))
		for _, e := range entries {
			b = protowire.AppendTag(b, descriptorEntries, protowire.BytesType)
			b = protowire.AppendVarint(b, uint64(entrySize(e)))
			b = protowire.AppendTag(b, entryKey, protowire.BytesType)
			b = protowire.AppendString(b, e.Key)
			b = protowire.AppendTag(b, entryValue, protowire.BytesType)
			b = protowire.AppendBytes(b, e.Value)
		}
	}
	return b
}

// fieldSize is the size of a field of length bytes with its tag, the number of
// which is below 16.
func fieldSize(length int) int { return 1 + protowire.SizeBytes(length) }

func descriptorSize(entries []descriptor.Entry) int {
	size := 0
	for _, e := range entries {
		size += fieldSize(entrySize(e))
	}
	return size
}

func entrySize(e descriptor.Entry) int { return fieldSize(len(e.Key)) + fieldSize(len(e.Value)) }

// decode reads a RateLimitResponse and passes over what it doesn't know.
func (r *Response) decode(b []byte) error {
	*r = Response{}
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return fmt.Errorf("decode a RateLimitResponse: %w", err)
		}
		b = rest
		switch {
		case f.is(responseCode, protowire.VarintType):
			r.Code = rlsv3.RateLimitResponse_Code(f.varint)
		case f.is(responseResponseHeaders, protowire.BytesType):
			r.ResponseHeaders, err = appendHeader(r.ResponseHeaders, f.bytes)
		case f.is(responseRequestHeaders, protowire.BytesType):
			r.RequestHeaders, err = appendHeader(r.RequestHeaders, f.bytes)
		case f.is(responseBody, protowire.BytesType):
			r.Body = string(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// appendHeader reads a HeaderValue and appends it if it may be sent.
func appendHeader(list []Header, b []byte) ([]Header, error) {
	var name, value, raw []byte
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return list, fmt.Errorf("decode a header of a RateLimitResponse: %w", err)
		}
		b = rest
		switch {
		case f.is(headerKey, protowire.BytesType):
			name = f.bytes
		case f.is(headerValue, protowire.BytesType):
			value = f.bytes
		case f.is(headerRawValue, protowire.BytesType):
			raw = f.bytes
		}
	}
	if len(value) == 0 {
		value = raw
	}
	h := Header{strings.ToLower(string(name)), string(bytes.Trim(value, " \t"))}
	if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) || framing(h.Name) {
		return list, nil
	}
	return append(list, h), nil
}

// framing says whether a field belongs to one connection and the proxy alone
// writes it.
func framing(name string) bool {
	switch name {
	case "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection",
		"te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// field is one field of a message: a number, or bytes, which are a view. Fields
// of other wire types have neither.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64
	bytes  []byte
}

func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// nextField reads the first field of b.
func nextField(b []byte) (f field, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	b = b[n:]
	f = field{number: number, kind: kind}
	switch kind {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(number, kind, b)
	}
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	return f, b[n:], nil
}
