package agent

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

const listHelp = `
Lists the hosts of a service: which are there, in what state, how long ago they
last beat. Without a service it lists all services, with how many hosts each has.

A state that is followed by "stale" is of a host whose beats are overdue and which
a guard of discovery holds.
`

// listTimeout bounds one call for a list to one registry.
const listTimeout = 30 * time.Second

// listAction is list.
type listAction struct {
	connection
	service, zone string
	json          bool
}

// declare implements action.
func (a *listAction) declare(f *flag.FlagSet) {
	f.StringVar(&a.service, "service", "", "`name` of the service, if it does not stand before the flags")
	f.StringVar(&a.zone, "zone", "", "`name` of a zone: list its hosts alone")
	f.BoolVar(&a.json, "json", false, "write JSON, as discovery's API has it")
	a.connection.declare(f)
}

// check implements action.
func (a *listAction) check(rest []string) error {
	var faults faults
	faults.add(a.connection.check())
	if a.service == "" && len(rest) > 0 {
		a.service, rest = rest[0], rest[1:]
	}
	faults.nothingAfter(rest)
	if a.zone != "" && a.service == "" {
		faults.addf("--zone: a service is missing")
	}
	return faults.join()
}

// do implements action.
func (a *listAction) do(p process) int {
	write := a.listServices
	if a.service != "" {
		write = a.listHosts
	}
	if err := write(p.stdout); err != nil {
		fmt.Fprintf(p.stderr, "discovery-agent list: %v\n", err)
		return notDone
	}
	return done
}

// listHosts writes the hosts of a service. A service that is not known is an
// error.
func (a *listAction) listHosts(w io.Writer) error {
	var list client.Hosts
	err := a.ask(listTimeout, func(ctx context.Context, registry *client.Registry) (err error) {
		list, err = registry.Hosts(ctx, a.service)
		return err
	})
	if err != nil {
		return err
	}
	if !list.Known {
		return fmt.Errorf("discovery does not know a service %q", a.service)
	}
	hosts := []client.Host{}
	for _, h := range list.Hosts {
		if a.zone == "" || h.Zone == a.zone {
			hosts = append(hosts, h)
		}
	}
	list.Hosts = hosts
	if a.json {
		return writeJSON(w, list)
	}
	table := newTable(w, "ID", "ADDRESS", "STATE", "AGE", "ZONE", "REVISION", "WEIGHT")
	for _, h := range hosts {
		table.line(h.ID, netip.AddrPortFrom(h.Address, h.Port).String(), state(h), age(h.LastCheckIn), h.Zone, h.Revision, weight(h.Weight))
	}
	return table.flush()
}

// listServices writes the index of services.
func (a *listAction) listServices(w io.Writer) error {
	var list client.Services
	err := a.ask(listTimeout, func(ctx context.Context, registry *client.Registry) (err error) {
		list, err = registry.Services(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return writeJSON(w, list)
	}
	table := newTable(w, "SERVICE", "HOSTS", "SERVING", "DRAINING", "OUT", "STALE", "CHANGED")
	for _, s := range list.Services {
		table.line(s.Name, strconv.Itoa(s.Hosts), strconv.Itoa(s.Serving), strconv.Itoa(s.Draining), strconv.Itoa(s.Out),
			strconv.Itoa(s.Stale), age(s.ChangedAt))
	}
	return table.flush()
}

func writeJSON(w io.Writer, list any) error {
	lines := json.NewEncoder(w)
	lines.SetIndent("", "  ")
	return lines.Encode(list)
}

// state tells a host's state to people.
func state(h client.Host) string {
	if h.Stale {
		return h.State + ", stale"
	}
	return h.State
}

// age is how long ago a time was, by this machine's clock.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return max(time.Since(t), 0).Round(time.Second).String()
}

func weight(w uint8) string {
	if w == 0 {
		return ""
	}
	return strconv.Itoa(int(w))
}

// table writes columns. A cell that is empty is a dash.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer, heads ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
	t.line(heads...)
	return t
}

// line writes one line. What hosts say of themselves is quoted where a terminal
// would take it for more than text.
func (t table) line(cells ...string) {
	for i, cell := range cells {
		if cell == "" {
			cells[i] = "-"
		} else if strings.ContainsFunc(cell, func(r rune) bool { return !unicode.IsPrint(r) }) {
			cells[i] = strconv.Quote(cell)
		}
	}
	fmt.Fprintln(t.Writer, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.Flush() }
