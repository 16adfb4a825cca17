package limits

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// Unit is the length of a window as rules and requests name it. The numbers
// are those of envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit.
type Unit int32

// The units. A month has 30 days and a year 365, since windows are aligned to
// the Unix epoch and not to a calendar.
const (
	Second Unit = 1
	Minute Unit = 2
	Hour   Unit = 3
	Day    Unit = 4
	Month  Unit = 5
	Year   Unit = 6
	Week   Unit = 7
)

const day = 24 * time.Hour

// units is indexed by Unit; its first element is not a unit.
var units = [...]struct {
	name   string
	length time.Duration
}{
	{}, {"second", time.Second}, {"minute", time.Minute}, {"hour", time.Hour},
	{"day", day}, {"month", 30 * day}, {"year", 365 * day}, {"week", 7 * day},
}

// ParseUnit reads a unit's name in any letter case.
func ParseUnit(name string) (Unit, error) {
	for i := range units {
		if i > 0 && strings.EqualFold(name, units[i].name) {
			return Unit(i), nil
		}
	}
	return 0, fmt.Errorf("unit %q is none of second, minute, hour, day, week, month, year", brief(name))
}

// Valid says whether u is one of the units.
func (u Unit) Valid() bool { return u > 0 && int(u) < len(units) }

// String is the unit's name in upper case, as the protocol spells it.
func (u Unit) String() string {
	if !u.Valid() {
		return fmt.Sprintf("Unit(%d)", int32(u))
	}
	return strings.ToUpper(units[u].name)
}

// Rate is a limit in the words of rules and requests: Requests per Multiplier
// Units. Unit must be valid and Multiplier at least 1.
type Rate struct {
	Requests   uint32
	Unit       Unit
	Multiplier uint32
}

// MaxWindow is the longest window that a Rate may have. Beyond it, the times
// of windows would not fit their numbers.
const MaxWindow = 100 * 365 * day

// Check returns an error for a rate that has no window, or too long a one.
func (r Rate) Check() error {
	switch {
	case !r.Unit.Valid():
		return fmt.Errorf("unit %d is not a unit", int32(r.Unit))
	case r.Multiplier == 0:
		return fmt.Errorf("unit_multiplier 0 makes no window")
	case int64(r.Multiplier) > int64(MaxWindow/units[r.Unit].length):
		return fmt.Errorf("%d × %s is longer than 100 years", r.Multiplier, r.Unit)
	}
	return nil
}

// Limit is the rate as algorithms take it. Every unit is whole seconds.
func (r Rate) Limit() algorithm.Limit {
	return algorithm.Limit{Requests: r.Requests, Window: time.Duration(r.Multiplier) * units[r.Unit].length}
}

// NearThreshold is the number of hits above which a limit counts as nearly
// reached: the given share of its requests, rounded down.
func NearThreshold(requests uint32, ratio float64) uint64 {
	return uint64(math.Floor(float64(requests) * ratio))
}
