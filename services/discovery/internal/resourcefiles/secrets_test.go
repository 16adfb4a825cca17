package resourcefiles

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestASecretIsForThoseThatARuleNames(t *testing.T) {
	rules, err := ReadSecretRules("r.yaml", []byte(`
secrets:
- {names: [cert], nodes: [n1, "edge-*"]}
- {names: ["shop/*"], clusters: [shop]}
- {names: [both], nodes: [n1], identities: [team, "spiffe://x/ns/shop/*"]}
- {names: ["open-*"], nodes: ["*"]}
- {names: [known], identities: ["*"]}
- {names: [nobody], nodes: []}
`))
	require.NoError(t, err)
	for name, test := range map[string]struct {
		secret   string
		node     resources.Asker
		identity string
		want     bool
	}{
		"a node by its id":                         {"cert", resources.Asker{ID: "n1"}, "", true},
		"a node by the beginning of its id":        {"cert", resources.Asker{ID: "edge-7"}, "", true},
		"another node":                             {"cert", resources.Asker{ID: "n11"}, "", false},
		"a node without id":                        {"cert", resources.Asker{Cluster: "n1"}, "n1", false},
		"a cluster":                                {"shop/db", resources.Asker{Cluster: "shop"}, "", true},
		"another cluster":                          {"shop/db", resources.Asker{Cluster: "shops"}, "", false},
		"a name that only begins like it":          {"shop", resources.Asker{Cluster: "shop"}, "", false},
		"a node with an identity":                  {"both", resources.Asker{ID: "n1"}, "team", true},
		"a node with an identity that begins so":   {"both", resources.Asker{ID: "n1"}, "spiffe://x/ns/shop/sa/a", true},
		"a node of no identity":                    {"both", resources.Asker{ID: "n1"}, "", false},
		"an identity of another node":              {"both", resources.Asker{ID: "n2"}, "team", false},
		"everybody":                                {"open-a", resources.Asker{}, "", true},
		"whoever is known":                         {"known", resources.Asker{}, "a", true},
		"who is not known":                         {"known", resources.Asker{}, "", false},
		"an empty list is nobody":                  {"nobody", resources.Asker{}, "", false},
		"a secret that no rule names":              {"other", resources.Asker{ID: "n1", Cluster: "shop"}, "team", false},
		"a secret named like the beginning itself": {"open-*", resources.Asker{}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, rules.Allowed(test.secret, test.node, test.identity))
		})
	}
	require.True(t, rules.Named("shop/db"))
	require.False(t, rules.Named("other"))
}

func TestWithoutRulesNobodyHasASecret(t *testing.T) {
	require.False(t, (&Secrets{}).Allowed("a", resources.Asker{}, ""))
	require.False(t, (&SecretRules{}).Allowed("a", resources.Asker{}, ""))
	none, err := ReadSecretRules("r.yaml", []byte("secrets: []"))
	require.NoError(t, err)
	require.False(t, none.Allowed("a", resources.Asker{}, ""))
}

