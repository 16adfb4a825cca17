package beats

import (
	"time"

	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
)

// What a message costs its stream of a budget of one second each second: so a stream
// has 1,000 messages a second at most, and 5,000,000 hosts. That is far from what any
// client wants that beats for its hosts, and keeps one that sends messages without a
// byte in a loop, or without hosts, from having a core for itself.
const (
	pricePerMessage = time.Millisecond
	pricePerHost    = 200 * time.Nanosecond
	mostSaved       = time.Second // for what comes at once after a rest
)

// priceOf is the price of a message after which so many hosts are attached.
func priceOf(m *discoveryv2.BeatRequest, attached int) time.Duration {
	return pricePerMessage + time.Duration(attached+len(m.GetAttach())+len(m.GetDetach()))*pricePerHost
}

// pace is what a stream has left of its budget. Its zero value is for one that has
// saved all that it may.
type pace struct {
	paid time.Time // up to when all is paid for
}

// pay takes a price, and returns after how long the next message is to be taken.
func (p *pace) pay(now time.Time, price time.Duration) (rest time.Duration) {
	if least := now.Add(-mostSaved); p.paid.Before(least) {
		p.paid = least
	}
	p.paid = p.paid.Add(price)
	return max(0, p.paid.Sub(now))
}
