package limitsource

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// sink keeps the names of the domains in force, and how often they were given.
type sink struct {
	domains []string
	given   int
}

func (s *sink) SetRules(rules *limits.Set) {
	s.domains = nil
	s.given++
	for d := range rules.Domains() {
		s.domains = append(s.domains, d.Name)
	}
}

// claim is one on a domain, whose place tells who gives it.
func claim(domain string, by ...string) Claim {
	return Claim{Domain: &limits.Domain{Name: domain, Place: limits.Place{File: strings.Join(by, "+")}}, By: by}
}

// domains are claims that do not compete.
func domains(claims ...Claim) Domains {
	d := Domains{}
	for _, c := range claims {
		d[c.Domain.Name] = c
	}
	return d
}

// show lists domains as "domain of who".
func show(d Domains) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(d)) {
		list = append(list, name+" of "+strings.Join(d[name].By, "+"))
	}
	return list
}

func TestWhoGetsADomain(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  Domains
		claims  []Claim
		kept    Domains
		want    []string
		refused []string
	}{
		{"who_alone_claims_it", nil,
			[]Claim{claim("a", "x"), claim("b", "y")}, nil,
			[]string{"a of x", "b of y"}, nil},
		{"the_first_of_two_that_are_new", nil,
			[]Claim{claim("a", "x"), claim("a", "y")}, nil,
			[]string{"a of x"}, []string{`y: the domain "a" is already given at x`}},
		{"its_owner_before_the_first", domains(claim("a", "y")),
			[]Claim{claim("a", "x"), claim("a", "y")}, nil,
			[]string{"a of y"}, []string{`x: the domain "a" is already given at y`}},
		{"another_once_its_owner_is_gone", domains(claim("a", "y")),
			[]Claim{claim("a", "x")}, nil,
			[]string{"a of x"}, nil},
		{"its_owner_that_was_refused_elsewhere", domains(claim("a", "x"), claim("b", "y")),
			[]Claim{claim("a", "x"), claim("a", "y")}, nil,
			[]string{"a of x", "b of y"}, []string{`y: the domain "a" is already given at x`}},
		{"nobody_else_while_it_is_kept", domains(claim("a", "x")),
			nil, domains(claim("a", "x")),
			[]string{"a of x"}, nil},
		{"who_claims_what_would_be_kept", domains(claim("a", "x")),
			[]Claim{claim("a", "y")}, domains(claim("a", "x")),
			[]string{"a of y"}, nil},
		{"nobody_when_it_is_gone", domains(claim("a", "x"), claim("b", "y")),
			[]Claim{claim("b", "y")}, nil,
			[]string{"b of y"}, nil},
		{"nobody_because_of_a_nameless_one_that_was_refused", domains(claim("a", "x"), claim("b", "")),
			[]Claim{claim("a", "x"), claim("a", "")}, nil,
			[]string{"a of x"}, []string{`: the domain "a" is already given at x`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, refused := c.before.Choose(c.claims, c.kept)
			require.Equal(t, c.want, show(next))
			require.Equal(t, c.refused, refused)
		})
	}
}

// inForce makes an InForce over a sink, and its log and metrics.
func inForce(allOrNothing bool) (*InForce, *sink, *strings.Builder, *prometheus.Registry) {
	rules, log, metrics := &sink{}, &strings.Builder{}, prometheus.NewRegistry()
	return NewInForce(Options{
		AllOrNothing: allOrNothing,
		Parser:       &limits.Parser{Stats: limits.NewStats(prometheus.NewRegistry())},
		Sink:         rules,
		Log:          slog.New(slog.NewTextHandler(log, nil)),
		Metrics:      metrics,
	}, func() error { return errors.New("nothing was read") }), rules, log, metrics
}

