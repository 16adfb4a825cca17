package directory

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// sink keeps the rules in force, and what was logged about them.
type sink struct {
	rules atomic.Pointer[limits.Set]
	given atomic.Int32    // how often
	log   strings.Builder // the source's, while it runs
}

func (s *sink) SetRules(rules *limits.Set) {
	s.given.Add(1)
	s.rules.Store(rules)
}

// String shows the rules in force: each rule's file and line in /rlconfig.
func (s *sink) String() string {
	var lines []string
	for d := range s.rules.Load().Domains() {
		for _, r := range d.Rules {
			lines = append(lines, filepath.Base(r.Place.File)+" "+r.String())
		}
	}
	return strings.Join(lines, "\n")
}

// never is a poll that a test does not live to see.
const never = time.Hour

// watching makes a source of directory, loads it and, if poll is set, runs it
// until the test ends. Switches may set more of its options.
func watching(t *testing.T, root, directory string, poll time.Duration, switches ...func(*Options)) (*Source, *sink) {
	rules := &sink{}
	rules.rules.Store(limits.NewSet(nil))
	o := Options{
		Options: limitsource.Options{
			Parser: &limits.Parser{
				Algorithms:     []algorithm.Algorithm{fixedwindow.Algorithm{}},
				NearLimitRatio: 0.8,
				Stats:          limits.NewStats(prometheus.NewRegistry()),
			},
			Sink:    rules,
			Log:     slog.New(slog.NewTextHandler(&rules.log, nil)),
			Metrics: prometheus.NewRegistry(),
		},
		Directory: directory,
		Root:      root,
		IgnoreDot: true,
		Poll:      poll,
	}
	for _, set := range switches {
		set(&o)
	}
	s := New(o)
	s.Load()
	if poll > 0 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		// Ends when the test does, which waits for it.
		go func() {
			defer close(done)
			_ = s.Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			<-done
		})
	}
	return s, rules
}

func TestALoadIsToldOfItsSizeAndItsEnd(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a.yaml"), rule("a", "k"))
	write(t, filepath.Join(root, "b.yaml"), rule("b", "k"))
	size := 0
	done := false
	_, rules := watching(t, root, root, 0, func(o *Options) {
		taker := o.Sink.(*sink)
		o.Loading = func(n int) func() {
			size = n
			return func() { done = taker.given.Load() == 1 }
		}
	})
	require.Equal(t, len(rule("a", "k"))+len(rule("b", "k")), size)
	require.True(t, done, "the end is told when the rules are in force")
	require.Equal(t, int32(1), rules.given.Load())
}

// rule is a file of one domain with one rule.
func rule(domain, key string) string {
	return "domain: " + domain + "\ndescriptors:\n- {key: " + key + ", rate_limit: {unit: hour, requests_per_unit: 1}}\n"
}

// in is the rule's line as sink shows it.
func in(file, domain, key string) string {
	return file + " " + domain + "." + key + ": unit=HOUR requests_per_unit=1, shadow_mode: false, quota_mode: false"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// requireRead checks how many files the source's last load read, and how many
// files and directories its loads could not.
func requireRead(t *testing.T, s *Source, sources, unread int) {
	t.Helper()
	require.NoError(t, testutil.GatherAndCompare(s.options.Metrics.(prometheus.Gatherer), strings.NewReader(fmt.Sprintf(`
# HELP ratelimit_service_config_sources Rule files or resources that the last load read, good or not.
# TYPE ratelimit_service_config_sources gauge
ratelimit_service_config_sources %d
# HELP ratelimit_service_config_unread Files, directories and resources that loads could not read.
# TYPE ratelimit_service_config_unread counter
ratelimit_service_config_unread %d
`, sources, unread)), "ratelimit_service_config_sources", "ratelimit_service_config_unread"))
}

func TestLoadReadsEveryFileBelowTheDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", rule("a", "k"))
	write(t, dir+"/team/b", rule("b", "k"))
	write(t, dir+"/.hidden", "not rules")
	write(t, dir+"/.git/config", "not rules")
	require.NoError(t, os.Symlink(dir, dir+"/team/back"))
	s, rules := watching(t, dir, dir, 0)
	require.Equal(t, in("a.yaml", "a", "k")+"\n"+in("b", "b", "k"), rules.String())
	require.Empty(t, s.Refused())
	requireRead(t, s, 2, 0)
}

