// Package resources makes what xDS clients are sent: the cluster, assignment,
// listener and routes of a service, from the hosts that the registry lists of it.
// It says which types there are and what a resource is, wherever it comes from.
// The xds server asks it and hands out what it makes; it keeps nothing, has no
// clock, and knows no stream and no client beyond what decides what that is shown.
package resources

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Resource is one resource as all clients are sent it: marshalled once by New,
// shared by all streams and never changed.
type Resource struct {
	Name string
	// Version is a hash of name, content and TTL, so it is equal on every replica
	// and after every restart. It is never 0.
	Version uint64
	// Body is the message.
	Body *anypb.Any
	// TTL is how long clients keep the resource unless they hear of it again; 0
	// for ever.
	TTL time.Duration

	// wire is, in the form of the wire, Body as an entry of a response's resources,
	// from entryAt on, itself from bodyAt on; and before that what makes a Resource
	// of it instead. So responses of both variants share its bytes.
	wire            []byte
	entryAt, bodyAt int
}

// LeastTTL is the least time to live that a resource can have: a shorter one could
// be over before clients are told of it again.
const LeastTTL = 3 * time.Second

// New marshals m, of type t, as the resource of a name, with a TTL that is 0 for
// none. Messages that were checked always can be.
func New(t Type, name string, m proto.Message, ttl time.Duration) (*Resource, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s %q: %w", t, name, err)
	}
	hashed := []byte(name + "\x00")
	if ttl > 0 {
		// A client that is told of a TTL must be told of its end too. No content
		// begins with a 0, so this is that of no other resource without a TTL.
		hashed = binary.BigEndian.AppendUint64(append(hashed, 0), uint64(ttl))
	}
	sum := sha256.Sum256(append(hashed, content...))
	r := &Resource{Name: name, Version: max(1, binary.BigEndian.Uint64(sum[:8])), TTL: ttl}

	body := protowire.SizeTag(1) + protowire.SizeBytes(len(t.URL())) + protowire.SizeTag(2) + protowire.SizeBytes(len(content))
	inner := protowire.AppendTag(nil, 3, protowire.BytesType)
	inner = protowire.AppendString(inner, name)
	inner = protowire.AppendTag(inner, 1, protowire.BytesType)
	inner = protowire.AppendString(inner, VersionText(r.Version))
	inner = protowire.AppendTag(inner, 2, protowire.BytesType)
	inner = protowire.AppendVarint(inner, uint64(body)) //nolint:gosec // a length
	wire := make([]byte, 0, 2*(1+binary.MaxVarintLen32)+len(inner)+body)
	wire = protowire.AppendTag(wire, ResourcesField, protowire.BytesType)
	wire = protowire.AppendVarint(wire, uint64(len(inner)+body)) //nolint:gosec // a length
	wire = append(wire, inner...)
	r.entryAt = len(wire)
	wire = protowire.AppendTag(wire, ResourcesField, protowire.BytesType)
	wire = protowire.AppendVarint(wire, uint64(body)) //nolint:gosec // a length
	r.bodyAt = len(wire)
	wire = protowire.AppendTag(wire, 1, protowire.BytesType)
	wire = protowire.AppendString(wire, t.URL())
	wire = protowire.AppendTag(wire, 2, protowire.BytesType)
	wire = protowire.AppendBytes(wire, content)
	r.wire = wire
	r.Body = &anypb.Any{TypeUrl: t.URL(), Value: wire[len(wire)-len(content):]}
	return r, nil
}

// ResourcesField is the number of the resources in the responses of both variants.
const ResourcesField = 2

// VersionText is a version as clients see it.
func VersionText(version uint64) string { return fmt.Sprintf("%016x", version) }

// Encoded is Body in the form of the wire, for responses that are put together
// without marshalling it again. Nobody may write to it, nor to the following.
func (r *Resource) Encoded() []byte { return r.wire[r.bodyAt:] }

// Entry is Body as one of the resources of a response of the state of the world.
func (r *Resource) Entry() []byte { return r.wire[r.entryAt:] }

// Wrapped is the same of delta, a Resource without a TTL, in two pieces.
func (r *Resource) Wrapped() (head, encoded []byte) { return r.wire[:r.entryAt], r.Encoded() }
