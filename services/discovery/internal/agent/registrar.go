package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// registrar keeps one host registered.
type registrar struct {
	options Options
	log     *slog.Logger
	client  *http.Client
	// current is which of options.Discovery is asked first: the last that
	// answered.
	current int
	// ip is where the last beat that may have been taken said that the host is;
	// invalid when there is nothing to deregister.
	ip netip.Addr
}

// beatTimeout bounds one call to one discovery, and so how long a stop waits
// for the beat that it meets.
const beatTimeout = 3 * time.Second

// retryShortest and retryLongest are the times between beats that are not
// taken: the longer it lasts, the longer. One that is refused waits up to
// refusedLongest, since somebody must change something first. None waits longer
// than one that is taken.
const (
	retryShortest  = 250 * time.Millisecond
	retryLongest   = 2 * time.Second
	refusedLongest = time.Minute
)

func newRegistrar(o Options, log *slog.Logger) *registrar {
	return &registrar{options: o, log: log, client: &http.Client{Timeout: min(beatTimeout, o.TTL)}}
}

// portInterval is the time between two tries of the program's port; after
// portPatience it is said once that it does not answer.
const (
	portInterval = 50 * time.Millisecond
	portPatience = 10 * time.Second
)

// awaitPort waits until the program takes connections where others will make
// them, and reports whether it does before ctx ends.
func (r *registrar) awaitPort(ctx context.Context) bool {
	begin, said := time.Now(), false
	for {
		err := r.tryPort(ctx)
		if err == nil {
			return true
		}
		if !said && time.Since(begin) > portPatience {
			said = true
			r.log.Warn("the program is not registered yet: its port does not answer", "service", r.options.Service, "error", err)
		}
		if !sleep(ctx, portInterval) {
			return false
		}
	}
}

// portTryout bounds the look at the port before the program is started.
const portTryout = time.Second

// portIsTaken reports whether somebody takes connections where the program
// will. That one would be registered in its place, also after the program has
// ended for want of its port. An address that this machine does not have, such
// as that of a NAT, may be answered by what stands there, and is not asked.
func (r *registrar) portIsTaken() bool {
	ctx, cancel := context.WithTimeout(context.Background(), portTryout)
	defer cancel()
	ip, err := r.address(ctx, r.options.Discovery[r.current])
	if err != nil { // awaitPort says so, if it lasts
		return false
	}
	// Only an own address can be bound.
	own, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return false
	}
	_ = own.Close()
	return r.tryPort(ctx) == nil
}

// tryPort connects to the program once.
func (r *registrar) tryPort(ctx context.Context) error {
	ip, err := r.address(ctx, r.options.Discovery[r.current])
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(ip, r.options.Port).String())
	if err != nil {
		return err
	}
	return c.Close()
}

// keepRegistered beats until ctx ends, and returns beatTimeout after that at
// the latest. Only a change of what comes of it is logged.
func (r *registrar) keepRegistered(ctx context.Context) {
	retry := retryShortest
	last := "" // what the last beat failed with
	registered := false
	for {
		err := r.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := r.options.Interval
		if err == nil {
			if !registered || last != "" {
				r.log.Info("registered", "service", r.options.Service, "ip", r.ip, "port", r.options.Port, "discovery", r.options.Discovery[r.current])
			}
			registered, last, retry = true, "", retryShortest
		} else {
			if err.Error() != last {
				r.log.Error("not registered, trying on", "service", r.options.Service, "error", err)
			}
			last = err.Error()
			wait = min(retry, r.options.Interval)
			retry = nextRetry(retry, err)
		}
		if !sleep(ctx, jitter(wait)) {
			return
		}
	}
}

// nextRetry is the time to wait after the next beat that is not taken, if it
// was last after one that failed with err.
func nextRetry(last time.Duration, err error) time.Duration {
	if isRefusal(err) {
		return min(2*last, refusedLongest)
	}
	return min(2*last, retryLongest)
}

