package resources

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// name is the name of a resource taken apart.
type name struct {
	service string
	// subset is what hosts must be like; none for all of them.
	subset subset
	// cluster is the name of the cluster, and of its assignment.
	cluster string
}

// readName takes a name apart. A name is that of a service, or of a subset of
// its hosts with a '#' between ("users#canary"). A '#' behind which no subset
// stands belongs to the service's name. That of a listener may end in a port
// ("users:50051"), as targets of gRPC do; it means nothing.
func readName(t Type, text string) (name, bool) {
	switch t {
	case Clusters, Endpoints, Routes:
	case Listeners:
		text = withoutPort(text)
	default:
		return name{}, false
	}
	if text == "" || text == "*" || !utf8.ValidString(text) {
		return name{}, false
	}
	n := name{service: text, cluster: text}
	for i := 1; i < len(text); i++ {
		if text[i] != '#' {
			continue
		}
		if s, ok := readSubset(text[i+1:]); ok {
			n.service, n.subset = text[:i], s
			break
		}
	}
	return n, true
}

// withoutPort cuts off the port at the end of a name, if there is one.
func withoutPort(text string) string {
	colon := strings.LastIndexByte(text, ':')
	if colon < 1 {
		return text
	}
	if _, err := strconv.ParseUint(text[colon+1:], 10, 16); err != nil {
		return text
	}
	return text[:colon]
}

// subset is what every host of it must be.
type subset []term

// term is one thing that a host must be.
type term struct {
	kind       termKind
	tag, value string
}

type termKind int

const (
	isCanary termKind = iota
	isNoCanary
	ofRevision
	ofRegion
	ofZone
	ofTag
)

// maxTerms bounds a subset, whose name comes from outside.
const maxTerms = 8

// readSubset reads terms with commas between: canary, !canary, revision=r1,
// region=eu, zone=eu-1, tag.name=value. Names and values may be written as in
// URLs ("%2C" for a comma).
func readSubset(text string) (subset, bool) {
	if strings.Count(text, ",") >= maxTerms {
		return nil, false
	}
	var s subset
	for part := range strings.SplitSeq(text, ",") {
		t, ok := readTerm(part)
		if !ok {
			return nil, false
		}
		s = append(s, t)
	}
	return s, true
}

func readTerm(text string) (term, bool) {
	switch text {
	case "canary":
		return term{kind: isCanary}, true
	case "!canary":
		return term{kind: isNoCanary}, true
	}
	key, escaped, _ := strings.Cut(text, "=")
	value, err := url.PathUnescape(escaped)
	if err != nil || value == "" {
		return term{}, false
	}
	switch key {
	case "revision":
		return term{kind: ofRevision, value: value}, true
	case "region":
		return term{kind: ofRegion, value: value}, true
	case "zone":
		return term{kind: ofZone, value: value}, true
	}
	tag, ok := strings.CutPrefix(key, "tag.")
	tag, err = url.PathUnescape(tag)
	return term{kind: ofTag, tag: tag, value: value}, ok && err == nil && tag != ""
}

// has reports whether a host is in the subset.
func (s subset) has(h *registry.Host) bool {
	return !slices.ContainsFunc(s, func(t term) bool { return !t.fits(h) })
}

func (t term) fits(h *registry.Host) bool {
	switch t.kind {
	case isCanary, isNoCanary:
		return (h.Tags.Canary != nil && *h.Tags.Canary) == (t.kind == isCanary)
	case ofRevision:
		return h.Revision == t.value
	case ofRegion:
		return h.Tags.Region == t.value
	case ofZone:
		return h.Tags.Zone == t.value
	default:
		value, _ := h.Tags.Other.Get(t.tag)
		return tagText(value) == t.value
	}
}
