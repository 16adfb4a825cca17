package xds

import (
	"errors"
	"fmt"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// response is what a control plane or a file says of one type.
type response struct {
	typeURL, version, nonce, identifier string
	resources                           []packed
	removed                             []string
	// delta says that it tells what changed; else it tells what there is.
	delta bool
	// file finds the lines of one that was read from a file; nil else.
	file *strict.Report
}

// packed is a resource as it came.
type packed struct {
	// name and version are those of the wrapper; empty without one.
	name, version string
	any           *anypb.Any
	err           error
}

// readResponse takes a response of either dialect apart.
func readResponse(message proto.Message) *response {
	switch m := message.(type) {
	case *discoveryv3.DeltaDiscoveryResponse:
		r := &response{
			typeURL: m.GetTypeUrl(), version: m.GetSystemVersionInfo(), nonce: m.GetNonce(),
			identifier: m.GetControlPlane().GetIdentifier(), removed: m.GetRemovedResources(), delta: true,
		}
		for _, wrapped := range m.GetResources() {
			r.resources = append(r.resources, packed{name: wrapped.GetName(), version: wrapped.GetVersion(), any: wrapped.GetResource()})
		}
		return r
	case *discoveryv3.DiscoveryResponse:
		r := &response{
			typeURL: m.GetTypeUrl(), version: m.GetVersionInfo(), nonce: m.GetNonce(),
			identifier: m.GetControlPlane().GetIdentifier(),
		}
		for _, a := range m.GetResources() {
			r.resources = append(r.resources, unwrap(a))
		}
		return r
	default:
		return &response{}
	}
}

// wrapperType wraps a resource with a name and a version.
const wrapperType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

func unwrap(a *anypb.Any) packed {
	if a.GetTypeUrl() != wrapperType {
		return packed{any: a}
	}
	m, err := strict.Unpack(a)
	if err != nil {
		return packed{err: err}
	}
	wrapped := m.(*discoveryv3.Resource)
	return packed{name: wrapped.GetName(), version: wrapped.GetVersion(), any: wrapped.GetResource()}
}

// unpack reads the resources of a response; those that are gone come last. The
// error names every one that is no message of the response's type, has no name,
// or the name of another.
func (r *response) unpack(source coreconfig.Source) ([]Resource, error) {
	var faults []error
	resources := make([]Resource, 0, len(r.resources)+len(r.removed))
	seen := make(map[string]bool, len(r.resources))
	for i, p := range r.resources {
		one, err := p.unpack(r.typeURL)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("resources[%d]: %w", i, err))
		case seen[one.Name]:
			faults = append(faults, fmt.Errorf("resources[%d]: %q is there twice", i, one.Name))
		}
		seen[one.Name] = true
		if one.Version == "" {
			one.Version = r.version
		}
		one.Source, one.file = source, r.file
		if r.file != nil {
			one.At = strict.Path("resources").Index(i)
		}
		resources = append(resources, one)
	}
	for i, name := range r.removed {
		if seen[name] {
			faults = append(faults, fmt.Errorf("removed_resources[%d]: %q is among the resources", i, name))
		}
		resources = append(resources, Resource{Name: name, Version: r.version, Source: source})
	}
	return resources, errors.Join(faults...)
}

func (p packed) unpack(typeURL string) (Resource, error) {
	if p.err != nil {
		return Resource{}, p.err
	}
	if p.any.GetTypeUrl() != typeURL {
		return Resource{}, fmt.Errorf("its type is %q, not the response's", p.any.GetTypeUrl())
	}
	m, err := strict.Unpack(p.any)
	if err != nil {
		return Resource{}, err
	}
	one := Resource{Version: p.version, Message: m}
	switch m := m.(type) {
	case interface{ GetClusterName() string }: // assignments
		one.Name = m.GetClusterName()
	case interface{ GetName() string }:
		one.Name = m.GetName()
	}
	switch {
	case one.Name == "":
		return one, errors.New("it has no name")
	case p.name != "" && p.name != one.Name:
		return one, fmt.Errorf("it comes as %q and calls itself %q", p.name, one.Name)
	}
	return one, nil
}
