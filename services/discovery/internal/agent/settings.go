package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// scopeLine is how the hosts of a setting are told.
const scopeLine = "[--service NAME] [--id ID | --zone NAME]"

const scopeHelp = `
They are one host (--service and --id), those of a zone (--zone, of one --service
or of all), or all of a --service.
`

const drainHelp = `
Has discovery tell others to give hosts no new work. They stay registered, whatever
they say themselves, until up takes that back or --for has passed.
` + scopeHelp

const maintenanceHelp = `
Drains hosts, as drain does, and has discovery not expect their beats: they stay
registered though they are away, until up takes that back or --for has passed.
` + scopeHelp

const upHelp = `
Ends what drain and maintenance have set for just these hosts. It is done too if
nothing was set.
` + scopeHelp

// settingTimeout bounds one call of an operator to one registry.
const settingTimeout = 5 * time.Second

// scope is the flags that tell the hosts of a setting.
type scope struct{ client.Scope }

func (s *scope) declare(f *flag.FlagSet) {
	f.StringVar(&s.Service, "service", "", "`name` of a service")
	f.StringVar(&s.ID, "id", "", "`name` of a host of the service, as list shows it")
	f.StringVar(&s.Zone, "zone", "", "`name` of a zone")
}

func (s *scope) check() error {
	var faults faults
	if s.Scope == (client.Scope{}) {
		faults.addf("--service, --id, --zone: none of them is given")
	}
	if s.ID != "" && s.Service == "" {
		faults.addf("--id %q: its --service is missing", s.ID)
	}
	if s.ID != "" && s.Zone != "" {
		faults.addf("--id and --zone: only one of them")
	}
	return faults.join()
}

// isMissing reports whether the scope is one host, and that is surely not
// registered: who may not list the service, or cannot now, is not told.
func (s *scope) isMissing(ctx context.Context, registry *client.Registry) bool {
	if s.ID == "" {
		return false
	}
	list, err := registry.Hosts(ctx, s.Service)
	return err == nil && !slices.ContainsFunc(list.Hosts, func(h client.Host) bool { return h.ID == s.ID })
}

// String tells the hosts to people.
func (s *scope) String() string {
	switch {
	case s.ID != "":
		return fmt.Sprintf("host %s of %s", s.ID, s.Service)
	case s.Service == "":
		return "zone " + s.Zone
	case s.Zone != "":
		return fmt.Sprintf("zone %s of %s", s.Zone, s.Service)
	}
	return "all hosts of " + s.Service
}

// makeAction is drain or maintenance.
type makeAction struct {
	connection
	scope
	kind           string
	reason, author string
	duration       time.Duration
}

// declare implements action.
func (a *makeAction) declare(f *flag.FlagSet) {
	a.scope.declare(f)
	f.StringVar(&a.reason, "reason", "", "`text` for those who find the hosts so; required")
	f.DurationVar(&a.duration, "for", 0, "`time` after which that ends by itself (default: never)")
	f.StringVar(&a.author, "author", "", "`name` of who decides, where discovery does not know it by token or certificate (default: user and host name)")
	a.connection.declare(f)
}

// check implements action.
func (a *makeAction) check(rest []string) error {
	var faults faults
	faults.add(a.connection.check())
	faults.add(a.scope.check())
	if a.reason == "" {
		faults.addf("--reason: missing")
	}
	if a.duration < 0 || a.duration > 0 && a.duration < time.Second {
		faults.addf("%v: below a second", setting.Flag("for", a.duration))
	}
	if a.author == "" {
		a.author = author()
	}
	faults.nothingAfter(rest)
	return faults.join()
}

// do implements action.
func (a *makeAction) do(p process) int {
	setting := client.Setting{Scope: a.Scope, Author: a.author, Reason: a.reason}
	until := "up"
	if a.duration > 0 {
		setting.ExpiresIn = a.duration.String()
		until = a.duration.String() + " have passed"
	}
	missing := false
	err := a.ask(settingTimeout, func(ctx context.Context, registry *client.Registry) error {
		if err := registry.Make(ctx, a.kind, setting); err != nil {
			return err
		}
		missing = a.isMissing(ctx, registry)
		return nil
	})
	if err != nil {
		fmt.Fprintf(p.stderr, "discovery-agent %s: %s: %v\n", a.kind, &a.scope, err)
		return notDone
	}
	fmt.Fprintf(p.stdout, "%s: %s until %s\n", a.kind, &a.scope, until)
	if missing {
		fmt.Fprintf(p.stderr, "discovery-agent %s: warning: %s is not registered now; it is meant when it comes\n", a.kind, &a.scope)
	}
	return done
}

// endAction is up.
type endAction struct {
	connection
	scope
}

// declare implements action.
func (a *endAction) declare(f *flag.FlagSet) {
	a.scope.declare(f)
	a.connection.declare(f)
}

// check implements action.
func (a *endAction) check(rest []string) error {
	var faults faults
	faults.add(a.connection.check())
	faults.add(a.scope.check())
	faults.nothingAfter(rest)
	return faults.join()
}

// do implements action.
func (a *endAction) do(p process) int {
	ended := ""
	for _, kind := range []string{"drain", "maintenance"} {
		unknown := false
		err := a.ask(settingTimeout, func(ctx context.Context, registry *client.Registry) error {
			err := registry.End(ctx, kind, a.Scope)
			unknown = client.IsUnknown(err)
			if unknown {
				return nil
			}
			return err
		})
		if err != nil {
			fmt.Fprintf(p.stderr, "discovery-agent up: %s: %v\n", &a.scope, err)
			return notDone
		}
		if !unknown {
			ended += " " + kind
		}
	}
	if ended == "" {
		ended = " nothing, since there was nothing"
	}
	fmt.Fprintf(p.stdout, "up: %s: ended%s\n", &a.scope, ended)
	return done
}

// ask makes one call with the first registry that answers it, each within
// timeout.
func (c *connection) ask(timeout time.Duration, call func(context.Context, *client.Registry) error) error {
	discovery, err := client.New(c.options)
	if err != nil {
		return err
	}
	defer discovery.Close()
	return discovery.InTurn(func(registry *client.Registry) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return call(ctx, registry)
	})
}

// author is who decides if nobody says so.
func author() string {
	user, host := os.Getenv("USER"), "unknown"
	if user == "" {
		user = fmt.Sprintf("uid %d", os.Getuid())
	}
	if name, err := os.Hostname(); err == nil {
		host = name
	}
	return user + "@" + host
}

// nothingAfter adds a fault for arguments that stand after the flags.
func (f *faults) nothingAfter(rest []string) {
	if len(rest) > 0 {
		f.add(errors.New("there is nothing to stand after the flags: " + fmt.Sprintf("%q", rest)))
	}
}
