package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// response is what a stream sends, of either variant.
type response struct {
	delta     bool
	typ       resources.Type
	version   uint64 // of the state of the world
	resources []*resources.Resource
	// whole is all of them as a set, where a response holds one; else nil.
	whole   *set
	removed []string // only in delta
	nonce   string
	// ttl says that the client can take resources with a time to live.
	ttl bool
	// heartbeat says that the client has the resources and is only told to keep
	// them: they go without their bodies.
	heartbeat bool
	// since is when the first of the changes was that are in it; zero if it has
	// none.
	since time.Time
}

// wireForm puts responses into the form of the wire around the bodies of their
// resources, which all streams share and nobody marshals again.
type wireForm struct {
	controlPlane []byte // a marshalled ControlPlane
}

func newWireForm(identifier string) wireForm {
	var b []byte
	if identifier != "" {
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendString(b, identifier)
	}
	return wireForm{b}
}

// encode returns r as a DiscoveryResponse or a DeltaDiscoveryResponse: a head of
// its own, and bytes that all streams share, but for what tells of a time to live.
func (f wireForm) encode(r *response) mem.BufferSlice {
	if r.whole != nil {
		if entries := r.whole.entries(); entries != nil {
			return mem.BufferSlice{mem.SliceBuffer(f.head(r)), mem.SliceBuffer(entries)}
		}
	}
	list := make(mem.BufferSlice, 0, 1+2*len(r.resources))
	list = append(list, mem.SliceBuffer(f.head(r)))
	for _, resource := range r.resources {
		before, body := r.envelope(resource)
		list = append(list, mem.SliceBuffer(before))
		if len(body) > 0 {
			list = append(list, mem.SliceBuffer(body))
		}
	}
	return list
}

// head is all of a response but its resources.
func (f wireForm) head(r *response) []byte {
	b := make([]byte, 0, 128+len(f.controlPlane))
	plane := protowire.Number(6)
	if r.delta {
		plane = 7
		for _, name := range r.removed {
			b = appendText(b, 6, name)
		}
	} else {
		b = appendText(b, 1, versionText(r.version))
	}
	b = appendText(b, 4, r.typ.URL())
	b = appendText(b, 5, r.nonce)
	b = protowire.AppendTag(b, plane, protowire.BytesType)
	return protowire.AppendBytes(b, f.controlPlane)
}

// envelope is what goes before a resource's body, and the body, which is shared
// or empty.
func (r *response) envelope(resource *resources.Resource) (before, body []byte) {
	withTTL := r.ttl && resource.TTL > 0
	switch {
	case withTTL:
	case r.delta:
		return resource.Wrapped()
	default:
		return resource.Entry(), nil
	}
	// A Resource, the body last.
	version := resource.Version
	if !r.delta {
		version = r.version // which makes a heartbeat one
	}
	inner := make([]byte, 0, 64+len(resource.Name))
	inner = appendText(inner, 3, resource.Name)
	inner = appendText(inner, 1, versionText(version))
	if withTTL {
		inner = protowire.AppendTag(inner, 6, protowire.BytesType)
		inner = protowire.AppendBytes(inner, encodeTTL(resource.TTL))
	}
	if !r.heartbeat {
		body = resource.Encoded()
		inner = protowire.AppendTag(inner, 2, protowire.BytesType)
		inner = protowire.AppendVarint(inner, uint64(len(body)))
	}
	size := len(inner) + len(body)
	if r.delta {
		before = protowire.AppendTag(make([]byte, 0, 8+len(inner)), resources.ResourcesField, protowire.BytesType)
		before = protowire.AppendVarint(before, uint64(size))
		return append(before, inner...), body
	}
	// An Any with that Resource.
	outer := protowire.SizeTag(1) + protowire.SizeBytes(len(wrappedURL)) + protowire.SizeTag(2) + protowire.SizeBytes(size)
	before = protowire.AppendTag(nil, resources.ResourcesField, protowire.BytesType)
	before = protowire.AppendVarint(before, uint64(outer))
	before = appendText(before, 1, wrappedURL)
	before = protowire.AppendTag(before, 2, protowire.BytesType)
	before = protowire.AppendVarint(before, uint64(size))
	return append(before, inner...), body
}

const wrappedURL = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// encodeTTL is a google.protobuf.Duration.
func encodeTTL(ttl time.Duration) []byte {
	d := durationpb.New(ttl)
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(d.GetSeconds())) //nolint:gosec // it is above 0
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(d.GetNanos())) //nolint:gosec // it is not below 0
}

func appendText(b []byte, number protowire.Number, text string) []byte {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return protowire.AppendString(b, text)
}

// message is r, of the state of the world, as a message.
func (r *response) message(identifier string) *discoveryv3.DiscoveryResponse {
	bodies := make([]*anypb.Any, len(r.resources))
	for i, resource := range r.resources {
		bodies[i] = resource.Body
	}
	return &discoveryv3.DiscoveryResponse{
		VersionInfo:  versionText(r.version),
		Resources:    bodies,
		TypeUrl:      r.typ.URL(),
		Nonce:        r.nonce,
		ControlPlane: &corev3.ControlPlane{Identifier: identifier},
	}
}
