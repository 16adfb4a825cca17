package adminapi

import (
	"html/template"
	"net/http"
	"net/url"

	"github.com/weirproxy/weir/services/proxy/internal/web"
)

// statsPage is /stats for people: what it shows, and a form of its parameters, all of
// which are sent. Prometheus' format is a link, since it has other histogram_buckets.
// The page runs no script, and looks as /page does.
var statsPage = template.Must(web.Head().New("stats").Parse(`{{template "head.html" "stats" -}}
<h1>stats</h1>
<form action="stats">
<label>filter <input type="search" name="filter" value="{{.Filter}}" placeholder="regular expression"></label>
<label><input type="checkbox" name="invert_filter"{{if .Inverted}} checked{{end}}> inverted</label>
<label><input type="checkbox" name="usedonly"{{if .UsedOnly}} checked{{end}}> used only</label>
{{range .Choices}}<label>{{.Label}} <select name="{{.Name}}">{{$now := .Now}}{{range .Values}}<option{{if eq . $now}} selected{{end}}>{{.}}</option>{{end}}</select></label>
{{end}}<button>show</button>
<a href="stats/prometheus">for Prometheus</a>
</form>
<pre>{{.Text}}</pre>
`))

// statsPolicy is what the page may do: look as its style says, and ask for itself.
const statsPolicy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// statsChoice is a parameter that has a few values.
type statsChoice struct {
	Label, Name, Now string
	Values           []string
}

// writeStatsPage answers with the metrics, as text, in a page that may ask for them
// again each few seconds.
func writeStatsPage(w http.ResponseWriter, query url.Values, again bool, text string) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=UTF-8")
	h.Set("Content-Security-Policy", statsPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	if again {
		h.Set("Refresh", "5")
	}
	// A failed write means that the reader has gone.
	_ = statsPage.Execute(w, struct {
		Filter             string
		Inverted, UsedOnly bool
		Choices            []statsChoice
		Text               string
	}{query.Get("filter"), query.Has("invert_filter"), query.Has("usedonly"), []statsChoice{
		{"kinds", "type", query.Get("type"), []string{"All", "Counters", "Gauges", "Histograms"}},
		{"histograms by", "histogram_buckets", query.Get("histogram_buckets"), []string{summary, cumulative, disjoint, detailed}},
		{"as", "format", query.Get("format"), []string{"html", "active-html", "text", "json"}},
	}, text})
	return nil
}
