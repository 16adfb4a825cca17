package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// variablePrefix begins the environment variables that stand for flags.
const variablePrefix = "DISCOVERY_AGENT_"

// variable is the environment variable that stands for a flag.
func variable(name string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// lines is a flag that may be given several times, and whose variable has one
// value a line.
type lines []string

// String is part of flag.Value.
func (l *lines) String() string { return "" }

// Set is part of flag.Value.
func (l *lines) Set(text string) error {
	*l = append(*l, text)
	return nil
}

// newFlags makes the flags of a subcommand, without any.
func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// aliases are flags of former releases, and what they are called now. They have
// no variables.
var aliases = map[string]string{"ip": "address", "instance-id": "id", "az": "zone"}

// readFlags reads flags from arguments, and those which are not there from their
// variables, if fromVariable says that they may. It returns what stands after
// the flags. The error is flag.ErrHelp or says all that is wrong; whole is false
// if a flag was not understood at all, so that nothing is known of what follows.
// Unread are the flags whose values were not, which may be anything.
func readFlags(f *flag.FlagSet, arguments []string, fromVariable func(name string) bool) (rest, unread []string, whole bool, err error) {
	f.VisitAll(func(one *flag.Flag) {
		one.Value = noting{one.Value, func() { unread = append(unread, one.Name) }}
	})
	var errs []error
	for {
		known := len(unread)
		err := f.Parse(arguments)
		if err == nil {
			break
		}
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil, false, err
		}
		errs = append(errs, err)
		if len(unread) == known { // else the value was read over
			return nil, nil, false, errors.Join(errs...)
		}
		arguments = f.Args()
	}
	given := map[string]bool{}
	f.Visit(func(one *flag.Flag) { given[one.Name], given[aliases[one.Name]] = true, true })
	f.VisitAll(func(one *flag.Flag) {
		if !given[one.Name] && aliases[one.Name] == "" && fromVariable(one.Name) {
			if err := readVariable(one); err != nil {
				errs = append(errs, err)
			}
		}
	})
	return f.Args(), unread, true, errors.Join(errs...)
}

// noting is the value of a flag that tells when a text cannot be read as one.
type noting struct {
	flag.Value
	unread func()
}

// Set is part of flag.Value.
func (n noting) Set(text string) error {
	err := n.Value.Set(text)
	if err != nil {
		n.unread()
	}
	return err
}

// IsBoolFlag reports whether the flag may stand without a value, as package flag asks.
func (n noting) IsBoolFlag() bool {
	is, ok := n.Value.(interface{ IsBoolFlag() bool })
	return ok && is.IsBoolFlag()
}

// readVariable sets a flag, whose value is noting, by its variable, if that is there.
// An empty one is not.
func readVariable(one *flag.Flag) error {
	name := variable(one.Name)
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	values := []string{text}
	if _, several := one.Value.(noting).Value.(*lines); several {
		values = strings.Split(strings.TrimSpace(text), "\n")
	}
	for _, value := range values {
		if err := one.Value.Set(value); err != nil {
			return fmt.Errorf("environment variable %s=%q: %w", name, value, err)
		}
	}
	return nil
}

// strangeVariables are those of environment ("NAME=value" lines, as os.Environ
// gives them) that look like the agent's, and stand for no flag of any
// subcommand.
func strangeVariables(environment []string) (strange []string) {
	known := map[string]bool{}
	for _, s := range subcommands() {
		f := newFlags(s.name)
		s.action().declare(f)
		f.VisitAll(func(one *flag.Flag) {
			if aliases[one.Name] == "" && s.fromVariable(one.Name) {
				known[variable(one.Name)] = true
			}
		})
	}
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, variablePrefix) && !known[name] {
			strange = append(strange, name)
		}
	}
	return strange
}

// connection is the flags by which the registry is reached, which every
// subcommand has.
type connection struct {
	registries string
	options    client.Options
}

func (c *connection) declare(f *flag.FlagSet) {
	f.StringVar(&c.registries, "discovery", "http://127.0.0.1:8090", "`URLs` of discovery's HTTP listeners, by commas; one after another is tried, first the last that answered")
	f.StringVar(&c.options.TokenFile, "token-file", "", "`file` of the bearer token to call with; read again for each call")
	f.StringVar(&c.options.CA, "ca", "", "`file` of the certificates, in PEM, that discovery's may be signed by (default: those of the system)")
	f.StringVar(&c.options.Cert, "cert", "", "`file` of the certificate to show to discovery, in PEM; read again for each connection")
	f.StringVar(&c.options.Key, "key", "", "`file` of its key")
}

// isConnection reports whether a flag is one of connection's.
func isConnection(name string) bool {
	f := newFlags("")
	(&connection{}).declare(f)
	return f.Lookup(name) != nil
}

// check completes options, and says all that is wrong.
func (c *connection) check() error {
	c.options.Registries = strings.Split(c.registries, ",")
	discovery, err := client.New(c.options)
	if err != nil {
		return fmt.Errorf("--discovery, --token-file, --ca, --cert, --key: %w", err)
	}
	discovery.Close()
	return nil
}
