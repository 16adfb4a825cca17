package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// refusals are how answers begin, but for an ERR, by which Redis says that it does
// not let this client in, or not do what it must. They stay so until an operator
// mends one side; those of a Redis that is loading, full or without its master are
// not among them.
var refusals = []string{
	"NOAUTH", "WRONGPASS", "NOPERM",
	"DENIED",                    // in protected mode
	"AUTH <password> called",    // with a password where none is set
	"DB index", "SELECT is not", // of a database that there is not
	"WRONGTYPE", // of a key that somebody else wrote
}

// told is err as the registry is told it: by registry.ErrRefused where Redis refuses
// this client, or what answers is no Redis.
func (s *Store) told(err error) error {
	if why := s.isOther(err); why != "" {
		return fmt.Errorf("redis at %v: %w: %s: %w", s.place, registry.ErrRefused, why, err)
	}
	if isRefusal(err) {
		return fmt.Errorf("redis at %v: %w: %w", s.place, registry.ErrRefused, err)
	}
	return fmt.Errorf("redis at %v: %w", s.place, err)
}

// isOther says that what answered is another kind of Redis than the URL says; empty
// where err does not tell so.
func (s *Store) isOther(err error) string {
	switch {
	case s.place.kind == cluster && goredis.HasErrorPrefix(err, "This instance has cluster support disabled"):
		return "it is no Cluster, which the URL says by redis+cluster"
	case s.place.kind == sentinel && isUnknown(err, "sentinel"):
		return "it is no Sentinel, which the URL says by redis+sentinel"
	case s.place.kind == single && goredis.HasErrorPrefix(err, "MOVED"):
		return "it is of a Cluster, which the URL says by redis+cluster alone"
	}
	return ""
}

// isUnknown reports whether err is the answer that there is no such command. The driver
// passes on what Sentinels answer as one text.
func isUnknown(err error, command string) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "unknown command '"+command) || strings.Contains(text, "unknown command `"+command)
}

// isOfAnotherType reports whether err is the answer that a key holds something else
// than it should.
func isOfAnotherType(err error) bool { return goredis.HasErrorPrefix(err, "WRONGTYPE") }

func isRefusal(err error) bool {
	if slices.ContainsFunc(refusals, func(begin string) bool { return goredis.HasErrorPrefix(err, begin) }) {
		return true
	}
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		return true // TLS with one that speaks none
	}
	text := err.Error() // the driver's own errors have no type
	return strings.Contains(text, "redis: can't parse ") || strings.Contains(text, "redis: invalid reply")
}

// whyMute returns err, of a first exchange, or where the server gave no word why: one
// that speaks TLS hangs up on who does not, and one that speaks none waits for the end
// of a line.
func (s *Store) whyMute(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	switch {
	case s.place.tls == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && speaksTLS(ctx, s.place.addresses[0]):
		return fmt.Errorf("%w: it speaks TLS, which the URL says by rediss: %w", registry.ErrRefused, err)
	case s.place.tls != nil && errors.Is(err, context.DeadlineExceeded) && speaksPlainly(ctx, s.place.addresses[0]):
		return fmt.Errorf("%w: it speaks no TLS, which the URL asks for by rediss://: %w", registry.ErrRefused, err)
	}
	return err
}

// speaksTLS reports whether a server agrees to speak TLS. Nothing is said over it, so
// it does not matter who that is.
func speaksTLS(ctx context.Context, address string) bool {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// speaksPlainly reports whether a server answers as Redis does that is asked in the
// clear, be it by an error.
func speaksPlainly(ctx context.Context, address string) bool {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at)
	}
	first := make([]byte, 1)
	_, err = io.WriteString(conn, "PING\r\n")
	if err == nil {
		_, err = io.ReadFull(conn, first)
	}
	return err == nil && (first[0] == '+' || first[0] == '-')
}
