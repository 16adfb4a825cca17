package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func hexSum(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

const sixteen = "0123456789abcdef"

func TestAFileIsRefusedWithAllThatIsWrong(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":                    {"", "f:1:1: no tokens and no identities"},
		"a comment":                {"# nobody\n", "f:1:1: no tokens and no identities"},
		"no rules":                 {"tokens: []\nidentities:\n", "f:1:1: no tokens and no identities"},
		"not YAML":                 {"tokens: [", "f: yaml: line 1: did not find expected node content"},
		"two documents":            {"tokens: []\n---\ntokens: []\n", "f:1:1: more than one YAML document"},
		"a list":                   {"- tokens", "f:1:1: the file: want a mapping"},
		"an unknown key":           {"token: []", "f:1:1: the file: a key that is not one of tokens, identities"},
		"a key twice":              {"tokens: []\ntokens: []", "f:2:1: the file: tokens is there twice"},
		"an alias":                 {"tokens: &a []\nidentities: *a", "f:2:13: identities: want a list"},
		"a token that is text":     {"tokens: [" + sixteen + "]", "f:1:10: a token: want a mapping"},
		"nothing in it":            {"tokens: [{}]", "f:1:10: a token: name is missing\nf:1:10: services are missing: one by name, several by prefix* or all by *; an operator needs none, nor does who has nodes\nf:1:10: a token: want one of token and sha256"},
		"a misspelt key":           {"tokens: [{name: a, token: " + sixteen + ", service: [a]}]", "f:1:45: a token: a key that is not one of name, token, sha256, services, addresses, nodes, clusters, operator\nf:1:10: services are missing: one by name, several by prefix* or all by *; an operator needs none, nor does who has nodes"},
		"a name that is a list":    {"tokens: [{name: [], token: " + sixteen + ", services: [a]}]", "f:1:17: name: want text"},
		"an odd name":              {"tokens: [{name: \"a\\n\", token: " + sixteen + ", services: [a]}]", `f:1:17: name "a\n": not up to 255 printable bytes`},
		"both token and digest":    {"tokens: [{name: a, token: " + sixteen + ", sha256: " + strings.Repeat("0", 64) + ", services: [a]}]", "f:1:10: a token: want one of token and sha256"},
		"a short token":            {"tokens: [{name: a, token: " + sixteen[1:] + ", services: [a]}]", "f:1:27: token: shorter than 16 characters, so that it may be guessed"},
		"a token with a space":     {"tokens: [{name: a, token: \"" + sixteen + " b\", services: [a]}]", "f:1:27: token: not of printable ASCII without spaces"},
		"a digest that is none":    {"tokens: [{name: a, sha256: " + sixteen + ", services: [a]}]", "f:1:28: sha256: not of 64 hexadecimal digits"},
		"a token twice":            {"tokens:\n- {name: a, token: " + sixteen + ", services: [a]}\n- {name: b, sha256: " + hexSum(sixteen) + ", services: [b]}", `f:3:3: token "b": the token of line 2 again`},
		"a service with two stars": {"tokens: [{name: a, token: " + sixteen + ", services: [\"a*b*\", \"*a\"]}]", "f:1:56: services: \"a*b*\" is not a name, or a prefix followed by *\nf:1:64: services: \"*a\" is not a name, or a prefix followed by *"},
		"services that are text":   {"tokens: [{name: a, token: " + sixteen + ", services: a}]", "f:1:55: services: want a list"},
		"an operator of text":      {"tokens: [{name: a, token: " + sixteen + ", operator: \"yes\"}]", "f:1:55: operator: want true or false\nf:1:10: services are missing: one by name, several by prefix* or all by *; an operator needs none, nor does who has nodes"},
		"addresses that are none":  {"tokens: [{name: a, token: " + sixteen + ", services: [a], addresses: [10.1.0.0/8, ten, \"::ffff:10.0.0.0/104\"]}]", "f:1:72: addresses: \"10.1.0.0/8\": the range of that is 10.0.0.0/8\nf:1:84: addresses: \"ten\" is not an address or a range such as 10.0.0.0/8\nf:1:89: addresses: \"::ffff:10.0.0.0/104\": want the range as IPv4"},
		"an identity of no kind":   {"identities: [{services: [a]}]", "f:1:14: an identity: want one of spiffe and dns"},
		"an identity of two kinds": {"identities: [{dns: a, spiffe: \"spiffe://a/b\", services: [a]}]", "f:1:14: an identity: want one of spiffe and dns"},
		"any trust domain":         {"identities: [{spiffe: \"spiffe://*/a\", services: [a]}]", `f:1:23: spiffe "spiffe://*/a": want spiffe://domain/path, in whose path * stands for any part of a segment`},
		"another pattern":          {"identities: [{spiffe: \"spiffe://a/[a-z]\", services: [a]}]", `f:1:23: spiffe "spiffe://a/[a-z]": want spiffe://domain/path, in whose path * stands for any part of a segment`},
		"a host name that is none": {"identities: [{dns: a..b, services: [a]}]", `f:1:20: dns "a..b": want a host name, in which * stands for any part of a label`},
		"an identity twice":        {"identities:\n- {dns: A.b, services: [a]}\n- {dns: a.B, services: [b]}", `f:3:3: dns "a.b": the identity of line 2 again`},
		"nodes alone":              {"tokens: [{name: a, token: " + sixteen + ", nodes: [a]}]", "f:1:10: nodes and clusters: one needs the other; any are [\"*\"]"},
		"clusters alone":           {"tokens: [{name: a, token: " + sixteen + ", clusters: [a], operator: true}]", "f:1:10: nodes and clusters: one needs the other; any are [\"*\"]"},
		"a node with two stars":    {"tokens: [{name: a, token: " + sixteen + ", nodes: [\"a*b*\"], clusters: [\"\"]}]", "f:1:53: nodes: \"a*b*\" is not a name, or a prefix followed by *\nf:1:73: clusters: want text"},
		"a node of too many bytes": {"tokens: [{name: a, token: " + sixteen + ", nodes: [" + strings.Repeat("a", 1025) + "], clusters: []}]", "f:1:53: nodes: \"" + strings.Repeat("a", 1025) + "\" is not a name, or a prefix followed by *"},
		"more than a file may be":  {"#" + strings.Repeat(" ", maxFile), "f:1:1: 4194305 bytes, of 4194304 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readRules("f", []byte(test.text))
			require.EqualError(t, err, test.want)
		})
	}
}

