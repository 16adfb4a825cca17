package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) {
	runAsProgram() // does not return in a child of daemon_test.go
	servicetest.Main(m)
}

// journal is what a test's parts did, in order. Tests in a synctest bubble
// write it only while everybody else waits.
type journal []string

func (j *journal) add(line string) { *j = append(*j, line) }

// part makes a part that serves until it is stopped and writes down its life.
func (j *journal) part(name string) Part {
	stop := make(chan struct{})
	return Part{
		Name:  name,
		Run:   func() error { <-stop; return nil },
		Drain: func() { j.add("drain " + name) },
		Stop:  func(context.Context) error { j.add("stop " + name); close(stop); return nil },
	}
}

func newGroup(parts ...Part) *Group {
	g := &Group{Log: slog.New(slog.DiscardHandler), Grace: time.Second, Deadline: 10 * time.Second}
	for _, p := range parts {
		g.Add(p)
	}
	return g
}

func TestGroupDrainsAllPartsThenStopsThemInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := newGroup(j.part("store"), j.part("server"), j.part("admin"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)

		began := time.Now()
		require.NoError(t, g.Run(ctx))
		require.Equal(t, journal{
			"drain admin", "drain server", "drain store",
			"stop admin", "stop server", "stop store",
		}, j)
		require.Equal(t, time.Minute+g.Grace, time.Since(began))
	})
}

func TestGroupWaitsItsGraceBetweenDrainAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var drained, stopped time.Time
		stop := make(chan struct{})
		g := newGroup(Part{
			Name:  "server",
			Run:   func() error { <-stop; return nil },
			Drain: func() { drained = time.Now() },
			Stop:  func(context.Context) error { stopped = time.Now(); close(stop); return nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, g.Run(ctx))
		require.Equal(t, g.Grace, stopped.Sub(drained))
	})
}

func TestGroupStopsAtOnceWhenAPartEnds(t *testing.T) {
	refused := errors.New("connection refused")
	for name, c := range map[string]struct {
		end  error
		want string
	}{
		"with_an_error":   {refused, "watcher: connection refused"},
		"without_a_cause": {nil, "watcher: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				g := newGroup(j.part("server"), Part{Name: "watcher", Run: func() error { return c.end }})
				began := time.Now()
				err := g.Run(t.Context())
				require.EqualError(t, err, c.want)
				require.Equal(t, c.end != nil, errors.Is(err, refused))
				require.Equal(t, journal{"drain server", "stop server"}, j)
				require.Zero(t, time.Since(began), "nothing is waited for")
			})
		})
	}
}

func TestGroupBoundsAllStopsByOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(name string) Part {
			stop := make(chan struct{})
			return Part{
				Name: name,
				Run:  func() error { <-stop; return nil },
				Stop: func(ctx context.Context) error { <-ctx.Done(); close(stop); return ctx.Err() },
			}
		}
		g := newGroup(slow("first"), slow("second"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		err := g.Run(ctx)
		require.EqualError(t, err, "stop second: context deadline exceeded\nstop first: context deadline exceeded")
		require.Equal(t, g.Grace+g.Deadline, time.Since(began))
	})
}

func TestGroupLeavesBehindAPartThatRunsOnAndNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		var j journal
		g := newGroup(j.part("server"), Part{Name: "deaf", Run: func() error { <-forever; return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.EqualError(t, g.Run(ctx), "deaf: runs on after its stop")
		require.Equal(t, journal{"drain server", "stop server"}, j)
	})
}

func TestGroupReportsWhatEndedDuringTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		g := newGroup(Part{
			Name: "server",
			Run:  func() error { <-stop; return errors.New("disk is full") },
			Stop: func(context.Context) error { close(stop); return nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.EqualError(t, g.Run(ctx), "server: disk is full")
	})
}

func TestGroupStopsPartsThatNeverRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		g := newGroup(Part{Name: "pool", Stop: func(context.Context) error { closed = true; return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, g.Run(ctx))
		require.True(t, closed)
	})
}

func TestStopThatHeedsNoDeadlineDoesNotKeepOthersFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		stopped := false
		group := &Group{Log: slog.New(slog.DiscardHandler), Deadline: time.Second}
		group.Add(Part{Name: "store", Stop: func(context.Context) error {
			stopped = true
			return nil
		}})
		group.Add(Part{Name: "listener", Stop: func(context.Context) error {
			<-stuck
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.EqualError(t, group.Run(ctx), "stop listener: does not end with its deadline")
		require.True(t, stopped)
		close(stuck)
	})
}
