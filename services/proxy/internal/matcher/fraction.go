package matcher

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
)

// Fraction is a share of requests.
type Fraction struct{ layeredruntime.Share }

// ParseFraction reads a FractionalPercent; nil is no request.
func ParseFraction(m *typev3.FractionalPercent) Fraction {
	return Fraction{layeredruntime.ShareOf(m)}
}

// Always is every request, or none.
func Always(all bool) Fraction {
	share := layeredruntime.Share{Denominator: 1}
	if all {
		share.Numerator = 1
	}
	return Fraction{share}
}

// RuntimeFraction is a share of requests that a key of the runtime may set.
type RuntimeFraction struct {
	Fraction        // where the runtime does not set it
	key      string // empty for none
}

// ParseRuntimeFraction reads a RuntimeFractionalPercent; nil is no request.
func ParseRuntimeFraction(m *corev3.RuntimeFractionalPercent) RuntimeFraction {
	return ParseFraction(m.GetDefaultValue()).Under(m.GetRuntimeKey())
}

// Under is the share f unless the runtime sets the key to another one.
func (f Fraction) Under(key string) RuntimeFraction { return RuntimeFraction{f, key} }

// Has says whether the request with that random number is among the share, by the
// values that hold for it.
func (f RuntimeFraction) Has(random uint64, values *layeredruntime.Snapshot) bool {
	if f.key == "" {
		return f.Share.Has(random)
	}
	return values.Among(f.key, f.Share, random)
}

// String is the share as a quotient, with the key.
func (f RuntimeFraction) String() string {
	if f.key == "" {
		return f.Fraction.String()
	}
	return fmt.Sprintf("%s (or the runtime's %q)", f.Fraction, f.key)
}

// String is the share as a quotient.
func (f Fraction) String() string { return fmt.Sprintf("%d/%d", f.Numerator, f.Denominator) }
