package daemon

import (
	"context"
	"fmt"
)

// Background makes a part of work that goes on until its context ends, such as
// a sweeper. Stop ends the context and waits for run, as long as it may.
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
				return fmt.Errorf("wait for its end: %w", ctx.Err())
			}
		},
	}
}
