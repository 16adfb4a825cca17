package check

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// transcript runs the tool and shows what it was told and what came of it.
func transcript(args ...string) string {
	var stdout, stderr bytes.Buffer
	code := Main(args, "v1.2.3", &stdout, &stderr)
	text := "$ ratelimit-check"
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " *\\\"") {
			a = "'" + a + "'"
		}
		text += " " + a
	}
	text += "\n" + stdout.String()
	if stderr.Len() > 0 {
		text += "-- stderr\n" + stderr.String()
	}
	return text + fmt.Sprintf("-- exit %d\n", code)
}

func TestOutputs(t *testing.T) {
	for name, runs := range map[string][][]string{
		"check": {
			{"check", "testdata/shop"},
			{"-config_dir", "testdata/shop", "-merge_domain_configs"},
			{"check", "testdata/bad"},
			{"check", "testdata/two"},
			{"check", "testdata/two", "-merge-domain-configs"},
			{"check", "-ignore-dot-files=false", "testdata/shop"},
			{"check", "testdata/nowhere"},
			{"check", "testdata/bad/a.yaml"},
		},
		"explain": {
			{"explain", "testdata/shop", "-domain", "shop", "-descriptor", "user=bob"},
			{"explain", "testdata/shop", "-domain", "shop", "-descriptor", "user=alice,path=/a/x", "-descriptor", "user=alice,path=/b,more=x",
				"-descriptor", "internal=yes", "-descriptor", "stranger=1", "-descriptor", ""},
			{"explain", "testdata/bad", "-domain", "b", "-descriptor", "ip=::1"},
			{"explain", "testdata/shop", "-domain", "web", "-descriptor", "user=bob"},
			{"explain", "testdata/bad/nowhere", "-domain", "web", "-descriptor", "user=bob"},
		},
		"explain_together": {
			{"-key-prefix", "p_", "explain", "-domain", "shop", "testdata/shop", "-descriptor", "user=bob", "-descriptor", "user=alice", "-descriptor", "user=alice",
				"-descriptor", `user=c\,d,path="/a/\n"`, "-descriptor", "user=e,path=/b", "-descriptor", "agent=curl", "-descriptor", "user=f,path=x"},
			{"explain", "testdata/shop", "-domain", "shop", "-descriptor", "agent=curl"},
		},
		"diff": {
			{"diff", "testdata/shop", "testdata/next"},
			{"diff", "testdata/next", "testdata/shop"},
			{"diff", "testdata/shop", "testdata/again"},
			{"diff", "-merge-domain-configs", "testdata/two", "testdata/shop"},
			{"diff", "testdata/shop", "testdata/bad"},
			{"diff", "testdata/shop", "testdata/nowhere"},
		},
		"usage": {
			{"--version"},
			{},
			{"-h"},
			{"check"},
			{"check", "a", "b"},
			{"diff", "a"},
			{"inspect", "testdata/shop"},
			{"-config_dir", "testdata/shop", "check"},
			{"check", "--frob"},
			{"explain", "testdata/shop", "-descriptor", "user=bob"},
			{"explain", "testdata/shop", "-domain", "shop"},
			{"explain", "testdata/shop", "-domain", "shop", "-descriptor", "user"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var all []string
			for _, args := range runs {
				all = append(all, transcript(args...))
			}
			servicetest.Golden(t, "testdata/"+name+".txt", []byte(strings.Join(all, "\n")))
		})
	}
}

