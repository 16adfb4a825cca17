// Package check is the tool ratelimit-check: it tells what is wrong with rule
// files, which rule a request's descriptors meet and why, and how two sets of
// rules differ. cmd/ratelimit-check calls Main. It judges with the code of the
// service, so that both agree, and it neither serves nor changes anything.
package check

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource/directory"
)

const usage = `ratelimit-check %s

  ratelimit-check check DIR
      say all that is wrong with the rule files below DIR
      exit code 0: nothing; 1: something, or there is no rule file

  ratelimit-check explain DIR -domain D -descriptor k=v,k=v [-descriptor …]
      say which rule each descriptor of one request meets and why, where its
      hits are counted, and what the rules do to one another
      exit code 0: said; 1: said, but something is wrong with the rule files

  ratelimit-check diff OLD NEW
      say which rules of the directory OLD are added, removed or changed in NEW
      exit code 0: none; 1: some

  ratelimit-check --version
  ratelimit-check --help

Exit code 2: the command line is wrong, a directory cannot be read, or diff
finds something wrong with the rule files.

Flags may stand anywhere after the command:

  -merge-domain-configs      several files may give rules of one domain, as with
                             MERGE_DOMAIN_CONFIG=true
  -ignore-dot-files=BOOL     leave out entries that begin with a dot, true by
                             default, as RUNTIME_IGNOREDOTFILES
  -key-prefix TEXT           explain: what CACHE_KEY_PREFIX is

A descriptor is a list of key=value. The first = parts key and value, a comma
ends the value. A backslash makes the character after it a part of the text:
  -descriptor 'path=/a\,b,user=alice'
A key or a value that begins with a quote is a text in quotes, in which \n, \t,
\", \\ and the like stand for what they do in Go, and nothing else is special:
  -descriptor 'path="/a,b",user=alice'

-config_dir DIR without a command is check DIR; -merge_domain_configs is
-merge-domain-configs.
`

// The exit codes.
const (
	fine     = 0
	found    = 1 // faults or differences
	unusable = 2 // the command line, or a directory
)

// Main runs the tool with its arguments and returns the exit code, 0, 1 or 2
// as --help says. What is found goes to stdout, why it cannot work to stderr.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	return guard(stderr, func() int { return run(args, version, stdout, stderr) })
}

// guard turns a panic into a line and an exit code. There should be none; but
// whoever checks rules before they go live has no use for a trace.
func guard(stderr io.Writer, run func() int) (code int) {
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintf(stderr, "ratelimit-check: this is a fault of the tool, not of the rules: %v\n", fault)
			code = unusable
		}
	}()
	return run()
}

// tool is one run: what the command line says, and where the words go.
type tool struct {
	stdout, stderr io.Writer
	// stats are those of all rules that are read.
	stats *limits.Stats

	configDir   string
	merge       bool
	ignoreDot   bool
	keyPrefix   string
	domain      string
	descriptors descriptorFlag
	version     bool
}

func run(args []string, version string, stdout, stderr io.Writer) int {
	t := &tool{stdout: stdout, stderr: stderr, stats: limits.NewStats(prometheus.NewRegistry())}
	flags := flag.NewFlagSet("ratelimit-check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&t.configDir, "config_dir", "", "")
	flags.BoolVar(&t.merge, "merge-domain-configs", false, "")
	flags.BoolVar(&t.merge, "merge_domain_configs", false, "")
	flags.BoolVar(&t.ignoreDot, "ignore-dot-files", true, "")
	flags.StringVar(&t.keyPrefix, "key-prefix", "", "")
	flags.StringVar(&t.domain, "domain", "", "")
	flags.Var(&t.descriptors, "descriptor", "")
	flags.BoolVar(&t.version, "version", false, "")
	words, err := parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, usage, daemon.Version(version))
		return fine
	case err != nil:
		return t.wrong("%v", err)
	case t.version:
		fmt.Fprintln(stdout, "ratelimit-check", daemon.Version(version))
		return fine
	case t.configDir != "" && len(words) == 0:
		words = []string{"check", t.configDir}
	case t.configDir != "":
		return t.wrong("-config_dir and %q: one or the other", words[0])
	case len(words) == 0:
		return t.wrong("no command; there are check, explain and diff")
	}
	return t.command(words[0], words[1:])
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

func (t *tool) command(name string, words []string) int {
	for _, c := range []struct {
		name  string
		wants []string
		run   func(directories []string) int
	}{
		{"check", []string{"DIR"}, t.check},
		{"explain", []string{"DIR"}, t.explain},
		{"diff", []string{"OLD", "NEW"}, t.diff},
	} {
		switch {
		case c.name != name:
		case len(words) != len(c.wants):
			return t.wrong("%s wants %s, not %q", name, strings.Join(c.wants, " "), words)
		default:
			return c.run(words)
		}
	}
	return t.wrong("unknown command %q; there are check, explain and diff", name)
}

// wrong says why the tool cannot do what is asked.
func (t *tool) wrong(format string, args ...any) int {
	fmt.Fprintf(t.stderr, "ratelimit-check: %s; --help shows what there is\n", fmt.Sprintf(format, args...))
	return unusable
}

// unreadable is the end of a run whose directory cannot be read.
func (t *tool) unreadable(err error) int {
	fmt.Fprintf(t.stderr, "ratelimit-check: %v\n", err)
	return unusable
}

// read reads a directory as the service does. The error is that of the
// directory; what is wrong with its files is in refused, a line each.
func (t *tool) read(path string) (rules *limits.Set, refused []string, err error) {
	parser := &limits.Parser{Algorithms: builtin.Algorithms(), NearLimitRatio: 0.8, Stats: t.stats}
	return directory.Read(directory.Options{
		Options:   limitsource.Options{MergeDomains: t.merge, Parser: parser},
		Directory: path,
		IgnoreDot: t.ignoreDot,
	})
}

// check says what is wrong with a directory.
func (t *tool) check(directories []string) int {
	rules, refused, err := t.read(directories[0])
	if err != nil {
		return t.unreadable(err)
	}
	domains, count := 0, 0
	for d := range rules.Domains() {
		domains++
		count += len(d.Rules)
	}
	if domains == 0 && len(refused) == 0 {
		refused = append(refused, "no rule file in "+directories[0])
	}
	for _, line := range limitsource.Bounded(refused) {
		fmt.Fprintln(t.stdout, line)
	}
	if len(refused) > 0 {
		fmt.Fprintf(t.stdout, "%s; good: %s, %s\n",
			faults(len(refused)), plural(domains, "domain"), plural(count, "rule"))
		return found
	}
	fmt.Fprintf(t.stdout, "%s, %s, no faults\n", plural(domains, "domain"), plural(count, "rule"))
	return fine
}

// faults says how many there are, of which as many lines tell. Those that no line
// tells are of files that have too many.
func faults(lines int) string {
	if lines > limits.MaxFaults {
		return fmt.Sprintf("more than %d faults", limits.MaxFaults)
	}
	return plural(lines, "fault")
}

// plural is "1 rule", "2 rules".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
