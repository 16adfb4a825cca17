package hds

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// Rules says which services are checked, and how. They never change.
type Rules struct {
	// interval is how often checkers report.
	interval time.Duration
	exact    map[string]*rule // by service
	prefixes []*rule          // the longest first
}

// rule is how the hosts of some services are checked.
type rule struct {
	service string // a name, or the beginning of names with * behind it
	checks  []*corev3.HealthCheck
	// checkers is how many check each host, if so many are there; unhealthy is how
	// many of them must find it so.
	checkers, unhealthy int
	// patience is how long a checker that was just given a host has to find out:
	// until its first check has ended, Envoy calls a host unhealthy.
	patience time.Duration
}

// Bounds of what a file may say.
const (
	leastInterval = 100 * time.Millisecond
	mostInterval  = 10 * time.Minute
	mostCheckers  = 16
	mostChecks    = 8
	mostRules     = 10_000
)

// The values of what a file does not say.
const (
	usualInterval = 5 * time.Second
	usualCheckers = 3
)

// ReadRules reads rules from YAML or JSON:
//
//	interval: 5s             # how often checkers report; 5s if it is not said
//	services:
//	- service: users         # or users-* for all that begin so
//	  health_checks:         # envoy.config.core.v3.HealthCheck, one or several
//	  - {timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 1, http_health_check: {path: /healthz}}
//	  checkers: 3            # how many check each host; 3 if it is not said
//	  unhealthy: 2           # how many of them must find it so; more than half if it is not said
//
// A service goes by its own name, else by the longest beginning. The error joins
// all that is wrong, each with file, line, column and field.
func ReadRules(file string, text []byte) (*Rules, error) {
	r := &Rules{interval: usualInterval, exact: map[string]*rule{}}
	f, root := protoyaml.Open(file, text)
	if root == nil {
		return nil, f.Err()
	}
	for _, e := range f.Mapping(root, "", "a mapping") {
		switch e.Key {
		case "interval":
			r.interval = readInterval(f, e)
		case "services":
			r.readServices(f, e.Value)
		default:
			f.FaultOf(e, "", "%.80q is not one of interval, services", e.Key)
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	for _, one := range r.all() {
		one.patience = patienceOf(one.checks) + r.interval
	}
	return r, nil
}

func readInterval(f *protoyaml.File, e protoyaml.Entry) time.Duration {
	d, err := time.ParseDuration(e.Value.Value)
	if err != nil || d < leastInterval || d > mostInterval {
		f.Fault(e.Value, "interval", "%.80q is not a duration from %v to %v, such as \"5s\"", e.Value.Value, leastInterval, mostInterval)
	}
	return d
}

// readServices reads all rules.
func (r *Rules) readServices(f *protoyaml.File, n *yaml.Node) {
	seen := map[string]int{} // by service, the line
	for i, item := range f.List(n, "services", mostRules) {
		path := protoyaml.Path("services").Index(i)
		one := readRule(f, item, path)
		if line := seen[one.service]; line != 0 && one.service != "" {
			f.Fault(item, path.Field("service"), "%q is there twice, first on line %d", one.service, line)
			continue
		}
		seen[one.service] = item.Line
		if strings.HasSuffix(one.service, "*") {
			r.prefixes = append(r.prefixes, one)
		} else {
			r.exact[one.service] = one
		}
	}
	slices.SortFunc(r.prefixes, func(a, b *rule) int { return cmp.Compare(len(b.service), len(a.service)) })
}

// readRule reads one rule.
func readRule(f *protoyaml.File, n *yaml.Node, path protoyaml.Path) *rule {
	r := &rule{checkers: usualCheckers}
	for _, e := range f.Mapping(n, path, "a mapping") {
		switch field := path.Field(e.Key); e.Key {
		case "service":
			r.service = readService(f, e.Value, field)
		case "health_checks":
			r.checks = readChecks(f, e.Value, field)
		case "checkers":
			r.checkers = readNumber(f, e.Value, field, mostCheckers)
		case "unhealthy":
			r.unhealthy = readNumber(f, e.Value, field, mostCheckers)
		default:
			f.FaultOf(e, path, "%.80q is not one of service, health_checks, checkers, unhealthy", e.Key)
		}
	}
	if r.service == "" {
		f.Add(path.Field("service"), "must be given")
	}
	if len(r.checks) == 0 {
		f.Add(path.Field("health_checks"), "must be given")
	}
	if r.unhealthy > r.checkers {
		f.Add(path.Field("unhealthy"), "%d, of %d checkers", r.unhealthy, r.checkers)
	}
	if r.unhealthy == 0 {
		r.unhealthy = r.checkers/2 + 1
	}
	return r
}

func readService(f *protoyaml.File, n *yaml.Node, path protoyaml.Path) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" || strings.Contains(strings.TrimSuffix(n.Value, "*"), "*") {
		f.Fault(n, path, "want a name, or the beginning of names with * behind it, got %.80q", n.Value)
	}
	return n.Value
}

func readNumber(f *protoyaml.File, n *yaml.Node, path protoyaml.Path, most int) int {
	number, err := strconv.Atoi(n.Value)
	if err != nil || number < 1 || number > most {
		f.Fault(n, path, "%.80q is not a number from 1 to %d", n.Value, most)
		return most
	}
	return number
}

// readChecks reads health checks. Without traffic Envoy checks as often as
// no_traffic_interval says, once a minute by default; a checker sends its hosts
// none, so unless it is said otherwise interval holds.
func readChecks(f *protoyaml.File, n *yaml.Node, path protoyaml.Path) []*corev3.HealthCheck {
	var checks []*corev3.HealthCheck
	for i, item := range f.List(n, path, mostChecks) {
		at := path.Index(i)
		check := &corev3.HealthCheck{}
		f.Fill(item, check, at)
		f.Validate(check, at)
		if check.GetNoTrafficInterval() == nil {
			check.NoTrafficInterval = check.GetInterval()
		}
		checks = append(checks, check)
	}
	return checks
}

// patienceOf is how long the first check of a host takes at most.
func patienceOf(checks []*corev3.HealthCheck) (longest time.Duration) {
	for _, c := range checks {
		longest = max(longest, c.GetTimeout().AsDuration()+c.GetInitialJitter().AsDuration())
	}
	return longest
}

// all returns every rule, in no order.
func (r *Rules) all() []*rule {
	list := slices.Clone(r.prefixes)
	for _, one := range r.exact {
		list = append(list, one)
	}
	return list
}

func (r *Rules) count() int { return len(r.exact) + len(r.prefixes) }

// of returns the rule of a service, or nil if it is not checked.
func (r *Rules) of(service string) *rule {
	if one := r.exact[service]; one != nil {
		return one
	}
	for _, one := range r.prefixes {
		if strings.HasPrefix(service, strings.TrimSuffix(one.service, "*")) {
			return one
		}
	}
	return nil
}

// checksAs reports whether hosts are checked by r as by other.
func (r *rule) checksAs(other *rule) bool {
	return r == other || slices.EqualFunc(r.checks, other.checks, func(a, b *corev3.HealthCheck) bool { return proto.Equal(a, b) })
}
