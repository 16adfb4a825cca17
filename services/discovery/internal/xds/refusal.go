package xds

import (
	"cmp"
	"slices"
)

// refusal is a resource that the client refused. Until it changes it is not sent
// again, but for once more where others were in the same response, as below.
type refusal struct {
	version uint64
	// nack is the number of the NACK, if the response held others too that may be
	// what was wrong with it; 0 if it did not.
	nack uint64
	// again says that the resource is in a part that is to be sent again.
	again bool
}

// A NACK is of a whole response and has no word for which of its resources is
// bad. Some clients took the good ones: Envoy does of clusters and listeners,
// gRPC of all types. Others took none, or those before the bad one: Envoy checks
// all of a response before it takes anything of it, and ends at the first
// assignment that its cluster does not take. So nobody knows what the client has,
// and the good ones must not wait until each of them happens to change.
//
// Nothing goes at once, for a response that nothing changed in would be refused
// again. When a resource of it changes, goes or is not wanted any more, that goes
// by itself, so that a bad one does not spoil it. After it come the others, in
// two halves, each a response of its own: one that is refused too has the bad one
// in it, and waits for the next change. A resource that was refused by itself
// waits for its own. So a response is never sent again as it was, and all parts
// of one together are no more than twice of it.

// refuse notes that the client refused a resource, and by which NACK if it was
// not by itself.
func (u *subscription) refuse(t *topic, r refusal) {
	if u.refusals == nil {
		u.refusals = map[*topic]refusal{}
	}
	u.refusals[t] = r
}

// forgive forgets that the client refused a resource, which is other than it was,
// is gone or is not wanted any more. What was refused with it is to be sent again,
// in parts.
func (u *subscription) forgive(t *topic) {
	r, refused := u.refusals[t]
	if !refused {
		return
	}
	delete(u.refusals, t)
	if r.nack == 0 || r.again {
		return
	}
	var others []*topic
	for other, o := range u.refusals {
		if o.nack == r.nack && !o.again {
			o.again = true
			u.refusals[other] = o
			others = append(others, other)
		}
	}
	slices.SortFunc(others, func(a, b *topic) int { return cmp.Compare(a.name, b.name) })
	for part := range slices.Chunk(others, max(1, (len(others)+1)/2)) {
		u.again = append(u.again, part)
	}
}

// retry makes the next part of a refused response pending, if nothing else is.
func (u *subscription) retry() {
	for len(u.again) > 0 && len(u.pending) == 0 && !u.all && !u.mustAll {
		part := u.again[0]
		u.again = u.again[1:]
		for _, t := range part {
			if u.refusals[t].again {
				delete(u.refusals, t)
				u.want(t, true)
			}
		}
	}
}
