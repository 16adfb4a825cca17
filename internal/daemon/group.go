package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Part is one thing that a process starts and stops, such as a listener.
type Part struct {
	// Name stands in errors and logs: "xds server". No two parts share one.
	Name string
	// Run serves until Stop is called, and then returns nil. A Run that
	// returns earlier ends the process, with its error if it has one. May be
	// nil for a part that only needs stopping.
	Run func() error
	// Drain is called when the stop begins, before the grace period, and must
	// not block: the part says that it is not ready any more. May be nil.
	Drain func()
	// Stop makes Run return. It lets work in flight end until ctx does, and
	// cuts off what is left then. May be nil.
	Stop func(ctx context.Context) error
}

// Group runs parts and stops them in the reverse of the order in which they
// were added: what others lean on is added first and ends last. Its zero value
// is ready for use; it is used once.
type Group struct {
	// Log gets one line as the stop begins and one for each part that did not
	// stop well. Never nil when Run is called.
	Log *slog.Logger
	// Grace is the time between Drain and Stop, in which others learn that
	// this process is going. Nothing is waited for when a part failed.
	Grace time.Duration
	// Deadline bounds all Stops together.
	Deadline time.Duration

	parts []Part
}

// Add appends a part. Not to be called once Run has been.
func (g *Group) Add(p Part) { g.parts = append(g.parts, p) }

// ended is what a part's Run came back with.
type ended struct {
	part string
	err  error
}

// cutOff is what a Run has left to return in, after its Stop has.
const cutOff = time.Second

// Run starts all parts and serves until ctx ends or a part's Run returns, then
// stops them all. It returns nil if ctx ended it and every part stopped well;
// otherwise all errors joined, each with its part's name. A part whose Run
// goes on after its Stop is named in the error and left behind.
func (g *Group) Run(ctx context.Context) error {
	ends := make(chan ended, len(g.parts))
	running := map[string]bool{}
	for _, p := range g.parts {
		if p.Run != nil {
			running[p.Name] = true
			// Ends when the part's Stop has been called; awaitEnds waits for it.
			go func() { ends <- ended{p.Name, p.Run()} }()
		}
	}

	var errs []error
	grace := g.Grace
	select {
	case <-ctx.Done():
		g.Log.Info("stopping", "grace", g.Grace, "deadline", g.Deadline)
	case e := <-ends:
		delete(running, e.part)
		if e.err == nil {
			e.err = errors.New("ended by itself")
		}
		errs = append(errs, fmt.Errorf("%s: %w", e.part, e.err))
		grace = 0
		g.Log.Error("stopping: a part ended", "part", e.part, "error", e.err)
	}

	for _, p := range slices.Backward(g.parts) {
		if p.Drain != nil {
			p.Drain()
		}
	}
	if grace > 0 {
		time.Sleep(grace)
	}
	errs = append(errs, g.stop()...)
	return errors.Join(append(errs, awaitEnds(ends, running)...)...)
}

// stop calls every Stop, last part first, inside the deadline.
func (g *Group) stop() []error {
	ctx, cancel := context.WithTimeout(context.Background(), g.Deadline)
	defer cancel()
	var errs []error
	for _, p := range slices.Backward(g.parts) {
		if p.Stop == nil {
			continue
		}
		if err := p.stop(ctx); err != nil {
			g.Log.Error("part did not stop well", "part", p.Name, "error", err)
			errs = append(errs, fmt.Errorf("stop %s: %w", p.Name, err))
		}
	}
	return errs
}

// stop calls Stop, and leaves it behind if it does not return soon after ctx
// ended, so that it can't keep the others from stopping.
func (p *Part) stop(ctx context.Context) error {
	stopped := make(chan error, 1)
	// Ends when Stop returns; nobody waits for one that never does.
	go func() { stopped <- p.Stop(ctx) }()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-stopped:
		return err
	case <-time.After(2 * cutOff):
		return errors.New("does not end with its deadline")
	}
}

// awaitEnds waits until no part is running, for cutOff at most.
func awaitEnds(ends <-chan ended, running map[string]bool) []error {
	var errs []error
	late := time.NewTimer(cutOff)
	defer late.Stop()
	for len(running) > 0 {
		select {
		case e := <-ends:
			delete(running, e.part)
			if e.err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", e.part, e.err))
			}
		case <-late.C:
			for _, part := range slices.Sorted(maps.Keys(running)) {
				errs = append(errs, fmt.Errorf("%s: runs on after its stop", part))
			}
			return errs
		}
	}
	return errs
}