func TestLoadTakesWhatIsGoodAndSaysWhatIsNot(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/bad.yaml", "domain: b\nlimits: 5\n")
	write(t, dir+"/good.yaml", rule("g", "k"))
	require.NoError(t, os.Symlink("nowhere", dir+"/link.yaml"))
	s, rules := watching(t, dir, dir, 0)
	require.Equal(t, in("good.yaml", "g", "k"), rules.String())
	require.Equal(t, []string{
		dir + `/bad.yaml:2:1: a rule file has no key "limits"; it has domain, descriptors`,
		"read rule file " + dir + "/link.yaml: no such file or directory",
	}, s.Refused())
	requireRead(t, s, 2, 1)

	require.NoError(t, os.RemoveAll(dir))
	s.Load()
	requireRead(t, s, 0, 2) // the directory itself
}

// step writes files, links to others ("-> target") or removes them (""), and
// shows what is in force then.
type step struct {
	files   map[string]string
	want    []string
	refused int
}

// take carries out the steps in a directory of their own.
func take(t *testing.T, steps []step, switches ...func(*Options)) {
	dir := t.TempDir()
	s, rules := watching(t, dir, dir, 0, switches...)
	for i, step := range steps {
		for name, text := range step.files {
			path := filepath.Join(dir, name)
			if target, ok := strings.CutPrefix(text, "-> "); ok {
				require.NoError(t, os.Symlink(target, path))
			} else if text == "" {
				require.NoError(t, os.RemoveAll(path))
			} else {
				write(t, path, text)
			}
		}
		s.Load()
		require.Equal(t, strings.Join(step.want, "\n"), rules.String(), "step %d", i)
		require.Len(t, s.Refused(), step.refused, "step %d: %q", i, s.Refused())
	}
}

const bad = "domain: [\n"

func TestTheLastGoodRulesOfEachDomainStay(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a_bad_file_keeps_its_domain_and_others_load", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("b", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 0},
			{map[string]string{"a": bad, "b": rule("b", "new")}, []string{in("a", "a", "k"), in("b", "b", "new")}, 1},
			{map[string]string{"a": rule("a", "new")}, []string{in("a", "a", "new"), in("b", "b", "new")}, 0},
		}},
		{"a_removed_file_takes_its_rules_along", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("b", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 0},
			{map[string]string{"a": ""}, []string{in("b", "b", "k")}, 0},
		}},
		{"a_bad_file_under_another_name_keeps_the_domain_that_it_names", []step{
			{map[string]string{"a": rule("a", "k")}, []string{in("a", "a", "k")}, 0},
			{map[string]string{"a": "", "z": "domain: a\nx: y\n"}, []string{in("a", "a", "k")}, 1},
		}},
		{"a_second_file_for_a_domain_does_not_take_it_over", []step{
			{map[string]string{"m": rule("a", "k")}, []string{in("m", "a", "k")}, 0},
			{map[string]string{"b": rule("a", "other")}, []string{in("m", "a", "k")}, 1},
			{map[string]string{"m": ""}, []string{in("b", "a", "other")}, 0},
		}},
		{"of_two_new_files_for_a_domain_the_first_by_name_has_it", []step{
			{map[string]string{"x": rule("a", "k"), "b": rule("a", "other")}, []string{in("b", "a", "other")}, 1},
		}},
		{"a_file_that_claims_a_taken_domain_keeps_its_own", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("b", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 0},
			{map[string]string{"b": rule("a", "new")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 1},
		}},
		{"a_bad_file_again_keeps_what_was_good_at_first", []step{
			{map[string]string{"a": rule("a", "k")}, []string{in("a", "a", "k")}, 0},
			{map[string]string{"a": bad}, []string{in("a", "a", "k")}, 1},
			{map[string]string{"a": bad + "\n"}, []string{in("a", "a", "k")}, 1},
		}},
		{"a_directory_below_that_cannot_be_read_keeps_its_domains", []step{
			{map[string]string{".v1/a": rule("a", "k"), ".v1/b/c": rule("c", "k"), "team": "-> .v1", "team2": rule("d", "k")}, []string{in("a", "a", "k"), in("c", "c", "k"), in("team2", "d", "k")}, 0},
			{map[string]string{".v1": "", "team2": ""}, []string{in("a", "a", "k"), in("c", "c", "k")}, 1},
			{map[string]string{".v1/a": rule("a", "new")}, []string{in("a", "a", "new")}, 0},
			{map[string]string{"team": ""}, nil, 0},
		}},
		{"an_emptied_directory_has_no_rules", []step{
			{map[string]string{"a": rule("a", "k")}, []string{in("a", "a", "k")}, 0},
			{map[string]string{"a": ""}, nil, 0},
		}},
	} {
		t.Run(c.name, func(t *testing.T) { take(t, c.steps) })
	}
}

