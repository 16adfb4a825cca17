package format

import "github.com/weirproxy/weir/services/proxy/internal/message"

// Meter tells how many bytes have gone over the wire for a request so far, in each
// direction as the proxy sees it. It may be asked beside who serves the request.
type Meter interface {
	Traffic() (received, sent message.Traffic)
}

// meters are the two sides of the proxy, by how operators begin.
var meters = map[string]func(*Facts) Meter{
	"DOWNSTREAM": func(f *Facts) Meter { return f.Downstream },
	"UPSTREAM":   func(f *Facts) Meter { return f.Upstream },
}

// counts are what meters count, by what follows that.
var counts = map[string]func(message.Traffic) uint64{
	"_WIRE_BYTES":                func(t message.Traffic) uint64 { return t.Wire },
	"_HEADER_BYTES":              func(t message.Traffic) uint64 { return t.Headers },
	"_DECOMPRESSED_HEADER_BYTES": func(t message.Traffic) uint64 { return t.Decompressed },
}

// addTraffic adds the operators of traffic to all, by their names.
func addTraffic(all map[string]spec) {
	for side, meter := range meters {
		for name, count := range counts {
			all[side+name+"_RECEIVED"] = spec{make: always(numeric(known(func(f *Facts) int64 {
				received, _ := traffic(meter(f))
				return int64(count(received))
			})))}
			all[side+name+"_SENT"] = spec{make: always(numeric(known(func(f *Facts) int64 {
				_, sent := traffic(meter(f))
				return int64(count(sent))
			})))}
		}
	}
}

// traffic is what a meter tells, which may be nil.
func traffic(m Meter) (received, sent message.Traffic) {
	if m == nil {
		return message.Traffic{}, message.Traffic{}
	}
	return m.Traffic()
}
