package prommap

import (
	"regexp"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// rule maps the flat names that its pattern finds. In its name and in the
// values of its labels $1 stands for the pattern's first group.
type rule struct {
	pattern *regexp.Regexp
	// only is the kind that the rule is for; any if it is nil.
	only   *peerstats.Kind
	name   string
	labels []pair // in the order of their names
	help   string
	scale  float64 // what values are multiplied by
	drop   bool    // show nothing
}

// pair is a label.
type pair struct{ name, value string }

// outcome is what a flat name was mapped to.
type outcome struct {
	name, help string
	labels     []pair
	scale      float64
	drop       bool
}

// defaultHelp is the help of metrics whose rule has none.
const defaultHelp = "A statistic of envoyproxy/ratelimit, named as there."

// apply maps a flat name by the first rule that finds its pattern in it.
func apply(rules []rule, flat string, kind peerstats.Kind) outcome {
	for i := range rules {
		r := &rules[i]
		if r.only != nil && *r.only != kind {
			continue
		}
		found := r.pattern.FindStringSubmatchIndex(flat)
		if found == nil {
			continue
		}
		expand := func(template string) string {
			return string(r.pattern.ExpandString(nil, template, flat, found))
		}
		out := outcome{name: metricName(expand(r.name)), help: r.help, scale: r.scale, drop: r.drop}
		for _, l := range r.labels {
			out.labels = append(out.labels, pair{l.name, expand(l.value)})
		}
		return out
	}
	return outcome{name: metricName(flat), help: defaultHelp, scale: 1}
}

// metricName puts underscores for what a metric's name must not have.
func metricName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, text)
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// builtIn are the rules that hold where no file gives others. Of a rule's
// path the first two parts become labels; deeper ones are summed up.
func builtIn(milliseconds bool) []rule {
	counter := peerstats.Counter
	toSeconds := 0.001
	if milliseconds {
		toSeconds = 1
	}
	var rules []rule
	for _, suffix := range []string{"near_limit", "over_limit", "total_hits", "within_limit", "shadow_mode"} {
		name := "ratelimit_service_rate_limit_" + suffix
		rules = append(rules, rule{
			pattern: regexp.MustCompile(`^ratelimit\.service\.rate_limit\.([^.]*)\.([^.]*)\.` + suffix + `$`),
			name:    name,
			labels:  []pair{{"domain", "$1"}, {"key1", "$2"}},
		}, rule{
			pattern: regexp.MustCompile(`^ratelimit\.service\.rate_limit\.([^.]*)\.([^.]*)\.([^.]*)(?:\..*)?\.` + suffix + `$`),
			name:    name,
			labels:  []pair{{"domain", "$1"}, {"key1", "$2"}, {"key2", "$3"}},
		})
	}
	rules = append(rules, rule{
		pattern: regexp.MustCompile(`^ratelimit\.service\.call\.should_rate_limit\.([^.]*)$`),
		only:    &counter,
		name:    "ratelimit_service_should_rate_limit_error",
		labels:  []pair{{"err_type", "$1"}},
	}, rule{
		pattern: regexp.MustCompile(`^ratelimit_server\.([^.]*)\.total_requests$`),
		only:    &counter,
		name:    "ratelimit_service_total_requests",
		labels:  []pair{{"grpc_method", "$1"}},
	}, rule{
		pattern: regexp.MustCompile(`^ratelimit_server\.([^.]*)\.response_time$`),
		name:    "ratelimit_service_response_time_seconds",
		labels:  []pair{{"grpc_method", "$1"}},
		scale:   toSeconds,
	})
	for i := range rules {
		rules[i].help = defaultHelp
		if rules[i].scale == 0 {
			rules[i].scale = 1
		}
	}
	return rules
}
