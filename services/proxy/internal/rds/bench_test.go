package rds_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// BenchmarkSubscribe has 5,000 listeners come, one after another, each with a table of its
// own, and go again.
func BenchmarkSubscribe(b *testing.B) {
	const listeners = 5000
	for b.Loop() {
		client := xds.New(xds.Options{ADS: &coreconfig.GRPC{}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
		m := rds.New(rds.Options{
			Log: slog.New(slog.DiscardHandler),
			SetName: func(source coreconfig.Source, name string, wanted bool) {
				client.SetName(source, xds.RouteType, name, wanted)
			},
		})
		registry := stats.NewRegistry()
		var into atomic.Pointer[route.Table]
		var subscriptions []*rds.Subscription
		for i := range listeners {
			name := fmt.Sprintf("route-%d", i)
			subscriptions = append(subscriptions, m.Subscribe(rds.Request{
				Name: name, Into: &into, Ready: func() {}, Stats: registry.Scope("rds." + name),
			}))
		}
		for _, s := range subscriptions {
			s.Close()
		}
	}
}