func merging(o *Options)      { o.MergeDomains = true }
func allOrNothing(o *Options) { o.AllOrNothing = true }

func TestFilesOfOneDomainAreMerged(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"their_rules_are_in_the_order_of_their_paths", []step{
			{map[string]string{"b": rule("a", "k"), "a": rule("a", "l"), "c": rule("c", "k")}, []string{in("a", "a", "l"), in("b", "a", "k"), in("c", "c", "k")}, 0},
			{map[string]string{"0": rule("a", "m")}, []string{in("0", "a", "m"), in("a", "a", "l"), in("b", "a", "k"), in("c", "c", "k")}, 0},
		}},
		{"a_bad_file_keeps_its_part_and_others_load", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 0},
			{map[string]string{"a": bad, "b": rule("a", "new")}, []string{in("a", "a", "k"), in("b", "a", "new")}, 1},
			{map[string]string{"a": rule("a", "good")}, []string{in("a", "a", "good"), in("b", "a", "new")}, 0},
		}},
		{"a_removed_file_takes_its_part_along", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 0},
			{map[string]string{"a": ""}, []string{in("b", "a", "l")}, 0},
		}},
		{"of_two_new_files_with_the_same_descriptor_the_first_by_name_has_it", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("a", "k"), "c": rule("a", "l")}, []string{in("a", "a", "k"), in("c", "a", "l")}, 1},
		}},
		{"a_new_file_with_the_descriptor_of_another_is_refused", []step{
			{map[string]string{"m": rule("a", "k"), "n": rule("a", "l")}, []string{in("m", "a", "k"), in("n", "a", "l")}, 0},
			{map[string]string{"b": rule("a", "l")}, []string{in("m", "a", "k"), in("n", "a", "l")}, 1},
			{map[string]string{"n": ""}, []string{in("b", "a", "l"), in("m", "a", "k")}, 0},
		}},
		{"a_file_that_takes_anothers_descriptor_keeps_its_part", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 0},
			{map[string]string{"a": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 1},
			{map[string]string{"b": rule("a", "k")}, []string{in("a", "a", "l"), in("b", "a", "k")}, 0},
			{map[string]string{"b": rule("a", "m")}, []string{in("a", "a", "l"), in("b", "a", "m")}, 0},
		}},
		{"a_new_file_with_the_descriptor_of_a_bad_one_is_refused", []step{
			{map[string]string{"m": rule("a", "k"), "n": rule("a", "l")}, []string{in("m", "a", "k"), in("n", "a", "l")}, 0},
			{map[string]string{"m": bad, "b": rule("a", "k")}, []string{in("m", "a", "k"), in("n", "a", "l")}, 2},
		}},
		{"a_file_that_moves_to_another_domain", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("b", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 0},
			{map[string]string{"b": rule("a", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 1},
			{map[string]string{"b": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 0},
		}},
		{"a_bad_file_under_another_name_keeps_the_domain_that_it_names", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("a", "l")}, []string{in("a", "a", "k"), in("b", "a", "l")}, 0},
			{map[string]string{"a": "", "b": "", "z": "domain: a\nx: y\n"}, []string{in("a", "a", "k"), in("b", "a", "l")}, 1},
			{map[string]string{"z": bad}, nil, 1},
		}},
	} {
		t.Run(c.name, func(t *testing.T) { take(t, c.steps, merging) })
	}
}

