package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/replacefile"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// never is an interval at which no test sees a snapshot.
const never = time.Hour

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		s := open(t, filepath.Join(t.TempDir(), "hosts.snapshot"), never, io.Discard)
		load(t, s)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	})
}

func TestHostsComeBackAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	require.Empty(t, load(t, s), "the first start")
	a, b := storetest.Record("users", "a", 1), storetest.Record("users", "b", 2)
	canary := false
	a.Host.Tags.Canary, a.Host.Tags.Weight = &canary, 9
	put(t, s, a, b)
	b.LastCheckIn = b.LastCheckIn.Add(time.Minute)
	missing, err := s.Flush(t.Context(), []registry.Beat{{Key: b.Host.Key, At: b.LastCheckIn}})
	require.NoError(t, err)
	require.Empty(t, missing)
	require.NoError(t, s.Close())

	s = open(t, path, never, io.Discard)
	require.ElementsMatch(t, []registry.Record{a, b}, load(t, s))
	require.NoError(t, s.Close())
}

func TestHostsOfAServiceAreReadOneAfterTheOther(t *testing.T) {
	var written registry.Contents
	for _, id := range []string{"a", "b", "c"} {
		for _, service := range []string{"users", "orders"} {
			written.Records = append(written.Records, storetest.Record(service, id, 1))
		}
	}
	var text bytes.Buffer
	require.NoError(t, encode(&text, &written))
	read, err := decode(&text)
	require.NoError(t, err)
	require.ElementsMatch(t, written.Records, read.Records)
	for i, service := range []string{"orders", "orders", "orders", "users", "users", "users"} {
		require.Equal(t, service, read.Records[i].Host.Service)
	}
}

func TestAHostOfAnyLengthIsReadAgain(t *testing.T) {
	long := storetest.Record("users", "a", 1)
	note, err := json.Marshal(strings.Repeat("n", 200_000))
	require.NoError(t, err)
	long.Host.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"note": note})
	written := []registry.Record{long, storetest.Record("users", "b", 1)}
	var text bytes.Buffer
	require.NoError(t, encode(&text, &registry.Contents{Records: written}))
	read, err := decode(&text)
	require.NoError(t, err)
	require.ElementsMatch(t, written, read.Records)
}

func TestSettingsComeBackAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	load(t, s)
	drain := storetest.Setting(registry.Scope{Zone: "eu-1"}, registry.Drain)
	require.NoError(t, s.Append(t.Context(), []registry.Change{{SettingKey: drain.Key(), Setting: &drain}}))
	require.NoError(t, s.Close())

	s = open(t, path, never, io.Discard)
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, []registry.Setting{drain}, contents.Settings)
	require.NoError(t, s.Close())
}

func TestASnapshotOfAWarmUpDoesNotPassForAllHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	restarted := func(what func(*Store)) (partial, lost bool) {
		t.Helper()
		s := open(t, path, never, io.Discard)
		load(t, s)
		what(s)
		require.NoError(t, s.Close())
		s = open(t, path, never, io.Discard)
		contents, err := s.Load(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return contents.Partial, contents.Lost
	}
	completed := func(s *Store) { require.NoError(t, s.Complete(t.Context())) }
	some := func(s *Store) { put(t, s, storetest.Record("users", "a", 1)) }

	partial, lost := restarted(some)
	require.True(t, partial)
	require.False(t, lost)
	partial, _ = restarted(completed)
	require.False(t, partial)
	partial, _ = restarted(some)
	require.False(t, partial, "it stays complete")

	require.NoError(t, os.WriteFile(path, []byte(beginning), 0o600))
	partial, lost = restarted(some)
	require.True(t, partial)
	require.True(t, lost, "there were others")
	partial, lost = restarted(completed)
	require.False(t, partial)
	require.False(t, lost)
}

// version1 is a snapshot as it was before there were leases and settings.
const version1 = "testdata/version1.snapshot"

