package localratelimit

import (
	"container/list"
	"encoding/binary"
	"sync"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

// rules are the buckets of descriptors: those of a descriptor with all of its
// values are found in one look-up, those with wildcards one after the other.
type rules struct {
	exact     map[string]*rule // by appendKey of the entries
	wildcards []*rule
}

// rule is a bucket for one descriptor or, with wildcards, one for each of their
// values.
type rule struct {
	size   tokenbucket.Size
	shadow bool // shadow_mode: it refuses nothing

	bucket *tokenbucket.Bucket // without wildcards

	entries []wanted
	mu      sync.Mutex // guards the rest
	buckets map[string]*list.Element
	recent  *list.List // of *dynamic, the one used last in front
	most    int
}

// wanted is an entry of a descriptor; an empty value is any.
type wanted struct{ key, value string }

// dynamic is the bucket of some values of wildcards.
type dynamic struct {
	key    string
	bucket *tokenbucket.Bucket
}

// parseRules reads descriptors at the path at; most is max_dynamic_descriptors,
// and base the default bucket's fill interval, of which theirs must be multiples.
func parseRules(descriptors []*ratelimitv3.LocalRateLimitDescriptor, base tokenbucket.Size, most int, at strict.Path, report *strict.Report) rules {
	all := rules{exact: map[string]*rule{}}
	seen := map[string]bool{}
	for i, d := range descriptors {
		at := at.Index(i)
		r := &rule{size: tokenbucket.Parse(d.GetTokenBucket(), at.Field("token_bucket"), report), shadow: d.GetShadowMode(), most: most}
		if base.Interval > 0 && r.size.Interval%base.Interval != 0 {
			report.Add(at.Field("token_bucket").Field("fill_interval"), "%v is no multiple of token_bucket.fill_interval, which is %v", r.size.Interval, base.Interval)
		}
		wildcard := false
		var key []byte
		for _, e := range d.GetEntries() {
			r.entries = append(r.entries, wanted{e.GetKey(), e.GetValue()})
			wildcard = wildcard || e.GetValue() == ""
			key = appendKey(key, e.GetKey(), []byte(e.GetValue()))
		}
		if seen[string(key)] {
			report.Add(at, "the same descriptor is there twice")
		}
		seen[string(key)] = true
		if wildcard {
			r.buckets, r.recent = map[string]*list.Element{}, list.New()
			all.wildcards = append(all.wildcards, r)
			continue
		}
		if r.size.Interval > 0 {
			r.bucket = tokenbucket.New(r.size)
		}
		all.exact[string(key)] = r
	}
	return all
}

// fresh is rules like these whose buckets are full.
func (r *rules) fresh() rules {
	made := rules{exact: make(map[string]*rule, len(r.exact))}
	for key, old := range r.exact {
		made.exact[key] = &rule{size: old.size, shadow: old.shadow, entries: old.entries, bucket: tokenbucket.New(old.size)}
	}
	for _, old := range r.wildcards {
		made.wildcards = append(made.wildcards, &rule{
			size: old.size, shadow: old.shadow, entries: old.entries, buckets: map[string]*list.Element{}, recent: list.New(), most: old.most,
		})
	}
	return made
}

// match is a bucket that a request is held against.
type match struct {
	bucket *tokenbucket.Bucket
	shadow bool
	hits   uint64
	option descriptor.Option
}

// find appends the buckets of one descriptor to matches. Scratch is memory to
// use, and comes back.
func (r *rules) find(matches []match, entries []descriptor.Entry, details descriptor.Details, scratch []byte) ([]match, []byte) {
	hits := uint64(1)
	if details.Hits.Set {
		hits = details.Hits.Number
	}
	scratch = scratch[:0]
	for i := range entries {
		scratch = appendKey(scratch, entries[i].Key, entries[i].Value)
	}
	if rule := r.exact[string(scratch)]; rule != nil {
		matches = append(matches, match{rule.bucket, rule.shadow, hits, details.Option})
	}
	for _, rule := range r.wildcards {
		if rule.fits(entries) {
			matches = append(matches, match{rule.of(scratch), rule.shadow, hits, details.Option})
		}
	}
	return matches, scratch
}

// fits says whether a descriptor has exactly the entries of the rule.
func (r *rule) fits(entries []descriptor.Entry) bool {
	if len(entries) != len(r.entries) {
		return false
	}
	for i, e := range entries {
		if w := &r.entries[i]; e.Key != w.key || w.value != "" && string(e.Value) != w.value {
			return false
		}
	}
	return true
}

// of is the bucket of one descriptor's values. The one that was not used for
// the longest time makes room for a new one.
func (r *rule) of(key []byte) *tokenbucket.Bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.buckets[string(key)]; e != nil {
		r.recent.MoveToFront(e)
		return e.Value.(*dynamic).bucket
	}
	if r.recent.Len() >= r.most {
		oldest := r.recent.Remove(r.recent.Back()).(*dynamic)
		delete(r.buckets, oldest.key)
	}
	d := &dynamic{string(key), tokenbucket.New(r.size)}
	r.buckets[d.key] = r.recent.PushFront(d)
	return d.bucket
}

// appendKey appends an entry to the key of a descriptor, unambiguously.
func appendKey(b []byte, key string, value []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}
