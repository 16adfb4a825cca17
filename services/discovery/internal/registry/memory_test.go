package registry

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// BenchmarkMemoryOfHosts registers 100,000 hosts of 10,000 services, and tells
// what one takes once garbage is collected.
func BenchmarkMemoryOfHosts(b *testing.B) {
	const hosts = 100_000
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		r := started(b, discarding{newFakeStore()})
		before := heap()
		for i := range hosts {
			checkIn(b, r, usualHost(i))
		}
		b.ReportMetric((heap()-before)/hosts, "B/host")
		runtime.KeepAlive(r)
	}
}

// usualHost is one of 100,000: each has texts of its own, as those that a face
// read have.
func usualHost(i int) Host {
	ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	service := i % 10_000
	address := netip.AddrPortFrom(ip, 8080)
	return Host{
		Key:      Key{Service: fmt.Sprintf("service-%05d", service), ID: address.String()},
		Address:  address,
		Repo:     fmt.Sprintf("service-%05d", service),
		Revision: fmt.Sprintf("%040x", service),
		Tags: Tags{
			Region:     fmt.Sprint("eu-central-", 1),
			Zone:       fmt.Sprint("eu-central-1", string(rune('a'+i%3))),
			InstanceID: fmt.Sprintf("i-%017x", i),
		},
		TTL: time.Minute,
	}
}

// discarding is a Store that remembers no change.
type discarding struct{ *fakeStore }

func (discarding) Append(context.Context, []Change) error { return nil }