func TestASnapshotOfTheFirstVersionIsRead(t *testing.T) {
	text, err := os.ReadFile(version1)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	s := open(t, path, never, io.Discard)
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	require.False(t, contents.Partial)
	hosts := contents.Records
	require.NoError(t, s.Close())
	require.Len(t, hosts, 2)
	require.NotZero(t, hosts[0].Lease)
	require.NotEqual(t, hosts[0].Lease, hosts[1].Lease, "each has one of its own")
	users := hosts[slices.IndexFunc(hosts, func(r registry.Record) bool { return r.Host.Service == "users" })]
	require.Equal(t, "10.0.0.1:8080", users.Host.Address.String())
	require.Equal(t, uint8(7), users.Host.Tags.Weight)
	require.Equal(t, time.Date(2026, 2, 3, 4, 6, 6, 500_000_000, time.UTC), users.LastCheckIn)

	s = open(t, path, never, io.Discard)
	require.ElementsMatch(t, hosts, load(t, s), "the next one has the leases")
	require.NoError(t, s.Close())
}

func TestWhatIsReplacedIsThatOfTheCoveredServicesAlone(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hosts.snapshot"), never, io.Discard)
	load(t, s)
	put(t, s, contents().Records...)
	drain := storetest.Setting(registry.Scope{Zone: "eu-1"}, registry.Drain)
	old := storetest.Setting(registry.Scope{Service: "users"}, registry.Drain)
	for _, setting := range []registry.Setting{drain, old} {
		require.NoError(t, s.Append(t.Context(), []registry.Change{{SettingKey: setting.Key(), Setting: &setting}}))
	}
	c := storetest.Record("users", "c", 1)
	newer := storetest.Setting(registry.Scope{Service: "users"}, registry.Weigh)
	s.Replace(&registry.Contents{Records: []registry.Record{c}, Settings: []registry.Setting{newer}},
		func(service string) bool { return service == "users" })
	kept, err := s.Load(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []registry.Record{storetest.Record("orders", "a", 3), c}, kept.Records)
	require.ElementsMatch(t, []registry.Setting{drain, newer}, kept.Settings)
	require.NoError(t, s.Close())
}

func TestASnapshotIsWrittenEveryIntervalInWhichAHostChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, 5*time.Millisecond, io.Discard)
	load(t, s)
	put(t, s, storetest.Record("users", "a", 1))
	servicetest.Eventually(t, "the host is in the snapshot", func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), `"users"`)
	})
	require.NoError(t, s.Close())
}

func TestAnUnreadFileIsNotWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	require.NoError(t, os.WriteFile(path, []byte(beginning), 0o600))
	before := tree(t, filepath.Dir(path))
	s := open(t, path, never, io.Discard)
	require.NoError(t, s.Close())
	require.Equal(t, before, tree(t, filepath.Dir(path)))
}

func TestAFailedSnapshotLeavesTheLastOneAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	load(t, s)
	put(t, s, storetest.Record("users", "a", 1))
	require.NoError(t, s.snapshot())
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	// A directory in the place of the file that is written aside.
	aside := filepath.Join(dir, ".hosts.snapshot.new")
	require.NoError(t, os.Mkdir(aside, 0o755))
	put(t, s, storetest.Record("users", "b", 2))
	require.ErrorContains(t, s.snapshot(), path)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, os.Remove(aside))
	require.NoError(t, s.Close(), "what could not be written is still to be")
	after, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NotEqual(t, before, after)
}

func TestACrashWhileWritingLeavesTheLastSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	require.NoError(t, replacefile.Write(path, func(w io.Writer) error { return encode(w, contents()) }))
	// A crash leaves a file aside that goes as far as it came.
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	aside := filepath.Join(filepath.Dir(path), ".hosts.snapshot.new")
	require.NoError(t, os.WriteFile(aside, whole[:len(whole)/2], 0o600))

	s := open(t, path, never, io.Discard)
	require.Len(t, load(t, s), 3)
	put(t, s, storetest.Record("users", "later", 4))
	require.NoError(t, s.Close())
	s = open(t, path, never, io.Discard)
	require.Len(t, load(t, s), 4)
	require.NoError(t, s.Close())
}

