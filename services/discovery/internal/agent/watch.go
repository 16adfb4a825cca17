package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/client"
	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// watcher keeps a hosts file. Each service is asked for in a call of its own
// that the registry answers when the service changes.
type watcher struct {
	discovery *client.Client
	file      *hostsFile
	log       *slog.Logger
}

// pollWait is how long a registry is asked to wait for a change; after that and
// pollSlack a call has failed.
const (
	pollWait  = 30 * time.Second
	pollSlack = 10 * time.Second
)

// writeInterval is the shortest time between two writes of the file, so that
// changes which come together are written together.
const writeInterval = 200 * time.Millisecond

// watchHosts begins to keep the hosts file that o asks for, if it does, and
// returns what ends that. The error is of the file, or of o.Discovery.
func watchHosts(o Options, log *slog.Logger) (stop func(), err error) {
	if o.HostsFile == "" {
		return func() {}, nil
	}
	file, err := openHostsFile(o.HostsFile, o.HostsOf, log)
	if err != nil {
		return nil, err
	}
	// A client of its own: a registry that has too many waiting readers must not
	// delay beats.
	discovery, err := client.New(o.Discovery)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	// Ends with ctx; stop waits for it.
	go func() {
		defer close(done)
		(&watcher{discovery: discovery, file: file, log: log}).watch(ctx, o.HostsOf)
	}()
	return func() {
		cancel()
		<-done
		discovery.Close()
	}, nil
}

// watch keeps the file until ctx ends.
func (w *watcher) watch(ctx context.Context, services []string) {
	var following sync.WaitGroup
	for _, service := range services {
		// Ends with ctx; waited for below.
		following.Go(func() { w.follow(ctx, service) })
	}
	w.keepWritten(ctx)
	following.Wait()
}

// follow has the file hold what the registry says of a service, until ctx ends.
// While no registry answers, the file keeps what it has.
func (w *watcher) follow(ctx context.Context, service string) {
	log := w.log.With("service", service)
	var pauses backoff
	last := "" // what the last call failed with
	// That of the last answer. Of the first call it is the file's, so that a
	// registry which has just begun, and has yet to hear of hosts, knows that they
	// would be taken away.
	index := w.file.held(service)
	for {
		list, changed, err := w.ask(ctx, service, index)
		if ctx.Err() != nil {
			return
		}
		wait := time.Duration(0)
		switch {
		case err != nil:
			if err.Error() != last {
				log.Error("hosts not heard of, those of before are kept", "error", err)
			}
			last = err.Error()
			wait = pauses.next(err)
		case !changed:
			w.file.confirm(service, index, time.Now())
		case !w.file.update(service, list, time.Now()):
			log.Warn("the registry does not know the service, its hosts of before are kept")
		default:
			log.Debug("hosts changed", "hosts", len(list.Hosts))
		}
		if err == nil {
			if last != "" {
				log.Info("hosts heard of again")
			}
			last = ""
			pauses.reset()
			// A registry that answers at once though nothing has changed, as one
			// that stops does, is not asked again at once.
			if !changed || list.Index == index {
				wait = jitter(retryShortest)
			}
			if changed {
				index = list.Index
			}
		}
		if !pause.For(ctx, wait) {
			return
		}
	}
}

// ask lists a service: at once without an index, else when it is another.
func (w *watcher) ask(ctx context.Context, service, index string) (list client.Hosts, changed bool, err error) {
	err = w.discovery.InTurn(func(registry *client.Registry) error {
		ctx, cancel := context.WithTimeout(ctx, pollWait+pollSlack)
		defer cancel()
		if index == "" {
			list, err = registry.Hosts(ctx, service)
			changed = true
		} else {
			list, changed, err = registry.AwaitHosts(ctx, service, index, pollWait)
		}
		return err
	})
	return list, changed, err
}

// keepWritten writes the file whenever it has changed, until ctx ends, and then
// what was not written yet.
func (w *watcher) keepWritten(ctx context.Context) {
	last := "" // what the last write failed with
	for {
		select {
		case <-w.file.changed:
			pause.For(ctx, w.write(&last))
		case <-ctx.Done():
			select {
			case <-w.file.changed:
				w.write(&last)
			default:
			}
			return
		}
	}
}

// write writes the file once and returns how long to wait before the next time.
// last is what the last write failed with, empty if it did not.
func (w *watcher) write(last *string) time.Duration {
	err := w.file.write(time.Now())
	if err == nil {
		*last = ""
		return writeInterval
	}
	if err.Error() != *last {
		w.log.Error("hosts not written, trying on", "error", err)
	}
	*last = err.Error()
	w.file.touch()
	return retryLongest
}
