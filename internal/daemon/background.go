package daemon

import (
	"context"
	"fmt"
	"time"
)

// Background makes a part of work that goes on until its context ends, such as
// a sweeper. Stop ends the context and waits for run, since what is stopped
// next may be what it leans on; a deadline that others used up leaves it a
// moment all the same.
func Background(name string, run func(ctx context.Context) error) Part {
	working, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	return Part{
		Name: name,
		Run: func() error {
			defer close(done)
			return run(working)
		},
		Stop: func(ctx context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
			}
			select {
			case <-done:
				return nil
			case <-time.After(cutOff):
				return fmt.Errorf("wait for its end: %w", ctx.Err())
			}
		},
	}
}