func TestAFileThatIsNotWholeIsSetAsideWithTheReason(t *testing.T) {
	var whole bytes.Buffer
	require.NoError(t, encode(&whole, contents()))
	lines := strings.SplitAfter(whole.String(), "\n")

	for name, test := range map[string]struct{ text, reason string }{
		"empty":                 {"", "line 1: the file ends here"},
		"cut in its first word": {beginning[:5], "line 1: the file ends here"},
		"no JSON":               {beginning + "\n", "line 1: unexpected end of JSON input"},
		"of a later version":    {`{"format":"weir-discovery-hosts","version":3}` + "\n", "version 3: not"},
		"cut within a host":     {whole.String()[:len(lines[0])+20], "line 2: the file ends here"},
		"cut after a host":      {lines[0] + lines[1], "line 3: the file ends here"},
		"without its checksum":  {strings.Join(lines[:5], ""), "line 6: the file ends here"},
		"without its setting":   {strings.Join(lines[:4], ""), "line 5: the file ends here"},
		"a digit turned":        {strings.Replace(whole.String(), "10.0.0.1:1", "10.0.0.1:7", 1), "line 6: checksum"},
		"something after it":    {whole.String() + "x", "line 6: something stands after the checksum"},
		"a host without address": {lines[0] + strings.Replace(lines[1], "10.0.0.1:1", "", 1) + strings.Join(lines[2:], ""),
			`line 2: host \"a\" of \"users\": address`},
		"a host without ttl": {lines[0] + strings.Replace(lines[1], "60000", "0", 1) + strings.Join(lines[2:], ""),
			"line 2: host \\\"a\\\" of \\\"users\\\": ttl_ms 0"},
		"a setting without author": {strings.Replace(whole.String(), `"author":"operator"`, `"author":""`, 1), "line 5: setting"},
		"a number for a name":      {lines[0] + strings.Replace(lines[1], `"users"`, "1", 1), "line 2: json: cannot unmarshal number"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hosts.snapshot")
			require.NoError(t, os.WriteFile(path, []byte(test.text), 0o600))
			var log bytes.Buffer
			s := open(t, path, never, &log)
			contents, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Empty(t, contents.Records)
			require.True(t, contents.Lost)
			require.Contains(t, log.String(), test.reason)

			aside, err := filepath.Glob(path + ".bad-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			kept, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			require.Equal(t, test.text, string(kept))

			put(t, s, storetest.Record("users", "a", 1))
			require.NoError(t, s.Close())
			s = open(t, path, never, io.Discard)
			require.Len(t, load(t, s), 1, "the next snapshot is whole")
			require.NoError(t, s.Close())
		})
	}
}

func TestAFileThatCannotBeReadIsAnErrorAndStaysWhereItIs(t *testing.T) {
	_, err := decode(iotest.ErrReader(os.ErrPermission))
	require.ErrorIs(t, err, os.ErrPermission)

	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	s := open(t, path, never, io.Discard)
	require.NoError(t, os.Mkdir(path, 0o755)) // a directory opens, and cannot be read
	_, err = s.Load(t.Context())
	require.ErrorContains(t, err, path)
	require.NoError(t, s.Close())
	require.DirExists(t, path)
}

func TestAPathAtWhichNoSnapshotCanBeIsRefused(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "hostname")
	require.NoError(t, os.WriteFile(foreign, []byte("hello\n"), 0o600))
	missing := filepath.Join(dir, "missing")
	before := tree(t, dir)
	for name, test := range map[string]struct {
		path    string
		reasons []string
	}{
		"a directory":            {dir, []string{dir, "it is a directory, not a file"}},
		"a device":               {os.DevNull, []string{os.DevNull, "not a file"}},
		"in a missing directory": {filepath.Join(missing, "hosts.json"), []string{"hosts.json", missing + ": no such file or directory"}},
		"in a file":              {filepath.Join(foreign, "hosts.json"), []string{foreign + " is not a directory"}},
		"below a file":           {filepath.Join(foreign, "below", "hosts.json"), []string{"its directory", "not a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(test.path, never, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			require.Error(t, err)
			for _, reason := range test.reasons {
				require.ErrorContains(t, err, reason)
			}
			require.Equal(t, before, tree(t, dir))
		})
	}
}

func TestAFileOfSomebodyElseIsLeftAloneUntilItIsGone(t *testing.T) {
	for name, text := range map[string]string{
		"text":                          "hello\n",
		"JSON of another format":        `{"format":"other","version":1}` + "\n",
		"JSON of a format that goes on": `{"format":"weir-discovery-hosts-of-old","version":1}` + "\n",
		"anything":                      strings.Repeat("\x9f\x02zeros\x00\x00", 200),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "hosts.snapshot")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			before := tree(t, dir)
			var log bytes.Buffer
			s := open(t, path, never, &log)
			require.Empty(t, load(t, s))
			put(t, s, storetest.Record("users", "a", 1))
			require.ErrorContains(t, s.snapshot(), path)
			require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.errors))
			require.Zero(t, testutil.ToFloat64(s.metrics.written))
			require.Equal(t, before, tree(t, dir))
			require.Contains(t, log.String(), "level=ERROR")

			require.NoError(t, os.Remove(path))
			require.NoError(t, s.snapshot())
			require.NotZero(t, testutil.ToFloat64(s.metrics.written))
			require.NoError(t, s.Close())
			s = open(t, path, never, io.Discard)
			require.Len(t, load(t, s), 1)
			require.NoError(t, s.Close())
		})
	}
}

