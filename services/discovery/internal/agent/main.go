package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/setting"
)

// Exit codes, beside those of the program that run runs.
const (
	done       = 0
	notDone    = 1 // discovery refused, or did not answer
	wrongUsage = 2 // the command line cannot be understood
)

// action is what a subcommand does.
type action interface {
	// declare declares its flags.
	declare(*flag.FlagSet)
	// check looks at the flags, once they are read, and at what stands after
	// them. The error says all that is wrong. What is wrong with flags that have a
	// type are setting.Faults, joined.
	check(rest []string) error
	// do does it and returns the exit code.
	do(p process) int
}

// process is what an action works in.
type process struct {
	signals        <-chan os.Signal
	stdout, stderr io.Writer
	log            *slog.Logger
}

// subcommand is a word that stands first on the command line.
type subcommand struct {
	name string
	// line is what stands after the name, and brief what it does, in a line.
	line, brief string
	// help tells more.
	help string
	// everywhere says that all of its flags can be given by variables, not those
	// of the connection alone: what an operator does stands on the command line.
	everywhere bool
	// named says that a name may stand before the flags, as well as after them.
	named  bool
	action func() action
}

func subcommands() []subcommand {
	return []subcommand{
		{"run", "--service NAME --port PORT [flags] -- PROGRAM [ARGUMENT…]", "run a program and keep it registered while it lives", runHelp, true, false, func() action { return &runAction{} }},
		{"watch", "--service NAME --file FILE [flags]", "keep a file of the hosts of services", watchHelp, true, false, func() action { return &watchAction{} }},
		{"drain", scopeLine + " --reason TEXT [flags]", "give hosts no new work", drainHelp, false, false, func() action { return &makeAction{kind: "drain"} }},
		{"maintenance", scopeLine + " --reason TEXT [flags]", "drain hosts that will be away, and do not expect their beats", maintenanceHelp, false, false, func() action { return &makeAction{kind: "maintenance"} }},
		{"up", scopeLine + " [flags]", "end drain and maintenance", upHelp, false, false, func() action { return &endAction{} }},
		{"list", "[SERVICE] [flags]", "list the hosts of a service, or all services", listHelp, false, true, func() action { return &listAction{} }},
	}
}

// fromVariable reports whether a flag can be given by its variable.
func (s *subcommand) fromVariable(name string) bool { return s.everywhere || isConnection(name) }

// Main is the command discovery-agent. It returns the exit code: the program's
// own for run, else 0 when what was wanted is done, 1 when it is not, 2 for a
// wrong command line.
func Main(args []string, version string) int {
	s, a, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(os.Stdout, s)
		return done
	case errors.Is(err, errVersion):
		fmt.Println("discovery-agent", daemon.Version(version))
		return done
	case err != nil:
		help := "--help"
		if s != nil {
			help = s.name + " " + help
		}
		fmt.Fprintf(os.Stderr, "discovery-agent: %v\ndiscovery-agent %s shows what there is\n", err, help)
		return wrongUsage
	}
	log, err := daemon.Logger(os.Stderr, daemon.LogOptions{Level: "info"})
	if err != nil {
		fmt.Fprintf(os.Stderr, "discovery-agent: %v\n", err)
		return wrongUsage
	}
	for _, name := range strangeVariables(os.Environ()) {
		log.Warn("environment variable stands for no flag", "name", name)
	}
	signals := make(chan os.Signal, 8)
	if s.everywhere { // others are ended by them
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
		defer signal.Stop(signals)
	}
	return a.do(process{signals: signals, stdout: os.Stdout, stderr: os.Stderr, log: log})
}

// errVersion asks for the version.
var errVersion = errors.New("--version")

// parse reads the command line. The error is flag.ErrHelp, errVersion, or says
// all that is wrong. The subcommand is nil if none is named.
func parse(args []string) (*subcommand, action, error) {
	if len(args) == 0 {
		return nil, nil, fmt.Errorf("no subcommand: %s", names())
	}
	first, rest := args[0], args[1:]
	switch first {
	case "--version", "-version":
		return nil, nil, errVersion
	case "--help", "-help", "-h":
		return nil, nil, flag.ErrHelp
	case "help":
		if len(rest) == 0 {
			return nil, nil, flag.ErrHelp
		}
		first, rest = rest[0], []string{"--help"}
	}
	if strings.HasPrefix(first, "-") {
		return nil, nil, fmt.Errorf("unknown flag %s: flags stand after the subcommand", first)
	}
	for _, s := range subcommands() {
		if s.name != first {
			continue
		}
		a := s.action()
		f := newFlags(s.name)
		a.declare(f)
		if s.named && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			rest = append(slices.Clone(rest[1:]), rest[0])
		}
		rest, unread, whole, err := readFlags(f, rest, s.fromVariable)
		if whole {
			err = errors.Join(err, setting.Without(a.check(rest), unread))
		}
		return &s, a, err
	}
	return nil, nil, fmt.Errorf("unknown subcommand %q: %s", first, names())
}

// names tells the subcommands.
func names() string {
	var list []string
	for _, s := range subcommands() {
		list = append(list, s.name)
	}
	return "there are " + strings.Join(list, ", ")
}

// printHelp writes the help of a subcommand, or of all for nil.
func printHelp(w io.Writer, s *subcommand) {
	if s == nil {
		fmt.Fprint(w, "discovery-agent works with discovery for the programs and people of a machine.\n\n")
		for _, s := range subcommands() {
			fmt.Fprintf(w, "  discovery-agent %s %s\n        %s\n", s.name, s.line, s.brief)
		}
		fmt.Fprint(w, "\ndiscovery-agent SUBCOMMAND --help tells all of one; --version prints the version.\n\n")
		fmt.Fprint(w, "It ends with 0 when what was wanted is done, 1 when discovery refused or did not\nanswer, 2 when the command line is wrong, and run with the program's own code.\n")
		return
	}
	which := "--discovery, --token-file, --ca, --cert and --key can"
	if s.everywhere {
		which = "Each flag can"
	}
	fmt.Fprintf(w, "  discovery-agent %s %s\n\n%s\n%s be given by an environment variable too: --token-file is\n%s. Of flags that may be given several times it has one a line.\n\nFlags:\n\n",
		s.name, s.line, strings.TrimSpace(s.help)+"\n", which, variable("token-file"))
	f := newFlags(s.name)
	s.action().declare(f)
	f.SetOutput(w)
	f.PrintDefaults()
}
