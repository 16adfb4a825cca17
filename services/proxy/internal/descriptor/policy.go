package descriptor

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RateLimit":                           {"actions"},
		"envoy.config.route.v3.RateLimit.Action":                    {"request_headers", "remote_address", "generic_key", "destination_cluster"},
		"envoy.config.route.v3.RateLimit.Action.RequestHeaders":     {"header_name", "descriptor_key", "skip_if_absent"},
		"envoy.config.route.v3.RateLimit.Action.GenericKey":         {"descriptor_value", "descriptor_key"},
		"envoy.config.route.v3.RateLimit.Action.RemoteAddress":      {},
		"envoy.config.route.v3.RateLimit.Action.DestinationCluster": {},
	}
}

// Policy is one RateLimit entry of a route or virtual host: it makes at most
// one descriptor of a request. It never changes.
type Policy struct{ actions []action }

// action makes at most one entry of a request.
type action struct {
	kind         kind
	key          string
	header       string // requestHeader: lower case, or a pseudo header
	skipIfAbsent bool   // requestHeader: leave the entry out rather than the descriptor
	value        []byte // genericKey
}

type kind int

const (
	requestHeader kind = iota
	remoteAddress
	destinationCluster
	genericKey
)

// pseudoHeaders are those of a request (RFC 9113 §8.3.1).
var pseudoHeaders = []string{":authority", ":method", ":path", ":scheme"}

// Parse makes a policy of each limit of a list that lies at the path at.
// Faults go to report; the result is for use only if there are none. Kinds of
// actions that Fields doesn't list are the schema's to refuse.
func Parse(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) []Policy {
	var policies []Policy
	for i, limit := range limits {
		at := at.Index(i)
		var p Policy
		for j, a := range limit.GetActions() {
			at := at.Field("actions").Index(j)
			switch a := a.GetActionSpecifier().(type) {
			case *routev3.RateLimit_Action_RequestHeaders_:
				header := strings.ToLower(a.RequestHeaders.GetHeaderName())
				if strings.HasPrefix(header, ":") && !slices.Contains(pseudoHeaders, header) {
					report.Add(at.Field("request_headers").Field("header_name"),
						"%q is no pseudo header of a request: those are %s", header, strings.Join(pseudoHeaders, ", "))
				}
				p.actions = append(p.actions, action{
					kind: requestHeader, key: a.RequestHeaders.GetDescriptorKey(),
					header: header, skipIfAbsent: a.RequestHeaders.GetSkipIfAbsent(),
				})
			case *routev3.RateLimit_Action_RemoteAddress_:
				p.actions = append(p.actions, action{kind: remoteAddress, key: "remote_address"})
			case *routev3.RateLimit_Action_DestinationCluster_:
				p.actions = append(p.actions, action{kind: destinationCluster, key: "destination_cluster"})
			case *routev3.RateLimit_Action_GenericKey_:
				key := a.GenericKey.GetDescriptorKey()
				if key == "" {
					key = "generic_key"
				}
				p.actions = append(p.actions, action{kind: genericKey, key: key, value: []byte(a.GenericKey.GetDescriptorValue())})
			}
		}
		policies = append(policies, p)
	}
	return policies
}
