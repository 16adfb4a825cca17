package v2

import (
	"net/http"
	"strconv"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// How many clients of xDS, or resources of one, a call is told of.
const (
	usualPage   = 100
	longestPage = 500
)

// page takes offset and limit of a query.
func page(q *call.Query) (offset, limit int) {
	return q.Number("offset", 0, 0, 1<<30), q.Number("limit", usualPage, 1, longestPage)
}

// clients answers with a part of the clients of xDS.
func (f *face) clients(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	var asked xds.ClientQuery
	asked.Search, _ = q.Text("search")
	asked.Show = q.OneOf("show", xds.ShowAll, xds.ShowRefusing, xds.ShowWaiting, xds.ShowSlow)
	asked.Offset, asked.Limit = page(q)
	if err := q.End(); err != nil {
		return 0, err
	}
	return httpjson.Answer(w, http.StatusOK, f.clientsOf(asked))
}

// clientResources answers with a part of the resources of one client of xDS that has
// a stream.
func (f *face) clientResources(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	part, _ := q.Text("search")
	offset, limit := page(q)
	if err := q.End(); err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	var list []xds.ResourceStatus
	is := err == nil
	if is {
		list, is = f.resourcesOf(number, part)
	}
	if !is {
		return 0, call.Refuse(http.StatusNotFound, "no client has stream %.20q", r.PathValue("number"))
	}
	offset = min(offset, len(list))
	return httpjson.Answer(w, http.StatusOK, struct {
		Matching int                  `json:"matching"`
		Offset   int                  `json:"offset"`
		List     []xds.ResourceStatus `json:"list"`
	}{len(list), offset, append([]xds.ResourceStatus{}, list[offset:min(offset+limit, len(list))]...)})
}

// files answers with which files of resources there are, and what is wrong with
// which. Where there is no directory of them there are none.
func (f *face) files(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	shown := struct {
		Directory string                     `json:"directory"`
		Files     []resourcefiles.FileStatus `json:"files"`
		Warnings  []string                   `json:"warnings"`
	}{Files: []resourcefiles.FileStatus{}, Warnings: []string{}}
	if now := f.filesOf(); now != nil {
		shown.Directory, shown.Files, shown.Warnings = now.Directory, now.Files, now.Warnings
	}
	return httpjson.Answer(w, http.StatusOK, shown)
}
