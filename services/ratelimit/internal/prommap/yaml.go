package prommap

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// document is a file of rules. Keys that are not named here are refused, with
// their place.
type document struct {
	Defaults defaults             `yaml:"defaults"`
	Mappings []mapping            `yaml:"mappings"`
	Others   map[string]yaml.Node `yaml:",inline"`
}

type defaults struct {
	MatchType    string               `yaml:"match_type"`
	ObserverType string               `yaml:"observer_type"`
	TimerType    string               `yaml:"timer_type"`
	Others       map[string]yaml.Node `yaml:",inline"`
}

type mapping struct {
	Match           string               `yaml:"match"`
	MatchType       string               `yaml:"match_type"`
	MatchMetricType string               `yaml:"match_metric_type"`
	Name            string               `yaml:"name"`
	Labels          map[string]string    `yaml:"labels"`
	Help            string               `yaml:"help"`
	Action          string               `yaml:"action"`
	Scale           *float64             `yaml:"scale"`
	ObserverType    string               `yaml:"observer_type"`
	TimerType       string               `yaml:"timer_type"`
	HonorLabels     bool                 `yaml:"honor_labels"` // flat names bring no labels
	Others          map[string]yaml.Node `yaml:",inline"`
}

var (
	labelName    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	nameTemplate = regexp.MustCompile(`^([a-zA-Z_]|\$\{?\d+\}?)([a-zA-Z0-9_]|\$\{?\d+\}?)*$`)
)

// readRules reads a file of rules: those with globs first, then the regular
// expressions, each in the order of the file, as statsd-exporter tries them.
// The error has every fault.
func readRules(text []byte) ([]rule, error) {
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	errs := []error{
		unknown(d.Others, "mappings and defaults are known"),
		unknown(d.Defaults.Others, "of defaults only match_type, observer_type and timer_type are supported"),
		histogram("defaults", d.Defaults.ObserverType, d.Defaults.TimerType),
	}
	var globs, regexes []rule
	for i, m := range d.Mappings {
		if m.MatchType == "" {
			m.MatchType = d.Defaults.MatchType
		}
		r, err := m.rule()
		if err != nil {
			errs = append(errs, fmt.Errorf("mappings[%d], match %q: %w", i, m.Match, err))
			continue
		}
		if m.MatchType == "regex" {
			regexes = append(regexes, r)
		} else {
			globs = append(globs, r)
		}
	}
	return append(globs, regexes...), errors.Join(errs...)
}

// unknown is an error for each key that is left over.
func unknown(left map[string]yaml.Node, known string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(left)) {
		errs = append(errs, fmt.Errorf("line %d: %s: not supported: %s", left[key].Line, key, known))
	}
	return errors.Join(errs...)
}

// histogram refuses what our histograms cannot be shown as.
func histogram(where string, types ...string) error {
	for _, t := range types {
		if t != "" && t != "histogram" {
			return fmt.Errorf("%s: observer_type or timer_type %q: times are known by histograms only", where, t)
		}
	}
	return nil
}

// rule is the mapping in our form.
func (m *mapping) rule() (rule, error) {
	r := rule{name: m.Name, help: m.Help, scale: 1, drop: m.Action == "drop"}
	if r.help == "" {
		r.help = defaultHelp
	}
	if m.Scale != nil {
		r.scale = *m.Scale
	}
	errs := []error{
		unknown(m.Others, "buckets are those of the service, and metrics last as long as their source; other keys are unknown"),
		histogram("times", m.ObserverType, m.TimerType),
	}
	if m.Action != "" && m.Action != "map" && m.Action != "drop" {
		errs = append(errs, fmt.Errorf("action %q: not one of map, drop", m.Action))
	}
	if !nameTemplate.MatchString(m.Name) && (m.Name != "" || !r.drop) {
		errs = append(errs, fmt.Errorf("name %q: not the name of a metric", m.Name))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
		if !labelName.MatchString(name) {
			errs = append(errs, fmt.Errorf("labels: %q is not the name of a label", name))
		}
		r.labels = append(r.labels, pair{name, m.Labels[name]})
	}
	kinds := map[string]peerstats.Kind{
		"counter": peerstats.Counter, "gauge": peerstats.Gauge, "observer": peerstats.Timer, "timer": peerstats.Timer,
	}
	if kind, ok := kinds[m.MatchMetricType]; ok {
		r.only = &kind
	} else if m.MatchMetricType != "" {
		errs = append(errs, fmt.Errorf("match_metric_type %q: not one of counter, gauge, observer, timer", m.MatchMetricType))
	}
	var err error
	switch m.MatchType {
	case "", "glob":
		r.pattern, err = glob(m.Match)
	case "regex":
		r.pattern, err = regexp.Compile(m.Match)
	default:
		err = fmt.Errorf("match_type %q: not one of glob, regex", m.MatchType)
	}
	return r, errors.Join(append(errs, err)...)
}

// glob is a pattern whose * stand for one part between dots each.
func glob(match string) (*regexp.Regexp, error) {
	parts := strings.Split(match, ".")
	for i, part := range parts {
		switch {
		case part == "*":
			parts[i] = `([^.]*)`
		case part == "" || strings.Contains(part, "*"):
			return nil, fmt.Errorf("part %q: a * stands for a whole part between dots", part)
		default:
			parts[i] = regexp.QuoteMeta(part)
		}
	}
	return regexp.Compile("^" + strings.Join(parts, `\.`) + "$")
}
