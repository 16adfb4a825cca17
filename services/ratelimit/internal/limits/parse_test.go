package limits

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

func TestParseReadsEveryRuleOfAFile(t *testing.T) {
	d := parse(t, `
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: MINUTE, requests_per_unit: 10}
    descriptors:
      - {key: path, value: /pay, rate_limit: {unit: second, requests_per_unit: 0, algorithm: fixed_window}}
  - {key: code, value: 5, rate_limit: {unit: Day, requests_per_unit: 4294967295}}
  - {key: free, value: true, rate_limit: {unlimited: true}}
  - {key: none, rate_limit: null}
  - key: all
    value: of*it
    shadow_mode: true
    quota_mode: true
    detailed_metric: true
    value_to_metric: true
    share_threshold: true
    metadata: {a: b}
    rate_limit:
      unit: hour
      unit_multiplier: 3
      requests_per_unit: 7
      failure_mode_deny: false
      name: whole
      replaces: [{name: part}, {name: other}]
`)
	var lines, places []string
	for _, r := range d.Rules {
		lines = append(lines, r.String())
		places = append(places, r.Place.String())
	}
	require.Equal(t, []string{
		"shop.user: unit=MINUTE requests_per_unit=10, shadow_mode: false, quota_mode: false",
		"shop.user.path_/pay: unit=SECOND requests_per_unit=0, shadow_mode: false, quota_mode: false",
		"shop.code_5: unit=DAY requests_per_unit=4294967295, shadow_mode: false, quota_mode: false",
		"shop.free_true: unlimited, shadow_mode: false, quota_mode: false",
		"shop.all_of*it: unit=HOUR requests_per_unit=7, shadow_mode: true, quota_mode: true, unit_multiplier: 3, " +
			`name: "whole", replaces: ["part" "other"], failure_mode_deny: false, share_threshold: depth 1, with metadata`,
	}, lines)
	require.Equal(t, []string{"rules.yaml:5:17", "rules.yaml:7:46", "rules.yaml:8:39", "rules.yaml:9:42", "rules.yaml:20:7"}, places)
	require.Equal(t, algorithm.Limit{Requests: 10, Window: time.Minute}, d.Rules[0].Limit)
	require.Equal(t, uint64(8), d.Rules[0].Near)
	require.Equal(t, "rules.yaml:2:9", d.Place.String())
	require.Equal(t, []Level{{Key: "user"}, {Key: "path", Value: "/pay"}}, d.Rules[1].Levels)

	all := d.Rules[4]
	require.Equal(t, algorithm.Limit{Requests: 7, Window: 3 * time.Hour}, all.Limit)
	require.Equal(t, []Level{{Key: "all", Value: "of*it", ValueToMetric: true, ShareThreshold: true}}, all.Levels)
	require.True(t, all.Shares)
	require.Equal(t, AllowHits, all.OnStoreError)
	require.Equal(t, map[string]any{"a": "b"}, all.Metadata.AsMap())
}

func TestScalarsThatAreNoTextAreTakenAsTheyAreWritten(t *testing.T) {
	for _, written := range []string{"2020-01-01", "2020-01-01T10:00:00Z", "007", "0x1F", "1_000", "TRUE"} {
		d := parse(t, "domain: d\ndescriptors:\n- {key: on, value: "+written+", rate_limit: {unlimited: true}}\n")
		require.NotNil(t, d.Match([]Entry{{"on", written}}), written)
	}
}

func TestFailureModeDeny(t *testing.T) {
	for text, want := range map[string]OnStoreError{"": FailRequest, "null": FailRequest, "false": AllowHits, "true": DenyHits} {
		if text != "" {
			text = ", failure_mode_deny: " + text
		}
		d := parse(t, "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: hour, requests_per_unit: 1"+text+"}}\n")
		require.Equal(t, want, d.Rules[0].OnStoreError, text)
	}
}

func TestFlagsOfADescriptorWithoutALimitAreTaken(t *testing.T) {
	d := parse(t, "domain: d\ndescriptors:\n- {key: a, shadow_mode: true, quota_mode: true, detailed_metric: true, metadata: {a: 1}}\n")
	require.Empty(t, d.Rules)
}

