package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// Check is how the program is asked whether it takes work.
type Check struct {
	// Kind is one of the kinds below.
	Kind CheckKind
	// URL is what is asked by a check of kind HTTP.
	URL string
	// Interval is the time between two checks of a program that is registered.
	Interval time.Duration
	// Failures is how many checks must fail in a row for the program to be
	// drained; one that passes takes that back.
	Failures int
}

// CheckKind is what a check does.
type CheckKind int

const (
	// CheckTCP connects to the program's port.
	CheckTCP CheckKind = iota
	// CheckHTTP wants an answer of 2xx to a GET.
	CheckHTTP
	// CheckNone is passed always.
	CheckNone
)

// health asks a program whether it takes work.
type health struct {
	Check
	// target is where others reach the program.
	target func(context.Context) (netip.AddrPort, error)
	http   *http.Client
	log    *slog.Logger
}

// checkTimeout bounds one check.
const checkTimeout = time.Second

func newHealth(c Check, target func(context.Context) (netip.AddrPort, error), log *slog.Logger) *health {
	return &health{Check: c, target: target, log: log, http: &http.Client{
		// A connection of its own for each check: that is a part of what a caller
		// needs, and one that is kept would hold up a program that ends.
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// startInterval is the time between two checks of a program that is not
// registered yet; after startPatience it is said once that none passes.
const (
	startInterval = 50 * time.Millisecond
	startPatience = 10 * time.Second
)

// await waits until a check passes, and reports whether one does before ctx
// ends.
func (h *health) await(ctx context.Context) bool {
	begin, said := time.Now(), false
	for {
		err := h.ask(ctx)
		if err == nil {
			return true
		}
		if !said && time.Since(begin) > startPatience {
			said = true
			h.log.Warn("the program is not registered yet: its check does not pass", "error", err)
		}
		if !pause.For(ctx, startInterval) {
			return false
		}
	}
}

// watch checks the program until ctx ends and tells changed when Failures checks
// in a row have failed, and when one passes after that.
func (h *health) watch(ctx context.Context, changed func(unwell bool)) {
	failures := 0
	for pause.For(ctx, jitter(h.Interval)) {
		err := h.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if failures >= h.Failures {
				h.log.Info("the program's check passes again")
				changed(false)
			}
			failures = 0
			continue
		}
		failures++
		if failures == h.Failures {
			h.log.Warn("the program's check fails; it is drained", "in_a_row", failures, "error", err)
			changed(true)
		}
	}
}

// ask checks once.
func (h *health) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	switch h.Kind {
	case CheckNone:
		return ctx.Err()
	case CheckHTTP:
		return h.get(ctx)
	default:
		return h.connect(ctx)
	}
}

// connect connects to where others reach the program.
func (h *health) connect(ctx context.Context) error {
	target, err := h.target(ctx)
	if err != nil {
		return err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// get wants a success from the check's URL.
func (h *health) get(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return err
	}
	response, err := h.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // the status says all
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("GET %s: %s", h.URL, response.Status)
	}
	return nil
}

// isTaken reports whether somebody takes connections where the program will,
// before it is started. That one would be registered in its place, also after
// the program has ended for want of its port. An address that this machine does
// not have, such as that of a NAT, may be answered by what stands there, and is
// not asked; nor is any where nothing is to be checked.
func (h *health) isTaken() bool {
	if h.Kind == CheckNone {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	target, err := h.target(ctx)
	if err != nil { // a beat says so, if it lasts
		return false
	}
	// Only an own address can be bound.
	own, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(target.Addr(), 0)))
	if err != nil {
		return false
	}
	_ = own.Close()
	return h.connect(ctx) == nil
}
