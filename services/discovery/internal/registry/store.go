package registry

import (
	"context"
	"time"
)

// Store keeps hosts beyond the life of one process. The registry reads it once
// and then only tells it what happened, from one goroutine and off the path of
// any caller; so a Store may be slow, but should give up by its own when what
// is behind it does not answer. A registry is lossy by contract: what was not
// handed over before a crash comes back with the host's next check-in.
type Store interface {
	// Load returns all that is kept. It does not return what it could not
	// read as if it were not there: a Store that lost its data may be empty,
	// one that cannot be asked returns an error.
	Load(ctx context.Context) ([]Record, error)
	// Append keeps changes, at most one per host. Once it returned nil, Load
	// knows them, unless the Store is one that keeps nothing.
	// After an error the registry sends the same changes again, or newer ones
	// of the same hosts; so a change that is already kept must be harmless.
	Append(ctx context.Context, changes []Change) error
	// Flush notes the times of beats. A beat of a host that is not kept is
	// ignored: it must not come back by it.
	Flush(ctx context.Context, beats []Beat) error
	// Follow calls apply with what other writers did to the same data since
	// Load, in order, until ctx ends; then it returns nil. A Store with a single
	// writer only waits.
	Follow(ctx context.Context, apply func(changes []Change, beats []Beat)) error
}

// Change says what became of one host.
type Change struct {
	Key Key
	// Record is what the host is now; nil if it is gone.
	Record *Record
}

// Beat says when a host last checked in.
type Beat struct {
	Key Key
	At  time.Time
}