func TestMetadataHoldsWhatJSONHolds(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
  - key: a
    rate_limit: {unlimited: true}
    metadata:
      text: "1"
      whole: 3
      hex: 0x10
      part: 1.5
      yes: true
      none: null
      date: "2026-01-01"
      list: [1, two, [3], {four: 4}]
      deep: {er: &deepest {est: [], map: {}}}
      again: *deepest
  - {key: b, rate_limit: {unlimited: true}, metadata: {}}
  - {key: c, rate_limit: {unlimited: true}, metadata: null}
`)
	require.Equal(t, map[string]any{
		"text": "1", "whole": 3.0, "hex": 16.0, "part": 1.5, "yes": true, "none": nil, "date": "2026-01-01",
		"list":  []any{1.0, "two", []any{3.0}, map[string]any{"four": 4.0}},
		"deep":  map[string]any{"er": map[string]any{"est": []any{}, "map": map[string]any{}}},
		"again": map[string]any{"est": []any{}, "map": map[string]any{}},
	}, d.Rules[0].Metadata.AsMap())
	require.Nil(t, d.Rules[1].Metadata)
	require.Nil(t, d.Rules[2].Metadata)
}

func TestFilesOfOneDomainMakeOneTree(t *testing.T) {
	p := newParser()
	file := func(name, descriptors string) File {
		return File{name, []byte("domain: d\ndescriptors:\n" + descriptors)}
	}
	a := file("a", "- {key: x, value: 1*, rate_limit: {unit: hour, requests_per_unit: 1}}\n- {key: a_b, rate_limit: {unlimited: true}}\n")
	b := file("b", "- {key: x, value: \"*\", rate_limit: {unit: hour, requests_per_unit: 2}}\n- {key: a, value: b, rate_limit: {unlimited: true}}\n")
	d, err := p.ParseFiles([]File{a, b})
	require.NoError(t, err)
	require.Equal(t, "a:1:9", d.Place.String())
	require.Equal(t, uint32(1), d.Match([]Entry{{"x", "12"}}).Rate.Requests, "patterns are in the order of the files")
	require.Equal(t, uint32(2), d.Match([]Entry{{"x", "2"}}).Rate.Requests)
	require.Equal(t, `"a_b"`, d.Match([]Entry{{"a_b", ""}}).Key, "names tell the rules of all files apart")
	require.Equal(t, "b:4:34", d.Match([]Entry{{"a", "b"}}).Place.String())

	_, err = p.ParseFiles([]File{a, file("c", "- {key: x, value: 1*}\n- {key: x_1*}\n- {bad: key}\n"), {"e", []byte("domain: e")}})
	require.EqualError(t, err, `c:3:3: the descriptor x=1* is already given at a:3:3
c:4:3: the pattern x_1* stands twice in one list
c:5:3: a descriptor has no key
c:5:4: a descriptor has no key "bad"; it has key, value, rate_limit, descriptors, shadow_mode, quota_mode, detailed_metric, value_to_metric, share_threshold, metadata
e:1:9: the domain "e" is not "d", which is given at a:1:9`)
}

func TestParseFollowsAliases(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
  - {key: a, rate_limit: &five {unit: second, requests_per_unit: 5}}
  - {key: b, rate_limit: *five}
`)
	require.Equal(t, d.Rules[0].Rate, d.Rules[1].Rate)
}

// Each file of testdata/refused has a golden file beside it with all that is
// wrong in it.
func TestParseRefuses(t *testing.T) {
	servicetest.GoldenFaults(t, "testdata/refused/*.yaml", func(_ *testing.T, name string, text []byte) error {
		_, err := newParser().Parse(name, text)
		return err
	})
}

func TestParseErrorTellsTheDomainOfABadFile(t *testing.T) {
	_, err := newParser().Parse("f", []byte("domain: shop\nlimits: []\n"))
	var refused *ParseError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "shop", refused.Domain)
	require.Equal(t, []Fault{{Place{File: "f", Line: 2, Column: 1}, `a rule file has no key "limits"; it has domain, descriptors`}}, refused.Faults)
}

