package registry

import (
	"errors"
	"time"
)

// ErrNotWarm is the answer in the place of a list that is not safe.
var ErrNotWarm = errors.New("the registry began a moment ago and may not know all hosts: those that live may only be about to check in")

// Warm is closed once the registry can be taken to know all hosts: when it was
// loaded with all that there were, or a while after it was loaded with none or with
// some of them, and all of the Store has answered.
func (r *Registry) Warm() <-chan struct{} { return r.warm }

// warmUp is how long the registry is not warm after a start with these contents. A
// start that falls into the warm-up of the one before begins it anew.
func (r *Registry) warmUp(c *Contents) time.Duration {
	switch {
	case r.options.WarmUp == 0:
		return 0
	case c.Lost:
		return max(r.options.WarmUp, r.options.LostWarmUp)
	case c.Partial || c.Stale || len(c.Records) == 0:
		return r.options.WarmUp
	}
	return 0
}

// warmer is called for each that the registry waits for before it is warm, once it is
// there.
func (r *Registry) warmer() {
	if r.cold.Add(-1) == 0 {
		close(r.warm)
	}
}

// Partial reports whether hosts that live may be missing: the registry is not
// warm. What is read after that may be more than partial, never less.
func (r *Registry) Partial() bool {
	select {
	case <-r.warm:
		return false
	default:
		return true
	}
}

// Safe returns ErrNotWarm if an answer made of l could take hosts away that
// live: l is partial, and the answer is empty, or its reader holds an earlier
// one, of which it would drop what is missing. One that has hosts and is the
// first for its reader says nothing that is false.
func (l *Listing) Safe(empty, held bool) error { return safe(l.Partial, empty, held) }

// Safe is that of the Listing.
func (r *Reading[T]) Safe(empty, held bool) error { return safe(r.Partial, empty, held) }

func safe(partial, empty, held bool) error {
	if partial && (empty || held) {
		return ErrNotWarm
	}
	return nil
}
