package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/weirproxy/weir/internal/http2"
)

// checkOptions are those of connections of HTTP/2 to the hosts that are checked.
var checkOptions = http2.NewClientOptions(http2.Options{MaxHeaderBytes: uint32(checkLimits.HeadBytes), MaxHeaders: checkLimits.Headers})

var schemeHTTP = []byte("http")

// exchangeHTTP2 is exchange over HTTP/2, by prior knowledge.
func (p *httpProber) exchangeHTTP2(ctx context.Context) (keep bool, err error) {
	if p.client == nil {
		conn, err := p.dial(ctx, p.address)
		if err != nil {
			return false, fmt.Errorf("connect: %w", err)
		}
		p.conn, p.client = conn, http2.NewClient(conn, checkOptions)
	}
	r := &p.request
	// Whatever ends the check ends the wait for the network too, and the connection.
	conn := p.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s, err := p.client.Open(&http2.Request{Method: r.Method, Scheme: schemeHTTP, Authority: r.Authority, Path: r.Path}, &r.Headers, len(p.check.send) == 0)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnseen, err)
	}
	defer s.Close()
	if len(p.check.send) > 0 {
		if err := s.WriteData(p.check.send, true); err != nil {
			return false, fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	var head http2.Head
	for head.Status < 200 { // interim ones come before
		if err := s.ReadHead(&head); err != nil {
			return false, fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	p.response.Status = head.Status
	p.response.Headers.Swap(&head.Fields)
	p.body = p.body[:0]
	for !head.End {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read the answer's body: %w", err)
		}
		p.keepBody(chunk)
	}
	if !stop() { // the connection is closed, or will be
		return false, ctx.Err()
	}
	return true, nil
}