func TestFaultsAreBoundedInNumberAndLength(t *testing.T) {
	const long = 1 << 20
	text := "domain: d\ndescriptors:\n- key: a\n  ? " + strings.Repeat("x", long) + "\n  : 1\n  rate_limit: " + strings.Repeat("y", long) + "\n" +
		"- {key: b, rate_limit: {unit: " + strings.Repeat("é", long) + ", requests_per_unit: " + strings.Repeat("z", long) + "}}\n"
	_, err := newParser().Parse("f", []byte(text))
	var refused *ParseError
	require.ErrorAs(t, err, &refused)
	require.Len(t, refused.Faults, 4)
	require.Contains(t, err.Error(), "x… (1048576 bytes)")
	for _, line := range refused.Lines() {
		require.Less(t, len(line), 2*maxText)
		require.True(t, utf8.ValidString(line))
	}

	text = "domain: d\ndescriptors:\n" + strings.Repeat("- {}\n", 3*MaxFaults)
	_, err = newParser().Parse("f", []byte(text))
	require.ErrorAs(t, err, &refused)
	require.Len(t, refused.Faults, MaxFaults)
	lines := refused.Lines()
	require.Len(t, lines, MaxFaults+1)
	require.Equal(t, "f:3:3: a descriptor has no key", lines[0])
	require.Equal(t, "f: … and 200 more faults", lines[MaxFaults])
}

func TestAliasesThatMultiplyEndInAFault(t *testing.T) {
	text := "domain: d\ndescriptors:\n- {key: k0, descriptors: &l0 [{key: x}]}\n"
	for i := range 8 {
		one, next := string(rune('0'+i)), string(rune('1'+i))
		text += "- key: k" + next + "\n  descriptors: &l" + next + "\n"
		for range 10 {
			text += "  - {key: a, descriptors: *l" + one + "}\n"
		}
	}
	_, err := newParser().Parse("f", []byte(text))
	require.ErrorContains(t, err, "the file's aliases expand to more than")
}

func TestAliasesThatMultiplyInMetadataEndInAFault(t *testing.T) {
	text := "domain: d\ndescriptors:\n- key: a\n  metadata:\n    l0: &l0 [x]\n"
	for i := range 8 {
		one := fmt.Sprintf("*l%d", i)
		text += fmt.Sprintf("    l%d: &l%d [%s]\n", i+1, i+1, strings.Join(slices.Repeat([]string{one}, 10), ", "))
	}
	_, err := newParser().Parse("f", []byte(text))
	require.ErrorContains(t, err, "the file's aliases expand to more than")
}

func TestMetadataThatHoldsItselfEndsInAFault(t *testing.T) {
	_, err := newParser().Parse("f", []byte("domain: d\ndescriptors:\n- {key: a, metadata: &m {m: *m}}\n"))
	require.ErrorContains(t, err, "f:3:29: metadata nests deeper than 64")
}

// Whatever a file holds, reading it ends in faults or in rules, and requests
// that are made of the rules' own text meet them without a panic.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/refused/*.yaml", "testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(f, err)
		require.NotEmpty(f, files)
		for _, path := range files {
			text, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := newParser().Parse("f", text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotEmpty(t, d.Name)
		for _, r := range d.Rules {
			require.NotNil(t, r.counters)
			require.True(t, r.Unlimited || r.Limit.Window > 0)
			require.NotEmpty(t, r.String())
			if r.Metadata != nil {
				_, err := protojson.Marshal(r.Metadata)
				require.NoError(t, err)
			}
			var entries []Entry
			for _, l := range r.Levels {
				entries = append(entries, Entry{l.Key, l.Value})
			}
			require.Same(t, d.Match(entries), d.Explain(entries).Rule)
			require.NotNil(t, r.CountersOf(entries))
			for i := range entries {
				entries[i].Value += entries[i].Key
				d.Match(entries)
				require.NotNil(t, r.CountersOf(entries))
			}
		}
	})
}
