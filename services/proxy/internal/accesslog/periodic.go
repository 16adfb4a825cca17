package accesslog

import (
	"sync"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
)

// Periodic writes lines of one stream after another while they go on
// (access_log_flush_interval and the like). A stream's facts belong to the goroutines
// that serve it, and its timer goes off beside them: lines are of a copy, which the
// stream renews where it may have to wait, and of the counts of now. Nil writes nothing.
type Periodic struct {
	logs     []*Log
	kind     string // ACCESS_LOG_TYPE
	interval time.Duration
	values   func() *layeredruntime.Snapshot
	// count puts counts into the facts that are kept elsewhere; nil is nothing.
	count func()

	mu    sync.Mutex
	timer *time.Timer
	due   time.Time     // the next line
	facts *format.Facts // the stream's; nil between streams
	taken format.Snapshot
}

// NewPeriodic makes one for logs, nil if there are none or the interval is 0. Kind is the
// lines' ACCESS_LOG_TYPE. Before each line it calls values for the values of the runtime
// by which filters go, and count, unless nil, to have counts put into the facts that are
// kept elsewhere; both beside the stream, and never once End was called.
func NewPeriodic(logs []*Log, kind string, interval time.Duration, values func() *layeredruntime.Snapshot, count func()) *Periodic {
	if len(logs) == 0 || interval == 0 {
		return nil
	}
	return &Periodic{logs: logs, kind: kind, interval: interval, values: values, count: count}
}

// Begin begins the lines of a stream of which f tells, the first of them an interval
// from now. The stream calls this, Update and End itself.
func (p *Periodic) Begin(f *format.Facts) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts = f
	p.taken.Take(f)
	p.arm()
}

// Update has lines from now on tell what the facts are now.
func (p *Periodic) Update() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.facts != nil {
		p.taken.Take(p.facts)
	}
}

// End ends the lines. Nothing of the stream is read behind it.
func (p *Periodic) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts = nil
	if p.timer != nil {
		p.timer.Stop()
	}
}

// arm sets the timer. The caller holds mu.
func (p *Periodic) arm() {
	p.due = time.Now().Add(p.interval)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.interval, p.fire)
		return
	}
	p.timer.Reset(p.interval)
}

// fire writes the lines that are due. One that was too late for the stream before does
// nothing.
func (p *Periodic) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.facts == nil || time.Now().Before(p.due) {
		return
	}
	if p.count != nil {
		p.count()
	}
	f, values := p.taken.Facts(p.facts), p.values()
	f.LogType = p.kind
	for _, l := range p.logs {
		l.Write(f, values)
	}
	p.arm()
}
