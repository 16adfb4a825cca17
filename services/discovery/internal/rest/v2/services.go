package v2

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// serviceJSON is a service in the index of all.
type serviceJSON struct {
	Name      string `json:"name"`
	Hosts     int    `json:"hosts"`
	Serving   int    `json:"serving"`
	Draining  int    `json:"draining"`
	Out       int    `json:"out"`
	Stale     int    `json:"stale"`
	Unhealthy int    `json:"unhealthy"`
	Index     string `json:"index"`
	ChangedAt string `json:"changed_at"`
}

// services answers with all known services and how many hosts each has. That
// there are none is said once the registry is warm, as of a list.
func (f *face) services(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	all := registry.Listing{Partial: f.registry.Partial()}
	summaries, err := f.registry.Services()
	if err != nil {
		return 0, err
	}
	if err := all.Safe(len(summaries) == 0, false); err != nil {
		return 0, err
	}
	services := make([]serviceJSON, len(summaries))
	for i, s := range summaries {
		services[i] = serviceJSON{s.Name, s.Hosts, s.Serving, s.Draining, s.Out, s.Stale, s.Unhealthy, hexText(s.Version), stamp(s.ChangedAt)}
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Services []serviceJSON `json:"services"`
	}{services})
}

// revisionJSON is how many hosts have a revision. Oldest and Newest are when the
// first and the last of them came.
type revisionJSON struct {
	Revision string `json:"revision"`
	Hosts    int    `json:"hosts"`
	Serving  int    `json:"serving"`
	Canary   int    `json:"canary"`
	Oldest   string `json:"oldest"`
	Newest   string `json:"newest"`
}

// revisions answers with how many hosts of a service have each revision, the
// one that came last first: how far a deployment is.
func (f *face) revisions(w http.ResponseWriter, r *http.Request) (int, error) {
	query := call.ReadQuery(r)
	service := pathService(r, &query.Faults)
	if err := query.End(); err != nil {
		return 0, err
	}
	listing, err := f.registry.List(service)
	if err != nil {
		return 0, err
	}
	if err := listing.Safe(len(listing.Hosts) == 0, false); err != nil {
		return 0, err
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Service   string         `json:"service"`
		Known     bool           `json:"known"`
		Index     string         `json:"index"`
		Revisions []revisionJSON `json:"revisions"`
	}{service, listing.Known, hexText(listing.Version), countRevisions(listing.Hosts)})
}

// revision is revisionJSON as it is counted.
type revision struct {
	hosts, serving, canary int
	oldest, newest         time.Time
}

// countRevisions counts hosts by revision, the one with the newest host first.
func countRevisions(hosts []registry.View) []revisionJSON {
	counts := map[string]*revision{}
	for i := range hosts {
		view := &hosts[i]
		c := counts[view.Host.Revision]
		if c == nil {
			c = &revision{oldest: view.FirstSeen, newest: view.FirstSeen}
			counts[view.Host.Revision] = c
		}
		c.hosts++
		if view.State == registry.Serving {
			c.serving++
		}
		if canary := view.Host.Tags.Canary; canary != nil && *canary {
			c.canary++
		}
		if view.FirstSeen.Before(c.oldest) {
			c.oldest = view.FirstSeen
		}
		if view.FirstSeen.After(c.newest) {
			c.newest = view.FirstSeen
		}
	}
	list := make([]revisionJSON, 0, len(counts))
	for name, c := range counts {
		list = append(list, revisionJSON{name, c.hosts, c.serving, c.canary, stamp(c.oldest), stamp(c.newest)})
	}
	slices.SortFunc(list, func(a, b revisionJSON) int {
		return cmp.Or(cmp.Compare(b.Newest, a.Newest), cmp.Compare(a.Revision, b.Revision))
	})
	return list
}
