package router

// What tests of the package look at.
type (
	Replay = replay
	Reader = reader
)

var (
	NewReplay = newReplay
	ErrLeft   = errLeft
)

// NewReader and Leave are the steps of an attempt's life that a reader knows.
func (p *replay) NewReader() *Reader { return p.newReader() }

// Leave gives a reader up.
func (r *reader) Leave() bool { return r.leave() }
