package grpccall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// Question is the message of a call.
type Question interface {
	// AppendTo appends the message in its wire form.
	AppendTo(b []byte) []byte
}

// Answer takes the message of an answer.
type Answer interface {
	// Decode reads the message in its wire form, of which it keeps nothing.
	Decode(b []byte) error
}

// Call is the memory of one call, and after that of the next one; the zero value is for
// use. It belongs to one goroutine.
type Call struct {
	attempt  upstream.Attempt
	request  message.Request
	response message.Response
	sent     []byte // the question's frame
	received []byte // the answer's

	began, deadline time.Time // of the deadline the zero time is none
	// outlives says that the deadline is that of the stream, and not of the call.
	outlives bool
}

// The errors of calls that never had a host or an end. Others are *StatusError, that of
// Answer.Decode, and what went wrong with the host.
var (
	// ErrGivenUp is that nobody waits for the answer any more, which says nothing of the
	// service.
	ErrGivenUp = errors.New("the call was given up")
	// ErrNoHosts is that the cluster has no host for the call.
	ErrNoHosts = errors.New("the cluster has no hosts")

	errMaintained = errors.New("the cluster is in maintenance mode")
	errDropped    = errors.New("the drop_overloads of the cluster's assignment stopped the call")
	errTimeout    = errors.New("the timeout passed")
	errOutlived   = errors.New("the max_stream_duration of the cluster passed")
)

// StatusError is a status other than OK that ended a call.
type StatusError struct {
	Code    codes.Code
	Message string // may be empty
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return "it answered with the status " + e.Code.String()
	}
	return fmt.Sprintf("it answered with the status %v: %s", e.Code, e.Message)
}

// Do calls a method with a question and has answer take what comes. Steps:
//
//  1. pick a host of the cluster, wait for a connection to it, and burden the cluster
//     with the call;
//  2. send the question and read the head of the response, on another connection once
//     more if the host has done nothing of the call;
//  3. read the message and the status.
//
// It blocks up to the method's timeout; ctx ends with the process, and caller is held
// meanwhile, to have it end with ErrGivenUp.
func (c *Call) Do(ctx context.Context, caller upstream.Caller, m *Method, question Question, answer Answer) error {
	if err := m.turnAway(); err != nil {
		m.cluster.Stats.CountResponse(503, m.counted)
		return err
	}
	c.prepare(m, question)
	defer c.attempt.End()
	if !c.attempt.Begin(ctx, caller, m.cluster, corev3.RoutingPriority_DEFAULT, &cluster.PickContext{}) {
		m.cluster.Stats.CountResponse(503, m.counted)
		return ErrNoHosts
	}
	if err := c.ask(caller); err != nil {
		status, err := c.failed(err)
		if status > 0 {
			m.count(c.attempt.Host, status)
		}
		return err
	}
	c.attempt.Answered(&c.response, true)
	m.count(c.attempt.Host, c.response.Status)
	if err := c.receive(m); err != nil {
		return err
	}
	return c.conclude(m, answer)
}

// prepare makes the request of a call.
func (c *Call) prepare(m *Method, question Question) {
	c.request = m.request
	c.sent = appendFrame(emptied(c.sent), question)
	c.request.Body, c.request.BodyLength = follows, int64(len(c.sent))
	c.response.Trailers.Reset()
	c.received = emptied(c.received)
	c.began, c.deadline, c.outlives = time.Now(), time.Time{}, false
	if m.timeout > 0 {
		c.deadline = c.began.Add(m.timeout)
	}
}

// emptied is b for other bytes, unless there were so many that it is not worth keeping.
func emptied(b []byte) []byte {
	const most = 64 << 10
	if cap(b) > most {
		return nil
	}
	return b[:0]
}

// follows says of a request that a body follows, which exchange writes.
var follows message.Body = message.NewBytes(nil)

// ask sends the request and reads the head of the response.
func (c *Call) ask(caller upstream.Caller) error {
	a := &c.attempt
	pool := a.Host.Pool(true)
	conn := pool.Idle()
	if conn == nil {
		var err error
		if conn, err = a.Await(pool, c.deadline); err != nil {
			return err
		}
	}
	if err := a.Burden(conn); err != nil {
		return err
	}
	c.boundStream()
	err := c.exchange(caller, conn)
	if err != nil && a.Why(err) == upstream.Refused {
		if conn, err = a.Replace(pool, err, c.deadline); err == nil {
			err = c.exchange(caller, conn)
		}
	}
	return err
}

