package agent

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/setting"
)

const runHelp = `
Starts the program, registers it once its check passes, and beats. Where a
registry does not know it any more it is registered again at once.

A registered program whose check fails --check-failures times in a row is
drained: others give it no new work until the check passes again. It is never
deregistered for that, so check the program itself and not what it depends on,
or one thing that is down drains all.

At SIGTERM or SIGINT the program is drained for --drain, then deregistered, and
only then gets the signal; a second signal is passed on at once, as all others
are. A registry that is away does not hold that up for long. The agent ends when
the program does, with its exit code. If the agent is killed, the beats end, and
discovery drops the program after --ttl; Linux sends the program a SIGTERM.

A program whose port is answered before it was started is not started, with exit
code 127: that would register somebody else.
`

// runAction is run.
type runAction struct {
	connection
	options Options

	// These are flags as they were written.
	address                     string
	auto                        bool
	port, weight                uint
	additional, portNames, tags lines
	checkText                   string
	hostsOf                     string
}

// declare implements action.
func (a *runAction) declare(f *flag.FlagSet) {
	o, h := &a.options, &a.options.Host
	f.StringVar(&o.Service, "service", "", "`name` of the service that the program is one of; required")
	f.UintVar(&a.port, "port", 0, "`port` on which the program takes requests; required")
	f.Var(&a.portNames, "port-name", "further port, as `name=port`; may be given several times")
	f.StringVar(&a.address, "address", "", "`address` at which others reach the program (default: that from which this machine reaches discovery)")
	f.StringVar(&a.address, "ip", "", "`address`: another name of --address")
	f.BoolVar(&a.auto, "auto", false, "take the address from which this machine reaches discovery; so it is without --address too")
	f.Var(&a.additional, "additional-address", "further `address` with the same ports, such as that of the other family; may be given several times")
	f.StringVar(&o.ID, "id", "", "`name` of the program among the hosts of the service (default: its address and port, such as 10.0.0.1:8080)")
	f.StringVar(&o.ID, "instance-id", "", "`name`: another name of --id")
	f.StringVar(&h.Zone, "zone", "", "`name` of the zone")
	f.StringVar(&h.Zone, "az", "", "`name`: another name of --zone")
	f.StringVar(&h.Region, "region", "", "`name` of the region")
	f.StringVar(&h.Revision, "revision", "unknown", "`text` that says which build of the program it is")
	f.StringVar(&h.Repo, "repo", "", "`name` of the repository, by which hosts can be listed too")
	f.UintVar(&a.weight, "weight", 0, "`number` from 1 to 100, its share of the work beside the others'; 0 says nothing of it")
	f.BoolFunc("canary", "the program is a canary, or with --canary=false it is none", func(text string) error {
		canary, err := strconv.ParseBool(text)
		h.Canary = &canary
		return err
	})
	f.Var(&a.tags, "tag", "further tag, as `name=text`, or name:=JSON for any other value; may be given several times")
	f.DurationVar(&o.TTL, "ttl", 30*time.Second, "`time` after which discovery drops the program if no beat comes, in whole seconds")
	f.DurationVar(&o.Interval, "interval", 0, "`time` between beats (default: a third of --ttl)")
	f.StringVar(&a.checkText, "check", "tcp", "`how` to see whether the program takes work: tcp for a connection to its port, the URL of a GET that is to be answered with 2xx, or none")
	f.DurationVar(&o.Check.Interval, "check-interval", 2*time.Second, "`time` between checks of a program that is registered")
	f.IntVar(&o.Check.Failures, "check-failures", 3, "`number` of checks that must fail in a row for the program to be drained")
	f.DurationVar(&o.Drain, "drain", 5*time.Second, "`time` that a program which is to end is drained before it is deregistered")
	f.StringVar(&o.HostsFile, "hosts-file", "", "`file` to keep the hosts of the services of --hosts-of in, as watch does")
	f.StringVar(&a.hostsOf, "hosts-of", "", "`names` of services, by commas")
	a.connection.declare(f)
}

// check completes the options.
func (a *runAction) check(rest []string) error {
	o, h := &a.options, &a.options.Host
	var faults faults
	faults.add(a.connection.check())
	o.Discovery = a.connection.options
	if o.Service == "" {
		faults.addf("--service: missing")
	}
	if a.port < 1 || a.port > 65535 {
		faults.addf("%v: not from 1 to 65535", setting.Flag("port", a.port))
	}
	h.Port = uint16(a.port)
	if a.address != "" {
		h.Address = faults.address("--address", a.address)
		if a.auto {
			faults.addf("--address and --auto: only one of them")
		}
	}
	for _, text := range a.additional {
		h.AdditionalAddresses = append(h.AdditionalAddresses, faults.address("--additional-address", text))
	}
	if a.weight > 100 {
		faults.addf("%v: not from 1 to 100, or 0 for none", setting.Flag("weight", a.weight))
	}
	h.Weight = uint8(min(a.weight, 100))
	faults.add(a.checkPorts())
	faults.add(a.checkTags())
	faults.add(a.checkTimes())
	faults.add(a.checkCheck())
	if a.hostsOf != "" {
		o.HostsOf = strings.Split(a.hostsOf, ",")
	}
	if (o.HostsFile == "") != (a.hostsOf == "") {
		faults.addf("--hosts-file and --hosts-of: only one of them is given")
	} else if o.HostsFile != "" {
		faults.add(checkServices("--hosts-of", o.HostsOf))
	}
	if o.Command = rest; len(rest) == 0 {
		faults.addf("no program: it stands after --")
	}
	return faults.join()
}

