// Package retry says whether a request that came to nothing is sent again, to
// which hosts rather not, and how long after: it reads the RetryPolicy of a
// route or a virtual host, and what internal clients say in x-envoy-retry-on and
// the headers beside it. Routes hold a Policy; the router begins a State for each
// request and asks it after each attempt. The package sends nothing, waits for
// nothing and knows no cluster.
package retry

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitcanaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RetryPolicy": {
			"retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retry_back_off", "rate_limited_retry_back_off",
			"retriable_status_codes", "retriable_headers", "retriable_request_headers", "retry_host_predicate", "host_selection_retry_max_attempts",
		},
		"envoy.config.route.v3.RetryPolicy.RetryBackOff":                            {"base_interval", "max_interval"},
		"envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff":                 {"reset_headers", "max_interval"},
		"envoy.config.route.v3.RetryPolicy.ResetHeader":                             {"name", "format"},
		"envoy.config.route.v3.RetryPolicy.RetryHostPredicate":                      {"name", "typed_config"},
		"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate":      {},
		"envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate": {},
		"envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig":  {"metadata_match"},
		"envoy.config.core.v3.Metadata":                                             {"filter_metadata"},
	}
}

// Policy is a RetryPolicy. It never changes.
type Policy struct {
	// PerTryTimeout bounds each attempt, from its connection on; 0 is without.
	PerTryTimeout time.Duration
	// PerTryIdleTimeout is how long nothing may move to or from the upstream
	// within an attempt; 0 is without.
	PerTryIdleTimeout time.Duration
	// Hosts are those that a retry would rather not go to.
	Hosts Hosts

	on         Conditions
	retries    uint32 // num_retries
	statuses   []uint32
	headers    []matcher.Header // of the response (retriable_headers)
	gate       []matcher.Header // of the request, any of them (retriable_request_headers); empty is open
	base, most time.Duration    // of the back-off; 0 is as the runtime says
	resets     []resetHeader
	resetMost  time.Duration
}

// Envoy's defaults of the fields that are left out.
const (
	defaultRetries   = 1
	defaultBase      = 25              // milliseconds
	defaultResetMost = 5 * time.Minute // RateLimitedRetryBackOff.max_interval
	// mostFactor is what max_interval is of the base interval.
	mostFactor = 10
)

// byHeaders is the policy of a route without one, for requests that ask for
// retries themselves.
var byHeaders = Policy{retries: defaultRetries, Hosts: Hosts{Attempts: 1}}

// Parse makes a Policy of the message at the path at; nil of nil. Faults go to
// report; the result is for use only if there are none.
func Parse(m *routev3.RetryPolicy, at strict.Path, report *strict.Report) *Policy {
	if m == nil {
		return nil
	}
	p := byHeaders
	var unknown []string
	p.on, unknown = parseConditions(m.GetRetryOn())
	for _, name := range unknown {
		report.Add(at.Field("retry_on"), "%q is no condition known here; those are: %s", name, conditionNames())
	}
	if n := m.GetNumRetries(); n != nil {
		p.retries = n.GetValue()
	}
	p.PerTryTimeout = coreconfig.Duration(m.GetPerTryTimeout(), 0, at.Field("per_try_timeout"), report)
	p.PerTryIdleTimeout = coreconfig.Duration(m.GetPerTryIdleTimeout(), 0, at.Field("per_try_idle_timeout"), report)
	p.statuses = m.GetRetriableStatusCodes()
	p.headers = matcher.ParseHeaders(m.GetRetriableHeaders(), at.Field("retriable_headers"), report)
	p.gate = matcher.ParseHeaders(m.GetRetriableRequestHeaders(), at.Field("retriable_request_headers"), report)
	p.parseBackOff(m.GetRetryBackOff(), at.Field("retry_back_off"), report)
	p.parseRateLimited(m.GetRateLimitedRetryBackOff(), at.Field("rate_limited_retry_back_off"), report)
	if n := m.GetHostSelectionRetryMaxAttempts(); n < 0 {
		report.Add(at.Field("host_selection_retry_max_attempts"), "%d is negative", n)
	} else if n > 0 {
		p.Hosts.Attempts = int(n)
	}
	for i, predicate := range m.GetRetryHostPredicate() {
		p.Hosts.parse(predicate, at.Field("retry_host_predicate").Index(i), report)
	}
	return &p
}