func TestWhatIsWrongWithRulesIsToldAllAtOnce(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":      {"", "r.yaml:1:1: there is nothing in it"},
		"an empty map": {"{}", "r.yaml:1:1: secrets are missing; no rules are []"},
		"no mapping":   {"[]", "r.yaml:1:1: want a mapping with secrets, got a list"},
		"no list":      {"secrets: {}\nsecret: []", "r.yaml:1:10: secrets: want a list, got a mapping\nr.yaml:2:1: \"secret\" is not secrets"},
		"nobody":       {"secrets: [{names: [a]}]", `r.yaml:1:11: secrets[0]: one of nodes, clusters, identities must say who; everybody is nodes: ["*"]`},
		"no names": {"secrets:\n- {nodes: [a]}\n- {}", "r.yaml:2:3: secrets[0]: names are missing: one exactly, several by prefix*\n" +
			"r.yaml:3:3: secrets[1]: names are missing: one exactly, several by prefix*\nr.yaml:3:3: secrets[1]: one of nodes, clusters, identities must say who; everybody is nodes: [\"*\"]"},
		"other keys": {"secrets: [{names: [a], node: [b], nodes: [c]}]", "r.yaml:1:24: secrets[0].node: not one of names, nodes, clusters, identities"},
		"no patterns": {"secrets: [{names: a, nodes: [{}, '', a*b, \"" + strings.Repeat("a", 2049) + "\"]}]", "r.yaml:1:19: secrets[0].names: want a list, got \"a\"\n" +
			"r.yaml:1:30: secrets[0].nodes[0]: want text\nr.yaml:1:34: secrets[0].nodes[1]: want text\nr.yaml:1:38: secrets[0].nodes[2]: \"a*b\" is not a name, or a prefix followed by *\nr.yaml:1:43: secrets[0].nodes[3]: 2049 bytes, of 2048 at most"},
		"too many": {"secrets: [" + strings.Repeat("a,", 10_001) + "]", "r.yaml:1:10: secrets: 10001, of 10000 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSecretRules("r.yaml", []byte(test.text))
			require.EqualError(t, err, test.want)
		})
	}
}

func TestRulesAreReadAnewAndBadOnesChangeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules")
	write(t, path, "secrets: [{names: [a], nodes: [n1]}]")
	log, metrics := &journal{}, prometheus.NewRegistry()
	s, err := OpenSecrets(SecretOptions{
		File: filewatch.File{Setting: "RULES", Path: path}, Poll: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: metrics,
	})
	require.NoError(t, err)
	require.True(t, s.Allowed("a", resources.Asker{ID: "n1"}, ""))
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}, 1), make(chan struct{})
	go func() { // ends with ctx, waited for below
		defer close(ended)
		s.Run(ctx, func() { changed <- struct{}{} })
	}()
	write(t, path, "secrets: [{names: [a], nodes: [n2]}]")
	<-changed
	require.False(t, s.Allowed("a", resources.Asker{ID: "n1"}, ""))
	require.True(t, s.Allowed("a", resources.Asker{ID: "n2"}, ""))
	write(t, path, "secrets: 1")
	servicetest.Eventually(t, "it is told", func() bool { return strings.Contains(log.String(), "want a list") })
	require.True(t, s.Allowed("a", resources.Asker{ID: "n2"}, ""))
	families, err := metrics.Gather()
	require.NoError(t, err)
	require.Equal(t, "discovery_xds_secret_rules_good", families[0].GetName())
	require.Zero(t, families[0].GetMetric()[0].GetGauge().GetValue())
	write(t, path, "secrets: []")
	<-changed
	cancel()
	<-ended
	require.False(t, s.Allowed("a", resources.Asker{ID: "n2"}, ""))
}

func TestBadRulesAtTheStartAreAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules")
	o := SecretOptions{File: filewatch.File{Setting: "RULES", Path: path}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	_, err := OpenSecrets(o)
	require.ErrorContains(t, err, "RULES="+path)
	require.NoError(t, os.WriteFile(path, []byte("a: b"), 0o600))
	_, err = OpenSecrets(o)
	require.EqualError(t, err, "RULES: "+path+`:1:1: "a" is not secrets`)
}

// FuzzReadSecretRules wants no panic, and that nobody has a secret by bad rules.
func FuzzReadSecretRules(f *testing.F) {
	for _, text := range []string{
		"secrets: [{names: [a], nodes: ['*']}]", "secrets: &x [*x]", "secrets:\n- names: [a, 'b*']\n  clusters: [c]\n  identities: [d]",
		`{"secrets": [{"names": []}]}`, "secrets: [{names: [1, null, {}], nodes: x}]",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, err := ReadSecretRules("r.yaml", text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			require.Nil(t, rules)
			return
		}
		rules.Allowed("a", resources.Asker{ID: "b", Cluster: "c"}, "d")
	})
}