// jitter returns d more or less a tenth, so that programs started together do
// not beat together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// beat registers the host with the first discovery that answers. No call begins
// once ctx has ended, but one that has begun then is let finish: discovery may
// be about to take it, in its own time if it were given up here, and so after
// the deregistration that follows.
func (r *registrar) beat(ctx context.Context) error {
	return r.each(func(base string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ip, err := r.address(ctx, base)
		if err != nil {
			return err
		}
		target := base + "/v1/registration/" + url.PathEscape(r.options.Service)
		err = r.call(context.WithoutCancel(ctx), http.MethodPost, target, r.form(ip))
		if !isRefusal(err) && !isUnsent(err) {
			r.ip = ip
		}
		return err
	})
}

// deregisterTimeout bounds a deregistration; with beatTimeout that is how much
// longer a program that ends may take. Each discovery has an equal share of it.
const deregisterTimeout = 3 * time.Second

// deregister takes the host out, if it may be in. It tries once.
func (r *registrar) deregister() {
	if !r.ip.IsValid() {
		return
	}
	ip := r.ip
	r.ip = netip.Addr{}
	share := deregisterTimeout / time.Duration(len(r.options.Discovery))
	err := r.each(func(base string) error {
		ctx, cancel := context.WithTimeout(context.Background(), share)
		defer cancel()
		target := fmt.Sprintf("%s/v1/registration/%s/%s?port=%d",
			base, url.PathEscape(r.options.Service), url.PathEscape(ip.String()), r.options.Port)
		return r.call(ctx, http.MethodDelete, target, nil)
	})
	if err != nil {
		// It may never have been in, or be out already.
		r.log.Error("not deregistered; if it is still registered, that ends with the ttl", "service", r.options.Service, "ttl", r.options.TTL.String(), "error", err)
		return
	}
	r.log.Info("deregistered", "service", r.options.Service, "ip", ip, "port", r.options.Port)
}

// each calls try with one discovery after another until one does not fail. The
// error joins all.
func (r *registrar) each(try func(base string) error) error {
	var errs []error
	for range r.options.Discovery {
		err := try(r.options.Discovery[r.current])
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		r.current = (r.current + 1) % len(r.options.Discovery)
	}
	return errors.Join(errs...)
}

// address is where the host is: as told, or where calls to base come from.
func (r *registrar) address(ctx context.Context, base string) (netip.Addr, error) {
	if r.options.IP.IsValid() {
		return r.options.IP, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return netip.Addr{}, err
	}
	// Nothing is sent: connecting a UDP socket only chooses the way, and any
	// port will do.
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), "80"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", base, err)
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", base, err)
	}
	return local.Addr().Unmap().WithZone(""), nil
}

// form is a beat's body.
func (r *registrar) form(ip netip.Addr) url.Values {
	o := &r.options
	tags := maps.Clone(o.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags["az"], tags["region"], tags["instance_id"] = o.Zone, o.Region, o.InstanceID
	text, _ := json.Marshal(tags) // text by text always can be
	return url.Values{
		"ip":                {ip.String()},
		"port":              {strconv.Itoa(int(o.Port))},
		"revision":          {o.Revision},
		"service_repo_name": {o.Repo},
		"tags":              {string(text)},
		"ttl":               {strconv.Itoa(int(o.TTL / time.Second))},
	}
}

// call makes one call and wants a status of 2xx.
func (r *registrar) call(ctx context.Context, method, target string, form url.Values) error {
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	// Read to its end, so that the connection is used again.
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode/100 != 2 {
		return &statusError{response.StatusCode, fmt.Sprintf("%s %s: %s: %s", method, target, response.Status, strings.TrimSpace(string(body)))}
	}
	return nil
}

// statusError is an answer with another status than 2xx.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// isRefusal reports whether discovery understood a call and will not do it: the
// same call will be refused again. Of several discoveries one is enough.
func isRefusal(err error) bool {
	answer, ok := errors.AsType[*statusError](err)
	return ok && answer.status/100 == 4
}

// isUnsent reports whether a call had no connection to be sent on.
func isUnsent(err error) bool {
	network, ok := errors.AsType[*net.OpError](err)
	return ok && network.Op == "dial"
}
