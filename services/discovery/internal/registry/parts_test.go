package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// otherTags are other tags, each by its name and a number.
func otherTags(tags map[string]int) TagList {
	list := map[string]json.RawMessage{}
	for name, n := range tags {
		list[name] = json.RawMessage(fmt.Sprint(n))
	}
	return TagListOf(list)
}

// descriptions are what a host may say of itself, but for the parts of their own.
var descriptions = map[string]func(h *Host){
	"address":     func(h *Host) { h.Address = netip.MustParseAddrPort("10.0.0.2:81") },
	"additional":  func(h *Host) { h.Additional = []netip.Addr{netip.MustParseAddr("fd00::1")} },
	"ports":       func(h *Host) { h.Ports = []Port{{"grpc", 9090}} },
	"repo":        func(h *Host) { h.Repo = "other" },
	"revision":    func(h *Host) { h.Revision = "r2" },
	"ttl":         func(h *Host) { h.TTL = time.Hour },
	"draining":    func(h *Host) { h.Draining = true },
	"region":      func(h *Host) { h.Tags.Region = "us" },
	"zone":        func(h *Host) { h.Tags.Zone = "eu-2" },
	"instance id": func(h *Host) { h.Tags.InstanceID = "i-7" },
}

// details are the other parts.
var details = map[string]struct {
	parts Parts
	as    func(t *Tags)
}{
	"canary":          {Parts{Canary: true}, func(t *Tags) { t.Canary = new(true) }},
	"weight":          {Parts{Weight: true}, func(t *Tags) { t.Weight = 9 }},
	"a tag":           {Parts{Tags: []string{"rack"}}, func(t *Tags) { t.Other = otherTags(map[string]int{"rack": 8}) }},
	"a new tag":       {Parts{Tags: []string{"slot"}}, func(t *Tags) { t.Other = t.Other.merge(otherTags(map[string]int{"slot": 1})) }},
	"a tag that went": {Parts{Tags: []string{"rack"}}, func(t *Tags) { t.Other = nil }},
}

func TestPartsAreThoseThatDiffer(t *testing.T) {
	known := host("a", 1)
	same := known
	require.Equal(t, Parts{}, known.parts(&same))
	for name, describe := range descriptions {
		newer := known
		describe(&newer)
		require.Equal(t, Parts{Description: true}, known.parts(&newer), name)
		require.Equal(t, Parts{Description: true}, newer.parts(&known), name)
	}
	for name, d := range details {
		newer := known
		d.as(&newer.Tags)
		require.Equal(t, d.parts, known.parts(&newer), name)
		require.Equal(t, d.parts, newer.parts(&known), name)
	}
}

// Each description that this replica changes, whatever of it, is put as a whole; all else
// stays as another put it. And so the other way round.
func TestAChangeIsOfItsPartsAlone(t *testing.T) {
	known, began := host("a", 1), time.Now()
	kept := func() *Record {
		h := known
		for _, d := range details {
			d.as(&h.Tags)
		}
		h.Tags.Other = otherTags(map[string]int{"theirs": 1})
		return &Record{Host: &h, Lease: 7, FirstSeen: began, LastCheckIn: began}
	}
	for name, describe := range descriptions {
		ours := known
		describe(&ours)
		c := Change{Record: &Record{Host: &ours, Lease: 7, FirstSeen: began, LastCheckIn: began.Add(time.Second), DrainingSince: began}, Parts: known.parts(&ours)}
		want := ours.tagged(&kept().Host.Tags)
		require.Equal(t, &Record{Host: &want, Lease: 7, FirstSeen: began, LastCheckIn: began.Add(time.Second), DrainingSince: began}, c.Over(kept()), name)

		theirs := &Record{Host: &ours, Lease: 7, FirstSeen: began, LastCheckIn: began.Add(time.Minute), DrainingSince: began}
		for part, d := range details {
			mine := known
			d.as(&mine.Tags)
			c := Change{Record: &Record{Host: &mine, Lease: 6, FirstSeen: began.Add(-time.Hour), LastCheckIn: began}, Parts: known.parts(&mine)}
			want := *theirs
			h := ours
			d.as(&h.Tags)
			want.Host = &h
			require.Equal(t, &want, c.Over(theirs), "%s over %s", part, name)
		}
	}
}

