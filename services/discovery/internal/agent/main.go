package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/weirproxy/weir/internal/daemon"
)

const usage = `discovery-agent runs a program and keeps it registered while it lives.

  discovery-agent run --service NAME --port PORT [flags] -- PROGRAM [ARGUMENT…]
  discovery-agent --version
  discovery-agent --help

It registers the program when its port answers, beats, and at SIGTERM or SIGINT
deregisters it, waits for --drain, and only then passes the signal on. It ends
when the program does, with its exit code. If it is killed, the beats end, and
discovery drops the program after --ttl; Linux sends the program a SIGTERM. A
program whose port is answered before it was started is not started, with exit
code 127.

Flags of run:

`

// wrongUsage is the exit code of a command line that cannot be understood.
const wrongUsage = 2

// Main is the command discovery-agent. It returns the exit code: the program's
// own, or 2 for a wrong command line.
func Main(args []string, version string) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		printFlags(os.Stdout)
		return 0
	case errors.Is(err, errVersion):
		fmt.Println("discovery-agent", daemon.Version(version))
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "discovery-agent: %v; --help shows what there is\n", err)
		return wrongUsage
	}
	log, err := daemon.Logger(os.Stderr, daemon.LogOptions{Level: "info"})
	if err != nil {
		fmt.Fprintf(os.Stderr, "discovery-agent: %v\n", err)
		return wrongUsage
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	return Run(o, signals, os.Stdout, os.Stderr, log)
}

// errVersion asks for the version.
var errVersion = errors.New("--version")

// values are the flags of run as they were written.
type values struct {
	discovery, ip string
	auto          bool
	port          uint
	tags          tagList
	options       Options
}

// parse reads the command line. The error is flag.ErrHelp, errVersion, or says
// all that is wrong.
func parse(args []string) (Options, error) {
	if len(args) == 0 {
		return Options{}, errors.New("no subcommand: run is the one there is")
	}
	switch first := args[0]; {
	case first == "run":
	case first == "--version", first == "-version":
		return Options{}, errVersion
	case first == "--help", first == "-help", first == "-h", first == "help":
		return Options{}, flag.ErrHelp
	case strings.HasPrefix(first, "-"):
		return Options{}, fmt.Errorf("unknown flag %s: those of run stand after it", first)
	default:
		return Options{}, fmt.Errorf("unknown subcommand %q: run is the one there is", args[0])
	}
	var v values
	flags := v.flags()
	if err := flags.Parse(args[1:]); err != nil {
		return Options{}, err
	}
	v.options.Command = flags.Args()
	return v.check()
}

// flags declares the flags of run.
func (v *values) flags() *flag.FlagSet {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o := &v.options
	f.StringVar(&v.discovery, "discovery", "http://127.0.0.1:8090", "`URLs` of discovery's REST listener, by commas; the first that answers is used")
	f.StringVar(&o.Service, "service", "", "`name` of the service that the program is one of; required")
	f.UintVar(&v.port, "port", 0, "`port` on which the program takes requests; required")
	f.StringVar(&v.ip, "ip", "", "`address` at which others reach the program")
	f.BoolVar(&v.auto, "auto", false, "take the address from which this machine reaches discovery; so it is without --ip too")
	f.StringVar(&o.InstanceID, "instance-id", "", "`name` that tells this program from others of the service on the same address (default: host name and port)")
	f.StringVar(&o.Revision, "revision", "unknown", "`text` that says which build of the program it is")
	f.StringVar(&o.Zone, "az", "", "`name` of the zone")
	f.StringVar(&o.Region, "region", "", "`name` of the region")
	f.StringVar(&o.Repo, "repo", "", "`name` of the repository, by which hosts can be listed too")
	f.Var(&v.tags, "tag", "further tag, as `key=value`; may be given several times")
	f.DurationVar(&o.TTL, "ttl", 30*time.Second, "`time` after which discovery drops the program if no beat comes, in whole seconds")
	f.DurationVar(&o.Interval, "interval", 0, "`time` between beats (default: a third of --ttl)")
	f.DurationVar(&o.Drain, "drain", time.Second, "`time` that the program runs on after it was deregistered")
	return f
}

// check turns the flags into Options, or says all that is wrong with them.
func (v *values) check() (Options, error) {
	o := v.options
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for base := range strings.SplitSeq(v.discovery, ",") {
		base = strings.TrimRight(strings.TrimSpace(base), "/")
		if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			fault("--discovery %q: not a URL such as http://127.0.0.1:8090", base)
		}
		o.Discovery = append(o.Discovery, base)
	}
	if o.Service == "" {
		fault("--service: missing")
	}
	if v.port < 1 || v.port > 65535 {
		fault("--port %d: not from 1 to 65535", v.port)
	}
	o.Port = uint16(v.port)
	if v.ip != "" {
		ip, err := netip.ParseAddr(v.ip)
		if err != nil || ip.IsUnspecified() {
			fault("--ip %q: not the address of a host", v.ip)
		}
		if v.auto {
			fault("--ip and --auto: only one of them")
		}
		o.IP = ip
	}
	if o.InstanceID == "" {
		o.InstanceID = instanceID(o.Port)
	}
	if o.TTL < time.Second || o.TTL%time.Second != 0 {
		fault("--ttl %v: not whole seconds", o.TTL)
	}
	if o.Interval == 0 {
		o.Interval = o.TTL / 3
	}
	if o.Interval <= 0 || o.Interval >= o.TTL {
		fault("--interval %v: not between 0 and --ttl %v", o.Interval, o.TTL)
	}
	if o.Drain < 0 {
		fault("--drain %v: below 0", o.Drain)
	}
	if len(o.Command) == 0 {
		fault("no program: it stands after --")
	}
	o.Tags = v.tags
	return o, errors.Join(errs...)
}

// tagList gathers --tag flags.
type tagList map[string]string

// String is part of flag.Value.
func (t *tagList) String() string { return "" }

// Set is part of flag.Value.
func (t *tagList) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return errors.New("not key=value")
	}
	switch key {
	case "az", "region", "instance_id":
		return fmt.Errorf("%s has a flag of its own", key)
	}
	if *t == nil {
		*t = tagList{}
	}
	(*t)[key] = value
	return nil
}

// printFlags writes the flags of run.
func printFlags(w io.Writer) {
	var v values
	flags := v.flags()
	flags.SetOutput(w)
	flags.PrintDefaults()
}
