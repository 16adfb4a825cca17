package xds

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
)

// subscription is what is wanted and known of one type from one source. All but
// the first group is guarded by the client's mu.
type subscription struct {
	typeURL string
	source  coreconfig.Source
	sink    Sink
	updates *Updates // nil for a type that is asked for by names
	log     *slog.Logger

	wildcard bool
	wanted   map[string]bool // the names
	sorted   []string        // of wanted, as names returns them; nil if that changed since
	changed  bool            // wildcard or wanted were set since the last request, or it left some out
	// lost are names that were given up since the last request: the sink has nothing of
	// them any more, even if they are wanted again by now.
	lost    map[string]bool
	told    []string // the names of the last request, sorted
	version string   // accepted last
	// versions are those of the resources accepted last, by name; in delta only.
	versions map[string]string
	refused  string // why the newest response was, "" if it was not
	updated  time.Time

	initialFetch time.Duration
	expired      func() // nil for a subscription by names
	patience     *time.Timer
	answered     bool // a response came
}

// names are those that are wanted, sorted, as a slice that never changes. They are sorted
// when they are asked for, since thousands may come one after another. The caller holds mu.
func (s *subscription) names() []string {
	if s.sorted == nil {
		s.sorted = slices.Sorted(maps.Keys(s.wanted))
	}
	return s.sorted
}

// wait begins the time that the first response may take. The caller holds mu.
func (s *subscription) wait() {
	if s.initialFetch <= 0 || s.answered {
		return
	}
	// Ends with waited.
	s.patience = time.AfterFunc(s.initialFetch, func() {
		s.updates.GaveUp()
		s.log.Warn("no answer within the initial fetch timeout", "type", s.typeURL, "source", s.source, "timeout", s.initialFetch)
		s.expired()
	})
}

// waited ends it, and says whether this is the first response. The caller holds
// mu.
func (s *subscription) waited() (first bool) {
	if s.patience != nil {
		s.patience.Stop()
	}
	first, s.answered = !s.answered, true
	return first
}

// unusable tells who waits that what came first is nothing to wait for.
func (s *subscription) unusable(first bool) {
	if first && s.expired != nil {
		s.expired()
	}
}

// apply hands the resources of a response to the sink. The error says why the
// response is refused. A response that is malformed as a whole does not reach
// the sink: of a set with holes, it would take those for removals.
func (c *Client) apply(s *subscription, r *response) error {
	c.mu.Lock()
	names, wildcard := s.names(), s.wildcard
	first := s.waited()
	c.mu.Unlock()

	began := time.Now()
	resources, err := r.unpack(s.source)
	switch {
	case err != nil:
		s.unusable(first)
		c.failed(s, Refused)
	case wildcard:
		if err = s.sink.Apply(resources, !r.delta); err != nil {
			s.updates.Failed(Refused)
		} else {
			s.updates.Took(r.version, began)
		}
	default:
		resources, err = s.choose(r, resources, names)
		err = errors.Join(err, s.sink.Apply(resources, false))
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		s.refused = err.Error()
		s.log.Warn("refused an update", "source", s.source, "type", s.typeURL, "version", r.version, "error", err)
		return err
	}
	if r.delta {
		s.note(resources)
	}
	s.version, s.refused, s.updated = r.version, "", time.Now()
	s.log.Debug("took an update", "source", s.source, "type", s.typeURL, "version", s.version, "resources", len(resources))
	return nil
}

// choose is what a response says of names. A file has all that there is: one without
// any resource has none of the names any more, and one with others is refused by those
// that it lacks, as in Envoy.
func (s *subscription) choose(r *response, resources []Resource, names []string) ([]Resource, error) {
	empty := len(resources) == 0
	resources = slices.DeleteFunc(resources, func(r Resource) bool {
		_, wanted := slices.BinarySearch(names, r.Name)
		return !wanted
	})
	if s.source.Path == "" {
		return resources, nil
	}
	there := make([]string, 0, len(resources))
	for _, one := range resources {
		there = append(there, one.Name)
	}
	slices.Sort(there)
	missing := without(names, there)
	switch {
	case len(missing) == 0:
		return resources, nil
	case empty:
		for _, name := range missing {
			resources = append(resources, Resource{Name: name, Version: r.version, Source: s.source})
		}
		return resources, nil
	}
	s.sink.Failed(s.source, missing, Refused)
	return resources, fmt.Errorf("%s: has no resource of the name %s", s.source.Path, strings.Join(missing, ", "))
}

// failed counts that nothing came for a subscription.
func (c *Client) failed(s *subscription, why Failure) {
	c.mu.Lock()
	names, wildcard := s.names(), s.wildcard
	c.mu.Unlock()
	if wildcard {
		s.updates.Failed(why)
	} else {
		s.sink.Failed(s.source, names, why)
	}
}

// note keeps the versions of what was accepted. The caller holds mu.
func (s *subscription) note(resources []Resource) {
	for _, r := range resources {
		if r.Message == nil || s.lost[r.Name] {
			delete(s.versions, r.Name)
		} else {
			s.versions[r.Name] = r.Version
		}
	}
}

// lose gives a name up, and its version, as nobody tells any more when that changes. The
// caller holds mu.
func (s *subscription) lose(name string) {
	if _, told := slices.BinarySearch(s.told, name); told {
		s.lost[name] = true
	}
	delete(s.versions, name)
}

// ask are the names for the next request, after one that asked for others if there
// was one on this stream: without those that were given up since and are wanted again,
// which the control plane took for still wanted, and so would not send. They come with
// the request behind it, for which changed stays. The caller holds mu.
func (s *subscription) ask(again bool) []string {
	names := s.names()
	if again && len(s.lost) > 0 {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return s.lost[name] })
	}
	clear(s.lost)
	s.told, s.changed = names, len(names) < len(s.wanted)
	return names
}

// maxRefusal bounds the text of a NACK, in bytes.
const maxRefusal = 4096

// cut shortens a text to what a NACK may carry.
func cut(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxRefusal {
		return text
	}
	const end = " … (cut)"
	return strings.ToValidUTF8(text[:maxRefusal-len(end)], "") + end
}