func TestAllOrNothingKeepsAllRulesWhileOneFileIsBad(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a_bad_file_keeps_the_others_too", []step{
			{map[string]string{"a": rule("a", "k"), "b": rule("b", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 0},
			{map[string]string{"a": bad, "b": rule("b", "new"), "c": rule("c", "k")}, []string{in("a", "a", "k"), in("b", "b", "k")}, 1},
			{map[string]string{"a": ""}, []string{in("b", "b", "new"), in("c", "c", "k")}, 0},
		}},
		{"a_domain_that_two_files_give_too", []step{
			{map[string]string{"a": rule("a", "k")}, []string{in("a", "a", "k")}, 0},
			{map[string]string{"a": rule("a", "new"), "b": rule("a", "other")}, []string{in("a", "a", "k")}, 1},
		}},
		{"at_the_start_there_are_none_then", []step{
			{map[string]string{"a": bad, "b": rule("b", "k")}, nil, 1},
			{map[string]string{"a": ""}, []string{in("b", "b", "k")}, 0},
		}},
	} {
		t.Run(c.name, func(t *testing.T) { take(t, c.steps, allOrNothing) })
	}
}

func TestAllOrNothingHandsOnNoRulesBeforeAllAreGood(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", rule("a", "k"))
	write(t, dir+"/b", "domain: b\nlimits: 5\n")
	s, rules := watching(t, dir, dir, 0, allOrNothing)
	require.Zero(t, rules.given.Load())
	require.EqualError(t, s.NoRules(), "no rules: "+dir+`/b:2:1: a rule file has no key "limits"; it has domain, descriptors`)
}

func TestAMergedDescriptorThatIsGivenTwiceNamesBothPlaces(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", rule("a", "k"))
	write(t, dir+"/b", rule("a", "k"))
	s, _ := watching(t, dir, dir, 0, merging)
	require.Equal(t, []string{dir + "/b:3:3: the descriptor k is already given at " + dir + "/a:3:3"}, s.Refused())
}

func TestNoRulesAreHandedOnBeforeTheFirstGoodOnes(t *testing.T) {
	root := t.TempDir()
	dir := root + "/config"
	s, rules := watching(t, root, dir, 0)
	require.EqualError(t, s.NoRules(), "no rules: read rule directory: stat "+dir+": no such file or directory")

	require.NoError(t, os.Mkdir(dir, 0o755))
	s.Load()
	require.EqualError(t, s.NoRules(), "no rules: no rule file in "+dir)

	write(t, dir+"/a", "domain: a\nlimits: 5\n")
	s.Load()
	require.EqualError(t, s.NoRules(), "no rules: "+dir+`/a:2:1: a rule file has no key "limits"; it has domain, descriptors`)
	require.Zero(t, rules.given.Load())
	require.Contains(t, rules.log.String(), `msg="rules refused" error=`)
	require.NotContains(t, rules.log.String(), "the last good ones stay")

	write(t, dir+"/a", rule("a", "k"))
	s.Load()
	require.NoError(t, s.NoRules())
	require.Equal(t, in("a", "a", "k"), rules.String())

	write(t, dir+"/a", "domain: a\nlimits: 5\n")
	s.Load()
	require.Contains(t, rules.log.String(), `msg="rules refused, the last good ones stay" error=`)

	require.NoError(t, os.Remove(dir+"/a"))
	s.Load()
	require.Empty(t, rules.String())
	require.NoError(t, s.NoRules(), "who empties the directory wants no limits")
}

