package healthcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// grpcCheck is a checked GrpcHealthCheck.
type grpcCheck struct {
	service, authority string
	headers            *headermutation.Mutations // of calls; nil for none
}

func parseGRPC(m *corev3.HealthCheck_GrpcHealthCheck, at strict.Path, report *strict.Report) *grpcCheck {
	return &grpcCheck{
		service: m.GetServiceName(), authority: m.GetAuthority(),
		headers: headermutation.Parse(m.GetInitialMetadata(), at.Field("initial_metadata"), nil, "", report),
	}
}

func (c *grpcCheck) newProber(h hostConfig) prober {
	p := &grpcProber{hostConfig: h, check: c, sent: make([]byte, framePrefix)}
	request := &healthv1.HealthCheckRequest{Service: c.service}
	// A service that is not UTF-8 is refused with the configuration: there is no error.
	p.sent, _ = proto.MarshalOptions{}.MarshalAppend(p.sent, request)
	binary.BigEndian.PutUint32(p.sent[1:], uint32(len(p.sent)-framePrefix))
	return p
}

// framePrefix is how long what is before a message is, in bytes: whether it is
// compressed, and its length.
const framePrefix = 5

// grpcProber checks one host by grpc.health.v1.Health.Check.
type grpcProber struct {
	hostConfig
	check *grpcCheck
	sent  []byte // the request's message, framed

	facts    format.Facts
	headers  message.Headers // of a call
	head     http2.Head
	trailers http2.Fields
	received []byte

	conn   net.Conn // kept from one check to the next; nil if there is none
	client *http2.Client
}

// probe implements prober. A connection that is kept may have been closed by the host, or
// take no stream any more: the check is made once more on another one then.
func (p *grpcProber) probe(ctx context.Context) result {
	p.makeHeaders(ctx)
	kept := p.client != nil
	r, err := p.ask(ctx)
	if kept && errors.Is(err, errUnseen) && ctx.Err() == nil {
		p.close()
		r, err = p.ask(ctx)
	}
	if err != nil || !p.reuse {
		p.close()
	}
	if err != nil {
		return result{verdict: network, why: err.Error()}
	}
	return r
}

// makeHeaders makes the fields of a call.
func (p *grpcProber) makeHeaders(ctx context.Context) {
	p.tell(&p.facts, "HTTP/2")
	h := &p.headers
	h.Reset()
	h.Add("content-type", grpcwire.ContentType)
	h.Add("te", "trailers")
	if deadline, ok := ctx.Deadline(); ok {
		h.Add("grpc-timeout", grpcwire.Timeout(max(0, time.Until(deadline))))
	}
	h.Add("user-agent", userAgent)
	p.check.headers.Apply(h, &p.facts)
}

var (
	methodPOST = []byte("POST")
	pathCheck  = []byte(healthv1.Health_Check_FullMethodName)
)

// ask calls the host. Whatever it answers but SERVING counts at once, as in Envoy:
// unhealthy_threshold is for hosts that can't be reached, or break an answer off, which
// is what errors are.
func (p *grpcProber) ask(ctx context.Context) (result, error) {
	if p.client == nil {
		conn, err := p.dial(ctx, p.address)
		if err != nil {
			return result{}, fmt.Errorf("connect: %w", err)
		}
		p.conn, p.client = conn, http2.NewClient(conn, checkOptions)
	}
	// Whatever ends the check ends the wait for the network too, and the connection.
	conn := p.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	authority := []byte(p.name(p.check.authority))
	s, err := p.client.Open(&http2.Request{Method: methodPOST, Scheme: schemeHTTP, Authority: authority, Path: pathCheck}, &p.headers, false)
	if err != nil {
		return result{}, fmt.Errorf("%w: %w", errUnseen, err)
	}
	defer s.Close() // which resets it if there is more to come
	if err := s.WriteData(p.sent, true); err != nil {
		return result{}, fmt.Errorf("%w: %w", errUnseen, err)
	}
	r, err := p.read(s)
	if !stop() { // the connection is closed, or will be
		return result{}, ctx.Err()
	}
	return r, err
}

// read reads what the host answers, as far as it says something of its health.
func (p *grpcProber) read(s *http2.Stream) (result, error) {
	for p.head.Status = 0; p.head.Status < 200; { // interim ones come before
		if err := s.ReadHead(&p.head); err != nil {
			return result{}, fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	head := &p.head.Fields
	if p.head.End {
		return p.judge(head), nil
	}
	if kind, _ := head.Get("content-type"); p.head.Status != 200 || !grpcwire.IsContentType(kind) {
		return result{verdict: failed, why: fmt.Sprintf("status %d and content-type %q are no answer of gRPC", p.head.Status, kind)}, nil
	}
	for p.received = p.received[:0]; ; {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return result{}, fmt.Errorf("read the answer's message: %w", err)
		}
		if p.received = append(p.received, chunk...); len(p.received) > mostReceived {
			return result{verdict: failed, why: fmt.Sprintf("a message of more than %d bytes", mostReceived)}, nil
		}
	}
	p.trailers.Reset()
	s.ReadTrailers(&p.trailers)
	return p.judge(&p.trailers), nil
}

// judge is what a whole answer says, whose status is among those fields.
func (p *grpcProber) judge(last *http2.Fields) result {
	value, _ := last.Get("grpc-status")
	code, ok := grpcwire.Status(value)
	if !ok {
		return result{verdict: failed, why: fmt.Sprintf("status %d without a grpc-status", p.head.Status)}
	}
	if code != 0 {
		text, _ := last.Get("grpc-message")
		return result{verdict: failed, why: fmt.Sprintf("%v: %s", codes.Code(code), grpcwire.Unescape(text))}
	}
	var response healthv1.HealthCheckResponse
	if b := p.received; p.head.End || len(b) < framePrefix || b[0] != 0 ||
		uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-framePrefix) || proto.Unmarshal(b[framePrefix:], &response) != nil {
		return result{verdict: failed, why: "OK without one HealthCheckResponse"}
	}
	if status := response.GetStatus(); status != healthv1.HealthCheckResponse_SERVING {
		return result{verdict: failed, why: status.String()}
	}
	return result{verdict: passed}
}

// close implements prober.
func (p *grpcProber) close() {
	if p.client != nil {
		_ = p.client.Close() // nobody waits for what it says; it waits for its reader
		p.conn, p.client = nil, nil
	}
}
