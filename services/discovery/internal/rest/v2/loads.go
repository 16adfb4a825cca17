package v2

import (
	"net/http"
	"slices"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/lrs"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// loads answers with the load of clusters as proxies report it: of all, or of
// the one that the query names. A cluster of which nothing is reported is no
// error.
func (f *face) loads(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	cluster, named := q.Text("cluster")
	if err := q.End(); err != nil {
		return 0, err
	}
	loads := []lrs.ClusterLoad{}
	if f.loadsOf != nil {
		loads = f.loadsOf()
	}
	if named {
		loads = slices.DeleteFunc(loads, func(l lrs.ClusterLoad) bool { return l.Cluster != cluster })
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Clusters []lrs.ClusterLoad `json:"clusters"`
	}{loads})
}
