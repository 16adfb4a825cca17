package v2

import (
	"net/http"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/lrs"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// mostLoads is how many clusters are told of, if the query asks for no fewer: as
// many as there are.
const mostLoads = 1 << 30

// loads answers with the load of clusters as proxies report it: of all, of the
// one that the query names, or of a part of those in whose names it finds what is
// searched for; with where the load goes, or without. A cluster of which nothing
// is reported is no error.
func (f *face) loads(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	cluster, named := q.Text("cluster")
	part, _ := q.Text("search")
	detail := q.OneOf("detail", "clusters", "hosts")
	offset, limit := q.Number("offset", 0, 0, mostLoads), q.Number("limit", mostLoads, 1, mostLoads)
	if err := q.End(); err != nil {
		return 0, err
	}
	loads := []lrs.ClusterLoad{}
	if f.loadsOf != nil {
		loads = f.loadsOf()
	}
	part = strings.ToLower(part)
	loads = slices.DeleteFunc(loads, func(l lrs.ClusterLoad) bool {
		return named && l.Cluster != cluster || !strings.Contains(strings.ToLower(l.Cluster), part)
	})
	offset = min(offset, len(loads))
	shown := loads[offset:min(offset+limit, len(loads))]
	if detail == "clusters" {
		for i := range shown {
			shown[i].Localities = []lrs.LocalityLoad{}
		}
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Matching int               `json:"matching"`
		Offset   int               `json:"offset"`
		Clusters []lrs.ClusterLoad `json:"clusters"`
	}{len(loads), offset, shown})
}