func TestAHostThatCameAnewKeepsTheTagsOfAnotherStayThatItDoesNotMention(t *testing.T) {
	kept := Record{Host: new(host("a", 1)), Lease: 7, FirstSeen: time.Now()}
	kept.Host.Tags.Weight, kept.Host.Tags.Canary = 5, new(true)
	kept.Host.Tags.Other = otherTags(map[string]int{"rack": 1, "theirs": 2})
	anew := Record{Host: new(host("a", 2)), Lease: 8, FirstSeen: time.Now().Add(time.Hour)}
	anew.Host.Tags.Weight, anew.Host.Tags.Other = 6, otherTags(map[string]int{"rack": 3})
	require.Same(t, &anew, (&Change{Record: &anew, Parts: Parts{Anew: true, Whole: true}}).Over(&kept))
	want := anew
	want.Host = new(*anew.Host)
	want.Host.Tags.Canary = new(true)
	want.Host.Tags.Other = otherTags(map[string]int{"rack": 3, "theirs": 2})
	require.Equal(t, &want, (&Change{Record: &anew, Parts: Parts{Anew: true}}).Over(&kept))
	sameStay := kept
	sameStay.Lease = anew.Lease
	require.Same(t, &sameStay, (&Change{Record: &anew, Parts: Parts{Anew: true, Whole: true}}).Over(&sameStay),
		"it is kept already, and was changed since")
}

// FuzzOver holds the rules of changes that are made over others.
func FuzzOver(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		some := func() *Host {
			h := host("a", 1)
			for _, name := range slices.Sorted(maps.Keys(descriptions)) {
				if r.IntN(8) == 0 {
					descriptions[name](&h)
				}
			}
			h.Tags.Weight = uint8(r.IntN(3))
			if r.IntN(2) == 0 {
				h.Tags.Canary = new(r.IntN(2) == 0)
			}
			tags := map[string]int{}
			for _, name := range []string{"rack", "slot", "team"} {
				if n := r.IntN(3); n > 0 {
					tags[name] = n
				}
			}
			h.Tags.Other = otherTags(tags)
			return &h
		}
		changed := func(from *Host) *Change {
			to := some()
			return &Change{Record: &Record{Host: to, Lease: 1}, Parts: from.parts(to)}
		}
		known, kept := &Record{Host: some(), Lease: 1}, &Record{Host: some(), Lease: 1}
		ours, theirs := changed(known.Host), changed(known.Host)

		require.Equal(t, ours.Record.Host, ours.Over(known).Host, "what was known so is as the change says")
		require.Same(t, ours.Record, ours.Over(nil))
		require.Same(t, kept, (&Change{Record: known}).Over(kept), "no part")
		once := ours.Over(kept)
		require.Same(t, once, ours.Over(once), "twice is as once")

		later := changed(ours.Record.Host)
		together := *later
		together.inherit(*ours)
		require.Equal(t, later.Over(once).Host, together.Over(kept).Host, "two changes are as one")

		if apart(&ours.Parts, &theirs.Parts) {
			require.Equal(t, ours.Over(theirs.Over(known)).Host, theirs.Over(ours.Over(known)).Host, "the order does not matter")
		}
	})
}

// apart reports whether two changes are of no part in common.
func apart(a, b *Parts) bool {
	shared := slices.ContainsFunc(a.Tags, func(name string) bool { return slices.Contains(b.Tags, name) })
	return !shared && (!a.Description || !b.Description) && (!a.Canary || !b.Canary) && (!a.Weight || !b.Weight)
}
