package statsd

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// maxName is the length in bytes of the longest name, tags included, that is
// sent. Servers read lines into buffers of some kilobytes.
const maxName = 4096

// tag is one pair of a key and a value.
type tag struct{ key, value string }

// readTags reads "k:v,k2:v2" in the order of the keys. Pairs that lack a half
// are passed over, as by the peer; what is no pair is an error.
func readTags(text string) ([]tag, error) {
	var tags []tag
	if text == "" {
		return nil, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, ":")
		if !ok {
			return nil, fmt.Errorf("%q is not key:value", pair)
		}
		if key != "" && value != "" {
			tags = append(tags, tag{key, clean(value)})
		}
	}
	slices.SortFunc(tags, func(a, b tag) int { return strings.Compare(a.key, b.key) })
	return tags, nil
}

// clean takes out of a tag's value what would end it, or a name's depth.
func clean(value string) string {
	return strings.NewReplacer(".", "_", ":", "_", "|", "_", ",", "_", "\n", "_").Replace(value)
}

// encoder writes statistics as lines.
type encoder struct {
	datadog    bool
	tags       []tag
	mogrifiers []mogrifier
	// written are the names that the last encode wrote, as they were sent.
	written map[string]label
}

// label is a statistic's name as it is sent: what stands in front of the value
// and, for Datadog, behind it.
type label struct{ name, tags string }

// encode appends stats to dst, a line for each, and for timers for each bucket
// that grew.
func (e *encoder) encode(dst []byte, stats []peerstats.Stat) []byte {
	written := make(map[string]label, len(e.written))
	for i := range stats {
		s := &stats[i]
		if s.Kind == peerstats.Counter && s.Value < 1 {
			continue
		}
		l, ok := e.written[s.Name]
		if !ok {
			l = e.label(s.Name)
		}
		written[s.Name] = l
		if len(l.name)+len(l.tags) > maxName {
			continue
		}
		switch s.Kind {
		case peerstats.Counter:
			dst = e.line(dst, l, s.Value, "|c", 1)
		case peerstats.Gauge:
			dst = e.line(dst, l, s.Value, "|g", 1)
		case peerstats.Timer:
			dst = e.timer(dst, l, s)
		}
	}
	e.written = written
	return dst
}

// timer writes the durations of s, those above the last bound as that bound.
func (e *encoder) timer(dst []byte, l label, s *peerstats.Stat) []byte {
	lower := 0.0
	for _, b := range s.Buckets {
		value := (lower + b.Upper) / 2
		if math.IsInf(b.Upper, 1) {
			value = lower
		}
		if b.Count > 0 {
			dst = e.line(dst, l, value, "|ms", b.Count)
		}
		lower = b.Upper
	}
	return dst
}

// line appends one line that stands for count events.
func (e *encoder) line(dst []byte, l label, value float64, kind string, count uint64) []byte {
	dst = append(dst, l.name...)
	dst = append(dst, ':')
	// Six digits are enough for a duration, and many servers read no exponent.
	if value == math.Trunc(value) {
		dst = strconv.AppendFloat(dst, value, 'f', 0, 64)
	} else {
		dst = strconv.AppendFloat(dst, value, 'f', 6, 64)
	}
	dst = append(dst, kind...)
	if count > 1 {
		dst = append(dst, "|@"...)
		dst = strconv.AppendFloat(dst, 1/float64(count), 'f', -1, 64)
	}
	dst = append(dst, l.tags...)
	return append(dst, '\n')
}

// label is how a flat name is sent. Plain statsd knows no tags: they become
// depths of the name, "name.__key=value".
func (e *encoder) label(flat string) label {
	if !e.datadog {
		for _, t := range e.tags {
			flat += ".__" + t.key + "=" + t.value
		}
		return label{name: flat}
	}
	name, more := mogrify(e.mogrifiers, flat)
	var tags strings.Builder
	for i, t := range slices.Concat(e.tags, more) {
		if i == 0 {
			tags.WriteString("|#")
		} else {
			tags.WriteByte(',')
		}
		tags.WriteString(t.key + ":" + t.value)
	}
	return label{name, tags.String()}
}
