package app

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// reopenLogsOnSignal opens the files of access logs anew at each SIGUSR1, until
// ctx ends.
func (a *App) reopenLogsOnSignal(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	for {
		select {
		case <-signals:
			a.logs.Reopen()
		case <-ctx.Done():
			return nil
		}
	}
}