func TestWhatIsTaken(t *testing.T) {
	a, b := domains(claim("a", "x")), domains(claim("b", "y"))
	type load struct {
		next    Domains
		refused []string
		taken   bool
		want    []string // the domains in force then
		noRules string
	}
	wrong, none := []string{"it is wrong"}, Domains{}
	for _, c := range []struct {
		name         string
		allOrNothing bool
		loads        []load
	}{
		{"what_is_good_and_then_nothing", false, []load{
			{a, nil, true, []string{"a"}, ""},
			{none, nil, true, nil, ""},
		}},
		{"nothing_if_that_is_good", false, []load{
			{none, nil, true, nil, ""},
		}},
		{"not_nothing_at_first_if_something_is_wrong", false, []load{
			{none, wrong, false, nil, "no rules: it is wrong"},
			{b, wrong, true, []string{"b"}, ""},
			{none, wrong, true, nil, ""},
		}},
		{"not_what_was_not_read", false, []load{
			{nil, nil, false, nil, "no rules: nothing was read"},
			{a, nil, true, []string{"a"}, ""},
			{nil, wrong, false, []string{"a"}, ""},
		}},
		{"all_or_nothing", true, []load{
			{a, wrong, false, nil, "no rules: it is wrong"},
			{a, nil, true, []string{"a"}, ""},
			{b, wrong, false, []string{"a"}, ""},
			{b, nil, true, []string{"b"}, ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, rules, _, _ := inForce(c.allOrNothing)
			given := 0
			for i, l := range c.loads {
				require.Equal(t, l.taken, f.Take(l.next, l.refused, len(l.next), 0), "load %d", i)
				if l.taken {
					given++
				}
				require.Equal(t, given, rules.given, "load %d", i)
				require.Equal(t, l.want, rules.domains, "load %d", i)
				require.Len(t, f.Domains(), len(l.want), "load %d", i)
				require.Len(t, f.Refused(), len(l.refused), "load %d", i)
				if l.noRules == "" {
					require.NoError(t, f.NoRules(), "load %d", i)
				} else {
					require.EqualError(t, f.NoRules(), l.noRules, "load %d", i)
				}
			}
		})
	}
}

func TestBeforeTheFirstLoadNothingIsRefused(t *testing.T) {
	f, _, _, _ := inForce(false)
	require.Equal(t, []string{}, f.Refused())
	require.EqualError(t, f.NoRules(), "no rules: nothing was read")
}

func TestLinesOfManyFilesAreBounded(t *testing.T) {
	f, _, log, _ := inForce(false)
	wrong := make([]string, 3*limits.MaxFaults)
	for i := range wrong {
		wrong[i] = fmt.Sprint("line ", i)
	}
	f.Take(nil, wrong, 3, 0)
	require.Len(t, f.Refused(), limits.MaxFaults+1)
	require.Equal(t, "… and 200 more lines like these", f.Refused()[limits.MaxFaults])
	require.Equal(t, limits.MaxFaults+1, strings.Count(log.String(), "rules refused"))
	require.Contains(t, log.String(), "refused=300")

	f.Take(nil, wrong[:limits.MaxFaults+1], 1, 0)
	require.Equal(t, wrong[:limits.MaxFaults+1], f.Refused(), "those of one file are as they are")
}

func TestLoadsAreCountedAndWhatIsWrongIsLoggedOnce(t *testing.T) {
	f, _, log, metrics := inForce(false)
	said := func() string {
		var lines []string
		for line := range strings.Lines(log.String()) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), " ") // without the time
			lines = append(lines, text)
		}
		log.Reset()
		return strings.Join(lines, "\n")
	}
	a := domains(claim("a", "x"))
	wrong := []string{"one", "two"}
	f.Take(nil, nil, 0, 0, "from", "here")
	require.Equal(t, `level=INFO msg="rules in force" from=here domains=0 rules=0 refused=0
level=ERROR msg="every call is refused until there are rules" error="no rules: nothing was read"`, said())
	f.Take(a, wrong, 3, 1)
	require.Equal(t, `level=ERROR msg="rules refused" error=one
level=ERROR msg="rules refused" error=two
level=INFO msg="rules in force" domains=1 rules=0 refused=2`, said())
	f.Take(a, wrong, 3, 1)
	require.Equal(t, `level=INFO msg="rules in force" domains=1 rules=0 refused=2`, said())
	f.Take(a, wrong[:1], 2, 1)
	require.Equal(t, `level=ERROR msg="rules refused, the last good ones stay" error=one
level=INFO msg="rules in force" domains=1 rules=0 refused=1`, said())
	require.NoError(t, testutil.GatherAndCompare(metrics, strings.NewReader(`
# HELP ratelimit_service_config_load_error Loads in which something was refused.
# TYPE ratelimit_service_config_load_error counter
ratelimit_service_config_load_error 3
# HELP ratelimit_service_config_load_success Loads in which nothing was refused.
# TYPE ratelimit_service_config_load_success counter
ratelimit_service_config_load_success 1
# HELP ratelimit_service_config_sources Rule files or resources that the last load read, good or not.
# TYPE ratelimit_service_config_sources gauge
ratelimit_service_config_sources 2
# HELP ratelimit_service_config_unread Files, directories and resources that loads could not read.
# TYPE ratelimit_service_config_unread counter
ratelimit_service_config_unread 3
`)))
}
