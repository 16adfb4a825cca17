package agent

import (
	"flag"
	"os"
	"syscall"
)

const watchHelp = `
Keeps a file of the hosts of services, as JSON, for readers on this machine that
do not ask discovery themselves, or want to know hosts while it is away:

  {"format": "weir-discovery-known-hosts", "version": 1, "written": TIME,
   "services": {NAME: {"index": TEXT, "as_of": TIME, "hosts": […], "draining": […]}}}

hosts take work, draining ones finish what they have; each is as discovery's API
lists it. The file is replaced as a whole when a service changes. as_of is when
discovery last said so: up to half a minute ago while nothing changes, longer ago
while discovery does not answer. No list is emptied or taken back then, nor if
discovery has lost its memory; and it outlives a restart of this agent. A service
that discovery has never known is not in it.

It ends at SIGTERM or SIGINT.
`

// watchAction is watch.
type watchAction struct {
	connection
	services lines
	file     string
}

// declare implements action.
func (a *watchAction) declare(f *flag.FlagSet) {
	f.Var(&a.services, "service", "`name` of a service to watch; may be given several times; required")
	f.StringVar(&a.file, "file", "", "`file` to keep, in a directory that can be written to; required")
	a.connection.declare(f)
}

// check implements action.
func (a *watchAction) check(rest []string) error {
	var faults faults
	faults.add(a.connection.check())
	faults.add(checkServices("--service", a.services))
	if a.file == "" {
		faults.addf("--file: missing")
	}
	faults.nothingAfter(rest)
	return faults.join()
}

// do implements action.
func (a *watchAction) do(p process) int {
	stop, err := watchHosts(Options{Discovery: a.options, HostsFile: a.file, HostsOf: a.services}, p.log)
	if err != nil {
		p.log.Error("hosts are not watched", "error", err)
		return notDone
	}
	defer stop()
	for s := range p.signals {
		if s == syscall.SIGTERM || s == os.Interrupt {
			return done
		}
	}
	return done
}
