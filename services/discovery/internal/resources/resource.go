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
	// Version is a hash of name and content, so it is equal on every replica
	// and after every restart. It is never 0.
	Version uint64
	// Body is the message.
	Body *anypb.Any
	// TTL is how long clients keep the resource unless they hear of it again; 0
	// for ever. Who made the resource may set it before anybody else has it.
	TTL time.Duration

	encoded []byte
}

// New marshals m, of type t, as the resource of a name. Messages that were
// checked always can be.
func New(t Type, name string, m proto.Message) (*Resource, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s %q: %w", t, name, err)
	}
	sum := sha256.Sum256(append([]byte(name+"\x00"), content...))
	encoded := make([]byte, 0, protowire.SizeTag(1)+protowire.SizeBytes(len(t.URL()))+protowire.SizeTag(2)+protowire.SizeBytes(len(content)))
	encoded = protowire.AppendTag(encoded, 1, protowire.BytesType)
	encoded = protowire.AppendString(encoded, t.URL())
	encoded = protowire.AppendTag(encoded, 2, protowire.BytesType)
	encoded = protowire.AppendBytes(encoded, content)
	return &Resource{
		Name:    name,
		Version: max(1, binary.BigEndian.Uint64(sum[:8])),
		Body:    &anypb.Any{TypeUrl: t.URL(), Value: encoded[len(encoded)-len(content):]},
		encoded: encoded,
	}, nil
}

// Encoded is Body in the form of the wire, for responses that are put together
// without marshalling it again. Nobody may write to it.
func (r *Resource) Encoded() []byte { return r.encoded }