func TestASnapshotThatIsDamagedAtItsBeginningIsSetAside(t *testing.T) {
	var whole bytes.Buffer
	require.NoError(t, encode(&whole, contents()))
	flipped := bytes.Clone(whole.Bytes())
	flipped[1] ^= 4
	for name, text := range map[string][]byte{
		"zeros, as after a power cut": make([]byte, whole.Len()),
		"one bit":                     flipped,
		"its header is gone":          whole.Bytes()[bytes.IndexByte(whole.Bytes(), '\n')+1:],
		"nothing is there":            {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "hosts.snapshot")
			require.NoError(t, os.WriteFile(path, text, 0o600))
			s := open(t, path, never, io.Discard)
			require.Empty(t, load(t, s))
			aside, err := filepath.Glob(path + ".bad-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			put(t, s, storetest.Record("users", "a", 1))
			require.NoError(t, s.Close())
			require.FileExists(t, path)
		})
	}
}

// tree is what is in the files of a directory, by their names, but for locks.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, entry := range list {
		if strings.HasSuffix(entry.Name(), ".lock") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		files[entry.Name()] = string(text)
	}
	return files
}

func FuzzDecode(f *testing.F) {
	var whole bytes.Buffer
	require.NoError(f, encode(&whole, contents()))
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()/2])
	old, err := os.ReadFile(version1)
	require.NoError(f, err)
	f.Add(old)
	f.Add([]byte(`{"format":"weir-discovery-hosts","version":1,"hosts":-1}` + "\n" + `{"sha256":""}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := decode(bytes.NewReader(text))
		if err != nil {
			require.ErrorAs(t, err, new(*corruptError))
			return
		}
		// What was taken for whole can be written and read again.
		var again bytes.Buffer
		require.NoError(t, encode(&again, read))
		twice, err := decode(&again)
		require.NoError(t, err)
		require.Len(t, twice.Records, len(read.Records))
		require.Len(t, twice.Settings, len(read.Settings))
	})
}

// many is 100,000 hosts.
func many() []registry.Record {
	many := make([]registry.Record, 100_000)
	for i := range many {
		many[i] = storetest.Record(fmt.Sprint("users-", i/10), fmt.Sprint("10.0.0.1/i-", i), uint16(i%60_000+1))
	}
	return many
}

func BenchmarkLoadHundredThousand(b *testing.B) {
	path := filepath.Join(b.TempDir(), "hosts.snapshot")
	require.NoError(b, replacefile.Write(path, func(w io.Writer) error { return encode(w, &registry.Contents{Records: many()}) }))
	for b.Loop() {
		f, err := os.Open(path)
		require.NoError(b, err)
		c, err := decode(f)
		require.NoError(b, err)
		require.Len(b, c.Records, 100_000)
		require.NoError(b, f.Close())
	}
}

func BenchmarkSnapshotOfHundredThousand(b *testing.B) {
	many := many()
	for b.Loop() {
		if err := encode(io.Discard, &registry.Contents{Records: many}); err != nil {
			b.Fatal(err)
		}
	}
}

// contents is three hosts and a setting: six lines of a snapshot.
func contents() *registry.Contents {
	return &registry.Contents{
		Records:  []registry.Record{storetest.Record("users", "a", 1), storetest.Record("users", "b", 2), storetest.Record("orders", "a", 3)},
		Settings: []registry.Setting{storetest.Setting(registry.Scope{Service: "users"}, registry.Weigh)},
	}
}

func open(t *testing.T, path string, interval time.Duration, log io.Writer) *Store {
	t.Helper()
	s, err := Open(path, interval, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	return s
}

func load(t *testing.T, s *Store) []registry.Record {
	t.Helper()
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	return contents.Records
}

func put(t *testing.T, s *Store, list ...registry.Record) {
	t.Helper()
	for _, r := range list {
		require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	}
}
