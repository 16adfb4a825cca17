// Package hashpolicy makes the number by which a request is bound to a host, or
// to one of several clusters (RouteAction.hash_policy): requests with the same
// number go to the same one. The route table parses policies with it, the
// router has it hash each request. It picks no host and sets no cookie: it says
// which one is to be set.
package hashpolicy

import (
	"bytes"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	const policy = "envoy.config.route.v3.RouteAction.HashPolicy"
	return strict.Fields{
		policy:                           {"header", "cookie", "connection_properties", "query_parameter", "terminal"},
		policy + ".Header":               {"header_name", "regex_rewrite"},
		policy + ".Cookie":               {"name", "ttl", "path", "attributes"},
		policy + ".CookieAttribute":      {"name", "value"},
		policy + ".ConnectionProperties": {"source_ip"},
		policy + ".QueryParameter":       {"name"},
	}
}

// Input is what policies read of a request.
type Input struct {
	Request *message.Request
	// ClientAddress is the trusted address of the client; invalid where it has
	// none that is an IP.
	ClientAddress netip.Addr
	// Random is what a generated cookie is made of. Envoy takes the addresses of
	// the connection.
	Random uint64
}

// List is a hash_policy. The zero value hashes nothing. It never changes.
type List struct{ policies []policy }

// policy hashes one thing of a request.
type policy struct {
	kind     kind
	name     string                // of the header, cookie or parameter
	rewrite  *matcher.Substitution // header: nil for none
	cookie   *cookie               // nil: none is generated
	terminal bool
}

// cookie is how a missing cookie is made.
type cookie struct {
	// name and attributes come before and behind its value in set-cookie.
	name, attributes string
}

type kind int

const (
	header kind = iota
	queryParameter
	requestCookie
	sourceIP
)

// Parse makes a List of a hash_policy at the path at. Faults go to report; the
// result is for use only if there are none.
func Parse(policies []*routev3.RouteAction_HashPolicy, at strict.Path, report *strict.Report) List {
	var l List
	for i, m := range policies {
		at := at.Index(i)
		p := policy{terminal: m.GetTerminal()}
		switch s := m.GetPolicySpecifier().(type) {
		case *routev3.RouteAction_HashPolicy_Header_:
			p.name = matcher.ParseName(s.Header.GetHeaderName(), at.Field("header").Field("header_name"), report)
			p.rewrite = matcher.ParseSubstitution(s.Header.GetRegexRewrite(), at.Field("header").Field("regex_rewrite"), report)
		case *routev3.RouteAction_HashPolicy_QueryParameter_:
			p.kind, p.name = queryParameter, s.QueryParameter.GetName()
		case *routev3.RouteAction_HashPolicy_Cookie_:
			p.kind, p.name = requestCookie, s.Cookie.GetName()
			p.cookie = parseCookie(s.Cookie, at.Field("cookie"), report)
		case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
			p.kind = sourceIP
			if !s.ConnectionProperties.GetSourceIp() {
				continue // nothing is asked for
			}
		}
		l.policies = append(l.policies, p)
	}
	return l
}

func parseCookie(m *routev3.RouteAction_HashPolicy_Cookie, at strict.Path, report *strict.Report) *cookie {
	if m.GetTtl() == nil {
		return nil
	}
	c := &cookie{name: m.GetName()}
	// Less than a second would be the order to forget it at once.
	if ttl := coreconfig.Duration(m.GetTtl(), 0, at.Field("ttl"), report); ttl >= time.Second {
		c.attributes += "; Max-Age=" + strconv.FormatInt(int64(ttl/time.Second), 10)
	}
	if m.GetPath() != "" {
		c.attributes += "; Path=" + m.GetPath()
	}
	for _, a := range m.GetAttributes() {
		c.attributes += "; " + a.GetName()
		if a.GetValue() != "" {
			c.attributes += "=" + a.GetValue()
		}
	}
	c.attributes += "; HttpOnly"
	return c
}

// Empty says whether no request has a hash.
func (l List) Empty() bool { return len(l.policies) == 0 }

// Hash is the number of a request, and whether it has one; SetCookies are the
// values of set-cookie by which the client will tell it again. Each policy that
// finds something turns what the ones before it made by one bit and mixes its
// own in; a terminal one ends the list if there is a hash by then.
func (l List) Hash(in Input) (hash uint64, ok bool, setCookies []string) {
	for i := range l.policies {
		p := &l.policies[i]
		own, found := p.hash(in)
		if !found && p.cookie != nil {
			value := strconv.FormatUint(in.Random, 16)
			setCookies = append(setCookies, p.cookie.name+`="`+value+`"`+p.cookie.attributes)
			own, found = xxhash.Sum64String(value), true
		}
		if found {
			hash, ok = bits.RotateLeft64(hash, 1)^own, true
		}
		if ok && p.terminal {
			break
		}
	}
	return hash, ok, setCookies
}

func (p *policy) hash(in Input) (uint64, bool) {
	switch p.kind {
	case header:
		return p.hashHeader(in.Request)
	case queryParameter:
		value, ok := matcher.Parameter(in.Request.Path, p.name)
		return xxhash.Sum64(value), ok
	case requestCookie:
		value := cookieValue(&in.Request.Headers, p.name)
		return xxhash.Sum64(value), len(value) > 0
	default:
		if !in.ClientAddress.IsValid() {
			return 0, false
		}
		var text [64]byte
		return xxhash.Sum64(in.ClientAddress.Unmap().WithZone("").AppendTo(text[:0])), true
	}
}

// hashHeader hashes all values of a header, so that their order says nothing:
// each seeds the hash of the next greater one.
func (p *policy) hashHeader(r *message.Request) (uint64, bool) {
	var few [8][]byte
	values := few[:0]
	if value, ok, pseudo := matcher.Pseudo(r, p.name); pseudo {
		if ok {
			values = append(values, value)
		}
	} else {
		for i := range r.Headers.Len() {
			if name, value := r.Headers.At(i); string(name) == p.name {
				values = append(values, value)
			}
		}
	}
	if p.rewrite != nil {
		for i, value := range values {
			values[i] = p.rewrite.Replace(value)
		}
	}
	slices.SortFunc(values, bytes.Compare)
	hash := uint64(0)
	var digest xxhash.Digest
	for _, value := range values {
		digest.ResetWithSeed(hash)
		_, _ = digest.Write(value) // never fails
		hash = digest.Sum64()
	}
	return hash, len(values) > 0
}

// cookieValue is the value of the first cookie of that name, without the quotes
// around it; empty if there is none (RFC 6265 §4.2.1).
func cookieValue(h *message.Headers, name string) []byte {
	for i := range h.Len() {
		field, rest := h.At(i)
		if string(field) != "cookie" {
			continue
		}
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			key, value, _ := bytes.Cut(bytes.TrimSpace(pair), []byte{'='})
			if string(key) != name {
				continue
			}
			if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			return value
		}
	}
	return nil
}

// String is the list in words.
func (l List) String() string {
	var parts []string
	for _, p := range l.policies {
		text := [...]string{header: "header ", queryParameter: "query parameter ", requestCookie: "cookie ", sourceIP: "source_ip"}[p.kind] + p.name
		if p.terminal {
			text += " (terminal)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
