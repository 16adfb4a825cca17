package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// subscription is what is wanted and known of one type. All but the first
// group is guarded by the client's mu.
type subscription struct {
	typeURL  string
	wildcard bool
	sink     Sink
	counters *counters

	names   []string // sorted
	changed bool     // names were set since the last request
	version string   // accepted last
	refused string   // why the newest response was, "" if it was not
	updated time.Time
}

// apply hands the resources of a response to the sink. The error says why the
// response is refused. A response that is malformed as a whole does not reach
// the sink: of a set with holes, it would take those for removals.
func (c *Client) apply(s *subscription, response *discoveryv3.DiscoveryResponse) error {
	c.mu.Lock()
	names := s.names
	c.mu.Unlock()

	resources, err := unpack(response)
	if err == nil {
		if !s.wildcard {
			resources = slices.DeleteFunc(resources, func(r Resource) bool {
				_, wanted := slices.BinarySearch(names, r.Name)
				return !wanted
			})
		}
		err = s.sink.Apply(resources)
	}
	now := time.Now()
	s.counters.took(now, err)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		s.refused = err.Error()
		c.options.Log.Warn("refused an update of the control plane", "type", s.typeURL, "version", response.GetVersionInfo(), "error", err)
		return err
	}
	s.version, s.refused, s.updated = response.GetVersionInfo(), "", now
	c.options.Log.Debug("took an update of the control plane", "type", s.typeURL, "version", s.version, "resources", len(resources))
	return nil
}

// resourceType wraps a resource with a name and a time to live.
const resourceType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// unpack reads the resources of a response. The error names every one that is
// no message of the response's type, has no name, or the name of another.
func unpack(response *discoveryv3.DiscoveryResponse) ([]Resource, error) {
	var faults []error
	resources := make([]Resource, 0, len(response.GetResources()))
	seen := make(map[string]bool, len(response.GetResources()))
	for i, packed := range response.GetResources() {
		r, err := unpackOne(packed, response.GetTypeUrl())
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("resources[%d]: %w", i, err))
		case r.Name == "":
			faults = append(faults, fmt.Errorf("resources[%d]: it has no name", i))
		case seen[r.Name]:
			faults = append(faults, fmt.Errorf("resources[%d]: %q is there twice", i, r.Name))
		}
		seen[r.Name] = true
		resources = append(resources, r)
	}
	return resources, errors.Join(faults...)
}

func unpackOne(packed *anypb.Any, typeURL string) (Resource, error) {
	name := ""
	if packed.GetTypeUrl() == resourceType {
		m, err := strict.Unpack(packed)
		if err != nil {
			return Resource{}, err
		}
		wrapped := m.(*discoveryv3.Resource)
		packed, name = wrapped.GetResource(), wrapped.GetName()
	}
	if packed.GetTypeUrl() != typeURL {
		return Resource{}, fmt.Errorf("its type is %q, not the response's", packed.GetTypeUrl())
	}
	m, err := strict.Unpack(packed)
	if err != nil {
		return Resource{}, err
	}
	switch m := m.(type) {
	case interface{ GetClusterName() string }: // assignments
		name = m.GetClusterName()
	case interface{ GetName() string }:
		name = m.GetName()
	}
	return Resource{Name: name, Message: m}, nil
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

// counters are the update counters of one type, where Envoy has them by type;
// nil for the others: those of assignments belong to their clusters.
type counters struct {
	attempt, success, failure, rejected *stats.Counter
	// time is that of the last accepted update, in milliseconds since 1970.
	time *stats.Gauge
}

func newCounters(root *stats.Registry, typeURL string) *counters {
	if typeURL != ClusterType {
		return nil
	}
	scope := root.Scope("cluster_manager").Scope("cds")
	return &counters{
		attempt: scope.Counter("update_attempt"), success: scope.Counter("update_success"),
		failure: scope.Counter("update_failure"), rejected: scope.Counter("update_rejected"),
		time: scope.Gauge("update_time"),
	}
}

// began counts the first attempt; each end of one begins the next.
func (c *counters) began() {
	if c != nil {
		c.attempt.Inc()
	}
}

// took counts a response that was accepted at now, or refused by err.
func (c *counters) took(now time.Time, err error) {
	switch {
	case c == nil:
		return
	case err != nil:
		c.rejected.Inc()
	default:
		c.success.Inc()
		c.time.Set(now.UnixMilli())
	}
	c.attempt.Inc()
}

// failed counts a stream that broke or could not be opened.
func (c *counters) failed() {
	if c != nil {
		c.failure.Inc()
		c.attempt.Inc()
	}
}
