package guard

import (
	"container/heap"
	"time"
)

// window is the hosts that went lately. Each counts for one TTL of its own from
// then, so that the counts are exact where hosts have different ones. It costs
// a small piece of memory for each host that went, for that long.
type window struct {
	departures departures
	gone       map[string]int // by service, those without are left out
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

// advance forgets those that count no more now.
func (w *window) advance(now time.Duration) {
	for len(w.departures) > 0 && w.departures[0].ends <= now {
		d := heap.Pop(&w.departures).(*departure)
		if w.gone[d.service]--; w.gone[d.service] == 0 {
			delete(w.gone, d.service)
		}
	}
}

// all is how many went.
func (w *window) all() int { return len(w.departures) }

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
