package xds

import (
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// topic is one name of one type: something that clients can subscribe to,
// whether or not there is a resource of that name. The hub's lock guards all
// but type and name, which never change.
type topic struct {
	typ  resources.Type
	name string

	// service is the one from which the resource is made: that of the very name
	// while it has hosts, else the one that the name reads as; fromService is
	// false if it is made from none.
	service     string
	fromService bool
	// file is an operator's resource, which comes before any that is made.
	file *resources.Resource
	// assignment is the name of the assignment of the cluster that this is; empty
	// for a file's cluster that has none.
	assignment string
	// empty is the assignment without endpoints that this is where neither a file
	// nor a service gives one, for a file's cluster has it: who is shown a cluster
	// waits for its assignment. nil where no file's cluster does.
	empty *resources.Resource
	// listed says that the resource is among everything of its type.
	listed bool
	// editions are those that somebody is shown, or lately was.
	editions map[resources.View]*edition
}

// edition is a topic as askers of one view see it.
type edition struct {
	topic *topic
	view  resources.View
	// made says that resource is known; it is nil if there is none of that name.
	made     bool
	resource *resources.Resource
	// withheld says that the resource is what it was, or not known, while hosts may
	// be missing: see filling.go; or while the service is justEmptied.
	withheld    bool
	subscribers map[*subscription]struct{}
}

// shelf is everything of a type as askers of one view see it. It is there while
// somebody subscribes to everything.
type shelf struct {
	// made says that the editions of all listed topics are.
	made        bool
	subscribers map[*subscription]struct{}

	// mu lets streams put all together that hold the hub's lock only for
	// reading; it is nil when that has to be done anew.
	mu  sync.Mutex
	all *set
}

// What nobody subscribes to any more is kept up for a while, for clients come
// back after their connections broke, and those of REST-JSON with each poll. But
// of no more editions than most.
const (
	linger   = time.Minute
	mostIdle = 20_000
)

// edition returns that of a view, made anew if there is none.
func (t *topic) edition(v resources.View) *edition {
	e := t.editions[v]
	if e == nil {
		e = &edition{topic: t, view: v, subscribers: map[*subscription]struct{}{}}
		t.editions[v] = e
	}
	return e
}