func TestTheFileOfTheREADMEIsTaken(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(text), "## Who may do what\n")
	_, block, found := strings.Cut(section, "```yaml\n")
	require.True(t, found)
	block, _, _ = strings.Cut(block, "```")
	read, err := readRules("README.md", []byte(block))
	require.NoError(t, err)
	require.Equal(t, "users-team", read.ofToken(sha256.Sum256([]byte("example-token-of-users"))).name)
	require.True(t, read.ofToken(sha256.Sum256([]byte("example-token-of-ops"))).operator)
	_, gate := read.ofIdentities([]identity{{dns, "eu.gate.example.org"}})
	require.True(t, gate.allows("gate"))
}

func TestManyFaultsAreCutShort(t *testing.T) {
	_, err := readRules("f", []byte("tokens: ["+strings.Repeat("7, ", 1000)+"]"))
	require.Equal(t, maxFaults, strings.Count(err.Error(), "want a mapping"))
	require.True(t, strings.HasSuffix(err.Error(), "\nf: and more"))
}

func FuzzReadRules(f *testing.F) {
	for _, seed := range []string{
		"", "tokens:\n- {name: a, token: " + sixteen + ", services: [a, \"b*\"], addresses: [10.0.0.0/8]}\n",
		"identities:\n- {spiffe: \"spiffe://td/ns/*/sa/users\", operator: true}\n- {dns: \"*.svc\", services: [\"*\"]}\n",
		"tokens: &a [*a]", "a: b\n---\n", "tokens: [{name: a, sha256: zz, services: 7}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := readRules("f", text)
		if err != nil {
			require.LessOrEqual(t, strings.Count(err.Error(), "\nf:"), maxFaults)
			return
		}
		require.False(t, read.empty())
		require.Nil(t, read.ofToken(sha256.Sum256(nil)))
		for _, p := range read.patterns {
			// A name of the pattern's own form never panics, and with something
			// in the place of each * it matches.
			require.True(t, p.pattern.kind.matches(p.pattern.name, strings.ReplaceAll(p.pattern.name, "*", "x")), p.pattern.name)
		}
	})
}