func TestADirectoryThatGoesAwayKeepsItsRules(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/config/a", rule("a", "k"))
	s, rules := watching(t, root, root+"/config", 0)
	require.NoError(t, os.Rename(root+"/config", root+"/away"))
	s.Load()
	require.Equal(t, in("a", "a", "k"), rules.String())
	require.Len(t, s.Refused(), 1)
	require.Contains(t, s.Refused()[0], "no such file or directory")
	require.NoError(t, os.Rename(root+"/away", root+"/config"))
	s.Load()
	require.Empty(t, s.Refused())
}

func TestWhatHasNotChangedIsNotLoadedAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", rule("a", "k"))
	_, rules := watching(t, dir, dir, time.Millisecond)
	write(t, dir+"/.a", rule("a", "k"))
	require.NoError(t, os.Rename(dir+"/.a", dir+"/a"))
	write(t, dir+"/.b", rule("b", "k"))
	require.NoError(t, os.Rename(dir+"/.b", dir+"/b"))
	servicetest.Eventually(t, "the second file is in force", func() bool {
		return rules.String() == in("a", "a", "k")+"\n"+in("b", "b", "k")
	})
	require.Equal(t, int32(2), rules.given.Load())
}

// Each case changes the rules of the domain a from k to new, in one way that
// rules are brought to servers. The poll never comes, so that the watch alone
// must see it.
func TestEveryWayToChangeFilesIsSeen(t *testing.T) {
	swap := func(t *testing.T, target, link string) {
		require.NoError(t, os.Symlink(target, link+".new"))
		require.NoError(t, os.Rename(link+".new", link))
	}
	for _, c := range []struct {
		name string
		// prepare lays out rules below root and returns the directory.
		prepare func(t *testing.T, root string) string
		change  func(t *testing.T, root string)
	}{
		{"a_file_is_written", func(t *testing.T, root string) string {
			write(t, root+"/config/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/a", rule("a", "new"))
		}},
		{"a_file_is_renamed_over_another", func(t *testing.T, root string) string {
			write(t, root+"/config/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/a.new", rule("a", "new"))
			require.NoError(t, os.Rename(root+"/a.new", root+"/config/a"))
		}},
		{"a_file_comes_in_a_new_directory", func(t *testing.T, root string) string {
			write(t, root+"/config/team/b", rule("b", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/other/a", rule("a", "new"))
		}},
		{"a_file_is_written_in_a_directory_below", func(t *testing.T, root string) string {
			write(t, root+"/config/team/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/team/a", rule("a", "new"))
		}},
		{"a_link_at_the_root_is_swapped", func(t *testing.T, root string) string {
			write(t, root+"/v1/config/a", rule("a", "k"))
			write(t, root+"/v2/config/a", rule("a", "new"))
			require.NoError(t, os.Symlink("v1", root+"/current"))
			return root + "/current/config"
		}, func(t *testing.T, root string) {
			swap(t, "v2", root+"/current")
		}},
		{"a_ConfigMap_is_updated", func(t *testing.T, root string) string {
			write(t, root+"/config/..1/a", rule("a", "k"))
			require.NoError(t, os.Symlink("..1", root+"/config/..data"))
			require.NoError(t, os.Symlink("..data/a", root+"/config/a"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/..2/a", rule("a", "new"))
			swap(t, "..2", root+"/config/..data")
			require.NoError(t, os.RemoveAll(root+"/config/..1"))
		}},
		{"a_ConfigMap_is_mounted_below", func(t *testing.T, root string) string {
			write(t, root+"/config/team/..1/a", rule("a", "k"))
			require.NoError(t, os.Symlink("..1", root+"/config/team/..data"))
			require.NoError(t, os.Symlink("..data/a", root+"/config/team/a"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/team/..2/a", rule("a", "new"))
			swap(t, "..2", root+"/config/team/..data")
			require.NoError(t, os.RemoveAll(root+"/config/team/..1"))
		}},
		{"a_link_in_the_middle_of_the_path_is_swapped", func(t *testing.T, root string) string {
			write(t, root+"/current/v1/a", rule("a", "k"))
			write(t, root+"/current/v2/a", rule("a", "new"))
			require.NoError(t, os.Symlink("v1", root+"/current/config"))
			return root + "/current/config"
		}, func(t *testing.T, root string) {
			swap(t, "v2", root+"/current/config")
		}},
		{"a_link_to_a_file_is_swapped", func(t *testing.T, root string) string {
			write(t, root+"/config/.a1", rule("a", "k"))
			require.NoError(t, os.Symlink(".a1", root+"/config/a"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/config/.a2", rule("a", "new"))
			swap(t, ".a2", root+"/config/a")
		}},
		{"a_file_is_removed_and_written_again", func(t *testing.T, root string) string {
			write(t, root+"/config/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			require.NoError(t, os.Remove(root+"/config/a"))
			write(t, root+"/config/a", rule("a", "new"))
		}},
		{"a_file_gets_another_name", func(t *testing.T, root string) string {
			write(t, root+"/config/.a.swp", rule("a", "new"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			require.NoError(t, os.Rename(root+"/config/.a.swp", root+"/config/a"))
		}},
		{"a_directory_below_is_exchanged", func(t *testing.T, root string) string {
			write(t, root+"/config/team/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/next/a", rule("a", "new"))
			require.NoError(t, os.Rename(root+"/config/team", root+"/config/.old"))
			require.NoError(t, os.Rename(root+"/next", root+"/config/team"))
		}},
		{"the_directory_appears", func(t *testing.T, root string) string {
			return root + "/current/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/v1/config/a", rule("a", "new"))
			require.NoError(t, os.Symlink("v1", root+"/current"))
		}},
		{"the_directory_is_replaced", func(t *testing.T, root string) string {
			write(t, root+"/config/a", rule("a", "k"))
			return root + "/config"
		}, func(t *testing.T, root string) {
			write(t, root+"/next/a", rule("a", "new"))
			require.NoError(t, os.RemoveAll(root+"/config"))
			require.NoError(t, os.Rename(root+"/next", root+"/config"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			directory := c.prepare(t, root)
			top := root + "/current"
			if !strings.HasPrefix(directory, top) {
				top = directory
			}
			_, rules := watching(t, top, directory, never)
			c.change(t, root)
			servicetest.Eventually(t, "the new rule is in force", func() bool {
				return strings.Contains(rules.String(), in("a", "a", "new"))
			})
		})
	}
}

// What does is followed by a look at every directory.
func TestOnlyChangesOnThePathAndBelowConcernTheRules(t *testing.T) {
	root := t.TempDir()
	s, _ := watching(t, root+"/current", root+"/current/config", 0)
	for name, concerns := range map[string]bool{
		"/neighbour":             false,
		"/currently":             false,
		"/current/configuration": false,
		"/current":               true,
		"/current/config":        true,
		"/current/config/team/a": true,
	} {
		require.Equal(t, concerns, s.concerns(root+name), name)
	}
}

func TestThePollSeesWhatTheFileSystemDidNotTell(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/elsewhere/a", rule("a", "k"))
	require.NoError(t, os.MkdirAll(root+"/config", 0o755))
	require.NoError(t, os.Symlink(root+"/elsewhere/a", root+"/config/a"))
	_, rules := watching(t, root+"/config", root+"/config", 10*time.Millisecond)
	write(t, root+"/elsewhere/a", rule("a", "new")) // no directory that is watched
	servicetest.Eventually(t, "the new rule is in force", func() bool {
		return rules.String() == in("a", "a", "new")
	})
}

func TestTooLargeAFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", "domain: a\n")
	require.NoError(t, os.Truncate(dir+"/a", maxFile+1))
	s, _ := watching(t, dir, dir, 0)
	require.Equal(t, []string{"read rule file " + dir + "/a: larger than 16777216 bytes"}, s.Refused())
}
