package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// registrar keeps one host registered.
type registrar struct {
	options   Options
	discovery *client.Client
	log       *slog.Logger

	// unwell says that the host's check fails; wake has room for one and ends a
	// pause when that has changed.
	unwell atomic.Bool
	wake   chan struct{}

	// What follows is of keepRegistered and of leave, which never run at once.

	// leaving says that the host is about to go.
	leaving bool
	// id is the host's from when a registry may have taken it; empty before.
	id string
	// lease is the host's stay in the registry, as far as is known; empty where a
	// registration is due.
	lease string
	// said is what was registered last.
	said client.Registration
	// interval is the time between beats: Options.Interval, or less if the
	// registry's TTL is shorter than what was asked for.
	interval time.Duration
}

// callTimeout bounds one call to one registry, and so how long a stop waits for
// the beat that it meets.
const callTimeout = 3 * time.Second

func newRegistrar(o Options, discovery *client.Client, log *slog.Logger) *registrar {
	return &registrar{options: o, discovery: discovery, log: log.With("service", o.Service), wake: make(chan struct{}, 1), interval: o.Interval}
}

// setUnwell has the host drained, or taken back from that, with the next beat,
// which comes at once.
func (r *registrar) setUnwell(unwell bool) {
	r.unwell.Store(unwell)
	select {
	case r.wake <- struct{}{}:
	default: // it is woken already
	}
}

// keepRegistered beats until ctx ends, and returns callTimeout after that at
// the latest. Only a change of what comes of it is logged.
func (r *registrar) keepRegistered(ctx context.Context) {
	var pauses backoff
	state := "" // what was logged last
	for {
		err := r.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := jitter(r.interval)
		if err == nil {
			pauses.reset()
			if now := r.state(); now != state {
				state = now
				r.log.Info(state, "id", r.id, "address", r.said.Address, "port", r.said.Port, "discovery", r.discovery.First().Base)
			}
		} else {
			if err.Error() != state {
				state = err.Error()
				r.log.Error("not registered, trying on", "error", err)
			}
			wait = pauses.next(err)
			if !client.IsRefusal(err) {
				wait = min(wait, r.interval)
			}
		}
		if !r.pause(ctx, wait) {
			return
		}
	}
}

// state is what the registry has the host for.
func (r *registrar) state() string {
	if r.said.Draining {
		return "draining"
	}
	return "registered"
}

// pause waits for d, or until it is woken, and reports whether that came before
// ctx ended.
func (r *registrar) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// beat has the first registry that answers know that the host lives, and what
// it is now. No call begins once ctx has ended, but one that has begun then is
// let finish: the registry may be about to take it, in its own time if it were
// given up here, and so after the deregistration that follows.
func (r *registrar) beat(ctx context.Context) error {
	return r.discovery.InTurn(func(registry *client.Registry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		address, err := r.address(ctx, registry)
		if err != nil {
			return err
		}
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		host := r.host(address)
		if r.lease != "" && host.Address == r.said.Address && host.Draining == r.said.Draining {
			err := registry.Heartbeat(finish, r.options.Service, r.id, r.lease)
			if client.IsRefusal(err) { // whatever the reason, a beat will not do
				r.lease = ""
			}
			if !client.IsUnknown(err) {
				return err
			}
			r.log.Warn("the registry does not know the host any more; it is registered again", "id", r.id, "discovery", registry.Base)
		}
		return r.register(finish, registry, host)
	})
}

// register tells a registry what the host is.
func (r *registrar) register(ctx context.Context, registry *client.Registry, host client.Registration) error {
	id := r.id
	if id == "" {
		id = r.newID(host.Address)
	}
	r.lease = "" // that it has now is in the answer
	receipt, err := registry.Put(ctx, r.options.Service, id, host)
	if !client.IsRefusal(err) && !client.IsUnsent(err) {
		r.id = id
	}
	if err != nil {
		return err
	}
	r.lease, r.said, r.interval = receipt.Lease, host, r.options.Interval
	if ttl, err := time.ParseDuration(receipt.TTL); err == nil && ttl > 0 && ttl < r.options.TTL {
		r.interval = min(r.interval, ttl/3)
	}
	return nil
}

// host is what the registry is to know of the host at an address.
func (r *registrar) host(address netip.Addr) client.Registration {
	host := r.options.Host
	host.Address, host.TTL, host.Draining = address, r.options.TTL.String(), r.leaving || r.unwell.Load()
	return host
}

// newID is the host's name if it has none yet. It stays, should the address
// change.
func (r *registrar) newID(address netip.Addr) string {
	if r.options.ID != "" {
		return r.options.ID
	}
	return netip.AddrPortFrom(address, r.options.Host.Port).String()
}

// leave takes the host out, if it may be in: for drain it is draining, unless
// ctx ends before, and then it is deregistered. A registry that does not answer
// holds up nothing of that longer than callTimeout and deregisterTimeout.
func (r *registrar) leave(ctx context.Context, drain time.Duration) {
	if r.id == "" {
		return
	}
	r.leaving = true
	draining, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	r.keepRegistered(draining)
	r.deregister()
}

// deregisterTimeout bounds a deregistration. Each registry has an equal share of
// it.
const deregisterTimeout = 3 * time.Second

// deregister takes the host out. It tries once.
func (r *registrar) deregister() {
	share := deregisterTimeout / time.Duration(r.discovery.Len())
	err := r.discovery.Insist(func(registry *client.Registry) error {
		ctx, cancel := context.WithTimeout(context.Background(), share)
		defer cancel()
		err := registry.Remove(ctx, r.options.Service, r.id, r.lease)
		if client.IsUnknown(err) { // it is out already, or registered by somebody else
			return nil
		}
		return err
	})
	if err != nil {
		r.log.Error("not deregistered; if it is still registered, that ends with the ttl", "id", r.id, "ttl", r.options.TTL.String(), "error", err)
		return
	}
	r.log.Info("deregistered", "id", r.id)
}

// target is where others reach the host, as seen from the registry that is asked
// first.
func (r *registrar) target(ctx context.Context) (netip.AddrPort, error) {
	address, err := r.address(ctx, r.discovery.First())
	return netip.AddrPortFrom(address, r.options.Host.Port), err
}

// address is where the host is: as told, or where calls to a registry come from.
func (r *registrar) address(ctx context.Context, registry *client.Registry) (netip.Addr, error) {
	if r.options.Host.Address.IsValid() {
		return r.options.Host.Address, nil
	}
	u, err := url.Parse(registry.Base)
	if err != nil {
		return netip.Addr{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout) // for its name to be looked up
	defer cancel()
	// Nothing is sent: connecting a UDP socket only chooses the way, and any
	// port will do.
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), "80"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", registry.Base, err)
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", registry.Base, err)
	}
	return local.Addr().Unmap().WithZone(""), nil
}
