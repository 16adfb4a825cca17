package limiter

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// maxKey is the length in bytes from which on a key is replaced by its hash,
// since the values of requests may be as long as their sender likes.
const maxKey = 512

// appendKey appends the name of a counter to dst:
//
//	prefix fixed_window:60:4:demo6:x-user5:alice
//
// that is the algorithm, the window in seconds, then domain, keys and values,
// each framed by its length, so that no two counters share a name whatever
// bytes a request holds. Where a rule has its values share a counter, the
// pattern stands in place of the value, marked: 2:ip*4:10.*. A long key becomes
// prefix sha256:… of all of that.
func (l *Limiter) appendKey(dst []byte, t *target, domain string, entries []limits.Entry) []byte {
	dst = append(dst, l.options.KeyPrefix...)
	start := len(dst)
	dst = append(dst, t.algorithm.Name()...)
	dst = append(dst, ':')
	dst = strconv.AppendInt(dst, int64(t.limit.Window/time.Second), 10)
	dst = append(dst, ':')
	dst = appendFramed(dst, domain)
	for i := range entries {
		dst = appendFramed(dst, entries[i].Key)
		if t.rule != nil && t.rule.Shares && t.rule.Levels[i].ShareThreshold {
			dst = appendFramed(append(dst, '*'), t.rule.Levels[i].Value)
			continue
		}
		dst = appendFramed(dst, entries[i].Value)
	}
	if len(dst)-start > maxKey {
		sum := sha256.Sum256(dst[start:])
		dst = append(dst[:start], "sha256:"...)
		dst = hex.AppendEncode(dst, sum[:])
	}
	return dst
}

// CounterKey is the key under which a limiter whose KeyPrefix is prefix counts
// the hits of a descriptor that met rule, for tools that tell what a limiter
// does. The rule must not be unlimited: such a one has no counter.
func CounterKey(prefix string, rule *limits.Rule, entries []limits.Entry) []byte {
	l := Limiter{options: Options{KeyPrefix: prefix}}
	return l.appendKey(nil, &target{rule: rule, limit: rule.Limit, algorithm: rule.Algorithm}, rule.Domain, entries)
}

func appendFramed(dst []byte, part string) []byte {
	dst = strconv.AppendInt(dst, int64(len(part)), 10)
	dst = append(dst, ':')
	return append(dst, part...)
}
