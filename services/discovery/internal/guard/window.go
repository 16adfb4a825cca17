package guard

import (
	"container/heap"
	"time"
)

// window is the hosts that went lately. Each counts for one TTL of its own from
// then, so that the counts are exact where hosts have different ones. It costs
// a small piece of memory for each host that went, for that long.
type window struct {
	now        time.Duration // up to when it was advanced
	departures departures
	gone       map[string]int // by service, those without are left out
	// back are the departures that did not come to be, and backs how many those
	// are: they count no more, and leave the heap in their turn.
	back  map[departure]int
	backs int
}

func newWindow() window {
	return window{gone: map[string]int{}, back: map[departure]int{}}
}

// departure is one host that went.
type departure struct {
	service string
	ends    time.Duration // when it counts no more
}

// add counts a host that went, until ends.
func (w *window) add(service string, ends time.Duration) {
	heap.Push(&w.departures, &departure{service, ends})
	w.gone[service]++
}

// takeBack undoes add.
func (w *window) takeBack(service string, ends time.Duration) {
	if ends <= w.now {
		return // it counts no more
	}
	w.back[departure{service, ends}]++
	w.backs++
	w.forget(service)
}

// forget counts one of a service less.
func (w *window) forget(service string) {
	if w.gone[service]--; w.gone[service] == 0 {
		delete(w.gone, service)
	}
}

// advance forgets those that count no more now.
func (w *window) advance(now time.Duration) {
	w.now = now
	for len(w.departures) > 0 && w.departures[0].ends <= now {
		d := heap.Pop(&w.departures).(*departure)
		if w.back[*d] == 0 {
			w.forget(d.service)
			continue
		}
		w.backs--
		if w.back[*d]--; w.back[*d] == 0 {
			delete(w.back, *d)
		}
	}
}

// all is how many went.
func (w *window) all() int { return len(w.departures) - w.backs }

// departures is a heap, those on top that end first.
type departures []*departure

func (d departures) Len() int           { return len(d) }
func (d departures) Less(i, j int) bool { return d[i].ends < d[j].ends }
func (d departures) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *departures) Push(one any)      { *d = append(*d, one.(*departure)) }
func (d *departures) Pop() any {
	last := len(*d) - 1
	one := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return one
}
