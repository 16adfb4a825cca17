// Package check is the command discovery check: it tells what is wrong with the
// files of resources for xDS clients, with the template of clusters and with the
// rules of secrets, and what would be served by them. The app lists it as a
// command. It judges with the code of the service, so that both agree, and
// neither serves nor changes anything.
package check

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// Usage is what the command is called with.
const Usage = "check DIR [--template FILE] [--secret-rules FILE]"

const help = `discovery ` + Usage + `

Say all that is wrong with the files of resources below DIR, as
DISCOVERY_XDS_RESOURCES takes them, and what is served of each type.

  --template FILE      check a template of clusters too (DISCOVERY_XDS_CLUSTER_TEMPLATE)
  --secret-rules FILE  check the rules of secrets too (DISCOVERY_XDS_SECRET_RULES)

Exit code 0: nothing is wrong, though there may be warnings; 1: something is;
2: the command line is wrong, or DIR or a file cannot be read.
`

// The exit codes.
const (
	fine     = 0
	found    = 1
	unusable = 2
)

// Main runs the command with the arguments behind its name and returns the exit
// code. What is found goes to stdout, why it cannot work to stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("discovery check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	template := flags.String("template", "", "")
	rules := flags.String("secret-rules", "", "")
	words, err := parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return fine
	case err == nil && len(words) != 1:
		err = fmt.Errorf("want one DIR, not %q", words)
	}
	if err != nil {
		fmt.Fprintf(stderr, "discovery check: %v; --help shows what there is\n", err)
		return unusable
	}
	c := &checking{stdout: stdout}
	c.directory(words[0])
	c.template(*template)
	c.secrets(*rules)
	if c.unreadable != nil {
		fmt.Fprintf(stderr, "discovery check: %v\n", c.unreadable)
		return unusable
	}
	return c.sum()
}

// parse parses flags wherever they stand, and returns the other words.
func parse(flags *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return words, nil
		}
		words = append(words, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

// checking is one run of the command.
type checking struct {
	stdout     io.Writer
	status     resourcefiles.Status
	faults     int
	warnings   int
	unreadable error
}

// fault tells what is wrong, a line each.
func (c *checking) fault(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintln(c.stdout, line)
		c.faults++
	}
}

func (c *checking) warn(text string) {
	fmt.Fprintln(c.stdout, "warning: "+text)
	c.warnings++
}

// directory reads the files of resources.
func (c *checking) directory(path string) {
	c.status, c.unreadable = resourcefiles.Read(resourcefiles.Options{Directory: filewatch.File{Setting: "DIR", Path: path}})
	if c.unreadable != nil {
		return
	}
	for _, f := range c.status.Files {
		for _, fault := range f.Faults {
			c.fault(fault)
		}
	}
	if len(c.status.Files) == 0 {
		c.warn("no file in " + path + " whose name ends in .yaml, .yml or .json")
	}
	for _, warning := range c.status.Warnings {
		c.warn(warning)
	}
}

// template reads the template of clusters, if there is one.
func (c *checking) template(path string) {
	text := c.file("--template", path)
	if text == nil {
		return
	}
	if _, err := resources.ReadTemplate(path, text); err != nil {
		c.fault(err.Error())
	}
}

// secrets reads the rules of secrets, if there are any, and tells of secrets that
// are for nobody.
func (c *checking) secrets(path string) {
	text := c.file("--secret-rules", path)
	if c.unreadable != nil {
		return
	}
	rules := &resourcefiles.SecretRules{}
	if text != nil {
		var err error
		if rules, err = resourcefiles.ReadSecretRules(path, text); err != nil {
			c.fault(err.Error())
			return
		}
	}
	for _, name := range c.status.Resources[resources.Secrets.String()] {
		if !rules.Named(name) {
			c.warn(fmt.Sprintf("the secret %q is for nobody: no rule names it", name))
		}
	}
}

// file reads a file, nil if there is none to read.
func (c *checking) file(flag, path string) []byte {
	if path == "" || c.unreadable != nil {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		c.unreadable = fmt.Errorf("%s: %w", flag, err)
		return nil
	}
	return text
}

// sum tells what is served, and how much is wrong.
func (c *checking) sum() int {
	good := 0
	for _, f := range c.status.Files {
		if f.State == resourcefiles.Good {
			good++
		}
	}
	for t := range resources.Types {
		if names := c.status.Resources[t.String()]; len(names) > 0 {
			fmt.Fprintf(c.stdout, "%s: %s\n", t, quoted(names))
		}
	}
	fmt.Fprintf(c.stdout, "%s, %s, %s\n", plural(good, "good file"), plural(c.faults, "fault"), plural(c.warnings, "warning"))
	if c.faults > 0 {
		return found
	}
	return fine
}

// maxNames is how many names of a type are printed.
const maxNames = 20

// quoted is names with commas between, the first few of them.
func quoted(names []string) string {
	var list []string
	for _, name := range names[:min(len(names), maxNames)] {
		list = append(list, fmt.Sprintf("%q", name))
	}
	text := strings.Join(list, ", ")
	if more := len(names) - len(list); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// plural is "1 fault", "2 faults".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
