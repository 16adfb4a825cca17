package app

import (
	"os"
	"runtime/debug"
)

const (
	// servingGC lets the heap grow to five times what is live before a collection:
	// a request's memory is short-lived and little is live, so that collections
	// cost more than the memory does.
	servingGC = 400
	// loadingGC is in force while many rules are read: what that leaves behind is
	// several times the rules, and five times that would be a multiple of what the
	// process needs before and after.
	loadingGC = 50
	// manyRules is the size of rules, in bytes of their files or resources, from
	// which on loadingGC is in force.
	manyRules = 1 << 20
)

// loadFrugally is called before rules of so many bytes are read, and what it
// returns when they are in force: it keeps down what reading many of them takes,
// and gives the memory back, unless GOGC is set. The process reads one set of
// rules at a time.
func loadFrugally(size int) (done func()) {
	if size < manyRules || os.Getenv("GOGC") != "" {
		return func() {}
	}
	debug.SetGCPercent(loadingGC)
	return func() {
		debug.SetGCPercent(servingGC)
		debug.FreeOSMemory()
	}
}
