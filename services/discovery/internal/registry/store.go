package registry

import (
	"context"
	"errors"
	"time"
)

// ErrRefused is in the error of a Store that answers and refuses what it is asked,
// by a wrong password for one, or that is not what it is taken for. It stays so until
// an operator mends it.
var ErrRefused = errors.New("the store refuses this service")

// AppendError is that of a call of Append after which some of the changes are kept.
type AppendError struct {
	// Left are those that are not, or of which that is not known.
	Left []Change
	Err  error
}

func (e *AppendError) Error() string { return e.Err.Error() }

// Unwrap is the reason.
func (e *AppendError) Unwrap() error { return e.Err }

// Store keeps hosts beyond the life of one process. The registry reads it once
// and then only tells it what happened, off the path of any caller; so a Store
// may be slow, but must give up by its own when what is behind it does not
// answer. Append, Flush and Complete are called from one goroutine. A registry is
// lossy by contract: what was not handed over before a crash comes back with the
// host's next check-in.
type Store interface {
	// Load returns all that is kept. It does not return what it could not
	// read as if it were not there: a Store that lost its data may be empty,
	// one that cannot be asked returns an error, with ErrRefused in it where asking
	// again does not help.
	Load(ctx context.Context) (*Contents, error)
	// Append keeps changes, at most one per host and per setting. Once it
	// returned nil, Load knows them, unless the Store is one that keeps nothing.
	// After an error the registry sends the same changes again, or newer ones
	// of the same hosts: all of them, or those that an AppendError has as left. So a
	// change that is already kept must be harmless.
	Append(ctx context.Context, changes []Change) error
	// Flush notes the times of beats, later ones than those that it knows. A
	// beat of a host that is not kept is ignored: it must not come back by it.
	// missing are the keys of such beats, of hosts that the Store should have:
	// the registry, which has them, gives them to Append again. A Store with a
	// single writer never misses any.
	Flush(ctx context.Context, beats []Beat) (missing []Key, err error)
	// Complete says that the registry knows all hosts and that the Store was told of
	// them. Until then, and again once it lost data, Load says that its Contents are
	// Partial, after a restart too.
	Complete(ctx context.Context) error
}

// SharedStore is a Store that several replicas write to, and that carries hosts
// between them. Expire and Follow are called from one goroutine each. Of two writers that
// change the same parts of a host the later one wins, and of different ones both do: a
// change of a host that is there is made over what is kept, in one step, however much
// later that is than this replica made it.
type SharedStore interface {
	Store
	// Expire asks to take out dead hosts, each with the last beat that the
	// registry knows. gone are those that are out of the Store now, or were
	// before, of which Append is not told; the others beat elsewhere meanwhile, or
	// are another replica's to take out. After an error no host goes.
	Expire(ctx context.Context, dead []Beat) (gone []Key, err error)
	// Follow calls apply with what other writers did to the same data since
	// Load, in order, until ctx ends; then it returns nil. Whenever it
	// has told of all of them, which is when all of the Store has answered, and about
	// once a second at least, it says so by an Update that is empty. After an error the
	// registry calls it again.
	Follow(ctx context.Context, apply func(Update)) error
}

// Contents is all that a Store keeps, or all of some services.
type Contents struct {
	Records  []Record
	Settings []Setting
	// Events are of the past, oldest first, as far as they are kept.
	Events []Event
	// Buried are leases that a SharedStore takes back only of hosts that Registered
	// since: those of hosts that went at their own wish lately, and did not come back.
	// Any other host that it lacks it takes again.
	Buried []Burial
	// News are, in an Update that is Lost, the hosts that were put after all that Follow
	// told of before, or may have been; other Records are as it told, or older.
	News []Key
	// Partial says that hosts that live may be missing: what the Store has was never
	// said to be Complete.
	Partial bool
	// Lost says that there were hosts, which were lost or cannot be read, and that the
	// Store was not said to be Complete since.
	Lost bool
	// Stale says that a SharedStore does not answer yet, and that this is how it was
	// some time ago: until Follow says that all of it has answered, hosts that live may
	// be missing.
	Stale bool
}

// Burial is a lease that was buried, and when its host went: by this process's
// clock, or slightly later. At is zero where that is not known.
type Burial struct {
	Lease Lease
	At    time.Time
}

// Change says what became of one host, or of one setting: of the host with Key
// if that is not zero, else of the setting that SettingKey names.
type Change struct {
	Key Key
	// Record is what the host is now, as far as this replica knows; nil if it is gone.
	Record *Record
	// Parts are, to a SharedStore, those of Record that are changed: it puts what Over
	// makes of the change and of what it keeps by then. A Store with a single writer
	// keeps Record.
	Parts Parts
	// Registered is, to a SharedStore and of a host that is there, when it last
	// checked in here as a whole; zero if it did not. Another replica may have
	// been told earlier that it is gone.
	Registered time.Time
	// Lease is that of the host if it is gone: a Store takes it back with that
	// lease, which others may still have, only if it Registered after it went.
	Lease Lease
	// Went is, of a host that is gone, when it went: by this process's clock, or, from
	// a SharedStore, slightly later. It is zero where that is not known, and then, to a
	// Store, is now.
	Went time.Time

	SettingKey SettingKey
	// Setting is what is set now; nil if nothing is.
	Setting *Setting

	// Event tells of the change. It is nil for what is given to a Store once
	// more, and from a Store that does not keep events.
	Event *Event
	// Own says, from a SharedStore, that it was this process that changed it.
	Own bool
}

// Beat says when a host last checked in.
type Beat struct {
	Key Key
	At  time.Time
}

// Keys are those of beats, in their order.
func Keys(beats []Beat) []Key {
	keys := make([]Key, len(beats))
	for i, b := range beats {
		keys[i] = b.Key
	}
	return keys
}

// Update is what other writers did to a SharedStore, or what became of it. An empty
// one says that the Store answers.
type Update struct {
	// Changes and Beats are as they were given to the Store, and already kept.
	Changes []Change
	Beats   []Beat
	// Whole, unless nil, is all that the Store holds of the services for which
	// Covers is true; it comes when single changes were missed.
	Whole  *Contents
	Covers func(service string) bool
	// Lost says, with Whole, that the Store lost data: what it lacks is not
	// gone, and the registry gives it again. Expiry is suspended for one TTL.
	Lost bool
	// Silent, unless nil, are all other replicas that ceased to tell of themselves
	// and did not say that they end; empty if none did. It comes when that changes.
	Silent []Replica
}

// Replica is one of several processes that share a Store.
type Replica struct {
	// ID is drawn anew each time that it starts, Name is for people.
	ID, Name string
	// Heard is when it last told of itself.
	Heard time.Time
}

// isEmpty reports whether u says no more than that the Store answers.
func (u *Update) isEmpty() bool {
	return len(u.Changes) == 0 && len(u.Beats) == 0 && u.Whole == nil && u.Silent == nil
}