// do implements action.
func (a *runAction) do(p process) int {
	return Run(a.options, p.signals, p.stdout, p.stderr, p.log)
}

// checkPorts reads --port-name.
func (a *runAction) checkPorts() error {
	var faults faults
	for _, text := range a.portNames {
		name, number, _ := strings.Cut(text, "=")
		port, err := strconv.ParseUint(number, 10, 16)
		switch {
		case name == "" || err != nil || port == 0:
			faults.addf("--port-name %q: not a name and a port from 1 to 65535, such as http=8080", text)
			continue
		case a.options.Host.Ports[name] != 0:
			faults.addf("--port-name %q: %s is there twice", text, name)
		case a.options.Host.Ports == nil:
			a.options.Host.Ports = map[string]uint16{}
		}
		a.options.Host.Ports[name] = uint16(port)
	}
	return faults.join()
}

// ownFlags are names that no tag has: that of the flag which says it.
var ownFlags = map[string]string{
	"az": "--zone", "region": "--region", "instance_id": "--id", "canary": "--canary", "load_balancing_weight": "--weight",
}

// checkTags reads --tag.
func (a *runAction) checkTags() error {
	var faults faults
	tags := map[string]json.RawMessage{}
	for _, text := range a.tags {
		name, value, found := strings.Cut(text, "=")
		name, isJSON := strings.CutSuffix(name, ":")
		if !found || name == "" {
			faults.addf("--tag %q: neither name=text nor name:=JSON", text)
			continue
		}
		if own := ownFlags[name]; own != "" {
			faults.addf("--tag %q: it has a flag of its own, %s", text, own)
			continue
		}
		if tags[name] != nil {
			faults.addf("--tag %q: %s is there twice", text, name)
		}
		tags[name] = json.RawMessage(value)
		if !isJSON {
			tags[name], _ = json.Marshal(value) // text always can be
		} else if !json.Valid(tags[name]) {
			faults.addf("--tag %q: what stands after := is not JSON", text)
		}
	}
	if len(tags) > 0 {
		a.options.Host.Tags = tags
	}
	return faults.join()
}

// leastInterval is the least time between beats, and between checks: a lower one
// commonly forgot its unit.
const leastInterval = 10 * time.Millisecond

// checkTimes completes times.
func (a *runAction) checkTimes() error {
	o := &a.options
	var faults faults
	if o.TTL < time.Second || o.TTL%time.Second != 0 {
		faults.addf("%v: not whole seconds", setting.Flag("ttl", o.TTL))
	}
	if o.Interval == 0 {
		o.Interval = o.TTL / 3
	}
	if o.Interval < leastInterval || o.Interval >= o.TTL {
		faults.addf("%v: not from %v to below %v", setting.Flag("interval", o.Interval), leastInterval, setting.Flag("ttl", o.TTL))
	}
	if o.Drain < 0 {
		faults.addf("%v: below 0", setting.Flag("drain", o.Drain))
	}
	if o.Check.Interval < leastInterval {
		faults.addf("%v: below %v", setting.Flag("check-interval", o.Check.Interval), leastInterval)
	}
	if o.Check.Failures < 1 {
		faults.addf("%v: below 1", setting.Flag("check-failures", o.Check.Failures))
	}
	return faults.join()
}

// checkCheck reads --check.
func (a *runAction) checkCheck() error {
	c := &a.options.Check
	switch a.checkText {
	case "tcp":
		c.Kind = CheckTCP
		return nil
	case "none":
		c.Kind = CheckNone
		return nil
	}
	u, err := url.Parse(a.checkText)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("--check %q: not tcp, none or a URL such as http://127.0.0.1:8080/healthz", a.checkText)
	}
	c.Kind, c.URL = CheckHTTP, a.checkText
	return nil
}

// mostServices bounds the services that one agent watches: each has a call of
// its own under way.
const mostServices = 256

// checkServices looks at the names of services to watch.
func checkServices(name string, services []string) error {
	var faults faults
	if len(services) == 0 {
		faults.addf("%s: missing", name)
	}
	if len(services) > mostServices {
		faults.addf("%s: %d services, above %d", name, len(services), mostServices)
	}
	for i, service := range services {
		if service == "" {
			faults.addf("%s: a name is empty", name)
		} else if slices.Contains(services[:i], service) {
			faults.addf("%s: %s is there twice", name, service)
		}
	}
	return faults.join()
}

// faults gathers what is wrong with a command line.
type faults []error

func (f *faults) addf(format string, args ...any) { f.add(setting.Faultf(format, args...)) }

func (f *faults) add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

func (f *faults) join() error { return errors.Join(*f...) }

// address reads the address of a host.
func (f *faults) address(name, text string) netip.Addr {
	address, err := netip.ParseAddr(text)
	if err != nil || address.IsUnspecified() || address.Zone() != "" {
		f.addf("%s %q: not the address of a host", name, text)
	}
	return address.Unmap()
}
