// Package rule is what every REST face holds names and addresses to, so that no
// host that one of them takes spoils what another shows. Who makes something of
// names, as statsd does, knows by it what they can be. It is for text from outside,
// and keeps nothing.
package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name, in bytes.
const MaxName = 255

// Name returns an error unless name can name something: 1 to MaxName bytes of
// UTF-8 without control characters.
func Name(name string) error {
	switch {
	case name == "":
		return errors.New(`"" is not a name`)
	case len(name) > MaxName:
		return fmt.Errorf("the name has %d bytes, of %d at most", len(name), MaxName)
	}
	return Text(name)
}

// Text returns an error unless text is UTF-8 without control characters, as all is
// that is shown as it came: in lists, logs, metrics and on the page.
func Text(text string) error {
	switch {
	case !utf8.ValidString(text):
		return fmt.Errorf("%q is not UTF-8", text)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%q holds a control character", text)
	}
	return nil
}

// ServiceName is Name for a service. "*" would mean every service to a reader
// over xDS.
func ServiceName(name string) error {
	if name == "*" {
		return errors.New(`"*" is not a name`)
	}
	return Name(name)
}

// broadcast is every host of a network at once (RFC 919 §7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Address reads an IPv4 or IPv6 address that one host can have.
func Address(text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 or IPv6 address", text)
	}
	ip = ip.Unmap()
	if ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone, which means nothing to others", text)
	}
	if ip.IsUnspecified() || ip.IsMulticast() || ip == broadcast {
		return netip.Addr{}, fmt.Errorf("%q is not the address of a host", text)
	}
	return ip, nil
}
