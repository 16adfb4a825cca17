package matcher

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// Fraction is a share of requests.
type Fraction struct{ numerator, denominator uint32 }

// ParseFraction reads a FractionalPercent; nil is no request.
func ParseFraction(m *typev3.FractionalPercent) Fraction {
	f := Fraction{m.GetNumerator(), 100}
	switch m.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		f.denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		f.denominator = 1_000_000
	}
	return f
}

// Always is every request, or none.
func Always(all bool) Fraction {
	if all {
		return Fraction{1, 1}
	}
	return Fraction{0, 1}
}

// ParseRuntimeFraction reads a RuntimeFractionalPercent. There is no runtime
// that could set its runtime_key, so that the default value holds.
func ParseRuntimeFraction(m *corev3.RuntimeFractionalPercent) Fraction {
	return ParseFraction(m.GetDefaultValue())
}

// Has says whether the request with that random number is among the share.
func (f Fraction) Has(random uint64) bool {
	return random%uint64(f.denominator) < uint64(f.numerator)
}

// String is the share as a quotient.
func (f Fraction) String() string { return fmt.Sprintf("%d/%d", f.numerator, f.denominator) }
