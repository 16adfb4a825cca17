package layeredruntime

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// value is what a key is set to. A text that is a number or a truth value is one, as in
// Envoy.
type value struct {
	text      string // as it was written
	number    float64
	isNumber  bool
	integer   uint64 // number without its fraction, unless it is below 0
	isInteger bool
	share     Share
	isShare   bool
	boolean   bool // true, or a whole number other than 0
	isBoolean bool
}

// Share is a part of all requests: Numerator in Denominator of them.
type Share struct{ Numerator, Denominator uint32 }

// ShareOf reads a FractionalPercent, whose denominator is one that there is; nil is no
// request.
func ShareOf(m *typev3.FractionalPercent) Share {
	share := Share{m.GetNumerator(), 100}
	switch m.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		share.Denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		share.Denominator = 1_000_000
	}
	return share
}

// Has says whether a request with that random number is among the share.
func (s Share) Has(random uint64) bool { return random%uint64(s.Denominator) < uint64(s.Numerator) }

func numberValue(n float64) value {
	v := value{number: n, isNumber: true}
	if n >= 0 && n < math.MaxUint64 { // neither holds for what is no number
		v.integer, v.isInteger = uint64(n), true
	}
	if n == math.Trunc(n) && math.Abs(n) < math.MaxInt32 { // as in Envoy
		v.boolean, v.isBoolean = n != 0, true
	}
	return v
}

func booleanValue(b bool) value { return value{boolean: b, isBoolean: true} }

func textValue(text string) value {
	v := value{}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	switch {
	case err == nil:
		v = numberValue(n)
	case text == "true", text == "false":
		v = booleanValue(text == "true")
	}
	v.text = text
	return v
}

func shareValue(text string, m *typev3.FractionalPercent) (value, error) {
	if _, ok := typev3.FractionalPercent_DenominatorType_name[int32(m.GetDenominator())]; !ok {
		return value{}, fmt.Errorf("%s: denominator %d is not HUNDRED, TEN_THOUSAND or MILLION", text, m.GetDenominator())
	}
	return value{text: text, share: ShareOf(m), isShare: true}, nil
}

// givenValue reads a value of the admin_layer, where a FractionalPercent is a mapping
// in braces, in JSON or YAML.
func givenValue(text string) (value, error) {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return textValue(text), nil
	}
	var m typev3.FractionalPercent
	file, root := protoyaml.Open("value", []byte(text))
	if root != nil {
		file.Fill(root, &m, "")
	}
	if err := file.Err(); err != nil {
		return value{}, fmt.Errorf("%q is no FractionalPercent: %w", text, err)
	}
	return shareValue(text, &m)
}