// String is the policy in short: "3 on 5xx,reset, each try 1s".
func (p *Policy) String() string {
	text := fmt.Sprintf("%d on %s", p.retries, p.on)
	if p.on == 0 {
		text = "none but those that the request asks for"
	}
	if p.PerTryTimeout > 0 {
		text += fmt.Sprintf(", each try %s", p.PerTryTimeout)
	}
	return text
}

func (p *Policy) parseBackOff(m *routev3.RetryPolicy_RetryBackOff, at strict.Path, report *strict.Report) {
	if m == nil {
		return
	}
	// That there is a base_interval is held by the message's own rules.
	p.base = max(coreconfig.Duration(m.GetBaseInterval(), 0, at.Field("base_interval"), report), time.Millisecond)
	p.most = max(coreconfig.Duration(m.GetMaxInterval(), mostFactor*p.base, at.Field("max_interval"), report), time.Millisecond)
	if p.most < p.base {
		report.Add(at.Field("max_interval"), "%v is less than the base_interval of %v", p.most, p.base)
	}
}

func (p *Policy) parseRateLimited(m *routev3.RetryPolicy_RateLimitedRetryBackOff, at strict.Path, report *strict.Report) {
	for i, h := range m.GetResetHeaders() {
		p.resets = append(p.resets, parseResetHeader(h, at.Field("reset_headers").Index(i), report))
	}
	p.resetMost = coreconfig.Duration(m.GetMaxInterval(), defaultResetMost, at.Field("max_interval"), report)
}

// Hosts are those that a retry would rather not go to (retry_host_predicate).
type Hosts struct {
	// Attempts is how many further hosts are looked at, before one of those is
	// taken all the same (host_selection_retry_max_attempts).
	Attempts int

	previous, canaries bool
	labels             []map[string]*structpb.Value // any set of them, the whole of it
}

// Any says whether there may be such hosts.
func (h *Hosts) Any() bool { return h.previous || h.canaries || len(h.labels) > 0 }

// labelsOf is the namespace of metadata that load balancing reads.
const labelsOf = "envoy.lb"

func (h *Hosts) parse(m *routev3.RetryPolicy_RetryHostPredicate, at strict.Path, report *strict.Report) {
	at = at.Field("typed_config")
	message, err := strict.Unpack(m.GetTypedConfig())
	switch config := message.(type) {
	case *previousv3.PreviousHostsPredicate:
		h.previous = true
	case *omitcanaryv3.OmitCanaryHostsPredicate:
		h.canaries = true
	case *omitmetadatav3.OmitHostMetadataConfig:
		labels := config.GetMetadataMatch().GetFilterMetadata()[labelsOf].GetFields()
		if len(labels) == 0 {
			report.Add(at.Field("metadata_match"), "has no field of %s", labelsOf)
		}
		h.labels = append(h.labels, labels)
	default:
		if err == nil || m.GetTypedConfig() == nil { // else the schema's walk has said so
			report.Add(at, "a predicate for hosts is needed: PreviousHostsPredicate, OmitCanaryHostsPredicate or OmitHostMetadataConfig")
		}
	}
}

// Omit says whether a host is one of those: by its metadata, which may be nil,
// and whether the request went to it before.
func (h *Hosts) Omit(metadata *corev3.Metadata, before bool) bool {
	if h.previous && before {
		return true
	}
	is := metadata.GetFilterMetadata()[labelsOf].GetFields()
	if h.canaries && is["canary"].GetBoolValue() {
		return true
	}
	for _, labels := range h.labels {
		if len(labels) > 0 && hasAll(is, labels) {
			return true
		}
	}
	return false
}

// hasAll says whether the fields have the values of all labels; of a list, any
// value counts.
func hasAll(fields, labels map[string]*structpb.Value) bool {
	for name, want := range labels {
		got, ok := fields[name]
		if !ok || !proto.Equal(got, want) && !listHas(got.GetListValue(), want) {
			return false
		}
	}
	return true
}

func listHas(list *structpb.ListValue, want *structpb.Value) bool {
	for _, value := range list.GetValues() {
		if proto.Equal(value, want) {
			return true
		}
	}
	return false
}
