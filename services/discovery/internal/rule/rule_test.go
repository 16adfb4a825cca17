package rule

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestNamesThatReadersCouldNotTakeAreRefused(t *testing.T) {
	for name, want := range map[string]string{
		"":                       `"" is not a name`,
		"*":                      `"*" is not a name`,
		"\xff":                   `"\xff" is not UTF-8`,
		"a\nb":                   `"a\nb" holds a control character`,
		strings.Repeat("x", 256): `the name has 256 bytes, of 255 at most`,
	} {
		require.EqualError(t, ServiceName(name), want)
	}
	for _, name := range []string{"users", "a/b", "größe", "a b", strings.Repeat("x", 255)} {
		require.NoError(t, ServiceName(name))
	}
	require.NoError(t, Name("*"))
}

func TestTextThatCouldNotBeShownIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a\xff":    `"a\xff" is not UTF-8`,
		"\x00":     `"\x00" holds a control character`,
		"a\tb":     `"a\tb" holds a control character`,
		"a\u0085b": `"a\u0085b" holds a control character`,
	} {
		require.EqualError(t, Text(text), want)
	}
	for _, text := range []string{"", "größe 1", strings.Repeat("x", 256)} {
		require.NoError(t, Text(text))
	}
}

func TestAddressesThatNoHostHasAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                `"" is not an IPv4 or IPv6 address`,
		"10.0.0.256":      `"10.0.0.256" is not an IPv4 or IPv6 address`,
		"10.0.0.1:80":     `"10.0.0.1:80" is not an IPv4 or IPv6 address`,
		"fe80::1%eth0":    `"fe80::1%eth0" has a zone, which means nothing to others`,
		"0.0.0.0":         `"0.0.0.0" is not the address of a host`,
		"::":              `"::" is not the address of a host`,
		"255.255.255.255": `"255.255.255.255" is not the address of a host`,
		"224.0.0.1":       `"224.0.0.1" is not the address of a host`,
		"ff02::1":         `"ff02::1" is not the address of a host`,
	} {
		_, err := Address(text)
		require.EqualError(t, err, want)
	}
	for text, want := range map[string]string{"10.0.0.1": "10.0.0.1", "fd00::1": "fd00::1", "::ffff:10.0.0.1": "10.0.0.1"} {
		ip, err := Address(text)
		require.NoError(t, err)
		require.Equal(t, netip.MustParseAddr(want), ip)
	}
}
