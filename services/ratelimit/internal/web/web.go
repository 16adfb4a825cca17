// Package web is the page that shows operators one running service: the rules
// in force and what was refused of the files, the descriptors that are refused
// most, and how the store is. app mounts it on the admin listener. It is one
// file of HTML with its script, which asks for the data behind it every other
// second; it needs nothing from elsewhere and changes nothing.
package web

import (
	_ "embed" // the page
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/refusals"
)

//go:embed page.html
var page []byte

// Page serves the page, which asks for page.json beside it.
func Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'")
		_, _ = w.Write(page) // a failed write means that the reader has gone
	})
}

// Options is where the page's data comes from. All fields are required; the
// functions are called for each request.
type Options struct {
	// Ready is what /ready answers, and its text.
	Ready func() (ready bool, text string)
	// Rules is the rules in force, Faults what is wrong with their sources.
	Rules  func() *limits.Set
	Faults func() []string
	// Refusals is the n descriptors that are refused most.
	Refusals func(n int) []refusals.Refusal
	// Store says which one counts.
	Store string
	// Metrics is where the store's numbers are.
	Metrics prometheus.Gatherer
}

const (
	// shownRules is the most rules that one answer holds; a filter finds others.
	shownRules = 500
	// shownRefusals is the most refused descriptors.
	shownRefusals = 20
)

// Data serves the page's data as JSON. The query's filter leaves out the rules
// whose domain and key do not hold its text.
func Data(o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data := data{Store: o.Store, Faults: append([]string{}, o.Faults()...), Refusals: o.Refusals(shownRefusals)}
		data.Ready, data.State = o.Ready()
		data.addRules(o.Rules(), r.URL.Query().Get("filter"))
		data.addNumbers(o.Metrics)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(&data) // a failed write means that the reader has gone
	})
}

type data struct {
	Ready    bool               `json:"ready"`
	State    string             `json:"state"`
	Store    string             `json:"store"`
	Faults   []string           `json:"faults"`
	Domains  int                `json:"domains"`
	Rules    int                `json:"rules"`
	Matching int                `json:"matching"` // rules that the filter leaves
	Shown    []rule             `json:"shown"`
	Refusals []refusals.Refusal `json:"refusals"`
	Numbers  []number           `json:"numbers"`
}

// rule is one row of the table of rules.
type rule struct {
	Domain string `json:"domain"`
	Rule   string `json:"rule"`
	Limit  string `json:"limit"`
	Place  string `json:"place"`
	Hits   uint64 `json:"hits"`
	Over   uint64 `json:"over"`
	Near   uint64 `json:"near"`
}

func (d *data) addRules(set *limits.Set, filter string) {
	d.Shown = []rule{}
	for domain := range set.Domains() {
		d.Domains++
		d.Rules += len(domain.Rules)
		for _, r := range domain.Rules {
			if !strings.Contains(r.Domain+"."+r.Key, filter) {
				continue
			}
			d.Matching++
			if len(d.Shown) < shownRules {
				c := r.CountersOf(nil)
				d.Shown = append(d.Shown, rule{
					Domain: r.Domain, Rule: r.Key, Limit: limitText(r), Place: r.Place.String(),
					Hits: c.TotalHits.Load(), Over: c.Over.Load(), Near: c.Near.Load(),
				})
			}
		}
	}
}

// number is one metric of the store or the local cache. Of a histogram it is
// the mean of its observations.
type number struct {
	Name   string  `json:"name"`
	Help   string  `json:"help"`
	Labels string  `json:"labels"`
	Value  float64 `json:"value"`
}

// shownFamilies begin the names of the metrics that are shown.
var shownFamilies = []string{"ratelimit_redis_", "ratelimit_memory_", "ratelimit_localcache_"}

func (d *data) addNumbers(metrics prometheus.Gatherer) {
	d.Numbers = []number{}
	families, _ := metrics.Gather() // what could be gathered is shown
	for _, family := range families {
		shown := false
		for _, prefix := range shownFamilies {
			shown = shown || strings.HasPrefix(family.GetName(), prefix)
		}
		if !shown {
			continue
		}
		for _, m := range family.GetMetric() {
			n := number{Name: family.GetName(), Help: family.GetHelp()}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			n.Labels = strings.Join(labels, ", ")
			switch {
			case m.GetCounter() != nil:
				n.Value = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				n.Value = m.GetGauge().GetValue()
			case m.GetHistogram().GetSampleCount() > 0:
				n.Value = m.GetHistogram().GetSampleSum() / float64(m.GetHistogram().GetSampleCount())
				n.Help += " Here: the mean since the start."
			}
			d.Numbers = append(d.Numbers, n)
		}
	}
}

// limitText is what a rule grants, and how it is told apart from others: "10
// per 3 HOUR, shadow mode".
func limitText(r *limits.Rule) string {
	text := "unlimited"
	if !r.Unlimited {
		text = fmt.Sprintf("%d per %s", r.Rate.Requests, r.Rate.Unit)
		if r.Rate.Multiplier > 1 {
			text = fmt.Sprintf("%d per %d %s", r.Rate.Requests, r.Rate.Multiplier, r.Rate.Unit)
		}
	}
	if r.ShadowMode {
		text += ", shadow mode"
	}
	if r.QuotaMode {
		text += ", quota mode"
	}
	if r.Name != "" {
		text += ", named " + r.Name
	}
	if len(r.Replaces) > 0 {
		text += ", replaces " + strings.Join(r.Replaces, ", ")
	}
	return text
}