// boundStream bounds the call by the cluster's max_stream_duration too, which begins now.
func (c *Call) boundStream() {
	duration := c.attempt.Cluster.Config.MaxStreamDuration
	if duration == 0 {
		return
	}
	end := time.Now().Add(duration)
	if c.deadline.IsZero() || end.Before(c.deadline) {
		c.deadline, c.outlives = end, true
	}
}

// exchange sends the request on a connection and reads the head of the response.
func (c *Call) exchange(caller upstream.Caller, conn *connpool.Conn) error {
	c.attempt.Conn = conn
	caller.Hold(conn)
	unsent := c.send(conn)
	for { // the codec bounds how many heads are interim ones
		_, err := conn.Reader.ReadHead(&c.response, c.request.Method)
		switch {
		case err != nil:
			return cmp.Or(unsent, err)
		case c.response.Status >= 200:
			return nil // be it before the host has taken the whole question
		}
	}
}

// send sends the request.
func (c *Call) send(conn *connpool.Conn) error {
	conn.Writer.WriteRequest(&c.request)
	_ = conn.SetReadDeadline(c.deadline) // fails only once closed, as what follows does
	if err := conn.Writer.WriteChunk(c.sent); err != nil {
		return err
	}
	conn.Writer.Finish(nil)
	return conn.Writer.Flush()
}

// receive reads what follows the head. The rest of what is no answer of gRPC is not
// wanted, nor of one that has too long a message.
func (c *Call) receive(m *Method) error {
	if c.response.Status != 200 {
		return nil
	}
	for body := c.response.Body; body != nil; {
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_, err = c.failed(err)
			return err
		}
		c.received = append(c.received, chunk...)
		if err := bounded(c.received, m.most); err != nil {
			c.attempt.Host.Stats.RequestErrors.Add(1)
			return err
		}
	}
	c.attempt.GiveBack()
	return nil
}

// conclude is the end of a call that was answered.
func (c *Call) conclude(m *Method, answer Answer) error {
	m.cluster.Stats.RecordTime(time.Since(c.began), m.of(c.attempt.Host))
	code, why := c.status()
	if grpcwire.HTTP(code) < 500 {
		c.attempt.Host.Stats.RequestsSucceeded.Add(1)
	} else {
		c.attempt.Host.Stats.RequestErrors.Add(1)
	}
	if code != 0 {
		return &StatusError{codes.Code(code), why}
	}
	message, err := unframe(c.received)
	if err != nil {
		return err
	}
	return answer.Decode(message)
}

// status is that of the answer, with its message; without one, which is an error, that of
// HTTP stands for it.
func (c *Call) status() (code int64, text string) {
	fields := &c.response.Trailers
	if fields.Len() == 0 { // a head that is all
		fields = &c.response.Headers
	}
	value, _ := fields.Get("grpc-status")
	code, ok := grpcwire.Status(value)
	if !ok {
		return grpcwire.OfHTTP(c.response.Status), fmt.Sprintf("HTTP status %d without a grpc-status", c.response.Status)
	}
	escaped, _ := fields.Get("grpc-message")
	return code, grpcwire.Unescape(escaped)
}

// failed counts and reports how a call broke off and makes its error. Status is what it
// counts as if there was no head; 0 is nothing.
func (c *Call) failed(err error) (status int, _ error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return 0, ErrGivenUp
	}
	a, why := &c.attempt, c.attempt.Why(err)
	late := !c.deadline.IsZero() && !time.Now().Before(c.deadline)
	status = 503
	switch {
	case late && c.outlives:
		a.Cluster.Stats.StreamsOutlived.Inc()
		return 0, errOutlived
	case late: // the host, which was told of the timeout, may have been first to end it
		why, status, err = upstream.TimedOut, 504, errTimeout
	case why == upstream.TimedOut: // a connect, which has a timeout of its own
		why = upstream.Unconnected
	case why == upstream.Malformed:
		status = 502
	}
	a.Count(why, err)
	a.Host.Stats.RequestErrors.Add(1)
	return status, fmt.Errorf("host %v: %w", a.Host.Address, err)
}
