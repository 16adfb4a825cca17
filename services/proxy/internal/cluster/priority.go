package cluster

// level is how many hosts a priority has.
type level struct {
	hosts, healthy, degraded int
	// excluded are among hosts, but count as if they were not there.
	excluded int
}

// load is what a priority gets of the requests, in percent, by the health of
// all priorities. The loads of all priorities make 100 together.
type load struct {
	healthy, degraded uint32
	// panic says that all hosts of the priority get what it gets, whatever
	// their health, since so many failing at once are more likely wrongly told
	// to than that they all are.
	panic bool
}

// available is part of the hosts in percent, multiplied by the factor, at most
// 100: so many may be missing before the others are too few.
func (l level) available(part int, factor uint32) uint32 {
	if l.hosts == l.excluded {
		return 0
	}
	return uint32(min(100, uint64(factor)*uint64(part)/uint64(l.hosts-l.excluded)))
}

// below says whether less than that percentage of the hosts serve.
func (l level) below(percent uint32) bool {
	counted := l.hosts - l.excluded
	if counted == 0 {
		return percent > 0
	}
	return 100*uint64(l.healthy+l.degraded) < uint64(percent)*uint64(counted)
}

// loads shares requests among priorities. Factor is the overprovisioning
// factor and threshold the healthy panic threshold, both in percent. The rules
// are Envoy's: healthy hosts of all priorities first, in order; what they
// can't take goes to the degraded ones; if all together can't take 100, each
// takes more in proportion, and panic may be.
func loads(levels []level, factor, threshold uint32) []load {
	made := make([]load, max(len(levels), 1))
	healthy, degraded := make([]uint32, len(levels)), make([]uint32, len(levels))
	total := uint32(0)
	for i, l := range levels {
		healthy[i], degraded[i] = l.available(l.healthy, factor), l.available(l.degraded, factor)
		total = min(100, total+healthy[i]+degraded[i])
	}
	if total < 100 && threshold > 0 {
		all := true
		for i, l := range levels {
			made[i].panic = l.below(threshold)
			all = all && made[i].panic
		}
		if all {
			shareByNumber(made, levels)
			return made
		}
	}
	if total == 0 { // nobody serves, and nobody panics
		made[0].healthy = 100
		return made
	}
	left := uint32(100)
	share := func(available uint32) uint32 {
		part := min(left, available*100/total)
		left -= part
		return part
	}
	for i := range levels {
		made[i].healthy = share(healthy[i])
	}
	for i := range levels {
		made[i].degraded = share(degraded[i])
	}
	// What is left was lost in rounding down.
	for i := range levels {
		if healthy[i] > 0 {
			made[i].healthy += left
			return made
		}
	}
	for i := range levels {
		if degraded[i] > 0 {
			made[i].degraded += left
			break
		}
	}
	return made
}

// shareByNumber shares requests by how many hosts each priority has, which is
// what is left to go by when all priorities panic.
func shareByNumber(made []load, levels []level) {
	sum := 0
	for _, l := range levels {
		sum += l.hosts
	}
	left := uint32(100)
	first := 0
	for i := len(levels) - 1; i >= 0 && sum > 0; i-- {
		made[i].healthy = uint32(100 * levels[i].hosts / sum)
		left -= made[i].healthy
		if levels[i].hosts > 0 {
			first = i
		}
	}
	made[first].healthy += left
}