func TestWhatIsNoRuleFileIsAFaultAndNoMore(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(t *testing.T, dir string)
		want  string
	}{
		{"an empty directory", func(t *testing.T, dir string) {}, "no rule file in DIR\n1 fault; good: 0 domains, 0 rules\n"},
		{"bytes", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/x", []byte("\x00\xff\xfe\x01"), 0o600))
		}, "DIR/x:1:1: not YAML: "},
		{"a link to nothing", func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("nowhere", dir+"/x"))
		}, "read rule file DIR/x: no such file or directory\n"},
		{"a link to where it is", func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink(dir, dir+"/x"))
		}, "no rule file in DIR\n"},
		{"a file of nothing but faults", func(t *testing.T, dir string) {
			text := "domain: d\ndescriptors:\n" + strings.Repeat("- {}\n", 1000)
			require.NoError(t, os.WriteFile(dir+"/x", []byte(text), 0o600))
		}, strings.Join(noKeys(limits.MaxFaults), "") + "DIR/x: … and 900 more faults\nmore than 100 faults; good: 0 domains, 0 rules\n"},
		{"a pipe", func(t *testing.T, dir string) {
			require.NoError(t, syscall.Mkfifo(dir+"/x", 0o600))
		}, "read rule file DIR/x: neither a file nor a directory\n1 fault; good: 0 domains, 0 rules\n"},
		{"directories without end", func(t *testing.T, dir string) {
			require.NoError(t, os.MkdirAll(dir+strings.Repeat("/d", 17), 0o700))
		}, "read rule file DIR" + strings.Repeat("/d", 17) + ": more than 16 directories deep\n"},
		{"a huge file", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/x", nil, 0o600))
			require.NoError(t, os.Truncate(dir+"/x", 1<<30))
		}, "read rule file DIR/x: larger than 16777216 bytes\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.write(t, dir)
			var stdout, stderr bytes.Buffer
			require.Equal(t, found, Main([]string{"check", dir}, "", &stdout, &stderr))
			require.Empty(t, stderr.String())
			require.True(t, strings.HasPrefix(strings.ReplaceAll(stdout.String(), dir, "DIR"), c.want), stdout.String())
		})
	}
}

// noKeys are the first lines that a list of empty descriptors gets.
func noKeys(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("DIR/x:%d:3: a descriptor has no key\n", 3+i))
	}
	return lines
}

func TestExplainBoundsWhatItShowsOfALongList(t *testing.T) {
	dir := t.TempDir()
	var file strings.Builder
	file.WriteString("domain: d\ndescriptors:\n")
	for i := range 1000 {
		fmt.Fprintf(&file, "- {key: k, value: v%d, rate_limit: {unit: hour, requests_per_unit: 1}}\n- {key: k%d}\n", i, i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d"), []byte(file.String()), 0o600))
	text := transcript("explain", dir, "-domain", "d", "-descriptor", "k=v999")
	require.Less(t, strings.Count(text, "\n"), 50)
	require.Contains(t, text, "> k=v999  taken by key and value")
	require.Contains(t, text, "and 979 more that do not take it")
	require.Contains(t, text, "k19 and 980 more\n")
}

func TestAFaultOfTheToolIsALineAndNoTrace(t *testing.T) {
	var stderr bytes.Buffer
	require.Equal(t, unusable, guard(&stderr, func() int { panic("no") }))
	require.Equal(t, "ratelimit-check: this is a fault of the tool, not of the rules: no\n", stderr.String())
	require.Equal(t, found, guard(io.Discard, func() int { return found }))
}

func TestDescriptorsAreReadAsTheUsageSays(t *testing.T) {
	e := func(keysAndValues ...string) (entries []limits.Entry) {
		for i := 0; i < len(keysAndValues); i += 2 {
			entries = append(entries, limits.Entry{Key: keysAndValues[i], Value: keysAndValues[i+1]})
		}
		return entries
	}
	for _, c := range []struct {
		text string
		want []limits.Entry
		err  string
	}{
		{"", nil, ""},
		{"k=v", e("k", "v"), ""},
		{"k=v,l=w", e("k", "v", "l", "w"), ""},
		{"k=,=v,=", e("k", "", "", "v", "", ""), ""},
		{"k=a=b", e("k", "a=b"), ""},
		{`k=a\,b,l\=m=\\`, e("k", "a,b", "l=m", `\`), ""},
		{`k="a,b=\"\n",l=w`, e("k", "a,b=\"\n", "l", "w"), ""},
		{`"k=,"="",l=w`, e("k=,", "", "l", "w"), ""},
		{`k=it's "so"`, e("k", `it's "so"`), ""},
		{"k", nil, `"k" is not key=value`},
		{"k,l=w", nil, `"k" is not key=value`},
		{"k=v,", nil, "nothing follows the last comma"},
		{`k=v\`, nil, "nothing follows the last backslash"},
		{`k="v`, nil, `"v is not a text in quotes`},
		{`k="v"w`, nil, `w follows the text in quotes "v"`},
	} {
		t.Run(c.text, func(t *testing.T) {
			got, err := parseDescriptor(c.text)
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func FuzzDescriptor(f *testing.F) {
	for _, text := range []string{"", "k=v,l=w", `k=a\,b,l\=m=\\`, `"k=,"="",l="\n"`, "k=\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseDescriptor(text)
		if err != nil {
			return
		}
		again, err := parseDescriptor(spell(entries))
		require.NoError(t, err, spell(entries))
		require.Equal(t, entries, again)
	})
}
